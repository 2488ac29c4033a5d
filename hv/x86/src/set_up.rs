//! What the hypervisor builds before any guest runs: its pool, its trace, its page tables, its pCPUs.

use core::mem::{align_of, size_of};

use heapless::Vec;
use partita_abi::report::TRACE_REGION_AT;
use partita_core::arch::PcpuId;
use partita_core::reboot::RebootPace;
use partita_core::smp_call::SmpCalls;
use partita_core::system::PARTITIONS_MAX;
use partita_trace::event::Event;
use partita_trace::layout::{REGION_ALIGN, Region};
use partita_x86_policy::capabilities::{Backend, Missing, Virtualization};
use spin::Once;

use crate::arch::{X86, calls, inbox, set_up_calls};
use crate::cpu::features;
use crate::cpu::percpu::{self, BLOCK_LEN, Progress};
use crate::cpu::{self, idt, rdtsc};
use crate::error::Refusal;
use crate::machine::Machine;
use crate::memory::paging::{Access, AddressSpace};
use crate::memory::pool::{PAGE, Pool, PoolExhausted};
use crate::partition::Partition;
use crate::shell::state::Shell;
use crate::svm::SvmVcpu;
use crate::system::System;
use crate::trace;
use crate::tracer::Tracer;
use crate::virt::VirtualCpu;
use crate::vmx::{self, VmxVcpu};
use crate::{apic, application, budget, clock, println};
use partita_x86_bare::application::{STARTUP_PAGE, Start, install, start};
use partita_x86_bare::debug_port;
use partita_x86_bare::entry::entered_at;

/// The hypervisor, complete: what the housekeeping core holds.
pub struct Hypervisor {
    /// The machine.
    pub machine: Machine,
    /// The system.
    pub system: System,
    /// What its memory is carved from.
    pub pool: Pool,
    /// Its address space.
    pub space: AddressSpace,
    /// The trace region.
    pub region: Region<'static>,
    /// The partitions, by number.
    pub partitions: Vec<&'static Partition, PARTITIONS_MAX>,
    /// When guests that reboot are started again, by number.
    pub reboots: [RebootPace; PARTITIONS_MAX],
    /// The console.
    pub shell: Shell,
}

/// What the boot pCPU virtualises by, and the others have to.
static BOOT: Once<Virtualization> = Once::new();

/// Carves an array of values that are valid when all bytes are zero.
///
/// # Safety
/// `T` must be such a type.
unsafe fn carve_zeroed<T>(pool: &mut Pool, count: usize) -> Result<&'static [T], PoolExhausted> {
    let start = pool.carve(count * size_of::<T>(), align_of::<T>())?.cast::<T>();
    // SAFETY: the memory is zeroed, large and aligned enough, and nobody else's; by the contract above.
    Ok(unsafe { core::slice::from_raw_parts(start, count) })
}

impl Hypervisor {
    /// Builds the trace and the address space, brings all pCPUs up, and switches to the address space.
    ///
    /// # Errors
    /// If memory does not suffice or a pCPU does not come up.
    ///
    /// # Safety
    /// Once, on the boot pCPU, with the boot page tables in use; `machine` and `system` must be true.
    pub unsafe fn set_up(machine: Machine, system: System, is_attended: bool) -> Result<Self, Refusal> {
        let reboots = [const { RebootPace::new() }; PARTITIONS_MAX];
        BOOT.call_once(|| machine.virtualization);
        if let Virtualization::Vmx(vmx) = &machine.virtualization {
            vmx::set_up(vmx);
        }
        let count = machine.pcpus();
        let range = system.division.pool;
        // SAFETY: the division gives this range to nobody else, and the boot page tables map it one to one.
        let mut pool = unsafe { Pool::new(range.start, range.len()) };
        let spec = budget::region_spec(system.config, count, machine.clocks.tsc_hz);
        let base = pool.carve(spec.len(), REGION_ALIGN)?;
        // SAFETY: the memory is fresh from the pool and stays the region's.
        let region = unsafe { Region::init(base, spec.len(), &spec) }?;
        // SAFETY: the same, for as long as the hypervisor runs.
        unsafe { debug_port::set_region(base as u64, spec.len() as u64) };

        let others = pool.carve((count - 1) * BLOCK_LEN, BLOCK_LEN)?;
        percpu::set_other_blocks(others as u64);
        // SAFETY: zeroed mailboxes and slots are idle ones, as their crate says.
        let (mailboxes, slots) =
            unsafe { (carve_zeroed(&mut pool, count)?, carve_zeroed(&mut pool, SmpCalls::<X86>::slots_for(count))?) };
        // SAFETY: so are rounds.
        let rounds = unsafe { carve_zeroed(&mut pool, SmpCalls::<X86>::rounds_for(count))? };
        if !set_up_calls(mailboxes, slots, rounds) {
            return Err(Refusal::TooLarge("pCPUs"));
        }

        let mut space = AddressSpace::new(&mut pool)?;
        space.map(system.module.start, system.module.len, Access::Read, &mut pool)?;
        space.map(STARTUP_PAGE, PAGE as u64, Access::ReadExecute, &mut pool)?;
        for number in 0..count as u16 {
            space.guard(PcpuId(number));
        }
        // SAFETY: low memory is nobody's; the boot page tables let this pCPU write there.
        unsafe { install(space.root()) };
        let shell = Shell::new(is_attended);
        let mut hypervisor = Self { machine, system, pool, space, region, partitions: Vec::new(), reboots, shell };
        for number in 0..count as u16 {
            hypervisor.bring_up(PcpuId(number))?;
        }
        // SAFETY: image, pool and bundle are mapped; nothing else is used from here on.
        unsafe { hypervisor.space.activate() };
        // Another pCPU may keep its translation: of a page that holds nothing but the start-up code, and read-only.
        hypervisor.space.unmap(STARTUP_PAGE, PAGE as u64);
        Ok(hypervisor)
    }

