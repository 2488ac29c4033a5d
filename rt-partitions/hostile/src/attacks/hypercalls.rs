//! Hypercalls with any number and any arguments.

use partita_abi::hypercall::{BUSY, FINISH, INVALID, NOP, SUCCESS, TRACE_WINDOW, UNKNOWN, VMWARE_MAGIC};
use partita_trace::layout::{HEADER_LEN, REGION_ALIGN};
use partita_x86_policy::capabilities::Backend;

use crate::Orders;
use crate::gates::{NOTHING, attempt};
use crate::random::Random;
use crate::tally::Tally;
use crate::vendor::backend;

const PAGE: u64 = 4096;
const STEPS_DEFAULT: u64 = 50_000;

/// A hypercall; gives its result, or the exception.
pub(crate) fn hypercall(number: u64, first: u64, second: u64) -> Result<u64, u64> {
    let result: u64;
    let caught = match backend() {
        Backend::Svm => attempt!(["xchg rbx, rdi", "vmmcall", "xchg rbx, rdi"], inout("rax") number => result,
            inout("rdi") first => _, in("rcx") second),
        Backend::Vmx => attempt!(["xchg rbx, rdi", "vmcall", "xchg rbx, rdi"], inout("rax") number => result,
            inout("rdi") first => _, in("rcx") second),
    };
    if caught == NOTHING { Ok(result) } else { Err(caught) }
}

/// Whether a trace window is one by the rules of the interface.
fn is_window(memory: u64, gpa: u64, len: u64) -> bool {
    gpa.is_multiple_of(REGION_ALIGN as u64)
        && len >= HEADER_LEN as u64
        && len.is_multiple_of(PAGE)
        && gpa.checked_add(len).is_some_and(|end| end <= memory)
}

fn argument(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => random.next(),
        1 => random.any() & !(PAGE - 1),
        2 => random.below(8) * REGION_ALIGN as u64,
        3 => 1 << random.below(64),
        4 => random.below(3).wrapping_sub(1),
        _ => random.any(),
    }
}

fn number(random: &mut Random) -> u64 {
    let low = match random.below(5) {
        0 => random.next() as u32,
        1 => NOP,
        2 => NOP.wrapping_add(random.below(64) as u32).wrapping_sub(16),
        3 => random.one_of(&[VMWARE_MAGIC, 0, u32::MAX, !NOP, NOP.swap_bytes()]),
        _ => TRACE_WINDOW,
    };
    // The number is EAX alone.
    u64::from(low) | random.any() << 32
}

/// Any calls, but for the one that ends the partition.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    let mut random = orders.random();
    let mut has_window = false;
    for _ in 0..orders.steps_or(STEPS_DEFAULT) {
        let (number, first, second) = (number(&mut random), argument(&mut random), argument(&mut random));
        let expected = match number as u32 {
            FINISH => continue,
            NOP => SUCCESS,
            TRACE_WINDOW if !is_window(orders.memory, first, second) => {
                tally.accesses += 1;
                INVALID
            }
            TRACE_WINDOW if has_window => BUSY,
            TRACE_WINDOW => {
                has_window = true;
                SUCCESS
            }
            _ => {
                tally.accesses += 1;
                UNKNOWN
            }
        };
        let found = hypercall(number, first, second);
        tally.tries += 1;
        tally.check(
            found == Ok(expected),
            format_args!("hypercall {number:#x} of {first:#x}, {second:#x} gave {found:x?}, not {expected:#x}"),
        );
    }
}
