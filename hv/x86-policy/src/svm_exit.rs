//! SVM's exit codes (APM vol. 2 appendix C) and what they mean.

/// Exit codes, as EXITCODE of the VMCB holds them.
#[rustfmt::skip]
pub mod code {
    /// Exception 0; exception n is this plus n, up to 31.
    pub const EXCEPTION_BASE: u64 = 0x40;
    /// Last exception.
    pub const EXCEPTION_LAST: u64 = 0x5F;
    /// Physical interrupt.
    pub const INTR: u64 = 0x60;
    /// Physical NMI: a kick.
    pub const NMI: u64 = 0x61;
    /// Physical SMI.
    pub const SMI: u64 = 0x62;
    /// Physical INIT.
    pub const INIT: u64 = 0x63;
    /// The window for a virtual interrupt opened.
    pub const VINTR: u64 = 0x64;
    /// CPUID.
    pub const CPUID: u64 = 0x72;
    /// IRET, before it runs.
    pub const IRET: u64 = 0x74;
    /// INVD.
    pub const INVD: u64 = 0x76;
    /// PAUSE.
    pub const PAUSE: u64 = 0x77;
    /// HLT.
    pub const HLT: u64 = 0x78;
    /// INVLPGA.
    pub const INVLPGA: u64 = 0x7A;
    /// IN, OUT and their string forms.
    pub const IOIO: u64 = 0x7B;
    /// RDMSR or WRMSR.
    pub const MSR: u64 = 0x7C;
    /// Task switch.
    pub const TASK_SWITCH: u64 = 0x7D;
    /// Shutdown: a triple fault.
    pub const SHUTDOWN: u64 = 0x7F;
    /// VMRUN.
    pub const VMRUN: u64 = 0x80;
    /// VMMCALL.
    pub const VMMCALL: u64 = 0x81;
    /// VMLOAD.
    pub const VMLOAD: u64 = 0x82;
    /// VMSAVE.
    pub const VMSAVE: u64 = 0x83;
    /// STGI.
    pub const STGI: u64 = 0x84;
    /// CLGI.
    pub const CLGI: u64 = 0x85;
    /// SKINIT.
    pub const SKINIT: u64 = 0x86;
    /// WBINVD or WBNOINVD.
    pub const WBINVD: u64 = 0x89;
    /// MONITOR or MONITORX.
    pub const MONITOR: u64 = 0x8A;
    /// MWAIT or MWAITX.
    pub const MWAIT: u64 = 0x8B;
    /// MWAIT or MWAITX with an armed monitor.
    pub const MWAIT_ARMED: u64 = 0x8C;
    /// XSETBV.
    pub const XSETBV: u64 = 0x8D;
    /// RDPRU.
    pub const RDPRU: u64 = 0x8E;
    /// INVLPGB.
    pub const INVLPGB: u64 = 0xA0;
    /// INVLPGB with an illegal operand.
    pub const INVLPGB_ILLEGAL: u64 = 0xA1;
    /// MCOMMIT.
    pub const MCOMMIT: u64 = 0xA3;
    /// TLBSYNC.
    pub const TLBSYNC: u64 = 0xA4;
    /// Nested page fault.
    pub const NPF: u64 = 0x400;
    /// The VMCB is not valid: the guest was not entered.
    pub const INVALID: u64 = -1i64 as u64;
    /// The VMCB is in use: the guest was not entered.
    pub const BUSY: u64 = -2i64 as u64;
}

/// An exit code that nobody handles, in words (APM vol. 2 appendix C).
pub const fn name(exit_code: u64) -> &'static str {
    match exit_code {
        0x00..=0x0F => "read of a control register",
        0x10..=0x1F => "write of a control register",
        0x20..=0x2F => "read of a debug register",
        0x30..=0x3F => "write of a debug register",
        code::EXCEPTION_BASE..=code::EXCEPTION_LAST => "exception",
        code::INTR => "interrupt",
        code::SMI => "SMI",
        code::INIT => "INIT",
        code::VINTR => "virtual interrupt",
        code::PAUSE => "PAUSE",
        code::HLT => "HLT",
        code::TASK_SWITCH => "task switch",
        code::XSETBV => "XSETBV",
        _ => "a code without a handler",
    }
}

/// EXITINFO1 of [`code::MSR`]: the exit is for WRMSR.
pub const MSR_IS_WRITTEN: u64 = 1 << 0;

/// Why the guest was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SvmExit {
    /// CPUID.
    Cpuid,
    /// RDMSR, or WRMSR.
    Msr {
        /// Whether it is WRMSR.
        write: bool,
    },
    /// IN or OUT: [`crate::ports::IoAccess::from_svm`] tells more.
    Ioio,
    /// VMMCALL.
    Vmmcall,
    /// A physical NMI: a kick, still pending.
    Nmi,
    /// An IRET that has not run yet.
    Iret,
    /// HLT, if it is intercepted.
    Hlt,
    /// PAUSE, if it is intercepted.
    Pause,
    /// An access outside the guest's memory.
    Npf(NpfInfo),
    /// An intercepted exception.
    Exception {
        /// Its vector.
        vector: u8,
    },
    /// XSETBV.
    Xsetbv,
    /// INVD or WBINVD.
    CacheFlush,
    /// An instruction whose feature CPUID hides (SVM's own, MONITOR, MWAIT, RDPRU, INVLPGB, ...): the guest gets #UD.
    HiddenInstruction,
    /// A physical interrupt.
    Intr,
    /// The window for a virtual interrupt opened.
    Vintr,
    /// A physical INIT.
    Init,
    /// A physical SMI.
    Smi,
    /// A triple fault of the guest.
    Shutdown,
    /// VMRUN refused the VMCB: a fault of the hypervisor, or of a guest state that it let through.
    Invalid,
    /// Any other code.
    Other(u64),
}

