//! The ICR filter: its table, and that no input reaches an ID outside the partition.

use partita_x86_policy::apic_view::{ApicView, VCPUS_MAX, VcpuMask};
use partita_x86_policy::icr::{
    ICR_MSR, IcrAction, IcrRefusal, VECTOR_MIN, filter, physical_icr, physical_nmi_icr, quick,
};
use partita_x86_policy::quick_unicast;
use proptest::collection::btree_set;
use proptest::prelude::*;

const LOGICAL: u64 = 1 << 11;
const ASSERT: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const SELF: u64 = 1 << 18;
const ALL: u64 = 2 << 18;
const OTHERS: u64 = 3 << 18;

fn to(destination: u32) -> u64 {
    u64::from(destination) << 32
}

fn mode(number: u64) -> u64 {
    number << 8
}

fn fixed(vector: u8, targets: u32) -> IcrAction {
    IcrAction::Fixed { vector, targets: VcpuMask(targets) }
}

fn refused(cause: IcrRefusal) -> IcrAction {
    IcrAction::Refuse(cause)
}

/// vCPUs 0 to 2 on CPUs of two clusters; CPUs 0, 1 and 4 are somebody else's.
fn view() -> ApicView {
    ApicView::new(&[2, 3, 0x15]).unwrap()
}

#[test]
fn fixed_interrupts_reach_whom_they_name() {
    for (icr, action) in [
        (to(2) | 0x40, fixed(0x40, 0b001)),
        (to(3) | 0x40 | ASSERT, fixed(0x40, 0b010)),
        (to(0x15) | 0xFF | LEVEL, fixed(0xFF, 0b100)),
        (to(3) | 16, fixed(16, 0b010)),
        (to(u32::MAX) | 0x40, fixed(0x40, 0b111)),
        (to(u32::MAX) | 0x40 | LOGICAL, fixed(0x40, 0b111)),
        (to(0b1100) | 0x40 | LOGICAL, fixed(0x40, 0b011)),
        (to(0b1000) | 0x40 | LOGICAL, fixed(0x40, 0b010)),
        (to(1 << 16 | 1 << 5) | 0x40 | LOGICAL, fixed(0x40, 0b100)),
        (to(0) | 0x40 | SELF, fixed(0x40, 0b010)),
        (to(0) | 0x40 | ALL, fixed(0x40, 0b111)),
        (to(0) | 0x40 | OTHERS, fixed(0x40, 0b101)),
    ] {
        assert_eq!(filter(&view(), 1, icr), action, "{icr:#x}");
    }
}

#[test]
fn events_of_a_vcpu_are_requests() {
    let targets = VcpuMask(0b100);
    for (icr, action) in [
        (to(0x15) | mode(4) | ASSERT, IcrAction::Nmi { targets }),
        (to(0x15) | mode(4) | 3, IcrAction::Nmi { targets }),
        (to(0x15) | mode(5) | ASSERT | LEVEL, IcrAction::Init { targets }),
        (to(0x15) | mode(5) | ASSERT, IcrAction::Init { targets }),
        (to(0x15) | mode(5) | LEVEL, IcrAction::Ignore),
        (to(9) | mode(5) | LEVEL | ALL, IcrAction::Ignore),
        (to(0x15) | mode(6) | 0x9A, IcrAction::Sipi { targets, vector: 0x9A }),
        (to(0x15) | mode(6), IcrAction::Sipi { targets, vector: 0 }),
        (mode(4) | OTHERS, IcrAction::Nmi { targets: VcpuMask(0b110) }),
        (mode(5) | OTHERS, IcrAction::Init { targets: VcpuMask(0b110) }),
        (to(u32::MAX) | mode(4), IcrAction::Nmi { targets: VcpuMask(0b111) }),
    ] {
        assert_eq!(filter(&view(), 0, icr), action, "{icr:#x}");
    }
}

