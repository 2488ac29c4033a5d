//! NMI, INIT, SIPI and stop: the request word and the state machine.

use partita_x86_policy::apic_events::{NmiState, Requests, RunState, VcpuAction, VcpuEvents};
use proptest::prelude::*;

const RIP: u64 = 0xFFFF_8000_0000_1000;

fn running() -> VcpuEvents {
    VcpuEvents::new(RunState::Running, false)
}

#[test]
fn a_start_goes_by_init_and_sipi() {
    let mut ap = VcpuEvents::new(RunState::WaitForSipi, false);
    assert_eq!(ap.on_request(Requests::NONE, 0), VcpuAction::Wait);
    assert_eq!(ap.on_request(Requests::INIT, 0), VcpuAction::Wait);
    assert_eq!(ap.on_request(Requests::sipi(0x9A), 0), VcpuAction::Start { vector: 0x9A });
    assert_eq!(ap.run(), RunState::Running);
    assert_eq!(ap.on_request(Requests::sipi(0x10), 0), VcpuAction::Enter, "the second SIPI is ignored");
    assert_eq!(ap.on_request(Requests::INIT, 0), VcpuAction::Wait);
    assert_eq!(ap.run(), RunState::WaitForSipi);
    let both = Requests::INIT.merge(Requests::sipi(0));
    assert_eq!(ap.on_request(both, 0), VcpuAction::Start { vector: 0 });
}

#[test]
fn requests_merge_in_their_order() {
    let (nmi, init, stop) = (Requests::NMI, Requests::INIT, Requests::STOP);
    let sipi = Requests::sipi;
    assert_eq!(sipi(1).merge(sipi(2)), sipi(1), "vectors never mix");
    assert_eq!(sipi(1).merge(init), init);
    assert_eq!(nmi.merge(init), init);
    assert_eq!(init.merge(sipi(3)).merge(init).merge(sipi(4)).sipi_vector(), Some(4));
    assert!(init.merge(nmi).nmi());
    assert!(stop.merge(init).stop());
    assert_eq!(Requests::from_word(0xFFFF_FF00), Requests::NONE, "a vector without its SIPI is nothing");
    assert_eq!(Requests::from_word(u32::MAX).word(), 0x0000_FF0F);
}

#[test]
fn a_stop_and_an_init_do_not_wait_for_a_delivery() {
    for (requests, drops) in [
        (Requests::NONE, false),
        (Requests::NMI, false),
        (Requests::sipi(0x10), false),
        (Requests::INIT, true),
        (Requests::STOP, true),
        (Requests::NMI.merge(Requests::STOP), true),
        (Requests::INIT.merge(Requests::sipi(0x10)), true),
    ] {
        assert_eq!(requests.drops_events(), drops, "{requests:?}");
    }
}

#[test]
fn stop_is_for_ever_and_first() {
    let mut vcpu = running();
    let everything = Requests::from_word(u32::MAX);
    assert_eq!(vcpu.on_request(everything, RIP), VcpuAction::Stop);
    assert_eq!(vcpu.on_request(Requests::INIT.merge(Requests::sipi(1)), RIP), VcpuAction::Stop);
    assert_eq!(vcpu.run(), RunState::Stopped);
}

#[test]
fn a_second_nmi_waits_for_the_end_of_the_first() {
    let mut vcpu = running();
    assert_eq!(vcpu.on_request(Requests::NMI, RIP), VcpuAction::InjectNmi);
    assert!(vcpu.intercepts_iret());
    assert_eq!(vcpu.on_request(Requests::NMI, RIP), VcpuAction::Enter);
    assert_eq!(vcpu.on_request(Requests::NMI, RIP), VcpuAction::Enter, "a third merges with it");
    assert_eq!(vcpu.on_iret(RIP), VcpuAction::StepOverIret);
    assert!(!vcpu.intercepts_iret());
    assert_eq!(vcpu.on_step(), VcpuAction::InjectNmi);
    assert_eq!(vcpu.on_iret(RIP), VcpuAction::Enter);
    assert_eq!(vcpu.on_request(Requests::NONE, RIP), VcpuAction::Enter);
}

#[test]
fn an_nmi_between_the_exit_at_iret_and_its_end_waits_for_that_end() {
    let mut vcpu = running();
    let _ = vcpu.on_request(Requests::NMI, RIP);
    assert_eq!(vcpu.on_iret(RIP), VcpuAction::Enter);
    let mut elsewhere = vcpu;
    // A kick can end the entry before the guest has moved.
    assert_eq!(vcpu.on_request(Requests::NMI, RIP), VcpuAction::StepOverIret);
    assert_eq!(vcpu.on_request(Requests::NMI, RIP), VcpuAction::Enter);
    assert_eq!(vcpu.on_step(), VcpuAction::InjectNmi);
    assert_eq!(elsewhere.on_request(Requests::NMI, RIP + 2), VcpuAction::InjectNmi);
    assert_eq!(elsewhere.nmi(), NmiState::Blocked);
}

