//! Common exits: what guests have often enough that their ways are short, and that takes more than a [quick exit](super::quick)
//! can do. Assembly calls them with a part of the guest's registers saved, and RBP and R12 to R15 as they were once; it
//! records what they return, or serves what is asked by then, for which all registers are saved.

use partita_trace::histogram::HistogramId;
use partita_trace::names::{ExitReason, PolicyKind};
use partita_trace::raw;
use partita_x86_policy::cpuid::Registers;
use partita_x86_policy::msr::ICR_MSR;

use super::Vcpu;
use crate::virt::{Exception, GuestRegisters, VirtualCpu};

/// An exit that is handled, for its record, in two registers.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Handled {
    /// Bits 0 to 31 the event's kind and argument ([`raw::exit_kind_arg`]), bits 32 to 63 the histogram that counts it.
    exit: u64,
    /// The event's wide detail.
    detail: u64,
}

/// An exit that is handled, but not over.
#[derive(Debug)]
pub struct Unrecorded {
    /// What it was.
    pub handled: Handled,
    /// The first time-stamp after it.
    pub entered: u64,
}

impl Handled {
    /// An exit with these details.
    #[inline(always)]
    pub fn new(reason: ExitReason, low: u16, detail: u64) -> Self {
        // IPIs were sent.
        let is_forward = reason == ExitReason::IcrWrite && low != 0;
        let id = if is_forward { HistogramId::IcrForward } else { HistogramId::Exit(reason) };
        Self { exit: u64::from(raw::exit_kind_arg(reason, low)) | (id.as_index() as u64) << 32, detail }
    }

    /// The kind and argument of its event, its wide detail, and the histogram that counts it.
    pub fn parts(self) -> (u32, u64, HistogramId) {
        let id = HistogramId::from_index((self.exit >> 32) as usize).unwrap_or(HistogramId::Exit(ExitReason::Other));
        (self.exit as u32, self.detail, id)
    }
}

impl<V: VirtualCpu> Vcpu<V> {
    /// CPUID.
    pub extern "C" fn on_cpuid(&mut self, registers: &mut GuestRegisters) -> Handled {
        let leaf = self.cpu.rax() as u32;
        match self.answers.get(leaf, || self.cpu.cr4()) {
            Some(answer) => self.give_cpuid(leaf, answer, registers),
            None => self.on_other_cpuid(registers),
        }
    }

    /// CPUID of a leaf whose answer may change.
    #[cold]
    extern "C" fn on_other_cpuid(&mut self, registers: &mut GuestRegisters) -> Handled {
        let leaf = self.cpu.rax() as u32;
        self.give_cpuid(leaf, self.ask(leaf, registers.rcx as u32), registers)
    }

    #[inline(always)]
    fn give_cpuid(&mut self, leaf: u32, answer: Registers, registers: &mut GuestRegisters) -> Handled {
        let handled = Handled::new(ExitReason::Cpuid, 0, leaf.into());
        if self.give(answer, registers) { self.end_step(handled) } else { handled }
    }

    /// An instruction is done whose end does more.
    #[cold]
    extern "C" fn end_step(&mut self, handled: Handled) -> Handled {
        self.cpu.end_step();
        handled
    }

    /// RDMSR.
    pub extern "C" fn on_msr_read(&mut self, registers: &mut GuestRegisters) -> Handled {
        let msr = registers.rcx as u32;
        let Some(value) = self.msr_value(msr) else { return self.refuse_msr_read(registers) };
        let handled = Handled::new(ExitReason::MsrRead, 0, msr.into());
        if self.give_msr(value, registers) { self.end_step(handled) } else { handled }
    }

    #[cold]
    extern "C" fn refuse_msr_read(&mut self, registers: &mut GuestRegisters) -> Handled {
        let msr = registers.rcx as u32;
        self.refuse(PolicyKind::MsrRead, msr.into(), 0, Exception::GeneralProtection);
        Handled::new(ExitReason::MsrRead, 0, msr.into())
    }

    /// WRMSR.
    pub extern "C" fn on_msr_write(&mut self, registers: &mut GuestRegisters) -> Handled {
        let msr = registers.rcx as u32;
        let value = registers.rdx << 32 | self.cpu.rax() & 0xFFFF_FFFF;
        if msr == ICR_MSR {
            let sent = self.write_icr(value);
            return Handled::new(ExitReason::IcrWrite, sent, value);
        }
        self.write_msr(msr, value);
        Handled::new(ExitReason::MsrWrite, 0, msr.into())
    }

    /// IN and OUT.
    pub extern "C" fn on_io(&mut self, registers: &mut GuestRegisters) -> Handled {
        let access = self.cpu.io_access();
        let value = access.value(self.cpu.rax());
        self.io(access, registers);
        let reason = if access.input { ExitReason::IoIn } else { ExitReason::IoOut };
        Handled::new(reason, access.port, value.into())
    }
}
