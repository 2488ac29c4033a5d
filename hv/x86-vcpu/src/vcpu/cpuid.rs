//! CPUID.

use partita_trace::names::ExitReason;
use partita_x86_policy::cpuid as policy;

use super::{About, Then, Vcpu};
use crate::cpu::features;
use crate::virt::{ScratchRegisters, VirtualCpu};

/// Length of CPUID.
const LEN: u64 = 2;

impl<V: VirtualCpu> Vcpu<V> {
    #[inline(never)]
    pub(super) fn cpuid(&mut self, entered: u64, registers: &mut ScratchRegisters) -> Then {
        // What programs execute often, to serialise.
        if self.cpu.rax() as u32 != 0 {
            return self.other_cpuid(entered, registers);
        }
        let answer = policy::leaf_0(features::cpuid_leaf_0(), self.max_basic_leaf);
        self.answer_cpuid(0, answer, entered, registers)
    }

    #[inline(never)]
    fn other_cpuid(&mut self, entered: u64, registers: &mut ScratchRegisters) -> Then {
        let (leaf, subleaf) = (self.cpu.rax() as u32, registers.rcx as u32);
        let host = features::cpuid(leaf, subleaf);
        let answer = policy::cpuid(leaf, subleaf, host, self.cpu.cr4(), &self.cpuid).map(u64::from);
        self.answer_cpuid(leaf, answer, entered, registers)
    }

    #[inline(always)]
    fn answer_cpuid(&mut self, leaf: u32, answer: [u64; 4], entered: u64, registers: &mut ScratchRegisters) -> Then {
        let [rax, rbx, rcx, rdx] = answer;
        self.cpu.set_rax(rax);
        (registers.rbx, registers.rcx, registers.rdx) = (rbx, rcx, rdx);
        self.skip_and_end(LEN, ExitReason::Cpuid, About::wide(leaf.into()), entered)
    }
}
