//! What the housekeeping core tells other pCPUs to do, beyond what fits into an SMP call, and how it waits for them.

use partita_core::arch::{Arch, PcpuId};
use partita_core::pcpu_set::PcpuSet;
use partita_core::smp_call::{Deadline, Function, Reply};

use crate::arch::{X86, calls};
use crate::calls::{call_one, post};
use crate::cpu::percpu::{self, Order, Progress};

/// How long a pCPU may take to take note of an order.
const DEADLINE_MS: u32 = 5000;

/// Waits until a pCPU has come so far, and serves SMP calls meanwhile. `false` if it did not before the deadline.
pub fn reaches(pcpu: PcpuId, progress: Progress, deadline: Deadline) -> bool {
    wait_until(deadline, || percpu::public(pcpu).progress() == progress)
}

/// Waits for something on other pCPUs, and serves SMP calls meanwhile. `false` if it did not come before the deadline.
pub fn wait_until(deadline: Deadline, is_so: impl Fn() -> bool) -> bool {
    wait(deadline, &is_so)
}

/// One body for whatever is waited for.
fn wait(deadline: Deadline, is_so: &dyn Fn() -> bool) -> bool {
    loop {
        let now = X86::now();
        if is_so() {
            return true;
        }
        if deadline.has_passed(now) {
            return false;
        }
        if let Some(calls) = calls() {
            calls.handle_smp_call(now);
        }
        X86::relax();
    }
}

/// Tells a pCPU to do something once this call is over. `false` if it did not answer.
pub fn order(pcpu: PcpuId, order: Order) -> bool {
    let deadline = Deadline::after_ms::<X86>(DEADLINE_MS);
    calls().is_some_and(|calls| matches!(call_one(calls, pcpu, noting(order), 0, deadline), Ok(Reply::Answered(_))))
}

/// Tells pCPUs to do something, as soon as they come to it. Gives those that take note of it.
pub fn order_without_waiting(pcpus: &PcpuSet, order: Order) -> PcpuSet {
    let posted = calls().map(|calls| post(calls, pcpus, noting(order), 0));
    posted.and_then(Result::ok).map_or(PcpuSet::EMPTY, |posted| posted.accepted)
}

/// The function that takes note of an order.
fn noting(order: Order) -> Function {
    match order {
        Order::None => |_| note(Order::None),
        Order::Load => |_| note(Order::Load),
        Order::Start => |_| note(Order::Start),
        Order::Park => |_| note(Order::Park),
        Order::Dump => |_| note(Order::Dump),
        Order::Storm => |_| note(Order::Storm),
        Order::Hold => |_| note(Order::Hold),
    }
}

/// On the target: keeps the order for when the call has been acknowledged.
fn note(order: Order) -> u64 {
    let private = percpu::private();
    private.order.set(order);
    percpu::public(private.id).requests.note_order();
    0
}
