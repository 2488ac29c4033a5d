//! IA32_VMX_EPT_VPID_CAP (SDM vol. 3 section A.10).

use super::{Missing, msr};

/// How INVEPT is asked to flush (SDM vol. 3 section 31.3, "INVEPT").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Invept {
    /// What was derived from one EPT pointer.
    SingleContext = 1,
    /// Everything.
    AllContexts = 2,
}

/// How INVVPID is asked to flush (SDM vol. 3 section 31.3, "INVVPID").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Invvpid {
    /// One VPID's translations of one address.
    IndividualAddress = 0,
    /// All of one VPID.
    SingleContext = 1,
    /// All of all VPIDs but 0, the hypervisor's.
    AllContexts = 2,
    /// All of one VPID but global translations.
    SingleContextRetainingGlobals = 3,
}

/// What EPT and VPID can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EptVpid(pub u64);

impl EptVpid {
    const WALK_4: u32 = 6;
    const WRITE_BACK: u32 = 14;
    const PAGE_2M: u32 = 16;
    const PAGE_1G: u32 = 17;
    const INVEPT: u32 = 20;
    const INVEPT_SINGLE: u32 = 25;
    const INVEPT_ALL: u32 = 26;
    const INVVPID: u32 = 32;

    const fn has(self, number: u32) -> bool {
        self.0 & (1 << number) != 0
    }

    /// Whether pages can be executable and not readable.
    pub const fn execute_only(self) -> bool {
        self.has(0)
    }

    /// Whether tables can have four levels.
    pub const fn walk_4_levels(self) -> bool {
        self.has(Self::WALK_4)
    }

    /// Whether tables can have five levels.
    pub const fn walk_5_levels(self) -> bool {
        self.has(7)
    }

    /// Whether tables can be read as uncached memory.
    pub const fn tables_uncached(self) -> bool {
        self.has(8)
    }

    /// Whether tables can be read as write-back memory.
    pub const fn tables_write_back(self) -> bool {
        self.has(Self::WRITE_BACK)
    }

    /// Whether an entry can map 2 MiB.
    pub const fn page_2mib(self) -> bool {
        self.has(Self::PAGE_2M)
    }

    /// Whether an entry can map 1 GiB.
    pub const fn page_1gib(self) -> bool {
        self.has(Self::PAGE_1G)
    }

    /// Whether there are accessed and dirty flags.
    pub const fn accessed_dirty(self) -> bool {
        self.has(21)
    }

    /// Whether exits for EPT violations tell about the guest's own translation of the address.
    pub const fn advanced_violations(self) -> bool {
        self.has(22)
    }

    /// How to flush the least by INVEPT that takes all of one EPT pointer, if there is any way.
    pub const fn invept(self) -> Option<Invept> {
        match (self.has(Self::INVEPT), self.has(Self::INVEPT_SINGLE), self.has(Self::INVEPT_ALL)) {
            (true, true, _) => Some(Invept::SingleContext),
            (true, false, true) => Some(Invept::AllContexts),
            _ => None,
        }
    }

    /// How to flush the least by INVVPID that takes all of one VPID, if there is any way.
    pub const fn invvpid(self) -> Option<Invvpid> {
        if self.can_invvpid(Invvpid::SingleContext) {
            Some(Invvpid::SingleContext)
        } else if self.can_invvpid(Invvpid::AllContexts) {
            Some(Invvpid::AllContexts)
        } else {
            None
        }
    }

    /// Whether INVVPID can flush in this way.
    pub const fn can_invvpid(self, how: Invvpid) -> bool {
        self.has(Self::INVVPID) && self.has(40 + how as u32)
    }

    /// Whether EPT can do what nested tables need: four levels in write-back memory, pages of 2 MiB, flushes.
    ///
    /// # Errors
    /// The first thing that it cannot do.
    pub fn check(self) -> Result<(), Missing> {
        let needs = [
            (self.walk_4_levels(), Self::WALK_4, "page walks of four levels"),
            (self.tables_write_back(), Self::WRITE_BACK, "tables in write-back memory"),
            (self.page_2mib(), Self::PAGE_2M, "pages of 2 MiB"),
            (self.has(Self::INVEPT), Self::INVEPT, "INVEPT"),
            (self.invept().is_some(), Self::INVEPT_ALL, "INVEPT of all contexts, or of one"),
        ];
        match needs.into_iter().find(|&(met, ..)| !met) {
            Some((_, bit, what)) => Err(Missing::Ept { msr: msr::EPT_VPID_CAP, bit, what }),
            None => Ok(()),
        }
    }
}
