//! A vCPU, whatever the vendor: from an exit to the next entry.

mod down;
mod hypercall;
mod icr;
mod io;
mod msr;
mod requests;

use partita_core::smp_call::Inbox;
use partita_trace::event::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::{ExitReason, PolicyKind, StopCause};
use partita_x86_policy::apic_events::VcpuEvents;
use partita_x86_policy::cmos::Cmos;
use partita_x86_policy::cpuid::{self, CpuidContext};
use partita_x86_policy::msr_values::APIC_PAGE;

use crate::arch::X86;
use crate::cpu::percpu::{self, Order};
use crate::cpu::{features, rdtsc};
use crate::partition::Partition;
use crate::requests::RequestWord;
use crate::trace;
use crate::virt::{Exception, Exit, GuestRegisters, VirtualCpu};

/// A vCPU: private to the pCPU that it runs on, for ever.
#[derive(Debug)]
pub struct Vcpu<V> {
    /// The vendor's part.
    pub cpu: V,
    /// Its partition.
    pub partition: &'static Partition,
    /// Its number in the partition.
    pub number: usize,
    /// What others ask of it.
    pub requests: &'static RequestWord,
    /// The SMP calls that others make to its pCPU.
    pub inbox: Inbox<'static, X86>,
    /// What CPUID depends on.
    pub cpuid: CpuidContext,
    /// Bits of EFER that its guest may set.
    pub efer_writable: u64,
    /// Whether it runs or waits for its start, and where it is with NMIs.
    pub events: VcpuEvents,
    /// Whether its guest's NMI came in an interrupt shadow, which the guest gets back behind its IRET: else the interrupt
    /// that a `sti; hlt` waits for could come before the HLT, and never again.
    pub shadow_behind_nmi: bool,
    /// The clock chip that its guest sees.
    pub cmos: Cmos,
    /// Whether its guest has been started and not entered yet.
    pub is_fresh: bool,
}

/// What an exit was about, for its record: the low and the wide detail.
#[derive(Clone, Copy, Debug, Default)]
struct About {
    low: u16,
    wide: u64,
}

/// An exit that is not over.
#[derive(Debug)]
pub struct Unrecorded {
    reason: ExitReason,
    about: About,
    /// The first time-stamp after it.
    entered: u64,
}

impl About {
    const fn wide(wide: u64) -> Self {
        Self { low: 0, wide }
    }
}

impl<V: VirtualCpu> Vcpu<V> {
    /// Handles an exit: on return the guest may be entered. `entered` is the first time-stamp after it.
    ///
    /// Runs on a real-time core, with NMIs held back: no allocation, no lock, no unbounded loop. A vCPU that may not
    /// run stays in here, and serves its mailbox.
    #[inline(always)]
    pub fn handle(&mut self, exit: Exit, registers: &mut GuestRegisters, entered: u64) {
        let (reason, about) = match exit {
            Exit::Cpuid => (ExitReason::Cpuid, self.cpuid(registers)),
            Exit::MsrWrite => self.write_msr(registers, entered),
            Exit::MsrRead => (ExitReason::MsrRead, self.read_msr(registers)),
            Exit::Hypercall => (ExitReason::Hypercall, self.hypercall(registers)),
            Exit::Io { access, next_rip } => (exit.reason(), self.io(access, next_rip, registers)),
            _ => (exit.reason(), self.rare(exit)),
        };
        if self.has_news() {
            self.serve(registers, Some(Unrecorded { reason, about, entered }));
        } else {
            self.record(reason, about, entered);
        }
    }

    /// Handles a kick if it is for SMP calls alone, as most are; `false` if there is more to do.
    #[inline(always)]
    pub fn kicked(&mut self, entered: u64) -> bool {
        self.cpu.take_nmi();
        if self.requests.peek() != 0 {
            return false;
        }
        self.inbox.handle_smp_call_inline(entered);
        if percpu::private().order.get() != Order::None {
            return false;
        }
        self.record(ExitReason::Kick, About::default(), entered);
        true
    }

    /// Does what is left to do after a kick.
    pub fn kicked_for_more(&mut self, registers: &mut GuestRegisters, entered: u64) {
        self.serve(registers, Some(Unrecorded { reason: ExitReason::Kick, about: About::default(), entered }));
    }

