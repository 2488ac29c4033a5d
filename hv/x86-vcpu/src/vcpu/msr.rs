//! RDMSR and WRMSR of registers that are not passed through.

use partita_trace::names::{ExitReason, PolicyKind, StopCause};
use partita_x86_policy::msr::{ICR_MSR, MsrRead, MsrWrite};
use partita_x86_policy::msr_values::{
    ApicBaseWrite, apic_base_read, apic_base_write, efer_write, lvt_timer_write, lvt_write,
};

use super::{About, Vcpu};
use crate::cpu::idt::write_msr_checked;
use crate::virt::{Exception, GuestRegisters, VirtualCpu};

/// Length of RDMSR and WRMSR.
const LEN: u64 = 2;
const CR0_PG: u64 = 1 << 31;

impl<V: VirtualCpu> Vcpu<V> {
    pub(super) fn read_msr(&mut self, registers: &mut GuestRegisters) -> About {
        let msr = registers.rcx as u32;
        let value = match self.partition.msr_policy.read(msr) {
            MsrRead::ApicBase => Some(apic_base_read(self.number)),
            MsrRead::Value(value) => Some(value),
            MsrRead::Efer => Some(self.cpu.efer()),
            // Not known without the register that cannot be read; 0 says that the timer is not running.
            MsrRead::TimerCount => Some(0),
            MsrRead::Pass | MsrRead::Gp => None,
        };
        if let Some(value) = value {
            self.cpu.set_rax(value & 0xFFFF_FFFF);
            registers.rdx = value >> 32;
            self.cpu.skip(LEN);
        } else {
            self.refuse(PolicyKind::MsrRead, msr.into(), 0, Exception::GeneralProtection);
        }
        About::wide(msr.into())
    }

    pub(super) fn write_msr(&mut self, registers: &GuestRegisters) -> (ExitReason, About) {
        let msr = registers.rcx as u32;
        let value = registers.rdx << 32 | self.cpu.rax() & 0xFFFF_FFFF;
        if msr == ICR_MSR {
            return (ExitReason::IcrWrite, self.write_icr(value));
        }
        self.write_other_msr(msr, value);
        (ExitReason::MsrWrite, About::wide(msr.into()))
    }

    fn write_other_msr(&mut self, msr: u32, value: u64) {
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
    }
}
