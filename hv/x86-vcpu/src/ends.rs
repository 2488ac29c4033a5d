//! How a guest ends its partition: noted in the trace of the pCPU that it does it on. The same for both vendors.

use partita_trace::event::Event;
use partita_trace::names::StopCause;

use crate::cpu::rdtsc;
use crate::partition::Partition;
use crate::trace;

impl Partition {
    /// Its guest ends it with a status, at `rip`.
    #[cold]
    pub fn finish_at(&self, status: u64, rip: u64) {
        let cause = if status == 0 { StopCause::Finished } else { StopCause::FailureReported };
        self.finish(status, || self.note_end(cause, status, rip));
    }

    /// Its guest powers it off, or reboots it, at `rip`.
    #[cold]
    pub fn leave_at(&self, cause: StopCause, rip: u64) {
        self.stop_noted(cause, 0, || self.note_end(cause, 0, rip));
    }

    /// It is stopped for what its guest did at `rip`.
    #[cold]
    pub fn stop_at(&self, cause: StopCause, detail: u64, rip: u64) {
        self.stop_noted(cause, detail, || {
            self.note_end(cause, detail, rip);
            defmt::error!(
                "partition {=u16} stopped: cause {=u8}, detail {=u64:#x}, rip {=u64:#x}",
                self.number,
                cause as u8,
                detail,
                rip
            );
        });
    }

    /// Records that a vCPU of its own ended it, and not another one.
    fn note_end(&self, cause: StopCause, detail: u64, rip: u64) {
        trace::record(rdtsc(), Event::PartitionStop { partition: self.number, cause, detail, rip });
    }
}
