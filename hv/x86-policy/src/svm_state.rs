//! What VMRUN checks of a guest's state (APM vol. 2 section 15.5.1): names the rule that a refused VMCB broke, which the CPU
//! does not. Which reserved bits a CPU has is not known here.

use core::fmt;

/// What VMRUN checks, as a VMCB has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct SvmState {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub dr6: u64,
    pub dr7: u64,
    pub efer: u64,
    /// Attributes of CS, as a VMCB packs them: bit 9 is L, bit 10 D.
    pub cs_attributes: u16,
    /// EVENTINJ.
    pub event: u64,
}

/// A rule that the state breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The register.
    pub register: &'static str,
    /// Its value.
    pub value: u64,
    /// What is wrong with it.
    pub rule: &'static str,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest {} is {:#x}: {} (APM vol. 2 section 15.5.1)", self.register, self.value, self.rule)
    }
}

const CR0_PE: u64 = 1 << 0;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_SVME: u64 = 1 << 12;
const CS_L: u16 = 1 << 9;
const CS_D: u16 = 1 << 10;
const EVENT_VALID: u64 = 1 << 31;
const UPPER_HALF: u64 = 0xFFFF_FFFF << 32;
/// More physical address bits no CPU has.
const BEYOND_PHYSICAL: u64 = 0xFFF << 52;

impl SvmState {
    /// Checks the state.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub const fn check(&self) -> Result<(), Broken> {
        let Self { cr0, cr3, cr4, dr6, dr7, efer, cs_attributes, event } = *self;
        let is_long = efer & EFER_LME != 0 && cr0 & CR0_PG != 0;
        let (register, value, rule) = if efer & EFER_SVME == 0 {
            ("EFER", efer, "SVME is clear")
        } else if cr0 & (CR0_CD | CR0_NW) == CR0_NW {
            ("CR0", cr0, "NW is set and CD is clear")
        } else if cr0 & UPPER_HALF != 0 {
            ("CR0", cr0, "bits 63:32 are not clear")
        } else if cr3 & BEYOND_PHYSICAL != 0 {
            ("CR3", cr3, "bits 63:52 are not clear")
        } else if cr4 & UPPER_HALF != 0 {
            ("CR4", cr4, "bits 63:32 are not clear")
        } else if dr6 & UPPER_HALF != 0 {
            ("DR6", dr6, "bits 63:32 are not clear")
        } else if dr7 & UPPER_HALF != 0 {
            ("DR7", dr7, "bits 63:32 are not clear")
        } else if is_long && cr4 & CR4_PAE == 0 {
            ("CR4", cr4, "PAE is clear with EFER.LME and CR0.PG set")
        } else if is_long && cr0 & CR0_PE == 0 {
            ("CR0", cr0, "PE is clear with EFER.LME and CR0.PG set")
        } else if is_long && cs_attributes & (CS_L | CS_D) == CS_L | CS_D {
            ("CS", cs_attributes as u64, "L and D are both set in long mode")
        } else if is_illegal(event) {
            ("EVENTINJ", event, "there is no such event")
        } else {
            return Ok(());
        };
        Err(Broken { register, value, rule })
    }
}

/// Whether it is an event that cannot be injected (APM vol. 2 section 15.20).
const fn is_illegal(event: u64) -> bool {
    if event & EVENT_VALID == 0 {
        return false;
    }
    match event >> 8 & 7 {
        // Interrupts, NMI, INTn.
        0 | 2 | 4 => false,
        // Exceptions: 2 is the NMI's vector.
        3 => event & 0xFF > 31 || event & 0xFF == 2,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 64-bit mode.
    const LONG: SvmState = SvmState {
        cr0: 0x8000_0011,
        cr3: 0x1000,
        cr4: 0x20,
        dr6: 0xFFFF_0FF0,
        dr7: 0x400,
        efer: 0x1500,
        cs_attributes: 0xA9B,
        event: 0,
    };

    #[test]
    fn what_runs_is_accepted() {
        for state in [
            LONG,
            SvmState { cr0: 0x6000_0010, cr4: 0, efer: 0x1000, cs_attributes: 0x9B, ..LONG },
            SvmState { cr0: 0x11, cs_attributes: 0xE9B, efer: 0x1000, ..LONG },
            SvmState { event: 0x8000_0202, ..LONG },
            SvmState { event: 0x8000_0B0D, ..LONG },
            SvmState { event: 0x0000_0702, ..LONG },
        ] {
            assert_eq!(state.check(), Ok(()), "{state:x?}");
        }
    }

    #[test]
    fn each_rule_is_named() {
        for (state, register, words) in [
            (SvmState { efer: 0x500, ..LONG }, "EFER", "SVME"),
            (SvmState { cr0: 0xA000_0011, ..LONG }, "CR0", "NW is set"),
            (SvmState { cr0: 1 << 32 | 0x8000_0011, ..LONG }, "CR0", "63:32"),
            (SvmState { cr3: 1 << 52, ..LONG }, "CR3", "63:52"),
            (SvmState { cr4: 1 << 32 | 0x20, ..LONG }, "CR4", "63:32"),
            (SvmState { dr6: 1 << 32, ..LONG }, "DR6", "63:32"),
            (SvmState { dr7: 1 << 63, ..LONG }, "DR7", "63:32"),
            (SvmState { cr4: 0, ..LONG }, "CR4", "PAE"),
            (SvmState { cr0: 0x8000_0010, ..LONG }, "CR0", "PE"),
            (SvmState { cs_attributes: 0xE9B, ..LONG }, "CS", "L and D"),
            (SvmState { event: 0x8000_0302, ..LONG }, "EVENTINJ", "no such event"),
            (SvmState { event: 0x8000_0320, ..LONG }, "EVENTINJ", "no such event"),
            (SvmState { event: 0x8000_0100, ..LONG }, "EVENTINJ", "no such event"),
        ] {
            let broken = state.check().unwrap_err();
            assert_eq!(broken.register, register, "{state:x?}");
            let text = broken.to_string();
            assert!(text.contains(words) && text.ends_with("(APM vol. 2 section 15.5.1)"), "{text}");
        }
    }
}
