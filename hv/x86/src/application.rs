//! A pCPU other than the boot one, once it is ready: until it is its vCPU's.

use core::ptr;

use partita_core::smp_call::{Inbox, PcpuState};
use partita_trace::event::Event;
use partita_trace::names::PcpuStateName;

use crate::arch::{X86, calls};
use crate::calls::serve;
use crate::cpu::percpu::{self, Order};
use crate::cpu::{halt_forever, rdtsc};
use crate::trace;
use crate::vcpu::Vcpu;
use crate::virt::VirtualCpu;

/// Serves the SMP calls of this pCPU until it gets a vCPU, or is sent to sleep. Whoever calls this is not returned to.
pub fn wait<V: VirtualCpu>(inbox: &Inbox<'static, X86>) -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        serve(inbox, rdtsc());
        do_as_told::<V>();
        x86_64::instructions::interrupts::enable_and_hlt();
    }
}

/// Enters this pCPU's vCPU, if it was given one, which is one of `V`, or sleeps for good if it was told to. Interrupts are
/// off.
fn do_as_told<V: VirtualCpu>() {
    let private = percpu::private();
    if private.order.get() == Order::Park {
        trace::record(rdtsc(), Event::PcpuState { pcpu: private.id.0, state: PcpuStateName::Parked });
        if let Some(calls) = calls() {
            calls.retire(PcpuState::Parked);
        }
        halt_forever();
    }
    let vcpu = private.vcpu.get();
    if vcpu == 0 {
        return;
    }
    let vcpu: *mut Vcpu<V> = ptr::with_exposed_provenance_mut(vcpu as usize);
    // SAFETY: the vCPU was built for this pCPU, complete, and given to it alone, as the only one ever; the extension has been on
    // since this pCPU came up.
    unsafe { V::run(vcpu) }
}
