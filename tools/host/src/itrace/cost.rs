//! What a path costs on hardware beside its instructions: counted, not timed.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Formatter, Instruction, InstructionInfoFactory, IntelFormatter,
    Mnemonic, OpAccess, OpKind, Register,
};
use std::collections::{BTreeMap, BTreeSet};

/// Longest instruction in bytes.
const INSTRUCTION_MAX: usize = 15;
/// Bytes of a cache line.
const LINE: i64 = 64;

/// What a path costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Instructions.
    pub instructions: usize,
    /// Instructions that wait for those before them, or that those behind wait for, and what else is slow: how many of each.
    pub slow: BTreeMap<String, usize>,
    /// Fields of a VMCS that are read and written.
    pub vmreads: usize,
    /// See [`Self::vmreads`].
    pub vmwrites: usize,
    /// Locked operations, XCHG with memory among them.
    pub locked: usize,
    /// Loads and stores.
    pub loads: usize,
    /// See [`Self::loads`].
    pub stores: usize,
    /// Cache lines that are touched, those of the stack included. Registers are not known: what two pointers point to counts as
    /// two, however near it is, and a pointer counts as one to the start of a line.
    pub lines: usize,
    /// Conditional branches.
    pub branches: usize,
    /// Jumps and calls through registers or memory.
    pub indirect: usize,
    /// Calls, indirect ones not included, and returns.
    pub calls: usize,
    /// See [`Self::calls`].
    pub returns: usize,
}

/// Counts what the instructions at these addresses cost. `bytes` gives what lies at an address, at most so many bytes. What
/// cannot be decoded counts as an instruction only.
pub fn cost<'p>(bytes: impl Fn(u64, usize) -> &'p [u8], addresses: &[u64]) -> Cost {
    let mut cost = Cost { instructions: addresses.len(), ..Cost::default() };
    let mut factory = InstructionInfoFactory::new();
    let mut places = Places::default();
    for &address in addresses {
        let instruction = decode(bytes(address, INSTRUCTION_MAX), address);
        if instruction.is_invalid() {
            continue;
        }
        count(&mut cost, &instruction);
        let info = factory.info(&instruction);
        for memory in info.used_memory() {
            // LEA and the like compute an address only.
            let (reads, writes) = accesses(memory.access());
            if !reads && !writes {
                continue;
            }
            cost.loads += usize::from(reads);
            cost.stores += usize::from(writes);
            places.touch(memory.base(), memory.index(), memory.displacement() as i64);
        }
        let written = info.used_registers().iter().filter(|used| accesses(used.access()).1);
        let written: Vec<Register> = written.map(|used| used.register().full_register()).collect();
        places.follow(&instruction, &written);
    }
    cost.lines = places.lines.len();
    cost
}

/// These instructions in words, as assemblers for Intel's syntax take them. `bytes` is as for [`cost`].
pub fn listing<'p>(bytes: impl Fn(u64, usize) -> &'p [u8], addresses: &[u64]) -> Vec<String> {
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_space_after_operand_separator(true);
    let words = |&address: &u64| {
        let mut text = String::new();
        formatter.format(&decode(bytes(address, INSTRUCTION_MAX), address), &mut text);
        text
    };
    addresses.iter().map(words).collect()
}

fn decode(bytes: &[u8], address: u64) -> Instruction {
    Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode()
}

/// Whether an access reads, and whether it writes.
const fn accesses(access: OpAccess) -> (bool, bool) {
    match access {
        OpAccess::Read | OpAccess::CondRead => (true, false),
        OpAccess::Write | OpAccess::CondWrite => (false, true),
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
        _ => (false, false),
    }
}