#[test]
fn everything_else_is_refused_by_cause() {
    use IcrRefusal::{Foreign, LowestPriority, ReservedBits, ReservedMode, Shorthand, Smi, Vector};
    for (icr, cause) in [
        (to(0) | 0x40, Foreign),
        (to(1) | 0x40, Foreign),
        (to(0x8000_0002) | 0x40, Foreign),
        (to(0b0011) | 0x40 | LOGICAL, Foreign),
        (to(0x10) | 0x40 | LOGICAL, Foreign),
        (to(2 << 16 | 0xFFFF) | 0x40 | LOGICAL, Foreign),
        (LOGICAL | 0x40, Foreign),
        (to(0) | mode(4), Foreign),
        (to(0) | mode(5) | ASSERT, Foreign),
        (to(0) | mode(6) | 0x10, Foreign),
        (to(2), Vector),
        (to(2) | 15, Vector),
        (ALL | 15, Vector),
        (to(2) | mode(1) | 0x40, LowestPriority),
        (to(2) | mode(2), Smi),
        (OTHERS | mode(2), Smi),
        (to(2) | mode(3) | 0x40, ReservedMode),
        (to(2) | mode(7) | 0x40, ReservedMode),
        (SELF | mode(4), Shorthand),
        (ALL | mode(4), Shorthand),
        (SELF | mode(5) | ASSERT, Shorthand),
        (ALL | mode(6) | 0x10, Shorthand),
        (to(2) | 0x40 | 1 << 12, ReservedBits),
        (to(2) | 0x40 | 1 << 13, ReservedBits),
        (to(2) | 0x40 | 1 << 16, ReservedBits),
        (to(2) | 0x40 | 1 << 31, ReservedBits),
    ] {
        assert_eq!(filter(&view(), 0, icr), refused(cause), "{icr:#x}");
        assert_eq!(cause.is_gp(), cause == ReservedBits);
    }
}

#[test]
fn a_partition_of_one_has_no_others() {
    let view = ApicView::new(&[7]).unwrap();
    assert_eq!(filter(&view, 0, OTHERS | 0x40), fixed(0x40, 0));
    assert_eq!(filter(&view, 0, SELF | 0x40), fixed(0x40, 1));
}

#[test]
fn a_sender_that_is_no_vcpu_reaches_nobody_by_self() {
    assert_eq!(filter(&view(), 3, SELF | 0x40), fixed(0x40, 0));
    assert_eq!(filter(&view(), usize::MAX, SELF | 0x40), fixed(0x40, 0));
}

#[test]
fn hardware_gets_a_rebuilt_value() {
    assert_eq!(physical_icr(3, 0x40), 0x3_0000_4040);
    assert_eq!(physical_icr(u32::MAX - 1, 0xFF), 0xFFFF_FFFE_0000_40FF);
    assert_eq!(physical_nmi_icr(5), 0x5_0000_4400);
}

/// What each APIC of the machine would do, one by one: the vCPUs whose APIC accepts.
fn accepting(ids: &[u32], sender: usize, icr: u64) -> u32 {
    let destination = (icr >> 32) as u32;
    let mut mask = 0;
    for (vcpu, &id) in ids.iter().enumerate() {
        let accepts = match (icr >> 18) & 3 {
            1 => vcpu == sender,
            2 => true,
            3 => vcpu != sender,
            _ if destination == 0xFFFF_FFFF => true,
            _ if icr & LOGICAL == 0 => destination == id,
            _ => {
                let (cluster, members) = (destination / 0x1_0000, destination % 0x1_0000);
                // An LDR has 16 bits for the cluster, so that it holds ID[19:4].
                cluster == (id / 16) % 0x1_0000 && (members / (1 << (id % 16))) % 2 == 1
            }
        };
        mask += u32::from(accepts) << vcpu;
    }
    mask
}

fn model(ids: &[u32], sender: usize, icr: u64) -> IcrAction {
    let reserved = [12, 13, 16, 17].into_iter().chain(20..32).any(|bit| icr >> bit & 1 == 1);
    let (delivery, shorthand, vector) = (icr >> 8 & 7, icr >> 18 & 3, icr as u8);
    let deassert = delivery == 5 && icr >> 14 & 3 == 2;
    let targets = VcpuMask(accepting(ids, sender, icr));
    if reserved {
        refused(IcrRefusal::ReservedBits)
    } else if deassert {
        IcrAction::Ignore
    } else if delivery == 1 {
        refused(IcrRefusal::LowestPriority)
    } else if delivery == 2 {
        refused(IcrRefusal::Smi)
    } else if delivery == 3 || delivery == 7 {
        refused(IcrRefusal::ReservedMode)
    } else if delivery == 0 && vector < 16 {
        refused(IcrRefusal::Vector)
    } else if delivery != 0 && (shorthand == 1 || shorthand == 2) {
        refused(IcrRefusal::Shorthand)
    } else if shorthand == 0 && targets.is_empty() {
        refused(IcrRefusal::Foreign)
    } else {
        match delivery {
            0 => IcrAction::Fixed { vector, targets },
            4 => IcrAction::Nmi { targets },
            5 => IcrAction::Init { targets },
            _ => IcrAction::Sipi { targets, vector },
        }
    }
}

/// Small IDs meet the destinations of [`icrs`]; large ones and any others come too.
fn ids() -> impl Strategy<Value = Vec<u32>> {
    let id = prop_oneof![4 => 0u32..0x40, 1 => 0u32..u32::MAX];
    btree_set(id, 1..=VCPUS_MAX).prop_map(|ids| ids.into_iter().collect::<Vec<_>>()).prop_shuffle()
}