#[test]
fn nmis_to_a_vcpu_that_has_not_started_are_dropped() {
    let mut ap = VcpuEvents::new(RunState::WaitForSipi, false);
    assert_eq!(ap.on_request(Requests::NMI, 0), VcpuAction::Wait);
    let with_start = Requests::NMI.merge(Requests::sipi(8));
    assert_eq!(ap.on_request(with_start, 0), VcpuAction::Start { vector: 8 });
    assert_eq!(ap.nmi(), NmiState::Idle);
}

#[test]
fn init_forgets_a_blocked_nmi() {
    let mut vcpu = running();
    let _ = vcpu.on_request(Requests::NMI, RIP);
    let _ = vcpu.on_request(Requests::NMI, RIP);
    let _ = vcpu.on_request(Requests::INIT.merge(Requests::sipi(1)), RIP);
    assert_eq!(vcpu.nmi(), NmiState::Idle);
    assert_eq!(vcpu.on_request(Requests::NMI, RIP), VcpuAction::InjectNmi);
}

#[test]
fn hardware_keeps_nmis_back_where_it_can() {
    let mut vcpu = VcpuEvents::new(RunState::Running, true);
    for _ in 0..3 {
        assert_eq!(vcpu.on_request(Requests::NMI, RIP), VcpuAction::InjectNmi);
        assert!(!vcpu.intercepts_iret());
    }
}

/// What may happen to a running vCPU. An IRET or a step is reported only where the hardware would report it.
#[derive(Clone, Copy, Debug)]
enum Event {
    Request(u32),
    GuestRuns,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let request = prop_oneof![
        8 => Just(Requests::NMI.word()),
        1 => Just(Requests::INIT.word()),
        2 => any::<u8>().prop_map(|vector| Requests::sipi(vector).word()),
        1 => any::<u32>().prop_map(|word| word & !Requests::STOP.word()),
    ];
    prop::collection::vec(prop_oneof![request.prop_map(Event::Request), Just(Event::GuestRuns)], 1..80)
}

proptest! {
    #[test]
    fn nmis_never_nest_and_none_is_lost(events in events()) {
        let mut vcpu = running();
        // The guest: whether it is in its handler, where its IRET lies, and how many NMIs it owes or is owed.
        let (mut in_handler, mut owed) = (false, false);
        for event in events {
            let action = match event {
                Event::Request(word) => {
                    let requests = Requests::from_word(word);
                    if requests.init() || vcpu.run() != RunState::Running {
                        (in_handler, owed) = (false, false);
                    } else {
                        owed |= requests.nmi();
                    }
                    vcpu.on_request(requests, RIP)
                }
                // The guest runs up to its IRET, which exits if it is intercepted, and then past it.
                Event::GuestRuns if vcpu.run() == RunState::Running => {
                    let at_iret = if vcpu.intercepts_iret() { vcpu.on_iret(RIP) } else { VcpuAction::Enter };
                    prop_assert_ne!(at_iret, VcpuAction::InjectNmi, "before the IRET has run");
                    let stepped = at_iret == VcpuAction::StepOverIret || vcpu.nmi() == NmiState::Stepping;
                    in_handler = false;
                    if stepped { vcpu.on_step() } else { vcpu.on_request(Requests::NONE, RIP + 2) }
                }
                Event::GuestRuns => continue,
            };
            if action == VcpuAction::InjectNmi {
                prop_assert!(!in_handler, "nested");
                prop_assert!(owed, "out of nothing");
                (in_handler, owed) = (true, false);
            }
            let waits = matches!(vcpu.nmi(), NmiState::BlockedPending | NmiState::Stepping);
            prop_assert_eq!(owed, waits, "lost");
            prop_assert_eq!(action == VcpuAction::Wait, vcpu.run() == RunState::WaitForSipi);
        }
    }

    #[test]
    fn words_survive_packing_and_merging(a in any::<u32>(), b in any::<u32>()) {
        let (a, b) = (Requests::from_word(a), Requests::from_word(b));
        let merged = a.merge(b);
        prop_assert_eq!(Requests::from_word(merged.word()), merged);
        prop_assert_eq!(merged.stop(), a.stop() || b.stop());
        prop_assert_eq!(merged.init(), a.init() || b.init());
        prop_assert_eq!(Requests::NONE.merge(b), b);
        prop_assert_eq!(a.merge(Requests::NONE), a);
        let vectors = [a.sipi_vector(), b.sipi_vector()];
        prop_assert!(merged.sipi_vector().is_none() || vectors.contains(&merged.sipi_vector()));
    }
}
