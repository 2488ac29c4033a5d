//! A vCPU, whatever the vendor: from an exit to the next entry.

mod cpuid;
mod down;
pub mod frame;
mod hypercall;
mod icr;
mod io;
mod msr;
pub mod quick;
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

use crate::cpu::rdtsc;
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
    /// Whether its exits are recorded and counted.
    pub traces_exits: bool,
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
    /// Handles an exit that is no [quick](quick) one: on return the guest may be entered. `entered` is the first time-stamp after it.
    ///
    /// Runs on a real-time core, with NMIs held back: no allocation, no lock, no unbounded loop.
    pub fn on_exit(&mut self, registers: &mut GuestRegisters, entered: u64) {
        let exit = self.cpu.exit(registers);
        self.handle(exit, registers, entered);
    }

    /// Handles this exit: on return the guest may be entered. A vCPU that may not run stays in here, and serves its mailbox.
    pub fn handle(&mut self, exit: Exit, registers: &mut GuestRegisters, entered: u64) {
        let (reason, about) = self.act(exit, registers);
        if self.has_news() {
            self.serve(registers, Some(Unrecorded { reason, about, entered }));
        } else {
            self.record(reason, about, entered);
        }
    }

    /// Does what a kick asks for besides the SMP calls that were served: on return the guest may be entered. `entered` is as in
    /// [`Self::on_exit`].
    #[cold]
    pub fn on_rest(&mut self, registers: &mut GuestRegisters, entered: u64) {
        self.serve(registers, Some(Unrecorded { reason: ExitReason::Kick, about: About::default(), entered }));
    }

    fn record(&self, reason: ExitReason, about: About, entered: u64) {
        if !self.traces_exits {
            return;
        }
        let ticks = rdtsc().wrapping_sub(entered);
        let event = Event::Exit { reason, detail16: about.low, ticks, detail: about.wide };
        // IPIs were sent.
        let id = if reason == ExitReason::IcrWrite && about.low != 0 {
            HistogramId::IcrForward
        } else {
            HistogramId::Exit(reason)
        };
        trace::record_and_count(entered, event, id, ticks);
    }

    /// Whether anyone asked anything of this vCPU or its pCPU. Looked at with NMIs held back: whoever asks later
    /// kicks, and that kick ends the next entry at once.
    #[inline(always)]
    fn has_news(&self) -> bool {
        u64::from(self.requests.peek()) | self.inbox.pending_marks() != 0
    }

    /// Does what the guest left for, and says as what the trace knows it.
    fn act(&mut self, exit: Exit, registers: &mut GuestRegisters) -> (ExitReason, About) {
        let about = match exit {
            Exit::Cpuid => self.cpuid(registers),
            Exit::MsrRead => self.read_msr(registers),
            Exit::MsrWrite => return self.write_msr(registers),
            Exit::Io { access, next_rip } => self.io(access, next_rip, registers),
            Exit::Hypercall => self.hypercall(registers),
            other => self.rare(other, registers),
        };
        (exit.reason(), about)
    }

    /// What a guest does seldom, or once.
    #[cold]
    fn rare(&mut self, exit: Exit, registers: &GuestRegisters) -> About {
        let rip = self.cpu.rip();
        match exit {
            // Handled above.
            Exit::Cpuid | Exit::MsrRead | Exit::MsrWrite | Exit::Io { .. } | Exit::Hypercall => About::default(),
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
        let GuestRegisters { rcx, rdx, .. } = *registers;
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
