//! Features that a guest is not shown although its CPU has them: their instructions would get #UD in a guest, as the
//! virtualisation extension does not let it have them.

/// A feature that the extension may keep from guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// RDTSCP, and RDPID, which goes with it.
    Rdtscp,
    /// INVPCID.
    Invpcid,
    /// XSAVES and XRSTORS.
    Xsaves,
}

/// The hidden ones, as the bits of CPUID's answers that are not shown; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HiddenFeatures {
    pub(crate) leaf_7_ebx: u32,
    pub(crate) leaf_7_ecx: u32,
    pub(crate) leaf_d_1_eax: u32,
    pub(crate) leaf_8000_0001_edx: u32,
}

impl HiddenFeatures {
    /// These, and one more if `is_hidden`.
    #[must_use]
    pub const fn with(self, feature: Feature, is_hidden: bool) -> Self {
        let mut more = self;
        let bit = is_hidden as u32;
        match feature {
            Feature::Rdtscp => {
                more.leaf_7_ecx |= bit << 22;
                more.leaf_8000_0001_edx |= bit << 27;
            }
            Feature::Invpcid => more.leaf_7_ebx |= bit << 10,
            Feature::Xsaves => more.leaf_d_1_eax |= bit << 3,
        }
        more
    }
}
