//! The controls, by name (SDM vol. 3 tables 25-5 to 25-7, 25-13 and 25-16).

use bitflags::{Flags, bitflags};

/// One word of controls.
pub trait Word: Flags<Bits = u32> {
    /// The controls that have a name.
    const NAMED: Self;

    /// The SDM's name of the control that is this bit.
    fn name(bit: u32) -> &'static str;
}

/// Flags that have the SDM's names, too. Bits without a name are kept: the CPU may demand them.
macro_rules! controls {
    ($(
        $(#[$doc:meta])*
        $type:ident { $($name:ident = $bit:literal $text:literal,)+ }
    )+) => {$(
        bitflags! {
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            #[repr(transparent)]
            pub struct $type: u32 {
                $(#[doc = concat!("\"", $text, "\".")] const $name = 1 << $bit;)+
                // Bits that have no name.
                const _ = !0;
            }
        }

        impl Word for $type {
            const NAMED: Self = Self::from_bits_retain(0 $(| 1 << $bit)+);

            fn name(bit: u32) -> &'static str {
                match bit {
                    $($bit => $text,)+
                    _ => "a control without a name",
                }
            }
        }
    )+};
}

controls! {
    /// Pin-based VM-execution controls.
    PinBased {
        EXTERNAL_INTERRUPT_EXITING = 0 "external-interrupt exiting",
        NMI_EXITING = 3 "NMI exiting",
        VIRTUAL_NMIS = 5 "virtual NMIs",
        ACTIVATE_PREEMPTION_TIMER = 6 "activate VMX-preemption timer",
        PROCESS_POSTED_INTERRUPTS = 7 "process posted interrupts",
    }

    /// Primary processor-based VM-execution controls.
    Primary {
        INTERRUPT_WINDOW_EXITING = 2 "interrupt-window exiting",
        USE_TSC_OFFSETTING = 3 "use TSC offsetting",
        HLT_EXITING = 7 "HLT exiting",
        INVLPG_EXITING = 9 "INVLPG exiting",
        MWAIT_EXITING = 10 "MWAIT exiting",
        RDPMC_EXITING = 11 "RDPMC exiting",
        RDTSC_EXITING = 12 "RDTSC exiting",
        CR3_LOAD_EXITING = 15 "CR3-load exiting",
        CR3_STORE_EXITING = 16 "CR3-store exiting",
        ACTIVATE_TERTIARY_CONTROLS = 17 "activate tertiary controls",
        CR8_LOAD_EXITING = 19 "CR8-load exiting",
        CR8_STORE_EXITING = 20 "CR8-store exiting",
        USE_TPR_SHADOW = 21 "use TPR shadow",
        NMI_WINDOW_EXITING = 22 "NMI-window exiting",
        MOV_DR_EXITING = 23 "MOV-DR exiting",
        UNCONDITIONAL_IO_EXITING = 24 "unconditional I/O exiting",
        USE_IO_BITMAPS = 25 "use I/O bitmaps",
        MONITOR_TRAP_FLAG = 27 "monitor trap flag",
        USE_MSR_BITMAPS = 28 "use MSR bitmaps",
        MONITOR_EXITING = 29 "MONITOR exiting",
        PAUSE_EXITING = 30 "PAUSE exiting",
        ACTIVATE_SECONDARY_CONTROLS = 31 "activate secondary controls",
    }

    /// Secondary processor-based VM-execution controls.
    Secondary {
        VIRTUALIZE_APIC_ACCESSES = 0 "virtualize APIC accesses",
        ENABLE_EPT = 1 "enable EPT",
        DESCRIPTOR_TABLE_EXITING = 2 "descriptor-table exiting",
        ENABLE_RDTSCP = 3 "enable RDTSCP",
        VIRTUALIZE_X2APIC_MODE = 4 "virtualize x2APIC mode",
        ENABLE_VPID = 5 "enable VPID",
        WBINVD_EXITING = 6 "WBINVD exiting",
        UNRESTRICTED_GUEST = 7 "unrestricted guest",
        APIC_REGISTER_VIRTUALIZATION = 8 "APIC-register virtualization",
        VIRTUAL_INTERRUPT_DELIVERY = 9 "virtual-interrupt delivery",
        PAUSE_LOOP_EXITING = 10 "PAUSE-loop exiting",
        RDRAND_EXITING = 11 "RDRAND exiting",
        ENABLE_INVPCID = 12 "enable INVPCID",
        ENABLE_VM_FUNCTIONS = 13 "enable VM functions",
        VMCS_SHADOWING = 14 "VMCS shadowing",
        ENABLE_ENCLS_EXITING = 15 "enable ENCLS exiting",
        RDSEED_EXITING = 16 "RDSEED exiting",
        ENABLE_PML = 17 "enable PML",
        EPT_VIOLATION_VE = 18 "EPT-violation #VE",
        CONCEAL_VMX_FROM_PT = 19 "conceal VMX from PT",
        ENABLE_XSAVES = 20 "enable XSAVES/XRSTORS",
        PASID_TRANSLATION = 21 "PASID translation",
        MODE_BASED_EXECUTE_CONTROL = 22 "mode-based execute control for EPT",
        SUB_PAGE_WRITE_PERMISSIONS = 23 "sub-page write permissions for EPT",
        PT_USES_GUEST_PHYSICAL_ADDRESSES = 24 "Intel PT uses guest physical addresses",
        USE_TSC_SCALING = 25 "use TSC scaling",
        ENABLE_USER_WAIT_AND_PAUSE = 26 "enable user wait and pause",
        ENABLE_PCONFIG = 27 "enable PCONFIG",
        ENABLE_ENCLV_EXITING = 28 "enable ENCLV exiting",
        BUS_LOCK_DETECTION = 30 "VMM bus-lock detection",
        INSTRUCTION_TIMEOUT = 31 "instruction timeout",
    }

    /// Primary VM-exit controls.
    Exit {
        SAVE_DEBUG_CONTROLS = 2 "save debug controls",
        HOST_ADDRESS_SPACE_SIZE = 9 "host address-space size",
        LOAD_PERF_GLOBAL_CTRL = 12 "load IA32_PERF_GLOBAL_CTRL",
        ACKNOWLEDGE_INTERRUPT = 15 "acknowledge interrupt on exit",
        SAVE_PAT = 18 "save IA32_PAT",
        LOAD_PAT = 19 "load IA32_PAT",
        SAVE_EFER = 20 "save IA32_EFER",
        LOAD_EFER = 21 "load IA32_EFER",
        SAVE_PREEMPTION_TIMER = 22 "save VMX-preemption timer value",
        CLEAR_BNDCFGS = 23 "clear IA32_BNDCFGS",
        CONCEAL_VMX_FROM_PT = 24 "conceal VMX from PT",
        CLEAR_RTIT_CTL = 25 "clear IA32_RTIT_CTL",
        CLEAR_LBR_CTL = 26 "clear IA32_LBR_CTL",
        CLEAR_UINV = 27 "clear UINV",
        LOAD_CET_STATE = 28 "load CET state",
        LOAD_PKRS = 29 "load PKRS",
        SAVE_PERF_GLOBAL_CTRL = 30 "save IA32_PERF_GLOBAL_CTL",
        ACTIVATE_SECONDARY_CONTROLS = 31 "activate secondary controls",
    }

    /// VM-entry controls.
    Entry {
        LOAD_DEBUG_CONTROLS = 2 "load debug controls",
        IA32E_MODE_GUEST = 9 "IA-32e mode guest",
        ENTRY_TO_SMM = 10 "entry to SMM",
        DEACTIVATE_DUAL_MONITOR = 11 "deactivate dual-monitor treatment",
        LOAD_PERF_GLOBAL_CTRL = 13 "load IA32_PERF_GLOBAL_CTRL",
        LOAD_PAT = 14 "load IA32_PAT",
        LOAD_EFER = 15 "load IA32_EFER",
        LOAD_BNDCFGS = 16 "load IA32_BNDCFGS",
        CONCEAL_VMX_FROM_PT = 17 "conceal VMX from PT",
        LOAD_RTIT_CTL = 18 "load IA32_RTIT_CTL",
        LOAD_UINV = 19 "load UINV",
        LOAD_CET_STATE = 20 "load CET state",
        LOAD_LBR_CTL = 21 "load guest IA32_LBR_CTL",
        LOAD_PKRS = 22 "load PKRS",
    }
}
