//! A vCPU, whatever the vendor: from an exit to the next entry.

mod cpuid;
mod down;
mod hypercall;
mod icr;
mod io;
mod msr;
mod requests;

use partita_core::explanation::Words;
use partita_core::smp_call::Inbox;
use partita_trace::event::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::{ExitReason, PolicyKind, StopCause};
use partita_x86_policy::apic_events::VcpuEvents;
use partita_x86_policy::cmos::Cmos;
use partita_x86_policy::cpuid::CpuidContext;
use partita_x86_policy::msr_values::APIC_PAGE;

use crate::arch::X86;
use crate::cpu::idt::set_extended_control_checked;
use crate::cpu::percpu::{self, Order};
use crate::cpu::rdtsc;
use crate::partition::Partition;
use crate::requests::RequestWord;
use crate::trace;
use crate::virt::{Exception, Exit, FrequentExit, GuestRegisters, ScratchRegisters, VirtualCpu};

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
    /// The highest basic leaf that CPUID shows.
    pub max_basic_leaf: u32,
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
    /// What is left to do of an exit, while that is not over.
    pub unfinished: Unfinished,
}

/// How an exit goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Then {
    /// The guest can be entered.
    Enter = 0,
    /// There is more to do, for which all registers have to be saved: [`Vcpu::on_rest`].
    Rest = 1,
}

/// What is left to do of an exit.
#[derive(Debug)]
pub enum Unfinished {
    /// All.
    Exit {
        /// The first time-stamp after it.
        entered: u64,
    },
    /// It is handled, but something was asked of the vCPU.
    Requests(Unrecorded),
}

impl Default for Unfinished {
    fn default() -> Self {
        Self::Exit { entered: 0 }
    }
}

/// What an exit was about, for its record: the low and the wide detail.
#[derive(Clone, Copy, Debug, Default)]
struct About {
    low: u16,
    wide: u64,
}

