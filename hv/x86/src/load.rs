//! Partitions, from the bundle into the machine: memory filled, maps and nested tables built, vCPUs started.

use heapless::Vec;
use partita_abi::guest::{ACPI_LEN, RSDP};
use partita_core::arch::PcpuId;
use partita_core::partition::PartitionLife;
use partita_core::system;
use partita_trace::event::Event;
use partita_trace::names::InterruptMode;
use partita_x86_policy::acpi::write_tables;
use partita_x86_policy::apic_view::ApicView;
use partita_x86_policy::msr::{MSRPM_LEN, MsrPolicy};
use partita_x86_policy::ports::{IOPM_LEN, PortPolicy};

use crate::cpu::percpu::{self, PCPUS_MAX};
use crate::cpu::rdtsc;
use crate::error::Refusal;
use crate::memory::nested;
use crate::memory::pool::{PAGE, Pool};
use crate::partition::{Partition, Refusals, TraceWindow};
use crate::set_up::Hypervisor;
use crate::virt::{PermissionMaps, VirtualCpu};
use crate::{launch, println, trace};

impl Hypervisor {
    /// Loads all partitions.
    ///
    /// # Errors
    /// If the hypervisor's memory does not suffice.
    pub fn load_partitions(&mut self, trap_timer_count: bool) -> Result<(), Refusal> {
        for number in 0..self.system.config.partitions.len() {
            self.load(number as u16, trap_timer_count)?;
        }
        Ok(())
    }

    fn load(&mut self, number: u16, trap_timer_count: bool) -> Result<(), Refusal> {
        let index = usize::from(number);
        let config = self.system.config.partitions.get(index).ok_or(Refusal::TooLarge("partitions"))?.clone();
        let range = self.system.division.partitions.get(index).ok_or(Refusal::TooLarge("partitions"))?;
        let pcpus = config.pcpus.iter().map(|&pcpu| PcpuId(pcpu)).collect();
        let ids: Vec<u32, PCPUS_MAX> =
            config.pcpus.iter().map(|&pcpu| percpu::public(PcpuId(pcpu)).apic_id()).collect();
        let partition = Partition {
            number,
            pcpus,
            apic_view: ApicView::new(&ids)?,
            memory_hpa: range.start,
            msr_policy: MsrPolicy::new(trap_timer_count),
            port_policy: PortPolicy::new(config.console, config.identity),
            clocks: self.machine.clocks,
            life: PartitionLife::new(),
            trace_window: TraceWindow::default(),
            refusals: Refusals::default(),
            housekeeping: PcpuId(self.system.config.housekeeping.pcpu),
            config,
        };
        self.fill_memory(&partition)?;
        let place = self.pool.carve(size_of::<Partition>(), align_of::<Partition>())?.cast::<Partition>();
        // SAFETY: the place is fresh from the pool, large and aligned enough, and never freed.
        let partition: &'static Partition = unsafe {
            place.write(partition);
            &*place
        };
        self.partitions.push(partition).map_err(|_| Refusal::TooLarge("partitions"))
    }

    /// Clears a partition's memory and copies its segments and ACPI tables in.
    fn fill_memory(&mut self, partition: &Partition) -> Result<(), Refusal> {
        let (number, len) = (u32::from(partition.number), partition.config.memory_bytes);
        let bundle = self.system.bundle;
        let fill = |memory: *mut u8| {
            // SAFETY: the window is mapped for `len` bytes, and the guest does not run yet.
            let memory = unsafe { core::slice::from_raw_parts_mut(memory, len as usize) };
            memory.fill(0);
            for segment in bundle.segments(number) {
                let start = segment.gpa as usize;
                let place = start.checked_add(segment.data.len()).and_then(|end| memory.get_mut(start..end));
                // Segments outside the memory were refused by the rules.
                if let Some(place) = place {
                    place.copy_from_slice(segment.data);
                }
            }
            let area = memory.get_mut(RSDP as usize..(RSDP + ACPI_LEN) as usize).unwrap_or(&mut []);
            write_tables(area, RSDP, &partition.apic_view)
        };
        // SAFETY: the range is this partition's memory, and its guest does not run yet.
        let written = unsafe { self.space.with_window(partition.memory_hpa, len, &mut self.pool, fill) }?;
        written.map_err(|_| Refusal::TooLarge("ACPI tables of a partition"))
    }

    /// Starts all partitions: every vCPU enters its loop, the first of each partition its guest.
    ///
    /// # Errors
    /// If memory does not suffice or a pCPU does not take its vCPU.
    pub fn start_partitions<V: VirtualCpu>(&mut self) -> Result<(), Refusal> {
        for index in 0..self.partitions.len() {
            let Some(&partition) = self.partitions.get(index) else { break };
            self.start::<V>(partition)?;
        }
        Ok(())
    }

    fn start<V: VirtualCpu>(&mut self, partition: &'static Partition) -> Result<(), Refusal> {
        let config = &partition.config;
        let maps = permission_maps(&mut self.pool, partition)?;
        let nested_root = nested::build(&mut self.pool, partition.memory_hpa, config.memory_bytes)?;
        let event = Event::PartitionStart {
            partition: partition.number,
            memory: config.memory_bytes,
            hpa: partition.memory_hpa,
        };
        trace::record(rdtsc(), event);
        let mode = match config.lapic {
            system::LapicMode::Passthrough => InterruptMode::LapicPassthrough,
        };
        let pcpus = partition.pcpus.iter().filter(|p| p.0 < 64).fold(0, |mask, p| mask | 1 << p.0);
        trace::record(rdtsc(), Event::InterruptMode { partition: partition.number, mode, pcpus });
        defmt::info!("partition {=u16} starts: {=str}", partition.number, config.name.as_str());
        println!(
            "partita: partition {} \"{}\": {} MiB at {:#x}, interrupts: {}",
            partition.number,
            config.name,
            config.memory_bytes >> 20,
            partition.memory_hpa,
            mode.name(),
        );
        partition.life.begin();
        // The first vCPU last: when its guest runs, the others already wait for their start.
        for number in (0..partition.pcpus.len()).rev() {
            let vcpu = launch::build::<V>(&mut self.pool, partition, number, nested_root, maps)?;
            if let Some(&pcpu) = partition.pcpus.get(number) {
                println!("partita:   vCPU {number} on {pcpu}, APIC ID {}", percpu::public(pcpu).apic_id());
                launch::start(pcpu, vcpu)?;
            }
        }
        Ok(())
    }
}

fn permission_maps(pool: &mut Pool, partition: &Partition) -> Result<PermissionMaps, Refusal> {
    let msr = pool.carve(MSRPM_LEN, PAGE)?.cast::<[u8; MSRPM_LEN]>();
    let io = pool.carve(IOPM_LEN, PAGE)?.cast::<[u8; IOPM_LEN]>();
    // SAFETY: both are fresh from the pool, of the right size, and never freed.
    let (msr, io) = unsafe { (&mut *msr, &mut *io) };
    partition.msr_policy.fill_msrpm(msr);
    partition.port_policy.fill_iopm(io);
    Ok(PermissionMaps { io: io.as_ptr() as u64, msr: msr.as_ptr() as u64 })
}
