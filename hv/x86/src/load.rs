//! Partitions, from the bundle into the machine: maps and nested tables built, vCPUs given to their pCPUs.

use core::sync::atomic::{AtomicBool, AtomicU32};

use heapless::Vec;
use partita_core::arch::PcpuId;
use partita_core::explanation::Explanation;
use partita_core::loading::Loading;
use partita_core::partition::PartitionLife;
use partita_core::pcpu_set::PcpuSet;
use partita_x86_policy::apic_view::ApicView;
use partita_x86_policy::capabilities::Backend;
use partita_x86_policy::msr::{MSRPM_LEN, MsrPolicy};
use partita_x86_policy::ports::{IOPM_LEN, PortPolicy};

use crate::cpu::percpu::{self, Order, PCPUS_MAX};
use crate::error::Refusal;
use crate::memory::nested;
use crate::memory::paging::window_of;
use crate::memory::pool::{PAGE, Pool};
use crate::partition::{Partition, Refusals, TraceWindow};
use crate::set_up::Hypervisor;
use crate::svm::SvmVcpu;
use crate::virt::{PermissionMaps, VirtualCpu};
use crate::vmx::VmxVcpu;
use crate::{launch, orders, println};

impl Hypervisor {
    /// Describes all partitions.
    ///
    /// # Errors
    /// If the hypervisor's memory does not suffice.
    pub fn describe_partitions(&mut self, trap_timer_count: bool) -> Result<(), Refusal> {
        for number in 0..self.system.config.partitions.len() {
            self.describe(number as u16, trap_timer_count)?;
        }
        Ok(())
    }

    fn describe(&mut self, number: u16, trap_timer_count: bool) -> Result<(), Refusal> {
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
            window: window_of(number),
            bundle: self.system.bundle,
            loading: Loading::default(),
            is_window_open: AtomicBool::new(false),
            starts: AtomicU32::new(0),
            msr_policy: MsrPolicy::new(trap_timer_count).on(self.machine.virtualization.backend()),
            port_policy: PortPolicy::new(config.console, config.identity),
            clocks: self.machine.clocks,
            explanation: Explanation::default(),
            life: PartitionLife::new(),
            traces_exits: self.system.config.trace.exits,
            trace_window: TraceWindow::default(),
            refusals: Refusals::default(),
            housekeeping: PcpuId(self.system.config.housekeeping.pcpu),
            config,
        };
        let place = self.pool.carve(size_of::<Partition>(), align_of::<Partition>())?.cast::<Partition>();
        // SAFETY: the place is fresh from the pool, large and aligned enough, and never freed.
        let partition: &'static Partition = unsafe {
            place.write(partition);
            &*place
        };
        self.partitions.push(partition).map_err(|_| Refusal::TooLarge("partitions"))
    }

    /// Makes a partition's vCPUs and gives them to their pCPUs, which take them without a guest.
    fn give_pcpus<V: VirtualCpu>(&mut self, partition: &'static Partition) -> Result<(), Refusal> {
        let maps = permission_maps::<V>(&mut self.pool, partition)?;
        let nested_root =
            nested::build(&mut self.pool, V::NESTED, partition.memory_hpa, partition.config.memory_bytes)?;
        for device in &partition.config.mmio {
            // SAFETY: no vCPU has these tables yet.
            unsafe { nested::add_device(&mut self.pool, V::NESTED, nested_root, device) }?;
        }
        let hidden = self.machine.virtualization.hidden_features();
        for (number, &pcpu) in partition.pcpus.iter().enumerate() {
            let vcpu = launch::build::<V>(&mut self.pool, partition, number, nested_root, maps, hidden)?;
            launch::give::<V>(pcpu, vcpu)?;
        }
        Ok(())
    }

    /// Gives all partitions their pCPUs, and sends those to sleep that none has.
    ///
    /// # Errors
    /// If memory does not suffice, or a pCPU is late.
    pub fn give_all_pcpus(&mut self) -> Result<(), Refusal> {
        for index in 0..self.partitions.len() {
            let Some(&partition) = self.partitions.get(index) else { break };
            match self.machine.virtualization.backend() {
                Backend::Svm => self.give_pcpus::<SvmVcpu>(partition),
                Backend::Vmx => self.give_pcpus::<VmxVcpu>(partition),
            }?;
        }
        self.park_spare_pcpus();
        Ok(())
    }

    /// pCPUs that belong to no partition sleep for good. Nobody waits for that.
    fn park_spare_pcpus(&self) {
        let mut spare = PcpuSet::EMPTY;
        for number in 1..self.machine.pcpus() as u16 {
            let pcpu = PcpuId(number);
            if !self.partitions.iter().any(|partition| partition.pcpus.contains(&pcpu)) {
                // Its number was checked at discovery.
                let _ = spare.insert(pcpu);
            }
        }
        if spare.is_empty() {
            return;
        }
        let accepted = orders::order_without_waiting(&spare, Order::Park);
        let others = spare.difference(&accepted);
        if !others.is_empty() {
            println!("partita: pCPUs {others}, which belong to no partition, cannot be told to sleep");
        }
    }
}

fn permission_maps<V: VirtualCpu>(pool: &mut Pool, partition: &Partition) -> Result<PermissionMaps, Refusal> {
    let msr = pool.carve(MSRPM_LEN, PAGE)?.cast::<[u8; MSRPM_LEN]>();
    let io = pool.carve(IOPM_LEN, PAGE)?.cast::<[u8; IOPM_LEN]>();
    // SAFETY: both are fresh from the pool, of the right size, and never freed.
    let (msr, io) = unsafe { (&mut *msr, &mut *io) };
    V::fill_msr_map(partition.msr_policy, msr);
    partition.port_policy.fill_iopm(&partition.config.io_ports, io);
    Ok(PermissionMaps { io: io.as_ptr() as u64, msr: msr.as_ptr() as u64 })
}
