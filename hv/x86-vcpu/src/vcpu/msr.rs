//! RDMSR and WRMSR of registers that are not passed through.

use partita_trace::names::{PolicyKind, StopCause};
use partita_x86_policy::msr::{MsrRead, MsrWrite};
use partita_x86_policy::msr_values::{
    ApicBaseWrite, apic_base_read, apic_base_write, efer_write, lvt_timer_write, lvt_write,
};

use super::Vcpu;
use crate::cpu::idt::write_msr_checked;
use crate::virt::{Exception, GuestRegisters, VirtualCpu};

/// Length of RDMSR and WRMSR.
const LEN: u64 = 2;
const CR0_PG: u64 = 1 << 31;

impl<V: VirtualCpu> Vcpu<V> {
    /// What the guest reads; `None` for #GP.
    #[inline(always)]
    pub(super) fn msr_value(&self, msr: u32) -> Option<u64> {
        match self.partition.msr_policy.read(msr) {
            MsrRead::ApicBase => Some(apic_base_read(self.number)),
            MsrRead::Value(value) => Some(value),
            MsrRead::Efer => Some(self.cpu.efer()),
            // Not known without the register that cannot be read; 0 says that the timer is not running.
            MsrRead::TimerCount => Some(0),
            MsrRead::Pass | MsrRead::Gp => None,
        }
    }

    /// Gives a value to the guest, and goes on behind the instruction: `true` as of [`VirtualCpu::go_on`].
    #[inline(always)]
    pub(super) fn give_msr(&mut self, value: u64, registers: &mut GuestRegisters) -> bool {
        self.cpu.set_rax(value & 0xFFFF_FFFF);
        registers.rdx = value >> 32;
        self.cpu.go_on(LEN)
    }

    /// All but the ICR.
    #[inline(always)]
    pub(super) fn write_msr(&mut self, msr: u32, value: u64) {
        let allowed = match self.partition.msr_policy.write(msr) {
            MsrWrite::Ignore => {
                self.partition.note_refusal(PolicyKind::MsrWrite, msr.into(), value);
                true
            }
            // SAFETY: the value after a reset; the CPU need not have the register.
            MsrWrite::Zero => value == 0 && unsafe { write_msr_checked(msr, 0) }.is_ok(),
            MsrWrite::Lvt => match lvt_write(value) {
                Ok(lvt) => {
                    if lvt.refused {
                        self.partition.note_refusal(PolicyKind::MsrWrite, msr.into(), value);
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
                    self.partition.stop_at(StopCause::ApicModeLeft, value, self.cpu.rip());
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