impl SvmExit {
    /// Decodes EXITCODE and EXITINFO1.
    #[inline]
    pub const fn decode(exit_code: u64, exit_info_1: u64) -> Self {
        match exit_code {
            code::CPUID => Self::Cpuid,
            code::MSR => Self::Msr { write: exit_info_1 & MSR_IS_WRITTEN != 0 },
            code::IOIO => Self::Ioio,
            code::VMMCALL => Self::Vmmcall,
            code::NMI => Self::Nmi,
            code::IRET => Self::Iret,
            code::HLT => Self::Hlt,
            code::PAUSE => Self::Pause,
            code::NPF => Self::Npf(NpfInfo(exit_info_1)),
            code::EXCEPTION_BASE..=code::EXCEPTION_LAST => {
                Self::Exception { vector: (exit_code - code::EXCEPTION_BASE) as u8 }
            }
            code::XSETBV => Self::Xsetbv,
            code::INVD | code::WBINVD => Self::CacheFlush,
            code::VMRUN | code::VMLOAD | code::VMSAVE | code::STGI | code::CLGI | code::SKINIT | code::INVLPGA => {
                Self::HiddenInstruction
            }
            code::MONITOR | code::MWAIT | code::MWAIT_ARMED | code::RDPRU => Self::HiddenInstruction,
            code::INVLPGB | code::INVLPGB_ILLEGAL | code::MCOMMIT | code::TLBSYNC => Self::HiddenInstruction,
            code::INTR => Self::Intr,
            code::VINTR => Self::Vintr,
            code::INIT => Self::Init,
            code::SMI => Self::Smi,
            code::SHUTDOWN => Self::Shutdown,
            // QEMU writes the lower half only.
            code::INVALID | code::BUSY | 0xFFFF_FFFF | 0xFFFF_FFFE => Self::Invalid,
            other => Self::Other(other),
        }
    }
}

/// EXITINFO1 of a nested page fault (APM vol. 2 section 15.25.6). EXITINFO2 is the guest-physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NpfInfo(pub u64);

impl NpfInfo {
    /// Whether the page is there and the access is not allowed; else nothing is there.
    #[inline]
    pub const fn present(self) -> bool {
        self.0 & (1 << 0) != 0
    }

    /// Whether it is a write.
    #[inline]
    pub const fn write(self) -> bool {
        self.0 & (1 << 1) != 0
    }

    /// Whether it is a user access; a guest's accesses all count as such in nested tables.
    #[inline]
    pub const fn user(self) -> bool {
        self.0 & (1 << 2) != 0
    }

    /// Whether a reserved bit is set in a nested table: a fault of the hypervisor.
    #[inline]
    pub const fn reserved(self) -> bool {
        self.0 & (1 << 3) != 0
    }

    /// Whether it is an instruction fetch.
    #[inline]
    pub const fn fetch(self) -> bool {
        self.0 & (1 << 4) != 0
    }

    /// Whether the guest's own page tables lie there: it happened during their walk, not at the final address.
    #[inline]
    pub const fn table_walk(self) -> bool {
        self.0 & (1 << 33) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_told_apart() {
        for (exit_code, info, exit) in [
            (0x72, 0, SvmExit::Cpuid),
            (0x7C, 0, SvmExit::Msr { write: false }),
            (0x7C, 1, SvmExit::Msr { write: true }),
            (0x7B, 0, SvmExit::Ioio),
            (0x81, 0, SvmExit::Vmmcall),
            (0x61, 0, SvmExit::Nmi),
            (0x74, 0, SvmExit::Iret),
            (0x78, 0, SvmExit::Hlt),
            (0x7F, 0, SvmExit::Shutdown),
            (0x40, 0, SvmExit::Exception { vector: 0 }),
            (0x4E, 0, SvmExit::Exception { vector: 14 }),
            (0x5F, 0, SvmExit::Exception { vector: 31 }),
            (0x63, 0, SvmExit::Init),
            (0x8D, 0, SvmExit::Xsetbv),
            (0x80, 0, SvmExit::HiddenInstruction),
            (0x7A, 0, SvmExit::HiddenInstruction),
            (0x8B, 0, SvmExit::HiddenInstruction),
            (u64::MAX, 0, SvmExit::Invalid),
            (u32::MAX.into(), 0, SvmExit::Invalid),
            (0x401, 0, SvmExit::Other(0x401)),
        ] {
            assert_eq!(SvmExit::decode(exit_code, info), exit, "{exit_code:#x}");
        }
    }

    /// The values that QEMU was seen to give.
    #[test]
    fn nested_page_faults_say_what_was_tried() {
        let info = |exit_info_1| match SvmExit::decode(0x400, exit_info_1) {
            SvmExit::Npf(info) => (info.present(), info.write(), info.fetch(), info.user(), info.table_walk()),
            other => panic!("{other:?}"),
        };
        assert_eq!(info(0x1_0000_0006), (false, true, false, true, false));
        assert_eq!(info(0x1_0000_0004), (false, false, false, true, false));
        assert_eq!(info(0x1_0000_0014), (false, false, true, true, false));
        assert_eq!(info(0x1_0000_0007), (true, true, false, true, false));
        assert_eq!(info(0x2_0000_0006), (false, true, false, true, true));
    }
}
