//! CPUID.

use partita_x86_policy::cpuid::{self as policy, Registers};

use super::Vcpu;
use crate::cpu::features;
use crate::virt::{GuestRegisters, VirtualCpu};

/// Length of CPUID.
const LEN: u64 = 2;

impl<V: VirtualCpu> Vcpu<V> {
    /// Gives an answer to the guest, and goes on behind the instruction: `true` as of [`VirtualCpu::go_on`].
    #[inline(always)]
    pub(super) fn give(&mut self, answer: Registers, registers: &mut GuestRegisters) -> bool {
        let [rax, rbx, rcx, rdx] = answer.map(u64::from);
        self.cpu.set_rax(rax);
        (registers.rbx, registers.rcx, registers.rdx) = (rbx, rcx, rdx);
        self.cpu.go_on(LEN)
    }

    /// Asks the CPU, and the policy.
    pub(super) fn ask(&self, leaf: u32, subleaf: u32) -> Registers {
        policy::cpuid(leaf, subleaf, features::cpuid(leaf, subleaf), self.cpu.cr4(), &self.cpuid)
    }
}
