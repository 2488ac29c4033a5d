//! The virtual machine control block (APM vol. 2, appendix B).

use bitflags::bitflags;
pub use partita_x86_policy::start_state::Segment;

bitflags! {
    /// Intercepts of the words at 0x00C (low half) and 0x010 (high half).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub struct Intercepts: u64 {
        /// Physical NMI.
        const NMI = 1 << 1;
        /// RDPMC.
        const RDPMC = 1 << 15;
        /// CPUID.
        const CPUID = 1 << 18;
        /// IRET.
        const IRET = 1 << 20;
        /// INVD, which would lose other partitions' data.
        const INVD = 1 << 22;
        /// INVLPGA.
        const INVLPGA = 1 << 26;
        /// I/O ports by the permission map.
        const IO_PORTS = 1 << 27;
        /// MSRs by the permission map.
        const MSRS = 1 << 28;
        /// FERR freeze.
        const FERR_FREEZE = 1 << 30;
        /// Shutdown, which a triple fault is.
        const SHUTDOWN = 1 << 31;
        /// VMRUN, which has to be intercepted.
        const VMRUN = 1 << 32;
        /// VMMCALL.
        const VMMCALL = 1 << 33;
        /// VMLOAD.
        const VMLOAD = 1 << 34;
        /// VMSAVE.
        const VMSAVE = 1 << 35;
        /// STGI.
        const STGI = 1 << 36;
        /// CLGI.
        const CLGI = 1 << 37;
        /// SKINIT.
        const SKINIT = 1 << 38;
        /// WBINVD, which stalls other cores.
        const WBINVD = 1 << 41;
        /// MONITOR.
        const MONITOR = 1 << 42;
        /// MWAIT.
        const MWAIT = 1 << 43;
    }
}

/// The control area's TLB_CONTROL: flush everything at the next VMRUN.
pub const TLB_FLUSH_ALL: u8 = 1;

/// EVENTINJ and EXITINTINFO (APM vol. 2 section 15.20).
pub mod event {
    /// The field holds an event.
    pub const VALID: u64 = 1 << 31;
    /// It has an error code, in bits 63:32.
    pub const ERROR_CODE: u64 = 1 << 11;
    /// An NMI, vector 2.
    pub const NMI: u64 = VALID | (2 << 8) | 2;
    /// Type of an exception; the vector is in bits 7:0.
    pub const EXCEPTION: u64 = VALID | (3 << 8);
}

/// The control area.
#[derive(Debug)]
#[repr(C)]
pub struct Control {
    /// 0x000: reads in the low half, writes in the high half.
    pub intercept_cr: u32,
    /// 0x004: likewise for debug registers.
    pub intercept_dr: u32,
    /// 0x008: by vector.
    pub intercept_exceptions: u32,
    /// 0x00C and 0x010, as two words because the pair is not aligned to eight bytes.
    intercepts: [u32; 2],
    intercepts_3: u32,
    _reserved_018: [u8; 0x24],
    pause_filter_threshold: u16,
    pause_filter_count: u16,
    /// 0x040: physical address of the I/O permission map.
    pub iopm_base: u64,
    /// 0x048: physical address of the MSR permission map.
    pub msrpm_base: u64,
    /// 0x050.
    pub tsc_offset: u64,
    /// 0x058.
    pub asid: u32,
    /// 0x05C.
    pub tlb_control: u8,
    _reserved_05d: [u8; 3],
    /// 0x060: virtual interrupts. All clear: the guest's own flag masks physical interrupts.
    pub virtual_interrupt: u64,
    /// 0x068: bit 0, the guest is in an interrupt shadow.
    pub interrupt_shadow: u64,
    /// 0x070.
    pub exit_code: u64,
    /// 0x078.
    pub exit_info_1: u64,
    /// 0x080.
    pub exit_info_2: u64,
    /// 0x088: an event that was being delivered when the exit came.
    pub exit_int_info: u64,
    /// 0x090: bit 0 enables nested paging.
    pub nested_paging: u64,
    _reserved_098: [u8; 0x10],
    /// 0x0A8: an event to deliver at the next entry.
    pub event_inj: u64,
    /// 0x0B0: physical address of the nested page tables.
    pub nested_cr3: u64,
    _virtual_ext: u64,
    /// 0x0C0: what has not changed since the last entry.
    pub clean: u64,
    /// 0x0C8: next RIP, where the CPU saves it.
    pub next_rip: u64,
    _fetched: [u8; 16],
    _reserved_0e0: [u8; 0x320],
}

