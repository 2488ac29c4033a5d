//! The states in which a life ends, one way or another. R15 tells which, for whoever looks at the registers.

use core::arch::asm;

use partita_abi::report::EXIT_SUCCESS;
use partita_x86_bare::{apic, end_run};

use crate::gates;

/// The names of the states.
pub(crate) const STATES: &[&str] = &["spin_if0", "spin_if1", "hlt", "nmi", "finish", "triple_fault", "flood"];
/// The place of the last; see [`crate::flood`].
pub(crate) const FLOOD: usize = 6;
/// R15 in the handler of an NMI.
pub(crate) const IN_NMI: u32 = SHOWN + 3;
/// R15 of the first state; the others follow.
const SHOWN: u32 = 0x5050_0000;

/// Stays in the state with that number.
pub(crate) fn stay(state: usize) -> ! {
    let shown = u64::from(SHOWN) + state as u64;
    // SAFETY: the loops touch nothing; what may interrupt them returns there, or does not return. With an empty table
    // every exception is the end of the partition.
    unsafe {
        match state {
            1 => asm!("sti", "2: pause", "jmp 2b", in("r15") shown, options(noreturn)),
            2 => asm!("2: sti", "hlt", "jmp 2b", in("r15") shown, options(noreturn)),
            3 => {
                apic::send_nmi(apic::id());
                asm!("2: pause", "jmp 2b", options(noreturn))
            }
            4 => end_run(EXIT_SUCCESS),
            5 => {
                gates::unload();
                asm!("ud2", options(noreturn))
            }
            _ => asm!("2: pause", "jmp 2b", in("r15") shown, options(noreturn)),
        }
    }
}
