//! From what boot has built to a machine that runs: boot's own code goes, the partitions start, and the house is kept.

use partita_abi::report::{END_MARKER, HypervisorExit};
use partita_core::arch::Arch;
use partita_core::smp_call::Deadline;
use partita_core::system::{self, Entry};
use partita_trace::event::Event;
use partita_trace::names::{InterruptMode, StopCause};
use partita_x86_policy::capabilities::Backend;

use crate::arch::{X86, calls};
use crate::calls::call_several;
use crate::cpu::percpu;
use crate::cpu::{end_run, rdtsc};
use crate::error::{LifeError, STEP_DEADLINE_MS};
use crate::memory::paging::{boot_text, vendor_text};
use crate::partition::Partition;
use crate::set_up::Hypervisor;
use crate::{println, trace};

impl Hypervisor {
    /// Starts all partitions and keeps house, until the run is over. Nothing returns to boot's code, which is unmapped first.
    pub fn run(mut self) -> ! {
        self.unmap_unused();
        if let Err(error) = self.start_partitions() {
            println!("partita: refused to start: a partition cannot be started: {error}");
            println!("{END_MARKER}refused");
            end_run(HypervisorExit::Refused);
        }
        self.keep_house()
    }

    /// Unmaps the code that only boot needs, or only the other vendor's CPUs, while no guest runs yet: whatever calls it from
    /// now on is a fault.
    fn unmap_unused(&mut self) {
        let other = match self.machine.virtualization.backend() {
            Backend::Svm => Backend::Vmx,
            Backend::Vmx => Backend::Svm,
        };
        for (start, len) in [boot_text(), vendor_text(other)] {
            self.space.unmap(start, len);
        }
        let Some(calls) = calls() else { return };
        let forget = |_| {
            x86_64::instructions::tlb::flush_all();
            0
        };
        let mut others = calls.online();
        others.remove(X86::pcpu());
        // One that is late keeps a translation of what it does not call; whether it answers is seen when it is to start.
        let _ = call_several(calls, &others, forget, 0, Deadline::after_ms::<X86>(STEP_DEADLINE_MS));
    }

    fn start_partitions(&mut self) -> Result<(), LifeError> {
        for index in 0..self.partitions.len() {
            let Some(&partition) = self.partitions.get(index) else { break };
            if partition.config.entry == Entry::Missing {
                println!(
                    "partita: partition {} \"{}\" has no image: the others start without it",
                    partition.number, partition.config.name
                );
                partition.stop(StopCause::NoImage, 0);
                let (partition, cause) = (partition.number, StopCause::NoImage);
                trace::record(rdtsc(), Event::PartitionStop { partition, cause, detail: 0, rip: 0 });
                continue;
            }
            self.start(partition)?;
            report_start(partition);
        }
        Ok(())
    }
}

fn report_start(partition: &Partition) {
    let config = &partition.config;
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
    for (number, &pcpu) in partition.pcpus.iter().enumerate() {
        println!("partita:   vCPU {number} on {pcpu}, APIC ID {}", percpu::public(pcpu).apic_id());
    }
}