/// The state save area.
#[derive(Debug)]
#[repr(C)]
pub struct Save {
    /// 0x400.
    pub es: Segment,
    /// 0x410.
    pub cs: Segment,
    /// 0x420.
    pub ss: Segment,
    /// 0x430.
    pub ds: Segment,
    /// 0x440. FS, GS, LDTR and TR are loaded by VMLOAD only.
    pub fs: Segment,
    /// 0x450.
    pub gs: Segment,
    /// 0x460.
    pub gdtr: Segment,
    /// 0x470.
    pub ldtr: Segment,
    /// 0x480.
    pub idtr: Segment,
    /// 0x490.
    pub tr: Segment,
    _reserved_4a0: [u8; 0x2B],
    /// 0x4CB.
    pub cpl: u8,
    _reserved_4cc: [u8; 4],
    /// 0x4D0.
    pub efer: u64,
    _reserved_4d8: [u8; 0x70],
    /// 0x548.
    pub cr4: u64,
    /// 0x550.
    pub cr3: u64,
    /// 0x558.
    pub cr0: u64,
    /// 0x560.
    pub dr7: u64,
    /// 0x568.
    pub dr6: u64,
    /// 0x570.
    pub rflags: u64,
    /// 0x578.
    pub rip: u64,
    _reserved_580: [u8; 0x58],
    /// 0x5D8.
    pub rsp: u64,
    _shadow_stack: [u64; 3],
    /// 0x5F8.
    pub rax: u64,
    /// 0x600. From here to SYSENTER_EIP: loaded by VMLOAD only.
    pub star: u64,
    /// 0x608.
    pub lstar: u64,
    /// 0x610.
    pub cstar: u64,
    /// 0x618.
    pub sfmask: u64,
    /// 0x620.
    pub kernel_gs_base: u64,
    /// 0x628.
    pub sysenter_cs: u64,
    /// 0x630.
    pub sysenter_esp: u64,
    /// 0x638.
    pub sysenter_eip: u64,
    /// 0x640.
    pub cr2: u64,
    _reserved_648: [u8; 0x20],
    /// 0x668.
    pub g_pat: u64,
    /// 0x670.
    pub dbgctl: u64,
    _reserved_678: [u8; 0x988],
}

/// A whole VMCB: one page.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Vmcb {
    /// What the hypervisor asks for, and what it is told.
    pub control: Control,
    /// The guest's state.
    pub save: Save,
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Vmcb>() == 4096);
    assert!(offset_of!(Vmcb, control.iopm_base) == 0x040);
    assert!(offset_of!(Vmcb, control.asid) == 0x058);
    assert!(offset_of!(Vmcb, control.exit_code) == 0x070);
    assert!(offset_of!(Vmcb, control.nested_paging) == 0x090);
    assert!(offset_of!(Vmcb, control.event_inj) == 0x0A8);
    assert!(offset_of!(Vmcb, control.next_rip) == 0x0C8);
    assert!(offset_of!(Vmcb, save) == 0x400);
    assert!(offset_of!(Vmcb, save.cpl) == 0x4CB);
    assert!(offset_of!(Vmcb, save.efer) == 0x4D0);
    assert!(offset_of!(Vmcb, save.cr4) == 0x548);
    assert!(offset_of!(Vmcb, save.rip) == 0x578);
    assert!(offset_of!(Vmcb, save.rsp) == 0x5D8);
    assert!(offset_of!(Vmcb, save.rax) == 0x5F8);
    assert!(offset_of!(Vmcb, save.cr2) == 0x640);
    assert!(offset_of!(Vmcb, save.g_pat) == 0x668);
};

impl Control {
    /// Sets what is intercepted, besides registers and exceptions.
    pub fn set_intercepts(&mut self, intercepts: Intercepts) {
        self.intercepts = [intercepts.bits() as u32, (intercepts.bits() >> 32) as u32];
    }

    /// Intercepts IRET too, or no longer.
    pub fn intercept_iret(&mut self, on: bool) {
        let bit = Intercepts::IRET.bits() as u32;
        self.intercepts[0] = if on { self.intercepts[0] | bit } else { self.intercepts[0] & !bit };
    }
}