/// An exit that is handled, but not over.
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
    /// Handles an exit, if it is a frequent one and nothing was asked of this vCPU; else says that there is more to do.
    /// `entered` is the first time-stamp after it.
    ///
    /// Runs on a real-time core, with NMIs held back: no allocation, no lock, no unbounded loop. Each kind has a function of
    /// its own, so that none saves registers for another.
    #[inline(always)]
    pub fn on_exit(&mut self, entered: u64, registers: &mut ScratchRegisters) -> Then {
        match self.cpu.frequent_exit() {
            Some(FrequentExit::Cpuid) => self.cpuid(entered, registers),
            Some(FrequentExit::MsrRead) => self.read_msr(entered, registers),
            Some(FrequentExit::MsrWrite) => self.write_msr(entered, registers),
            Some(FrequentExit::Io) => self.io(entered, registers),
            Some(FrequentExit::Hypercall) => self.hypercall(entered, registers),
            Some(FrequentExit::Nmi) => self.kicked(entered),
            None => {
                self.unfinished = Unfinished::Exit { entered };
                Then::Rest
            }
        }
    }

    /// Does what [`Self::on_exit`] left to do: on return the guest may be entered. A vCPU that may not run stays in here, and
    /// serves its mailbox.
    #[cold]
    pub fn on_rest(&mut self, registers: &mut GuestRegisters) {
        match core::mem::take(&mut self.unfinished) {
            Unfinished::Exit { entered } => {
                let exit = self.cpu.exit(registers);
                self.handle(exit, registers, entered);
            }
            Unfinished::Requests(exit) => self.serve(registers, Some(exit)),
        }
    }

    /// Handles an exit that is no frequent one: on return the guest may be entered.
    #[cold]
    pub fn handle(&mut self, exit: Exit, registers: &mut GuestRegisters, entered: u64) {
        let (reason, about) = (exit.reason(), self.rare(exit, registers));
        if self.has_news() {
            self.serve(registers, Some(Unrecorded { reason, about, entered }));
        } else {
            self.record(reason, about, entered);
        }
    }

    /// Handles a kick: most are for SMP calls alone.
    #[inline(never)]
    fn kicked(&mut self, entered: u64) -> Then {
        self.cpu.take_nmi();
        if self.requests.peek() != 0 {
            return self.put_off(ExitReason::Kick, About::default(), entered);
        }
        self.inbox.handle_smp_call_inline(entered);
        if percpu::private().order.get() != Order::None {
            return self.put_off(ExitReason::Kick, About::default(), entered);
        }
        self.record(ExitReason::Kick, About::default(), entered);
        Then::Enter
    }

    /// Ends an exit that is handled.
    #[inline(always)]
    fn end(&mut self, reason: ExitReason, about: About, entered: u64) -> Then {
        if self.has_news() {
            return self.put_off(reason, about, entered);
        }
        self.record(reason, about, entered);
        Then::Enter
    }

    /// Skips the instruction, of `len` bytes, that an exit was for, and ends that.
    #[inline(always)]
    fn skip_and_end(&mut self, len: u64, reason: ExitReason, about: About, entered: u64) -> Then {
        if self.cpu.go_on(len) {
            return self.end_step(reason, about, entered);
        }
        self.end(reason, about, entered)
    }

    #[cold]
    #[inline(never)]
    fn end_step(&mut self, reason: ExitReason, about: About, entered: u64) -> Then {
        self.cpu.end_step();
        self.end(reason, about, entered)
    }

    /// Ends an exit that is handled, where that is seldom.
    #[cold]
    #[inline(never)]
    fn end_rare(&mut self, reason: ExitReason, about: About, entered: u64) -> Then {
        self.end(reason, about, entered)
    }

    /// Leaves what was asked to [`Self::on_rest`].
    #[cold]
    #[inline(never)]
    fn put_off(&mut self, reason: ExitReason, about: About, entered: u64) -> Then {
        self.unfinished = Unfinished::Requests(Unrecorded { reason, about, entered });
        Then::Rest
    }

    #[inline(always)]
    fn record(&self, reason: ExitReason, about: About, entered: u64) {
        Self::record_ticks(reason, about, entered, rdtsc().wrapping_sub(entered));
    }

    #[inline(always)]
    fn record_ticks(reason: ExitReason, about: About, entered: u64, ticks: u64) {
        let event = Event::Exit { reason, detail16: about.low, ticks, detail: about.wide };
        trace::record_and_count(entered, event, HistogramId::Exit(reason), ticks);
    }

    /// Whether anyone asked anything of this vCPU or its pCPU. Looked at with NMIs held back: whoever asks later
    /// kicks, and that kick ends the next entry at once.
    #[inline(always)]
    fn has_news(&self) -> bool {
        u64::from(self.requests.peek()) | self.inbox.pending_marks() != 0
    }

    /// What a guest does seldom, or once.
    #[cold]
    fn rare(&mut self, exit: Exit, registers: &GuestRegisters) -> About {
        let rip = self.cpu.rip();
        match exit {
            Exit::NmiReturn => {
                self.nmi_returns();
                About::wide(rip)
            }
            Exit::NmiWindow => {
                self.cpu.open_nmi_window();
                About::wide(rip)
            }
            Exit::Xsetbv(len) => {
                self.set_extended_control(registers, len);
                About::wide(rip)
            }
            Exit::Debug => {
                if !self.nmi_returned() {
                    self.cpu.reflect_exception(Exception::Debug);
                }
                About::wide(rip)
            }
            Exit::Alignment => {
                self.cpu.reflect_exception(Exception::AlignmentCheck);
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
                // Where the CPU has not asked itself.
                if self.cpu.privilege() == 0 {
                    self.cpu.skip(len);
                } else {
                    self.refuse(PolicyKind::Instruction, rip, 0, Exception::GeneralProtection);
                }
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
            Exit::InvalidState | Exit::EntryRefused => {
                self.stop_explained(exit, StopCause::InvalidState, rip);
                About::wide(rip)
            }
            Exit::Other(code) => {
                self.stop_explained(exit, StopCause::BadExit, code);
                About::wide(code)
            }
            Exit::ControlRegister => About::wide(rip),
            // What it is for is asked next.
            Exit::Nmi => About::default(),
        }
    }

    /// XSETBV for the guest: the CPU checks the value.
    fn set_extended_control(&mut self, registers: &GuestRegisters, len: u64) {
        let ScratchRegisters { rcx, rdx, .. } = registers.scratch;
        let (number, value) = (rcx as u32, rdx << 32 | self.cpu.rax() & 0xFFFF_FFFF);
        // SAFETY: the register is the guest's: the hypervisor uses nothing of what it switches on.
        if self.cpu.privilege() == 0 && unsafe { set_extended_control_checked(number, value) }.is_ok() {
            self.cpu.skip(len);
        } else {
            self.refuse(PolicyKind::Instruction, self.cpu.rip(), value, Exception::GeneralProtection);
        }
    }

    /// Ends the partition for what its CPU refuses, or what nobody handles, and says more of it.
    #[cold]
    fn stop_explained(&mut self, exit: Exit, cause: StopCause, detail: u64) {
        let mut words = Words::default();
        // It takes what fits.
        let _ = self.cpu.explain(exit, &mut words);
        self.partition.explanation.give(cause as u16, detail, &words);
        self.stop(cause, detail);
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
