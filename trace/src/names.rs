//! The enumerations that events and histograms share: why a guest exited, why a partition stopped, and the like.
//!
//! Their numbers are part of the trace format: they never change, new ones go to the end.

/// Defines an enumeration with stable numbers and names.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $number:literal => $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* $variant = $number,)+ }

        impl $name {
            /// Every value, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The value with this number.
            #[inline]
            pub const fn from_raw(raw: u8) -> Option<Self> {
                match raw { $($number => Some(Self::$variant),)+ _ => None }
            }

            /// The name by which people and `hist.json` know it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

named! {
    /// Why a vCPU left its guest: architecture-neutral, so that views and histograms need no vendor's tables.
    ExitReason {
        /// CPUID.
        Cpuid = 0 => "cpuid",
        /// RDMSR of a trapped MSR.
        MsrRead = 1 => "rdmsr",
        /// WRMSR of a trapped MSR other than the ICR.
        MsrWrite = 2 => "wrmsr",
        /// A write of the interrupt command register.
        IcrWrite = 3 => "icr",
        /// A read of a trapped I/O port.
        IoIn = 4 => "in",
        /// A write of a trapped I/O port.
        IoOut = 5 => "out",
        /// A hypercall.
        Hypercall = 6 => "hypercall",
        /// A trapped halt.
        Halt = 7 => "halt",
        /// An access that nested translation refused.
        NestedPageFault = 8 => "nested_page_fault",
        /// A kick from another pCPU (by NMI or vector).
        Kick = 9 => "kick",
        /// The end of the guest's NMI handler (IRET intercept).
        NmiReturn = 10 => "nmi_return",
        /// A debug trap of the hypervisor's own making.
        DebugTrap = 11 => "debug_trap",
        /// A triple fault.
        Shutdown = 12 => "shutdown",
        /// XSETBV.
        Xsetbv = 13 => "xsetbv",
        /// An instruction of the virtualisation extension itself, which guests do not have.
        VirtInstruction = 14 => "virt_instruction",
        /// A trapped exception.
        Exception = 15 => "exception",
        /// A physical interrupt.
        Interrupt = 16 => "interrupt",
        /// The guest state was refused at entry.
        InvalidState = 17 => "invalid_state",
        /// None of the above; the event's detail says more.
        Other = 18 => "other",
    }
}

impl ExitReason {
    /// Number of reasons: their indices are `0..COUNT`.
    pub const COUNT: usize = Self::ALL.len();

    /// A dense index.
    #[inline]
    pub const fn as_index(self) -> usize {
        self as usize
    }

    /// The reason with this index.
    #[inline]
    pub const fn from_index(index: usize) -> Option<Self> {
        if index < Self::COUNT { Self::from_raw(index as u8) } else { None }
    }
}

named! {
    /// Why a partition ended.
    StopCause {
        /// It said so, with success.
        Finished = 0 => "finished",
        /// It said so, and reported a failure; detail = its status.
        FailureReported = 1 => "failure reported",
        /// It touched guest-physical memory that it does not have; detail = guest-physical address.
        NestedPageFault = 2 => "nested page fault",
        /// A fault in its double-fault handling.
        TripleFault = 3 => "triple fault",
        /// An exit that the hypervisor does not handle; detail = the vendor's exit code.
        BadExit = 4 => "unhandled exit",
        /// The CPU refused its state at entry; detail = the vendor's exit code.
        InvalidState = 5 => "invalid guest state",
        /// It left x2APIC mode; detail = the APIC_BASE value that it wrote.
        ApicModeLeft = 6 => "left x2APIC mode",
        /// It touched the xAPIC page; detail = guest-physical address.
        ApicPage = 7 => "touched the APIC page",
        /// A policy says that this ends it; detail = what it touched.
        Policy = 8 => "policy",
        /// The housekeeping core stopped it.
        Housekeeping = 9 => "stopped by housekeeping",
        /// Another vCPU of the partition ended.
        SiblingEnded = 10 => "sibling vCPU ended",
        /// Any other cause.
        Other = 11 => "other",
        /// It powered itself off: a success.
        PowerOff = 12 => "powered off",
        /// It rebooted itself.
        Reboot = 13 => "rebooted",
        /// Its image is bad, and the system starts without it.
        NoImage = 14 => "no image",
    }
}

named! {
    /// Why an ICR write was refused.
    IcrRefusal {
        /// Delivery mode SMI.
        Smi = 0 => "SMI",
        /// A reserved delivery mode.
        ReservedMode = 1 => "reserved delivery mode",
        /// A destination outside the partition.
        ForeignDestination = 2 => "foreign destination",
        /// Vectors 0 to 15 with fixed delivery.
        IllegalVector = 3 => "illegal vector",
        /// A reserved bit is set.
        ReservedBits = 4 => "reserved bits",
        /// Any other cause.
        Other = 5 => "other",
    }
}

named! {
    /// How a pCPU was kicked.
    KickKind {
        /// By NMI: a pCPU whose local APIC belongs to a guest.
        Nmi = 0 => "nmi",
        /// By an interrupt vector.
        Vector = 1 => "vector",
    }
}

named! {
    /// What a guest tried that its policy does not allow.
    PolicyKind {
        /// RDMSR; target = MSR.
        MsrRead = 0 => "msr read",
        /// WRMSR; target = MSR, value = what it wrote.
        MsrWrite = 1 => "msr write",
        /// IN; target = port.
        PortIn = 2 => "port in",
        /// OUT; target = port, value = what it wrote.
        PortOut = 3 => "port out",
        /// CPUID; target = leaf, value = sub-leaf.
        Cpuid = 4 => "cpuid",
        /// XSETBV; target = register, value = what it wrote.
        Xsetbv = 5 => "xsetbv",
        /// The xAPIC page; target = guest-physical address.
        ApicPage = 6 => "apic page",
        /// A hypercall; target = number.
        Hypercall = 7 => "hypercall",
        /// An instruction that the guest does not have.
        Instruction = 8 => "instruction",
        /// Anything else.
        Other = 9 => "other",
    }
}

named! {
    /// How a partition gets its interrupts.
    InterruptMode {
        /// It owns the local APICs of its pCPUs: no exit for a timer interrupt, EOI or received IPI.
        LapicPassthrough = 0 => "LAPIC passthrough",
        /// The hypervisor emulates its local APICs.
        Emulated = 1 => "emulated",
    }
}

named! {
    /// What a pCPU is good for.
    PcpuStateName {
        /// It is not up, or does not answer any more.
        Offline = 0 => "offline",
        /// It runs, in its guest or for the hypervisor, and answers calls.
        Online = 1 => "online",
        /// It sleeps for good, as it belongs to no partition.
        Parked = 2 => "parked",
        /// It has stopped for good and answers nothing.
        Stopped = 3 => "stopped",
    }
}
