//! RDMSR and WRMSR of registers that are not passed through.

use partita_trace::names::{ExitReason, PolicyKind, StopCause};
use partita_x86_policy::msr::{APIC_BASE_MSR, ICR_MSR, MsrRead, MsrWrite};
use partita_x86_policy::msr_values::{
    ApicBaseWrite, apic_base_read, apic_base_write, efer_write, lvt_timer_write, lvt_write,
};

use super::{About, Then, Vcpu};
use crate::cpu::idt::write_msr_checked;
use crate::virt::{Exception, ScratchRegisters, VirtualCpu};

/// Length of RDMSR and WRMSR.
const LEN: u64 = 2;
const CR0_PG: u64 = 1 << 31;

impl<V: VirtualCpu> Vcpu<V> {
    #[inline(never)]
    pub(super) fn read_msr(&mut self, entered: u64, registers: &mut ScratchRegisters) -> Then {
        // The one that every CPU has, and no guest reads itself.
        if registers.rcx as u32 != APIC_BASE_MSR {
            return self.other_read_msr(entered, registers);
        }
        self.end_read_msr(APIC_BASE_MSR, apic_base_read(self.number), entered, registers)
    }

    #[inline(never)]
    fn other_read_msr(&mut self, entered: u64, registers: &mut ScratchRegisters) -> Then {
        let msr = registers.rcx as u32;
        let value = match self.partition.msr_policy.read(msr) {
            MsrRead::ApicBase => apic_base_read(self.number),
            MsrRead::Value(value) => value,
            MsrRead::Efer => self.cpu.efer(),
            // Not known without the register that cannot be read; 0 says that the timer is not running.
            MsrRead::TimerCount => 0,
            MsrRead::Pass | MsrRead::Gp => return self.refuse_read(msr, entered),
        };
        self.end_read_msr(msr, value, entered, registers)
    }

    #[inline(always)]
    fn end_read_msr(&mut self, msr: u32, value: u64, entered: u64, registers: &mut ScratchRegisters) -> Then {
        self.cpu.set_rax(value & 0xFFFF_FFFF);
        registers.rdx = value >> 32;
        self.skip_and_end(LEN, ExitReason::MsrRead, About::wide(msr.into()), entered)
    }

    #[cold]
    #[inline(never)]
    fn refuse_read(&mut self, msr: u32, entered: u64) -> Then {
        self.refuse(PolicyKind::MsrRead, msr.into(), 0, Exception::GeneralProtection);
        self.end_rare(ExitReason::MsrRead, About::wide(msr.into()), entered)
    }

    #[inline(never)]
    pub(super) fn write_msr(&mut self, entered: u64, registers: &mut ScratchRegisters) -> Then {
        let msr = registers.rcx as u32;
        let value = registers.rdx << 32 | self.cpu.rax() & 0xFFFF_FFFF;
        if msr == ICR_MSR {
            return self.write_icr(value, entered);
        }
        self.rare_write_msr(msr, value, entered)
    }

    #[cold]
    #[inline(never)]
    fn rare_write_msr(&mut self, msr: u32, value: u64, entered: u64) -> Then {
        let allowed = match self.partition.msr_policy.write(msr) {
            MsrWrite::Ignore => {
                self.note_refusal(PolicyKind::MsrWrite, msr.into(), value);
                true
            }
            // SAFETY: the value after a reset; the CPU need not have the register.
            MsrWrite::Zero => value == 0 && unsafe { write_msr_checked(msr, 0) }.is_ok(),
            MsrWrite::Lvt => match lvt_write(value) {
                Ok(lvt) => {
                    if lvt.refused {
                        self.note_refusal(PolicyKind::MsrWrite, msr.into(), value);
                    }
                    // SAFETY: an entry of the local vector table that the policy names, with fixed delivery: it can
                    // only interrupt this guest. The CPU need not have it.
                    unsafe { write_msr_checked(msr, lvt.value) }.is_ok()
                }
                Err(_) => false,
            },
            MsrWrite::LvtTimer => match lvt_timer_write(value) {
                Ok(lvt) => {
                    // SAFETY: the timer's entry without a delivery mode: it can only interrupt this guest. The CPU need
                    // not have the timer's mode.
                    unsafe { write_msr_checked(msr, lvt) }.is_ok()
                }
                Err(_) => false,
            },
            MsrWrite::ApicBase => match apic_base_write(value) {
                ApicBaseWrite::Same => true,
                ApicBaseWrite::LeavesX2apic | ApicBaseWrite::MovesPage => {
                    self.stop(StopCause::ApicModeLeft, value);
                    true
                }
                ApicBaseWrite::Gp => false,
            },
            MsrWrite::Efer => {
                match efer_write(self.cpu.efer(), value, self.cpu.cr0() & CR0_PG != 0, self.efer_writable) {
                    Ok(efer) => {
                        self.cpu.set_efer(efer);
                        true
                    }
                    Err(_) => false,
                }
            }
            MsrWrite::Pass | MsrWrite::Icr | MsrWrite::Gp => false,
        };
        if allowed {
            self.cpu.skip(LEN);
        } else {
            self.refuse(PolicyKind::MsrWrite, msr.into(), value, Exception::GeneralProtection);
        }
        self.end_rare(ExitReason::MsrWrite, About::wide(msr.into()), entered)
    }
}
