//! Making a vCPU, and giving its pCPU to it, for ever.

use partita_core::arch::PcpuId;
use partita_core::smp_call::{Deadline, Reply};
use partita_x86_policy::apic_events::{RunState, VcpuEvents};
use partita_x86_policy::cmos::Cmos;
use partita_x86_policy::cpuid::{Answers, CpuidContext};
use partita_x86_policy::cpuid_hidden::HiddenFeatures;
use partita_x86_policy::msr_values::efer_writable;
use partita_x86_policy::ports::serial_base;

use crate::arch::{X86, calls, inbox};
use crate::calls::call_one;
use crate::cpu::features::cpuid;
use crate::cpu::percpu::{self, Progress};
use crate::error::Refusal;
use crate::memory::pool::Pool;
use crate::orders::reaches;
use crate::partition::Partition;
use crate::vcpu::Vcpu;
use crate::virt::{PermissionMaps, VirtualCpu};

/// How long a pCPU may take to accept its vCPU.
const DEADLINE_MS: u32 = 5000;

const EXTENDED_FEATURES: u32 = 0x8000_0001;

/// Carves a vCPU and makes it complete, so that its pCPU only has to enter it.
///
/// # Errors
/// If the pool is exhausted, or there is no such vCPU.
pub fn build<V: VirtualCpu>(
    pool: &mut Pool,
    partition: &'static Partition,
    number: usize,
    nested_root: u64,
    maps: PermissionMaps,
    hidden: HiddenFeatures,
) -> Result<*mut Vcpu<V>, Refusal> {
    let pcpu = *partition.pcpus.get(number).ok_or(Refusal::TooLarge("vCPUs"))?;
    let inbox = inbox(pcpu).ok_or(Refusal::TooLarge("pCPUs"))?;
    let apic_id = partition.apic_view.id(number).ok_or(Refusal::TooLarge("vCPUs"))?;
    let context = CpuidContext {
        identity: partition.config.identity,
        hypercall: V::HYPERCALL,
        partition: partition.number.into(),
        vcpu: number as u32,
        vcpus: partition.apic_view.vcpus(),
        apic_id,
        apic_id_bits: partition.apic_view.id_bits(),
        starts: 0,
        console_port: partition.config.console.map_or(0, serial_base),
        tsc_khz: (partition.clocks.tsc_hz / 1000) as u32,
        lapic_khz: (partition.clocks.lapic_hz / 1000) as u32,
        host_max_basic: cpuid(0, 0)[0],
        host_max_extended: cpuid(0x8000_0000, 0)[0],
        hidden,
    };
    let host = cpuid(EXTENDED_FEATURES, 0);
    let [_, _, ecx, edx] = partita_x86_policy::cpuid::cpuid(EXTENDED_FEATURES, 0, host, 0, &context);
    let vcpu = Vcpu {
        cpu: V::new(pool, nested_root, maps)?,
        partition,
        number,
        requests: &percpu::public(pcpu).requests,
        inbox,
        cpuid: context,
        answers: Answers::none(),
        efer_writable: efer_writable(ecx, edx),
        events: VcpuEvents::new(RunState::WaitForSipi, V::HOLDS_NMIS),
        shadow_behind_nmi: false,
        cmos: Cmos::default(),
        is_fresh: false,
        traces_exits: partition.traces_exits,
    };
    let place = pool.carve(size_of::<Vcpu<V>>(), align_of::<Vcpu<V>>())?.cast::<Vcpu<V>>();
    // SAFETY: the place is fresh from the pool, large and aligned enough.
    unsafe { place.write(vcpu) };
    Ok(place)
}

/// Gives a pCPU its vCPU, which it takes without running it.
///
/// # Errors
/// If it does not take it within its deadline.
pub fn give<V: VirtualCpu>(pcpu: PcpuId, vcpu: *mut Vcpu<V>) -> Result<(), Refusal> {
    let deadline = Deadline::after_ms::<X86>(DEADLINE_MS);
    let is_told = calls().is_some_and(|calls| {
        let reply = call_one(calls, pcpu, take, vcpu.expose_provenance() as u64, deadline);
        matches!(reply, Ok(Reply::Answered(_)))
    });
    if is_told && reaches(pcpu, Progress::VcpuDown, deadline) {
        Ok(())
    } else {
        Err(Refusal::PcpuLate { pcpu: pcpu.0 })
    }
}

/// On the target: keeps the vCPU for when the call has been acknowledged.
fn take(vcpu: u64) -> u64 {
    percpu::private().vcpu.set(vcpu);
    0
}
