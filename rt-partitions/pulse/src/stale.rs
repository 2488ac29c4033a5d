//! What a life found of the one before it.

use core::fmt;

/// Something that has to be fresh.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Data,
    Bss,
    Memory,
    Xcr0,
    ControlWord,
    X87,
    Mxcsr,
    Xmm,
    Ymm,
    DebugAddresses,
    DebugControl,
    TaskPriority,
    InService,
    Requested,
    LocalVectors,
    TimerCount,
    TimerDivider,
    Spurious,
    SysenterCs,
    SysenterEsp,
    Pat,
    Star,
    Lstar,
    FsBase,
    KernelGsBase,
    TscAux,
}

/// In the order of [`What`].
const NAMES: [&str; 26] = [
    "data",
    "bss",
    "memory",
    "XCR0",
    "x87 control word",
    "x87 registers",
    "MXCSR",
    "XMM registers",
    "YMM registers",
    "DR0 to DR3",
    "DR7",
    "TPR",
    "ISR",
    "IRR",
    "local vector table",
    "timer's count",
    "timer's divider",
    "spurious-interrupt register",
    "SYSENTER_CS",
    "SYSENTER_ESP",
    "PAT",
    "STAR",
    "LSTAR",
    "FS base",
    "kernel GS base",
    "TSC_AUX",
];

/// What is stale. Shows `fresh` if nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stale(u32);

impl Stale {
    /// Notes that `what` is stale, unless it is fresh.
    pub(crate) fn check(&mut self, what: What, is_fresh: bool) {
        if !is_fresh {
            self.0 |= 1 << what as u32;
        }
    }
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("fresh");
        }
        f.write_str("STALE")?;
        let names = NAMES.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 != 0);
        names.enumerate().try_for_each(|(n, (_, name))| write!(f, "{} {name}", if n == 0 { "" } else { "," }))
    }
}