    #[inline(always)]
    fn record(&self, reason: ExitReason, about: About, entered: u64) {
        let ticks = rdtsc().wrapping_sub(entered);
        let event = Event::Exit { reason, detail16: about.low, ticks, detail: about.wide };
        trace::record_and_count(entered, event, HistogramId::Exit(reason), ticks);
    }

    /// Whether anyone asked anything of this vCPU or its pCPU. Looked at with NMIs held back: whoever asks later
    /// kicks, and that kick ends the next entry at once.
    #[inline(always)]
    fn has_news(&self) -> bool {
        u64::from(self.requests.peek()) | self.inbox.pending_marks() != 0
    }

    fn cpuid(&mut self, registers: &mut GuestRegisters) -> About {
        let (leaf, subleaf) = (self.cpu.rax() as u32, registers.rcx as u32);
        let host = features::cpuid(leaf, subleaf);
        let [eax, ebx, ecx, edx] = cpuid::cpuid(leaf, subleaf, host, self.cpu.cr4(), &self.cpuid);
        self.cpu.set_rax(eax.into());
        (registers.rbx, registers.rcx, registers.rdx) = (ebx.into(), ecx.into(), edx.into());
        self.cpu.skip(2);
        About::wide(leaf.into())
    }

    /// What a guest does seldom, or once.
    #[cold]
    fn rare(&mut self, exit: Exit) -> About {
        let rip = self.cpu.rip();
        match exit {
            Exit::NmiReturn => {
                self.nmi_returns();
                About::wide(rip)
            }
            Exit::Debug => {
                if !self.nmi_returned() {
                    self.cpu.inject_exception(Exception::Debug);
                }
                About::wide(rip)
            }
            Exit::Alignment => {
                self.cpu.inject_exception(Exception::AlignmentCheck);
                About::wide(rip)
            }
            Exit::NestedPageFault { gpa, detail } => {
                let cause = if gpa & !0xFFF == APIC_PAGE { StopCause::ApicPage } else { StopCause::NestedPageFault };
                self.stop(cause, gpa);
                About { low: detail as u16, wide: gpa }
            }
            Exit::Shutdown => {
                self.stop(StopCause::TripleFault, rip);
                About::wide(rip)
            }
            Exit::Skip(len) => {
                self.cpu.skip(len);
                About::wide(rip)
            }
            Exit::Absent => {
                self.refuse(PolicyKind::Instruction, rip, 0, Exception::InvalidOpcode);
                About::wide(rip)
            }
            Exit::Refused => {
                self.refuse(PolicyKind::Instruction, rip, 0, Exception::GeneralProtection);
                About::wide(rip)
            }
            Exit::InvalidState => {
                self.stop(StopCause::InvalidState, rip);
                About::wide(rip)
            }
            Exit::Other(code) => {
                self.stop(StopCause::BadExit, code);
                About::wide(code)
            }
            // Handled by the callers.
            Exit::Cpuid | Exit::MsrRead | Exit::MsrWrite | Exit::Io { .. } | Exit::Hypercall | Exit::Nmi => {
                About::default()
            }
        }
    }

    /// Ends the partition for what this vCPU did.
    #[cold]
    fn stop(&mut self, cause: StopCause, detail: u64) {
        let now = rdtsc();
        if !self.partition.stop(cause, detail) {
            return;
        }
        self.record_end(now, cause, detail);
        defmt::error!(
            "partition {=u16} stopped: cause {=u8}, detail {=u64:#x}, rip {=u64:#x}",
            self.partition.number,
            cause as u8,
            detail,
            self.cpu.rip()
        );
    }

    /// Gives the guest what hardware would give for what it may not do, and counts it.
    #[cold]
    fn refuse(&mut self, kind: PolicyKind, target: u64, value: u64, exception: Exception) {
        self.note_refusal(kind, target, value);
        self.cpu.inject_exception(exception);
    }

    /// Notes what a guest tried in vain, when it goes on behind it.
    #[cold]
    fn note_refusal(&self, kind: PolicyKind, target: u64, value: u64) {
        self.partition.refusals.count_access();
        trace::record(rdtsc(), Event::PolicyRefused { kind, target, value });
    }
}
