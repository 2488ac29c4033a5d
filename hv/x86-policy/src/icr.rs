//! The ICR filter: what a guest's write to the x2APIC interrupt command register may do.
//!
//! The guest's value is never forwarded. It is decoded, its destination is looked up among the partition's own
//! vCPUs, and what remains is an [`IcrAction`] from an allow-list; [`physical_icr`] makes the values that are
//! written to hardware (SDM vol. 3, "x2APIC mode ICR"; APM vol. 2 chapter 16, "Interprocessor Interrupts").
//!
//! | mode (10:8) | no shorthand | self | all | all but self |
//! |---|---|---|---|---|
//! | 0 fixed, vector 16 to 255 | `Fixed` | `Fixed` | `Fixed` | `Fixed` |
//! | 4 NMI | `Nmi` | refused | refused | `Nmi` |
//! | 5 INIT | `Init` | refused | refused | `Init` |
//! | 5 INIT level de-assert | `Ignore` | `Ignore` | `Ignore` | `Ignore` |
//! | 6 SIPI | `Sipi` | refused | refused | `Sipi` |
//! | 1 lowest priority, 2 SMI, 3 and 7 reserved | refused | refused | refused | refused |
//!
//! A destination that names own and foreign CPUs (a broadcast, a logical destination with several bits) reaches the
//! own ones: a partition sees only itself, and hardware too ignores destinations where nobody is. If nobody of the
//! partition is named, the write is refused.

use crate::apic_view::{ApicView, BROADCAST, VcpuMask};

/// The MSR number of the ICR in x2APIC mode.
pub const ICR_MSR: u32 = 0x830;
/// The smallest vector that an APIC sends or accepts as a fixed interrupt.
pub const VECTOR_MIN: u8 = 16;

const VECTOR: u32 = 0xFF;
const MODE_SHIFT: u32 = 8;
const LOGICAL: u32 = 1 << 11;
const ASSERT: u32 = 1 << 14;
const LEVEL_TRIGGERED: u32 = 1 << 15;
const SHORTHAND_SHIFT: u32 = 18;
const RESERVED: u32 = !(VECTOR | 7 << MODE_SHIFT | LOGICAL | ASSERT | LEVEL_TRIGGERED | 3 << SHORTHAND_SHIFT);

const MODE_FIXED: u32 = 0;
const MODE_SMI: u32 = 2;
const MODE_LOWEST: u32 = 1;
const MODE_NMI: u32 = 4;
const MODE_INIT: u32 = 5;
const MODE_SIPI: u32 = 6;

const TO_DESTINATION: u32 = 0;
const TO_SELF: u32 = 1;
const TO_ALL: u32 = 2;

/// What to do about a write to the ICR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcrAction {
    /// Send `vector`, at least [`VECTOR_MIN`], to each target as a unicast. Targets may include the sender, and are
    /// empty only for "all but self" in a partition of one.
    Fixed {
        /// The vector.
        vector: u8,
        /// Who gets it.
        targets: VcpuMask,
    },
    /// Request an NMI of each target.
    Nmi {
        /// Who gets it.
        targets: VcpuMask,
    },
    /// Request an INIT of each target.
    Init {
        /// Who gets it.
        targets: VcpuMask,
    },
    /// Request a start of each target at `vector << 12` in real mode.
    Sipi {
        /// Who gets it.
        targets: VcpuMask,
        /// The page to start at.
        vector: u8,
    },
    /// Do nothing: an INIT level de-assert, which processors since the Pentium 4 ignore.
    Ignore,
    /// Send nothing, count and trace it.
    Refuse(IcrRefusal),
}

/// Why a write to the ICR was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IcrRefusal {
    /// Reserved bits are set.
    ReservedBits = 1,
    /// Delivery mode 3 or 7 (ExtINT), which an ICR does not have.
    ReservedMode = 2,
    /// Delivery mode SMI: it belongs to the firmware.
    Smi = 3,
    /// Delivery mode lowest priority, which x2APIC deprecates.
    LowestPriority = 4,
    /// A fixed vector below [`VECTOR_MIN`].
    Vector = 5,
    /// A shorthand that this delivery mode does not allow.
    Shorthand = 6,
    /// No vCPU of the partition is named.
    Foreign = 7,
}

impl IcrRefusal {
    /// Whether hardware would answer the write with #GP. In all other cases it would send nothing and go on.
    #[inline]
    pub const fn is_gp(self) -> bool {
        matches!(self, Self::ReservedBits)
    }

    /// What was wrong, in words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bits are set",
            Self::ReservedMode => "reserved delivery mode",
            Self::Smi => "delivery mode SMI",
            Self::LowestPriority => "delivery mode lowest priority",
            Self::Vector => "vector below 16",
            Self::Shorthand => "shorthand not allowed with this delivery mode",
            Self::Foreign => "no vCPU of the partition is named",
        }
    }
}

impl core::fmt::Display for IcrRefusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