fn icrs() -> impl Strategy<Value = u64> {
    let destination = prop_oneof![
        4 => 0u32..0x40,
        4 => (0u32..4, any::<u16>()).prop_map(|(cluster, members)| cluster << 16 | u32::from(members)),
        1 => Just(u32::MAX),
        1 => any::<u32>(),
    ];
    let legal = (destination, any::<u32>()).prop_map(|(to, low)| u64::from(to) << 32 | u64::from(low & 0x000C_CFFF));
    prop_oneof![4 => legal, 1 => any::<u64>()]
}

/// What the text of `quick_unicast` decides: what to write into the ICR, or 0.
#[unsafe(naked)]
unsafe extern "C" fn decide(icr: u64, own_id: u64, low_ids: u64) -> u64 {
    core::arch::naked_asm!(
        "push rdx",
        "push rsi",
        "mov eax, edi",
        "mov rcx, rdi",
        "shr rcx, 32",
        quick_unicast!("5f"),
        "cmp ecx, {icr}",
        "jne 5f",
        "shl rdx, 32",
        "or rax, rdx",
        "jmp 6f",
        "5:",
        "xor eax, eax",
        "6:",
        "pop rsi",
        "pop rdx",
        "ret",
        own_id = const 0,
        low_ids = const 8,
        not_quick = const quick::NOT_QUICK,
        to_self = const quick::TO_SELF,
        vector_min = const VECTOR_MIN,
        assert = const quick::ASSERT,
        icr = const ICR_MSR,
    )
}

fn unicast(view: &ApicView, own_id: u32, icr: u64) -> Option<u64> {
    // SAFETY: it is a function of its arguments.
    let sent = unsafe { decide(icr, own_id.into(), view.low_ids()) };
    (sent != 0).then_some(sent)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn the_filter_does_what_the_slow_model_does(ids in ids(), sender in 0..VCPUS_MAX, icr in icrs()) {
        let view = ApicView::new(&ids).unwrap();
        let sender = sender % ids.len();
        prop_assert_eq!(filter(&view, sender, icr), model(&ids, sender, icr));
    }

    #[test]
    fn the_common_case_is_the_filters(ids in ids(), icr in icrs(), own in any::<prop::sample::Index>()) {
        let view = ApicView::new(&ids).unwrap();
        let sender = own.index(ids.len());
        let own_id = ids[sender];
        let (to_own, to_self) = (to(own_id) | icr & 0xC0FF, icr & 0xFFFF_FFFF_0000_C0FF | 1 << 18);
        for icr in [icr, to_own, to_self] {
            if let Some(sent) = unicast(&view, own_id, icr) {
                let target = ids.iter().position(|&id| u64::from(id) == sent >> 32).unwrap();
                prop_assert_eq!(sent, physical_icr(ids[target], icr as u8));
                prop_assert_eq!(filter(&view, sender, icr), fixed(icr as u8, 1 << target));
            } else {
                prop_assert!(![to_own, to_self].contains(&icr) || icr & 0xF0 == 0 || own_id >= 64);
            }
        }
    }

    #[test]
    fn no_input_reaches_a_foreign_cpu(ids in ids(), sender in any::<usize>(), icr in icrs()) {
        let view = ApicView::new(&ids).unwrap();
        let targets = match filter(&view, sender, icr) {
            IcrAction::Fixed { vector, targets } => {
                prop_assert!(vector >= VECTOR_MIN);
                for vcpu in targets {
                    let written = physical_icr(view.id(vcpu).unwrap(), vector);
                    prop_assert_eq!(written & 0xFFFF_BF00, 0, "fixed, physical, no shorthand, edge");
                    prop_assert!(ids.contains(&((written >> 32) as u32)));
                }
                targets
            }
            IcrAction::Nmi { targets } | IcrAction::Init { targets } | IcrAction::Sipi { targets, .. } => targets,
            IcrAction::Ignore | IcrAction::Refuse(_) => VcpuMask::EMPTY,
        };
        prop_assert!(targets.into_iter().all(|vcpu| vcpu < ids.len()));
    }

    #[test]
    fn shorthands_are_exact(ids in ids(), sender in 0..VCPUS_MAX, vector in VECTOR_MIN.., to in any::<u32>()) {
        let view = ApicView::new(&ids).unwrap();
        let sender = sender % ids.len();
        let all = view.all().0;
        let own = 1u32 << sender;
        let with = |shorthand| filter(&view, sender, u64::from(to) << 32 | shorthand | u64::from(vector));
        prop_assert_eq!(with(SELF), fixed(vector, own));
        prop_assert_eq!(with(ALL), fixed(vector, all));
        prop_assert_eq!(with(OTHERS), fixed(vector, all & !own));
        prop_assert_eq!(all.count_ones() as usize, ids.len());
    }
}
