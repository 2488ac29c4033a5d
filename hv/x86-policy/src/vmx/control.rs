//! The controls of a VMCS, and their negotiation (SDM vol. 3 sections 25.6 to 25.8, appendix A).
//!
//! Of each control that the SDM names, Partita wants it or does not: what it needs and cannot have, and what it does not
//! want and cannot be without, refuses the CPU by name. Unnamed bits are as the CPU demands them.

mod flags;

use bitflags::Flags;

use super::capability::{Allowed, Basic, Missing, VmxCapabilities};
use crate::cpuid_hidden::{Feature, HiddenFeatures};

pub use flags::{Entry, Exit, PinBased, Primary, Secondary, Word};

/// Negotiated controls: what each VMCS starts with. What is switched while a guest runs is off: "NMI-window exiting",
/// "activate VMX-preemption timer" and "IA-32e mode guest". The CPU has all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    /// Pin-based.
    pub pin: PinBased,
    /// Primary processor-based.
    pub primary: Primary,
    /// Secondary processor-based.
    pub secondary: Secondary,
    /// Exit.
    pub exit: Exit,
    /// Entry.
    pub entry: Entry,
}

/// What Partita wants of one word of controls.
struct Wanted<F> {
    /// On always.
    needed: F,
    /// On where the CPU has it.
    optional: F,
    /// Off at first; has to be there to be switched.
    switched: F,
    /// On or off, as the CPU demands: without effect here.
    any: F,
}

const PIN: Wanted<PinBased> = Wanted {
    // A kick is an NMI; the guest's own NMIs are the hypervisor's to keep apart.
    needed: PinBased::NMI_EXITING.union(PinBased::VIRTUAL_NMIS),
    optional: PinBased::empty(),
    // No kick is lost in root mode: the NMI handler lets the next entry exit at once.
    switched: PinBased::ACTIVATE_PREEMPTION_TIMER,
    any: PinBased::empty(),
};

const PRIMARY: Wanted<Primary> = Wanted {
    needed: Primary::USE_IO_BITMAPS
        .union(Primary::USE_MSR_BITMAPS)
        .union(Primary::ACTIVATE_SECONDARY_CONTROLS)
        .union(Primary::MONITOR_EXITING)
        .union(Primary::MWAIT_EXITING)
        .union(Primary::RDPMC_EXITING),
    optional: Primary::empty(),
    switched: Primary::NMI_WINDOW_EXITING,
    any: Primary::empty(),
};

const SECONDARY: Wanted<Secondary> = Wanted {
    needed: Secondary::ENABLE_EPT.union(Secondary::UNRESTRICTED_GUEST),
    optional: Secondary::ENABLE_RDTSCP
        .union(Secondary::ENABLE_VPID)
        .union(Secondary::WBINVD_EXITING)
        .union(Secondary::ENABLE_INVPCID)
        .union(Secondary::ENABLE_XSAVES)
        .union(Secondary::ENABLE_ENCLS_EXITING),
    switched: Secondary::empty(),
    any: Secondary::empty(),
};

const EXIT: Wanted<Exit> = Wanted {
    // The guest writes PAT itself, so that it has to have one of its own; EFER is in the contract.
    needed: Exit::HOST_ADDRESS_SPACE_SIZE
        .union(Exit::SAVE_DEBUG_CONTROLS)
        .union(Exit::SAVE_PAT)
        .union(Exit::LOAD_PAT)
        .union(Exit::SAVE_EFER)
        .union(Exit::LOAD_EFER),
    optional: Exit::empty(),
    switched: Exit::empty(),
    // No interrupt exits.
    any: Exit::ACKNOWLEDGE_INTERRUPT,
};

const ENTRY: Wanted<Entry> = Wanted {
    needed: Entry::LOAD_DEBUG_CONTROLS.union(Entry::LOAD_PAT).union(Entry::LOAD_EFER),
    optional: Entry::empty(),
    switched: Entry::IA32E_MODE_GUEST,
    any: Entry::empty(),
};

