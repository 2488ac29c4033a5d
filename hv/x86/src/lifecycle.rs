//! Starting and stopping a partition, from the housekeeping core, while the others run.

use core::sync::atomic::Ordering;

use partita_core::arch::{Arch, PcpuId};
use partita_core::loading::Outcome;
use partita_core::partition::PartitionState;
use partita_core::smp_call::Deadline;
use partita_core::system::Entry;
use partita_trace::event::Event;
use partita_trace::names::StopCause;

use crate::arch::X86;
use crate::cpu::percpu::{self, Order, Progress};
use crate::cpu::rdtsc;
use crate::error::{LifeError, STEP_DEADLINE_MS};
use crate::housekeeping::stop_cause;
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
        let is_stopped = partition.stop(StopCause::Housekeeping, 0)
            // One that waits for its restart is not to be restarted. Only this core restarts.
            || stop_cause(partition.life.state()) == Some(StopCause::Reboot)
                && partition.life.restate(StopCause::Housekeeping as u16, 0);
        if !is_stopped {
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
    /// It runs, has no image, its memory cannot be loaded, or a pCPU is late.
    pub fn start(&mut self, partition: &Partition) -> Result<(), LifeError> {
        let life = &partition.life;
        if partition.config.entry == Entry::Missing {
            return Err(LifeError::NoImage);
        }
        if life.state() == PartitionState::Running {
            return Err(LifeError::Runs);
        }
        // Before it is said to be loading: until then its siblings can still fall over their ends.
        Self::wait_down(partition)?;
        if !life.reload() && life.state() != PartitionState::Loading {
            return Err(LifeError::Runs);
        }
        partition.trace_window.forget();
        partition.explanation.forget();
        self.load(partition)?;
        let event = Event::PartitionStart {
            partition: partition.number,
            memory: partition.config.memory_bytes,
            hpa: partition.memory_hpa,
        };
        trace::record(rdtsc(), event);
        partition.starts.fetch_add(1, Ordering::Relaxed);
        if let Some(pace) = self.reboots.get_mut(usize::from(partition.number)) {
            pace.started(X86::now());
        }
        if !life.begin() {
            return Err(LifeError::IsDown);
        }
        // The first vCPU last: when its guest runs, the others already wait for their start.
        for &pcpu in partition.pcpus.iter().rev() {
            if !start_vcpu(pcpu) {
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
        let loading = &partition.loading;
        if loading.runs() {
            return Err(LifeError::Late { pcpu, step: "finish an earlier loading of the partition's memory" });
        }
        self.close_window(partition);
        // SAFETY: the memory is this partition's, whose vCPUs are all down, and stay so: only this core starts them.
        unsafe { self.space.open_window(number, partition.memory_hpa, len, &mut self.pool) }?;
        partition.is_window_open.store(true, Ordering::Relaxed);
        let is_loaded = loading.want() && {
            let is_pending = || loading.outcome() == Outcome::Pending;
            let mut gets_on = order(pcpu, Order::Load);
            while gets_on && is_pending() {
                let so_far = loading.progress();
                gets_on = wait_until(step_deadline(), || !is_pending() || loading.progress() != so_far);
            }
            gets_on
        };
        // A pCPU that is at it keeps the window, which is closed at the next start.
        if is_loaded || loading.give_up() {
            self.close_window(partition);
        }
        match loading.outcome() {
            Outcome::Done if is_loaded => Ok(()),
            Outcome::Misfit if is_loaded => Err(LifeError::Misfit),
            _ => Err(LifeError::Late { pcpu, step: "load the partition's memory" }),
        }
    }

    /// Closes a partition's window, if it is open, into which nobody looks any more.
    fn close_window(&mut self, partition: &Partition) {
        if partition.is_window_open.swap(false, Ordering::Relaxed) {
            self.space.close_window(partition.number, partition.config.memory_bytes);
        }
    }
}

/// Has a pCPU start its vCPU. `false` if it does not in time; then it will not, or find its partition stopped.
fn start_vcpu(pcpu: PcpuId) -> bool {
    let public = percpu::public(pcpu);
    // Counted, because a guest may have ended before anyone looks.
    let before = public.starts.load(Ordering::Acquire);
    let has_started = || public.starts.load(Ordering::Acquire) != before;
    public.is_start_wanted.store(true, Ordering::Release);
    let is_started = order(pcpu, Order::Start) && wait_until(step_deadline(), has_started);
    if !is_started {
        public.is_start_wanted.store(false, Ordering::Release);
    }
    is_started
}