/// The common case of [`filter`], for [`quick_unicast`](crate::quick_unicast): a fixed interrupt to the physical ID, below 64, of one own
/// vCPU, or to the sender.
pub mod quick {
    /// Bits of the low half that make a write another case.
    pub const NOT_QUICK: u32 = !(super::VECTOR | ASSERT | super::LEVEL_TRIGGERED | TO_SELF);
    /// To the sender, whatever the destination.
    pub const TO_SELF: u32 = super::TO_SELF << super::SHORTHAND_SHIFT;
    /// What is set in the ICR besides vector and destination.
    pub const ASSERT: u32 = super::ASSERT;
}

/// Text for `naked_asm!` that decides [the common case](crate::icr::quick): EAX has the low half of what the guest writes, ECX the high one; the
/// sender's own ID is at `[rsp + {own_id}]`, and [`ApicView::low_ids`](crate::apic_view::ApicView::low_ids) at `[rsp + {low_ids}]`. Then EDX:EAX
/// is what WRMSR is to write, and ECX the number of the ICR; or it goes to `$otherwise`, which says nothing about the guest's write: ask
/// [`filter`](crate::icr::filter). Changes RAX, RCX and RDX.
#[macro_export]
macro_rules! quick_unicast {
    ($otherwise:literal) => {
        concat!(
            "test eax, {not_quick}
            jne ",
            $otherwise,
            "
            cmp al, {vector_min}
            jb ",
            $otherwise,
            "
            test eax, {to_self}
            cmovne ecx, [rsp + {own_id}]
            cmp ecx, 63
            ja ",
            $otherwise,
            "
            mov rdx, [rsp + {low_ids}]
            bt rdx, rcx
            jnc ",
            $otherwise,
            "
            mov edx, ecx
            movzx eax, al
            or eax, {assert}
            mov ecx, {icr}"
        )
    };
}

/// Decides about the write of `icr` to the ICR by vCPU `sender` of the partition with this view.
pub fn filter(view: &ApicView, sender: usize, icr: u64) -> IcrAction {
    let (command, destination) = (icr as u32, (icr >> 32) as u32);
    if command & RESERVED != 0 {
        return IcrAction::Refuse(IcrRefusal::ReservedBits);
    }
    let vector = command as u8;
    let mode = (command >> MODE_SHIFT) & 7;
    let shorthand = (command >> SHORTHAND_SHIFT) & 3;
    let refusal = match mode {
        MODE_FIXED if vector < VECTOR_MIN => Some(IcrRefusal::Vector),
        MODE_FIXED => None,
        MODE_INIT if command & (ASSERT | LEVEL_TRIGGERED) == LEVEL_TRIGGERED => return IcrAction::Ignore,
        MODE_NMI | MODE_INIT | MODE_SIPI if matches!(shorthand, TO_SELF | TO_ALL) => Some(IcrRefusal::Shorthand),
        MODE_NMI | MODE_INIT | MODE_SIPI => None,
        MODE_LOWEST => Some(IcrRefusal::LowestPriority),
        MODE_SMI => Some(IcrRefusal::Smi),
        _ => Some(IcrRefusal::ReservedMode),
    };
    if let Some(cause) = refusal {
        return IcrAction::Refuse(cause);
    }
    let targets = match shorthand {
        TO_DESTINATION => named(view, command & LOGICAL != 0, destination),
        TO_SELF => VcpuMask(VcpuMask::single(sender).0 & view.all().0),
        TO_ALL => view.all(),
        _ => view.all().without(sender),
    };
    if shorthand == TO_DESTINATION && targets.is_empty() {
        return IcrAction::Refuse(IcrRefusal::Foreign);
    }
    match mode {
        MODE_FIXED => IcrAction::Fixed { vector, targets },
        MODE_NMI => IcrAction::Nmi { targets },
        MODE_INIT => IcrAction::Init { targets },
        _ => IcrAction::Sipi { targets, vector },
    }
}

/// The partition's vCPUs that a destination without a shorthand names.
fn named(view: &ApicView, logical: bool, destination: u32) -> VcpuMask {
    if destination == BROADCAST {
        view.all()
    } else if logical {
        view.with_logical(destination)
    } else {
        view.vcpu_with_id(destination).map_or(VcpuMask::EMPTY, VcpuMask::single)
    }
}

/// The ICR value that sends the fixed interrupt `vector` to the one CPU with this x2APIC ID.
#[inline]
pub const fn physical_icr(apic_id: u32, vector: u8) -> u64 {
    ((apic_id as u64) << 32) | ASSERT as u64 | vector as u64
}

/// The ICR value that sends an NMI, the hypervisor's own kick, to the one CPU with this x2APIC ID.
#[inline]
pub const fn physical_nmi_icr(apic_id: u32) -> u64 {
    ((apic_id as u64) << 32) | (ASSERT | MODE_NMI << MODE_SHIFT) as u64
}