impl<F: Word> Wanted<F> {
    /// The word for a CPU that allows this.
    fn negotiate(&self, allowed: Allowed) -> Result<F, Missing> {
        let [needed, optional, switched, any] =
            [&self.needed, &self.optional, &self.switched, &self.any].map(Flags::bits);
        // What must be 1 can be 1 on any CPU that is right.
        let absent = (needed | switched | allowed.must_be_1) & !allowed.may_be_1;
        if absent != 0 {
            let bit = absent.trailing_zeros();
            return Err(Missing::Control { msr: allowed.msr, bit: 32 + bit, name: F::name(bit) });
        }
        let forced = F::NAMED.bits() & allowed.must_be_1 & !(needed | optional | any);
        if forced != 0 {
            let bit = forced.trailing_zeros();
            return Err(Missing::Forced { msr: allowed.msr, bit, name: F::name(bit) });
        }
        Ok(F::from_bits_retain(needed | optional & allowed.may_be_1 | allowed.must_be_1))
    }
}

/// The controls that a vCPU runs with on a CPU with these capabilities.
///
/// # Errors
/// The first thing that the CPU lacks, or cannot do without.
pub fn negotiate(capabilities: &VmxCapabilities) -> Result<Controls, Missing> {
    capabilities.feature_control.to_write()?;
    check_basic(capabilities.basic)?;
    let pin = PIN.negotiate(capabilities.pin)?;
    let primary = PRIMARY.negotiate(capabilities.primary)?;
    let mut secondary = SECONDARY.negotiate(capabilities.secondary)?;
    capabilities.ept_vpid.check()?;
    // Without VPID each entry and exit flushes by itself; with VPID somebody has to be able to.
    if capabilities.ept_vpid.invvpid().is_none() && capabilities.secondary.can_be_0(Secondary::ENABLE_VPID.bits()) {
        secondary.remove(Secondary::ENABLE_VPID);
    }
    let exit = EXIT.negotiate(capabilities.exit)?;
    let entry = ENTRY.negotiate(capabilities.entry)?;
    Ok(Controls { pin, primary, secondary, exit, entry })
}

const fn check_basic(basic: Basic) -> Result<(), Missing> {
    if basic.physical_32_bits() {
        return Err(Missing::PhysicalWidth);
    }
    if basic.region_len() == 0 || basic.region_len() > 4096 {
        return Err(Missing::RegionLen { found: basic.region_len() });
    }
    if basic.memory_type() != Basic::WRITE_BACK {
        return Err(Missing::MemoryType { found: basic.memory_type() });
    }
    Ok(())
}

impl Controls {
    /// Whether VM entry takes them on a CPU with these capabilities.
    pub const fn fit(&self, capabilities: &VmxCapabilities) -> bool {
        capabilities.pin.accepts(self.pin.bits())
            && capabilities.primary.accepts(self.primary.bits())
            && capabilities.secondary.accepts(self.secondary.bits())
            && capabilities.exit.accepts(self.exit.bits())
            && capabilities.entry.accepts(self.entry.bits())
    }

    /// Whether the guest has a VPID of its own.
    pub const fn vpid(&self) -> bool {
        self.secondary.contains(Secondary::ENABLE_VPID)
    }

    /// The features that a guest must not be shown, as their instructions would get #UD (SDM vol. 3 table 25-7).
    pub fn hidden_features(&self) -> HiddenFeatures {
        HiddenFeatures::default()
            .with(Feature::Rdtscp, !self.secondary.contains(Secondary::ENABLE_RDTSCP))
            .with(Feature::Invpcid, !self.secondary.contains(Secondary::ENABLE_INVPCID))
            .with(Feature::Xsaves, !self.secondary.contains(Secondary::ENABLE_XSAVES))
    }
}