fn count(cost: &mut Cost, instruction: &Instruction) {
    match instruction.flow_control() {
        FlowControl::ConditionalBranch => cost.branches += 1,
        FlowControl::IndirectBranch | FlowControl::IndirectCall => cost.indirect += 1,
        FlowControl::Call if !is_slow(instruction.mnemonic()) => cost.calls += 1,
        FlowControl::Return => cost.returns += 1,
        _ => {}
    }
    let has_memory = instruction.op_kinds().any(|kind| kind == OpKind::Memory);
    let swaps_memory = instruction.mnemonic() == Mnemonic::Xchg && has_memory;
    cost.locked += usize::from(instruction.has_lock_prefix() || swaps_memory);
    match instruction.mnemonic() {
        Mnemonic::Vmread => cost.vmreads += 1,
        Mnemonic::Vmwrite => cost.vmwrites += 1,
        mnemonic if is_slow(mnemonic) => {
            *cost.slow.entry(format!("{mnemonic:?}").to_uppercase()).or_default() += 1;
        }
        _ => {}
    }
}

/// Serialising instructions (APM vol. 2 section 7.6.4, SDM vol. 3 section 10.3), fences, time-stamps, and what the extension
/// itself has.
const fn is_slow(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Vmrun
            | Mnemonic::Vmload
            | Mnemonic::Vmsave
            | Mnemonic::Stgi
            | Mnemonic::Clgi
            | Mnemonic::Vmlaunch
            | Mnemonic::Vmresume
            | Mnemonic::Wrmsr
            | Mnemonic::Rdmsr
            | Mnemonic::Cpuid
            | Mnemonic::Rdtsc
            | Mnemonic::Rdtscp
            | Mnemonic::Lfence
            | Mnemonic::Mfence
            | Mnemonic::Sfence
            | Mnemonic::Invlpg
            | Mnemonic::Invlpga
            | Mnemonic::Invept
            | Mnemonic::Invvpid
            | Mnemonic::Iret
            | Mnemonic::Iretq
            | Mnemonic::Int
            | Mnemonic::Hlt
            | Mnemonic::Pause
            | Mnemonic::Xsetbv
            | Mnemonic::Wbinvd
            | Mnemonic::In
            | Mnemonic::Out
            | Mnemonic::Div
            | Mnemonic::Idiv
    )
}

/// A value that nobody knows: what a register had at first, or was loaded with.
type Origin = usize;

/// A pointer: so many bytes behind what nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pointer {
    origin: Origin,
    offset: i64,
}

/// What is touched, by pointers that are followed from register to register.
#[derive(Debug, Default)]
struct Places {
    registers: BTreeMap<u32, Pointer>,
    origins: Origin,
    /// By origin, origin of the index, and number.
    lines: BTreeSet<(Origin, Option<Pointer>, i64)>,
}

/// The origin of addresses that are known.
const ABSOLUTE: Origin = 0;

impl Places {
    fn fresh(&mut self) -> Pointer {
        self.origins += 1;
        Pointer { origin: ABSOLUTE + self.origins, offset: 0 }
    }

    /// What a register has.
    fn of(&mut self, register: Register) -> Pointer {
        if matches!(register, Register::None | Register::RIP | Register::EIP) {
            return Pointer { origin: ABSOLUTE, offset: 0 };
        }
        let key = register.full_register() as u32;
        match self.registers.get(&key) {
            Some(pointer) => *pointer,
            None => {
                let pointer = self.fresh();
                self.registers.insert(key, pointer);
                pointer
            }
        }
    }

    fn touch(&mut self, base: Register, index: Register, displacement: i64) {
        let Pointer { origin, offset } = self.of(base);
        let index = (index != Register::None).then(|| self.of(index));
        self.lines.insert((origin, index, offset.wrapping_add(displacement).div_euclid(LINE)));
    }