    /// Prints who has how much of the machine's memory, and where the trace lies.
    pub fn report_memory(&self) {
        let totals = &self.system.division.totals;
        let kib = |bytes: u64| bytes.div_ceil(1024);
        println!(
            "partita: memory: {} KiB RAM, partitions {} KiB, bundle {} KiB, hypervisor {} KiB (image {} KiB, pool {} KiB \
             of which trace {} KiB), unassigned {} KiB",
            kib(totals.usable),
            kib(totals.partitions),
            kib(totals.bundle),
            kib(totals.hypervisor),
            kib(crate::machine::image().len()),
            kib(self.system.division.pool.len()),
            kib(self.region.header().region_len() as u64),
            kib(totals.unassigned),
        );
        println!("partita: {TRACE_REGION_AT} {:#x}", self.region.base() as u64);
    }

    fn bring_up(&mut self, pcpu: PcpuId) -> Result<(), Refusal> {
        let parts = (self.region.ring(pcpu.0), self.region.histograms(pcpu.0));
        let (Some(ring), Some(histograms)) = parts else { return Err(Refusal::TooLarge("pCPUs of the trace")) };
        let host_save = self.pool.page()? as u64;
        let mut tracer = Tracer { writer: ring.writer(), histograms };
        if pcpu == PcpuId(0) {
            trace::adopt_early(&mut tracer);
            // SAFETY: this is the boot pCPU, which has had its private page from the start.
            unsafe { percpu::set_tracer(pcpu, tracer) };
            trace::record(entered_at(), Event::HypervisorEntered {});
            if let Some(calls) = calls() {
                calls.init_smp_call();
            }
            return Ok(());
        }
        // The vendor's code is chosen here, and where vCPUs are made.
        let entry: extern "C" fn(u64) -> ! = match self.machine.virtualization.backend() {
            Backend::Svm => application_main::<SvmVcpu>,
            Backend::Vmx => application_main::<VmxVcpu>,
        };
        // SAFETY: the block is mapped and its pCPU not yet running; the start-up page is installed.
        let online = unsafe {
            percpu::init_private(pcpu);
            percpu::set_tracer(pcpu, tracer);
            percpu::set_host_save(pcpu, host_save);
            start(
                &Start {
                    apic_id: percpu::public(pcpu).apic_id(),
                    stack_top: percpu::stack_top(pcpu),
                    entry,
                    argument: pcpu.0.into(),
                    ticks_per_ms: clock::ticks_per_ms(),
                },
                || percpu::public(pcpu).progress() != Progress::Offline,
            )
        };
        let apic_id = percpu::public(pcpu).apic_id();
        match percpu::public(pcpu).progress() {
            Progress::Unfit => Err(Refusal::PcpuUnfit { pcpu: pcpu.0, apic_id, missing: UNFIT.get().copied() }),
            _ if online => Ok(()),
            _ => Err(Refusal::PcpuDead { pcpu: pcpu.0, apic_id }),
        }
    }
}

/// What the first unfit pCPU lacks; there is no second one, as it ends the start.
static UNFIT: Once<Missing> = Once::new();

/// First Rust code of a pCPU other than the boot one: it gets ready, says so, and serves until it gets a vCPU.
extern "C" fn application_main<V: VirtualCpu>(_pcpu: u64) -> ! {
    idt::load();
    let public = percpu::public(percpu::private().id);
    let own = features::virtualization().inspect_err(|missing| {
        UNFIT.call_once(|| *missing);
    });
    let is_fit = matches!((own, BOOT.get()), (Ok(own), Some(boot)) if own.covers(boot));
    apic::enable();
    // SAFETY: this pCPU has the extension, as was checked; the page is its alone.
    if !is_fit || !unsafe { V::enable(percpu::private().host_save.get()) } {
        public.set_progress(Progress::Unfit);
        cpu::halt_forever();
    }
    let me = percpu::private().id;
    let (Some(calls), Some(inbox)) = (calls(), inbox(me)) else { cpu::halt_forever() };
    calls.init_smp_call();
    trace::record(rdtsc(), Event::PcpuOnline { pcpu: me.0, hardware_id: public.apic_id().into() });
    public.set_progress(Progress::Online);
    application::wait::<V>(&inbox)
}
