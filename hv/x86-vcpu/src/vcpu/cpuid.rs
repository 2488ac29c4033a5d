//! CPUID.

use partita_x86_policy::cpuid as policy;

use super::{About, Vcpu};
use crate::cpu::features;
use crate::virt::{GuestRegisters, VirtualCpu};

/// Length of CPUID.
const LEN: u64 = 2;

impl<V: VirtualCpu> Vcpu<V> {
    pub(super) fn cpuid(&mut self, registers: &mut GuestRegisters) -> About {
        let (leaf, subleaf) = (self.cpu.rax() as u32, registers.rcx as u32);
        let host = features::cpuid(leaf, subleaf);
        let [rax, rbx, rcx, rdx] = policy::cpuid(leaf, subleaf, host, self.cpu.cr4(), &self.cpuid).map(u64::from);
        self.cpu.set_rax(rax);
        (registers.rbx, registers.rcx, registers.rdx) = (rbx, rcx, rdx);
        self.cpu.skip(LEN);
        About::wide(leaf.into())
    }
}
