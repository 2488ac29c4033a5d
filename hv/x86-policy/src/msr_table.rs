//! The MSR table. What is not in it gets #GP both ways.

use crate::msr::{MsrRead as R, MsrRule, MsrWrite as W};

const PASS: MsrRule = MsrRule { read: R::Pass, write: W::Pass };
const READ_PASS: MsrRule = MsrRule { read: R::Pass, write: W::Gp };
const WRITE_PASS: MsrRule = MsrRule { read: R::Gp, write: W::Pass };
const LVT: MsrRule = MsrRule { read: R::Pass, write: W::Lvt };
const GP: MsrRule = MsrRule { read: R::Gp, write: W::Gp };

/// Reads as a constant; a write does nothing.
const fn fixed(value: u64) -> MsrRule {
    MsrRule { read: R::Value(value), write: W::Ignore }
}

/// Reads as a constant; a write gets #GP.
const fn read_only(value: u64) -> MsrRule {
    MsrRule { read: R::Value(value), write: W::Gp }
}

/// HWCR: the TSC counts at the P0 frequency. Linux calls the firmware broken without it.
const HWCR: u64 = 1 << 24;
/// DE_CFG: LFENCE is dispatch serialising, as every guest wants it.
const DE_CFG: u64 = 1 << 1;

/// MISC_ENABLE: fast strings; no branch trace store, no precise event-based sampling (SDM vol. 4 table 2-2).
const MISC_ENABLE: u64 = 1 << 0 | 1 << 11 | 1 << 12;

/// The rule for one MSR, on Intel's CPUs or on AMD's: neither has what is the other's own.
#[rustfmt::skip]
pub(crate) const fn rule(msr: u32, is_intel: bool) -> MsrRule {
    match msr {
        // Architectural.
        0x0000_0010               => MsrRule { read: R::Pass, write: W::Ignore }, // TSC: one time line for all
        0x0000_001B               => MsrRule { read: R::ApicBase, write: W::ApicBase },
        0x0000_0048               => PASS,           // SPEC_CTRL
        0x0000_0049               => WRITE_PASS,     // PRED_CMD
        // Microcode is not the guest's. Kernels on Intel's CPUs write 0 before they ask which there is.
        0x0000_008B if is_intel   => fixed(0),       // BIOS_SIGN_ID
        0x0000_008B               => read_only(0),   // PATCH_LEVEL
        0x0000_00FE               => read_only(0),   // MTRRcap: none, as CPUID says
        0x0000_0174..=0x0000_0176 => PASS,           // SYSENTER_CS, _ESP, _EIP: in VMLOAD and VMSAVE, or the VMCS
        0x0000_0179               => read_only(0),   // MCG_CAP: no banks
        0x0000_017A..=0x0000_017B => fixed(0),       // MCG_STATUS, MCG_CTL
        0x0000_01A0 if is_intel   => fixed(MISC_ENABLE),
        0x0000_01D9               => fixed(0),       // DEBUGCTL: VMRUN does not switch it, and the VMCS' stays 0
        0x0000_01DB..=0x0000_01DE => read_only(0),   // last branch and exception records
        0x0000_0277               => PASS,           // PAT: the VMCB's or VMCS' own
        0x0000_02FF               => fixed(0),       // MTRRdefType: MTRRs off
        0x0000_0400..=0x0000_047F => fixed(0),       // machine-check banks: absent ones read as zero
        0x0000_06E0               => PASS,           // TSC_DEADLINE: TSC offset is 0, the timer is the guest's
        // XSS: none of the components that XRSTORS would load past this table, such as processor trace's addresses.
        0x0000_0DA0               => MsrRule { read: R::Pass, write: W::Zero },

        // The x2APIC (SDM vol. 3, table "Local APIC register address map supported by x2APIC").
        0x0000_0802..=0x0000_0803 => READ_PASS,      // ID, version
        0x0000_0808               => PASS,           // TPR
        0x0000_080A               => READ_PASS,      // PPR
        0x0000_080B               => WRITE_PASS,     // EOI
        0x0000_080D               => READ_PASS,      // LDR
        0x0000_080F               => PASS,           // SVR
        0x0000_0810..=0x0000_0827 => READ_PASS,      // ISR, TMR, IRR
        0x0000_0828               => PASS,           // ESR
        0x0000_082F               => GP,             // LVT CMCI: goes with machine checks, which are hidden
        0x0000_0830               => MsrRule { read: R::Pass, write: W::Icr },
        // LVT timer: written when its mode changes, not for each interrupt.
        0x0000_0832               => MsrRule { read: R::Pass, write: W::LvtTimer },
        0x0000_0833..=0x0000_0837 => LVT,            // LVT thermal, performance, LINT0, LINT1, error
        0x0000_0838               => PASS,           // timer initial count
        0x0000_0839               => READ_PASS,      // timer current count; the policy may trap it
        0x0000_083E               => PASS,           // timer divide
        0x0000_083F               => WRITE_PASS,     // self IPI

        // AMD64.
        0xC000_0080               => MsrRule { read: R::Efer, write: W::Efer },
        0xC000_0081..=0xC000_0084 => PASS,           // STAR, LSTAR, CSTAR, SFMASK: the hypervisor uses none
        0xC000_0100..=0xC000_0102 => PASS,           // FS.base, GS.base, KernelGSbase: likewise
        0xC000_0103               => PASS,           // TSC_AUX: the hypervisor does not use it

        0xC001_0000.. if is_intel => GP,
        // AMD's own. Kernels read these without asking CPUID, some with a plain RDMSR that must not fault.
        0xC001_0000..=0xC001_0007 => fixed(0),       // K7 performance counters: never count
        0xC001_0010               => fixed(0),       // SYSCFG
        0xC001_0015               => fixed(HWCR),
        0xC001_0016..=0xC001_001A => fixed(0),       // IORRs, TOP_MEM
        0xC001_001D               => fixed(0),       // TOP_MEM2
        0xC001_001F               => fixed(0),       // NB_CFG
        0xC001_0055               => fixed(0),       // interrupt pending message: no C1E
        0xC001_0058               => fixed(0),       // MMIO configuration base: none
        0xC001_0114               => GP,             // VM_CR
        0xC001_0117..=0xC001_0118 => GP,             // VM_HSAVE_PA, SVM_KEY
        0xC001_1020               => fixed(0),       // LS_CFG
        0xC001_1021               => fixed(0),       // IC_CFG
        0xC001_1022               => fixed(0),       // DC_CFG
        0xC001_1029               => fixed(DE_CFG),
        _                         => GP,
    }
}
