//! A vCPU, whatever the vendor: from an exit to the next entry.

pub mod common;
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
use partita_trace::names::{ExitReason, PolicyKind, StopCause};
use partita_x86_policy::apic_events::VcpuEvents;
use partita_x86_policy::cmos::Cmos;
use partita_x86_policy::cpuid::{Answers, CpuidContext};
use partita_x86_policy::msr_values::APIC_PAGE;

use self::common::{Handled, Unrecorded};
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
    /// Its answers that stay the same.
    pub answers: Answers,
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
        let handled = match exit {
            Exit::Cpuid => self.on_cpuid(registers),
            Exit::MsrRead => self.on_msr_read(registers),
            Exit::MsrWrite => self.on_msr_write(registers),
            Exit::Io => self.on_io(registers),
            Exit::Hypercall => {
                let number = self.hypercall(registers);
                Handled::new(ExitReason::Hypercall, number as u16, number.into())
            }
            other => self.rare(other, registers),
        };
        let exit = Unrecorded { handled, entered };
        if self.has_news() {
            self.on_news(registers, exit);
        } else {
            self.record(exit);
        }
    }

    /// Serves what was asked during an exit that is handled.
    #[cold]
    pub fn on_news(&mut self, registers: &mut GuestRegisters, exit: Unrecorded) {
        self.serve(registers, Some(exit));
    }

    /// Does what a kick asks for besides the SMP calls that were served: on return the guest may be entered. `entered` is as in
    /// [`Self::on_exit`].
    #[cold]
    pub fn on_rest(&mut self, registers: &mut GuestRegisters, entered: u64) {
        self.serve(registers, Some(Unrecorded { handled: Handled::new(ExitReason::Kick, 0, 0), entered }));
    }

    fn record(&self, exit: Unrecorded) {
        if self.traces_exits {
            let (kind_arg, detail, id) = exit.handled.parts();
            let ticks = rdtsc().wrapping_sub(exit.entered);
            trace::put_and_count(exit.entered, kind_arg, [ticks, detail], id, ticks);
        }
    }

    /// Whether anyone asked anything of this vCPU or its pCPU. Looked at with NMIs held back: whoever asks later
    /// kicks, and that kick ends the next entry at once.
    #[inline(always)]
    fn has_news(&self) -> bool {
        u64::from(self.requests.peek()) | self.inbox.pending_marks() != 0
    }

    /// What a guest does seldom, or once.
    #[cold]
    fn rare(&mut self, exit: Exit, registers: &mut GuestRegisters) -> Handled {
        let rip = self.cpu.rip();
        let (mut low, mut about) = (0, rip);
        match exit {
            // Handled above.
            Exit::Cpuid | Exit::MsrRead | Exit::MsrWrite | Exit::Io | Exit::Hypercall => {}
            Exit::NmiReturn => self.nmi_returns(),
            Exit::NmiWindow => self.cpu.open_nmi_window(),
            Exit::Xsetbv(len) => self.set_extended_control(registers, len),
            Exit::Debug => {
                if !self.nmi_returned() {
                    self.cpu.reflect_exception(Exception::Debug);
                }
            }
            Exit::Alignment => self.cpu.reflect_exception(Exception::AlignmentCheck),
            Exit::NestedPageFault { gpa, detail } => {
                let cause = if gpa & !0xFFF == APIC_PAGE { StopCause::ApicPage } else { StopCause::NestedPageFault };
                self.partition.stop_at(cause, gpa, rip);
                (low, about) = (detail as u16, gpa);
            }
            Exit::Shutdown => self.partition.stop_at(StopCause::TripleFault, rip, rip),
            Exit::Skip(len) => {
                // Where the CPU has not asked itself.
                if self.cpu.privilege() == 0 {
                    self.cpu.skip(len);
                } else {
                    self.refuse(PolicyKind::Instruction, rip, 0, Exception::GeneralProtection);
                }
            }
            Exit::Absent => self.refuse(PolicyKind::Instruction, rip, 0, Exception::InvalidOpcode),
            Exit::Refused => self.refuse(PolicyKind::Instruction, rip, 0, Exception::GeneralProtection),
            Exit::InvalidState | Exit::EntryRefused => self.stop_explained(exit, StopCause::InvalidState, rip),
            Exit::Other(code) => {
                self.stop_explained(exit, StopCause::BadExit, code);
                about = code;
            }
            Exit::ControlRegister => {}
            // What it is for is asked next.
            Exit::Nmi => about = 0,
        }
        Handled::new(exit.reason(), low, about)
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
        self.partition.stop_at(cause, detail, self.cpu.rip());
    }

    /// Gives the guest what hardware would give for what it may not do, and counts it.
    #[cold]
    fn refuse(&mut self, kind: PolicyKind, target: u64, value: u64, exception: Exception) {
        self.partition.note_refusal(kind, target, value);
        self.cpu.inject_exception(exception);
    }
}
