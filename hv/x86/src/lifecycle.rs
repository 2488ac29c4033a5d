//! Starting and stopping a partition, from the housekeeping core, while the others run.

use core::sync::atomic::Ordering;

use partita_core::partition::PartitionState;
use partita_core::smp_call::Deadline;
use partita_trace::event::Event;
use partita_trace::names::StopCause;

use crate::arch::X86;
use crate::cpu::percpu::{self, Order, Progress};
use crate::cpu::rdtsc;
use crate::error::{LifeError, STEP_DEADLINE_MS};
use crate::orders::{order, reaches, wait_until};
use crate::partition::Partition;
use crate::set_up::Hypervisor;
use crate::trace;

fn step_deadline() -> Deadline {
    Deadline::after_ms::<X86>(STEP_DEADLINE_MS)
}

impl Hypervisor {
    /// Stops a partition that runs, and waits until its pCPUs are the hypervisor's.
    ///
    /// # Errors
    /// It does not run, or a pCPU is late.
    pub fn stop(&mut self, partition: &Partition) -> Result<(), LifeError> {
        if !partition.stop(StopCause::Housekeeping, 0) {
            return Err(LifeError::IsDown);
        }
        let (number, cause) = (partition.number, StopCause::Housekeeping);
        trace::record(rdtsc(), Event::PartitionStop { partition: number, cause, detail: 0, rip: 0 });
        Self::wait_down(partition)
    }

    fn wait_down(partition: &Partition) -> Result<(), LifeError> {
        let deadline = step_deadline();
        for &pcpu in &partition.pcpus {
            if !reaches(pcpu, Progress::VcpuDown, deadline) {
                return Err(LifeError::Late { pcpu, step: "leave its guest" });
            }
        }
        Ok(())
    }

    /// Starts a partition that does not run: its memory is cleared and loaded by its first pCPU, then its vCPUs start.
    ///
    /// # Errors
    /// It runs, its memory cannot be loaded, or a pCPU is late.
    pub fn start(&mut self, partition: &Partition) -> Result<(), LifeError> {
        let life = &partition.life;
        if !life.reload() && life.state() != PartitionState::Loading {
            return Err(LifeError::Runs);
        }
        Self::wait_down(partition)?;
        partition.trace_window.forget();
        self.load(partition)?;
        let event = Event::PartitionStart {
            partition: partition.number,
            memory: partition.config.memory_bytes,
            hpa: partition.memory_hpa,
        };
        trace::record(rdtsc(), event);
        partition.starts.fetch_add(1, Ordering::Relaxed);
        life.begin();
        // The first vCPU last: when its guest runs, the others already wait for their start.
        for &pcpu in partition.pcpus.iter().rev() {
            // Counted, because a guest may have ended before anyone looks.
            let starts = &percpu::public(pcpu).starts;
            let before = starts.load(Ordering::Acquire);
            let has_started = || starts.load(Ordering::Acquire) != before;
            if !order(pcpu, Order::Start) || !wait_until(step_deadline(), has_started) {
                partition.stop(StopCause::Housekeeping, 0);
                return Err(LifeError::Late { pcpu, step: "take its vCPU" });
            }
        }
        Ok(())
    }

    /// Has the first pCPU of a partition clear and fill its memory.
    fn load(&mut self, partition: &Partition) -> Result<(), LifeError> {
        let (Some(&pcpu), number, len) = (partition.pcpus.first(), partition.number, partition.config.memory_bytes)
        else {
            return Err(LifeError::Misfit);
        };
        // SAFETY: the memory is this partition's, whose vCPUs are all down, and stay so: only this core starts them.
        unsafe { self.space.open_window(number, partition.memory_hpa, len, &mut self.pool) }?;
        let loading = &partition.loading;
        loading.begin();
        let mut done = order(pcpu, Order::Load);
        while done && loading.outcome().is_none() {
            let so_far = loading.progress();
            done = wait_until(step_deadline(), || loading.outcome().is_some() || loading.progress() != so_far);
        }
        if !done {
            // The window stays: the pCPU may still be at it. Nor is the partition started again.
            return Err(LifeError::Late { pcpu, step: "load the partition's memory" });
        }
        self.space.close_window(number, len);
        if loading.outcome() == Some(true) { Ok(()) } else { Err(LifeError::Misfit) }
    }

    /// Whether every pCPU of a partition is the hypervisor's.
    pub fn is_down(partition: &Partition) -> bool {
        partition.pcpus.iter().all(|&pcpu| percpu::public(pcpu).progress() == Progress::VcpuDown)
    }
}