    /// Follows what an instruction makes of the registers that it writes.
    fn follow(&mut self, instruction: &Instruction, written: &[Register]) {
        let moved = self.moved(instruction);
        for register in written {
            let pointer = match moved {
                Some((target, pointer)) if target == *register => pointer,
                _ => match (*register, instruction.stack_pointer_increment()) {
                    (Register::RSP, step) if step != 0 => {
                        let Pointer { origin, offset } = self.of(Register::RSP);
                        Pointer { origin, offset: offset.wrapping_add(step.into()) }
                    }
                    _ => self.fresh(),
                },
            };
            self.registers.insert(*register as u32, pointer);
        }
    }

    /// The register that gets a known pointer, and which: by MOV, LEA, ADD and SUB.
    fn moved(&mut self, instruction: &Instruction) -> Option<(Register, Pointer)> {
        let is_whole = instruction.op0_kind() == OpKind::Register && instruction.op0_register().is_gpr64();
        if !is_whole {
            return None;
        }
        let target = instruction.op0_register();
        let beyond = |pointer: Pointer, by: i64| Pointer { offset: pointer.offset.wrapping_add(by), ..pointer };
        let pointer = match instruction.code() {
            Code::Mov_r64_rm64 | Code::Mov_rm64_r64 if instruction.op1_kind() == OpKind::Register => {
                self.of(instruction.op1_register())
            }
            Code::Lea_r64_m if instruction.memory_index() == Register::None => {
                beyond(self.of(instruction.memory_base()), instruction.memory_displacement64() as i64)
            }
            Code::Add_rm64_imm8 | Code::Add_rm64_imm32 => beyond(self.of(target), instruction.immediate(1) as i64),
            Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32 => {
                beyond(self.of(target), (instruction.immediate(1) as i64).wrapping_neg())
            }
            _ => return None,
        };
        Some((target, pointer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cost of code, executed from its first byte to its last.
    fn cost_of(code: &[u8]) -> Cost {
        let bytes = |address: u64, _| code.get(address as usize..).unwrap_or_default();
        let mut addresses = Vec::new();
        let mut at = 0;
        while at < code.len() {
            addresses.push(at as u64);
            at += decode(&code[at..], at as u64).len().max(1);
        }
        cost(bytes, &addresses)
    }

    #[test]
    fn instructions_are_told_apart() {
        // push rdx; rdtsc; je; lock inc [rdi]; vmread rax, rcx; call rax; xchg [rsi], rax; xchg r10, rbx; ret; vmrun
        let code = b"\x52\x0F\x31\x74\x00\xF0\x48\xFF\x07\x0F\x78\xC8\xFF\xD0\x48\x87\x06\x49\x87\xDA\xC3\x0F\x01\xD8";
        let cost = cost_of(code);
        assert_eq!((cost.instructions, cost.branches, cost.locked), (10, 1, 2));
        assert_eq!((cost.vmreads, cost.indirect, cost.calls, cost.returns), (1, 1, 0, 1));
        assert_eq!(cost.slow, BTreeMap::from([("RDTSC".to_owned(), 1), ("VMRUN".to_owned(), 1)]));
    }

    #[test]
    fn lines_are_counted_once() {
        // mov rax, [rdi]; mov rcx, [rdi + 0x38]; lea rsi, [rdi + 0x40]; mov [rsi], rax; mov [rdi + 0x40], rax; mov rdi, [rdi];
        // mov rax, [rdi]
        let code = b"\x48\x8B\x07\x48\x8B\x4F\x38\x48\x8D\x77\x40\x48\x89\x06\x48\x89\x47\x40\x48\x8B\x3F\x48\x8B\x07";
        let cost = cost_of(code);
        assert_eq!((cost.loads, cost.stores, cost.lines), (4, 2, 3));
        // push rax; push rcx; pop rcx; mov rax, [rsp]
        let stack = cost_of(b"\x50\x51\x59\x48\x8B\x04\x24");
        assert_eq!((stack.loads, stack.stores, stack.lines), (2, 2, 1));
        assert_eq!(cost_of(b"\x06"), Cost { instructions: 1, ..Cost::default() });
    }
}
