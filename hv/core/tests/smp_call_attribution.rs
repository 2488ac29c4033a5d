//! A pCPU that went away during a call, and came back, is not late because another target is.

#![cfg(not(loom))]

use std::cell::Cell;

use partita_core::arch::{Arch, PcpuId};
use partita_core::pcpu_set::PcpuSet;
use partita_core::smp_call::{Deadline, Mailbox, Round, Slot, SmpCalls};

/// One thread that is pCPU 0, and for a moment another, at set looks at the clock.
#[derive(Debug)]
enum Scripted {}

thread_local! {
    static ME: Cell<u16> = const { Cell::new(0) };
    static LOOKS: Cell<u64> = const { Cell::new(0) };
    static SCRIPT: Cell<fn(u64)> = const { Cell::new(|_| {}) };
}

impl Arch for Scripted {
    type Kicks = ();

    fn pcpu() -> PcpuId {
        PcpuId(ME.get())
    }
    fn now() -> u64 {
        LOOKS.set(LOOKS.get() + 1);
        if ME.get() == 0 {
            SCRIPT.get()(LOOKS.get());
        }
        LOOKS.get()
    }
    fn ticks_per_ms() -> u64 {
        1
    }
    fn relax() {}
    fn arch_init_smp_call() {}
    fn arch_smp_call_kick_pcpu(_: PcpuId) {}
}

static MAILBOXES: [Mailbox; 3] = [const { Mailbox::new() }; 3];
static ROUNDS: [Round; 3] = [const { Round::new() }; 3];
static SLOTS: [Slot; 9] = [const { Slot::new() }; 9];

fn as_pcpu(pcpu: u16, act: impl FnOnce(SmpCalls<'static, Scripted>)) {
    let before = ME.replace(pcpu);
    act(SmpCalls::new(&MAILBOXES, &SLOTS, &ROUNDS).unwrap());
    ME.set(before);
}

#[test]
fn who_went_away_and_came_back_is_not_late_because_another_is() {
    (0..3).for_each(|pcpu| as_pcpu(pcpu, |calls| calls.init_smp_call()));
    LOOKS.set(0);
    SCRIPT.set(|look| match look {
        // pCPU 0 has posted to pCPU 1, which goes without a look at it.
        2 => as_pcpu(1, |calls| calls.stop_serving()),
        // pCPU 0 has withdrawn that call and waits for pCPU 2.
        8 => as_pcpu(1, |calls| calls.init_smp_call()),
        _ => {}
    });
    as_pcpu(0, |calls| {
        let targets = PcpuSet::try_from_iter([PcpuId(1), PcpuId(2)]).unwrap();
        let outcome = calls.smp_call_function(&targets, |n| n, 0, Deadline::at(20), |_, _| {}).unwrap();
        assert_eq!(outcome.late, PcpuSet::single(PcpuId(2)).unwrap(), "{outcome:?}");
        assert_eq!(outcome.unreachable, PcpuSet::single(PcpuId(1)).unwrap());
        assert_eq!(calls.mailbox(PcpuId(1)).unwrap().late(), 0);
    });
}
