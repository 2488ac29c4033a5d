//! Attacks from other modes of the CPU than 64-bit code of privilege level 0.

use super::survivors::{exits, of_these, run_exactly};
use super::{Attack, amount};
use crate::system::uses_vmx;
use partita_trace::names::ExitReason;

/// All INT n but the one that comes back.
const INTERRUPTS: u64 = 255;
/// Ports of the machine, and by chance, by three widths, each by IN, OUT, and four string forms.
const PORTS: u64 = (36 + 16) * 3 * 6;
/// Of the ports above: of its own console, of those that end the partition, and of the clock, at most in a sweep.
const LEFT_OUT_MAX: u64 = 40;

/// Compares the tries of each kind with what the lists have: instructions, how many times all interrupts and all ports. Gives the
/// tries of these kinds.
fn counted(kinds: [u64; 4], steps: u64, instructions: u64, interrupts: u64, ports: u64) -> u64 {
    let [found, found_interrupts, found_ports, left_out] = kinds;
    assert_eq!(found, steps * instructions);
    assert_eq!(found_interrupts, steps * interrupts * INTERRUPTS);
    assert_eq!(found_ports + left_out, steps * ports * PORTS);
    assert!(left_out <= steps * ports * LEFT_OUT_MAX, "{left_out}");
    found + found_interrupts + found_ports
}

/// Gives the NMIs that came.
fn user(attack: &Attack<'_>, steps: u64) -> u64 {
    let (left, said) = run_exactly(attack);
    let [instructions, interrupts, ports, left_out, nmis] = of_these(&left);
    // 64-bit and 32-bit code, with IOPL 0 and 3; ports by IOPL and by the map in the task state. And SYSRET.
    let tries = counted([instructions, interrupts, ports, left_out], steps, 240, 2 * 2, 2 * 3);
    assert_eq!(said.tries, tries + steps);
    // What the CPU lets privilege level 3 try.
    for reason in [ExitReason::Hypercall, ExitReason::Cpuid, ExitReason::IoIn, ExitReason::IoOut] {
        assert!(exits(&left, reason) >= 2 * steps, "{reason:?}");
    }
    nmis
}

#[test]
#[ignore = "boots an emulator"]
fn no_user_gets_more_than_its_kernel() {
    let steps = amount(3, 100, 1);
    assert_eq!(user(&Attack::new(&format!("attack=user steps={steps}")), steps), 0);
}

#[test]
#[ignore = "boots an emulator"]
fn nmis_change_nothing_for_a_user() {
    let steps = amount(1, 20, 1);
    let nmis = user(&Attack::pair(&format!("attack=user steps={steps}")), steps);
    println!("{nmis} NMIs");
    assert!(nmis >= 20 * steps, "{nmis}");
}

#[test]
#[ignore = "boots an emulator"]
fn no_older_mode_gets_through() {
    let steps = amount(1, 100, 1);
    let (left, said) = run_exactly(&Attack::pair(&format!("attack=real steps={steps}")));
    let [instructions, interrupts, ports, left_out, nmis] = of_these(&left);
    // 32-bit code in long mode and without, real mode, and virtual-8086 mode with IOPL 0 and 3.
    let tries = counted([instructions, interrupts, ports, left_out], steps, 385, 3 + 2, 3 + 2);
    // Two times 50 NMIs in real mode, and one between; an access of each handler, and more of what they came into.
    assert_eq!(nmis, 101);
    assert!(said.tries >= tries + nmis + 50, "{}", said.tries);
    // VMX keeps an NMI back by itself, and exits only where one waits.
    assert!(uses_vmx() || exits(&left, ExitReason::NmiReturn) >= nmis);
    assert!(exits(&left, ExitReason::VirtInstruction) >= 2 * steps);
}
