//! `stop`, `start` and `restart`.

use partita_console::command::PartitionName;
use partita_console::units::{Count, Micros};
use partita_core::arch::Arch;
use partita_core::smp_call::Deadline;

use crate::arch::X86;
use crate::cpu::rdtsc;
use crate::error::LifeError;
use crate::orders::wait_until;
use crate::partition::Partition;
use crate::println;
use crate::set_up::Hypervisor;

/// How long a guest runs at least, between two restarts in a row.
const RUN_MS: u32 = 1;

impl Hypervisor {
    pub(super) fn obey_stop(&mut self, name: PartitionName<'_>) {
        let Some(partition) = self.named(name) else { return };
        match self.stop(partition) {
            Ok(()) => println!("partition {} is stopped", partition.config.name),
            Err(error) => println!("partition {} is not stopped: {error}", partition.config.name),
        }
    }

    pub(super) fn obey_start(&mut self, name: PartitionName<'_>) {
        let Some(partition) = self.named(name) else { return };
        match self.start(partition) {
            Ok(()) => println!("partition {} runs", partition.config.name),
            Err(error) => println!("partition {} is not started: {error}", partition.config.name),
        }
    }

    pub(super) fn obey_restart(&mut self, name: PartitionName<'_>, times: u32) {
        let Some(partition) = self.named(name) else { return };
        let (mut shortest, mut longest) = (u64::MAX, 0);
        for done in 0..times {
            if done > 0 {
                wait_until(Deadline::after_ms::<X86>(RUN_MS), || false);
            }
            let began = rdtsc();
            if let Err(error) = self.restart(partition) {
                println!("partition {} is not restarted after {done} restarts: {error}", partition.config.name);
                return;
            }
            let ticks = rdtsc().wrapping_sub(began);
            (shortest, longest) = (shortest.min(ticks), longest.max(ticks));
        }
        let micros = |ticks| Micros { ticks, tsc_khz: X86::ticks_per_ms() };
        if times == 1 {
            println!("partition {} was restarted; it took {}", partition.config.name, micros(longest));
            return;
        }
        println!(
            "partition {} was restarted {} times; each took {} to {}",
            partition.config.name,
            Count(times.into()),
            micros(shortest),
            micros(longest)
        );
    }

    pub(super) fn restart(&mut self, partition: &Partition) -> Result<(), LifeError> {
        match self.stop(partition) {
            Ok(()) | Err(LifeError::IsDown) => self.start(partition),
            Err(error) => Err(error),
        }
    }
}
