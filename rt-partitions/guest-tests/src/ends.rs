//! Guests that end badly: what they do must end them, and nobody else.

use core::arch::asm;
use core::arch::x86_64::__cpuid;

use partita_abi::cpuid::LEAF_LIFE;
use partita_abi::guest::{RESET_NOW, RESET_PORT, SLEEP_CONTROL_PORT, SLEEP_ENABLE, SLEEP_TYPE_OFF, SLEEP_TYPE_SHIFT};
use partita_abi::hypercall::{FINISH, NOP};
use partita_abi::report::{EXIT_FAILURE, EXIT_PORT};
use partita_rt::{Error, Machine, hypercall};
use partita_x86_bare::{read_msr, write_msr};

use crate::claims::Claims;
use crate::timer;

/// Guest-physical, above every partition's memory that these tests have, and mapped by the boot page tables.
const NO_MEMORY: u64 = 0x8000_0000;
/// A register of the local APIC's page.
const APIC_PAGE_ID: u64 = 0xFEE0_0020;
const APIC_BASE: u32 = 0x1B;
const APIC_BASE_X2APIC: u64 = 1 << 10;
/// Lives of [`reboot`] that reboot.
const REBOOTS: u32 = 5;
const KEYBOARD_COMMAND: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xFE;
/// What [`finish_7`] ends with.
const STATUS: u64 = 7;

/// Does what must not return.
fn end(machine: &Machine, what: &str, act: impl FnOnce()) -> Result<(), Error> {
    let mut claims = Claims::from(1000);
    timer::pass_time(machine);
    claims.holds(what, true);
    act();
    claims.holds("the partition has ended before this", false);
    Ok(())
}

/// A fault without a table to handle it.
pub(crate) fn triple_fault(machine: &Machine) -> Result<(), Error> {
    end(machine, "about to fault without a descriptor table", || {
        let nothing = [0u16; 5];
        // SAFETY: ends the partition.
        unsafe { asm!("lidt [{}]", "ud2", in(reg) nothing.as_ptr()) };
    })
}

fn touch(address: u64) {
    // SAFETY: ends the partition; elsewhere a read without effect.
    unsafe { (address as *const u32).read_volatile() };
}

/// Memory that the partition does not have.
pub(crate) fn outside_memory(machine: &Machine) -> Result<(), Error> {
    end(machine, "about to read outside of memory", || touch(NO_MEMORY))
}

/// The page of the local APIC.
pub(crate) fn apic_page(machine: &Machine) -> Result<(), Error> {
    end(machine, "about to read the APIC page", || touch(APIC_PAGE_ID))
}

/// Back to xAPIC mode.
pub(crate) fn leave_x2apic(machine: &Machine) -> Result<(), Error> {
    end(machine, "about to leave x2APIC mode", || {
        // SAFETY: ends the partition.
        unsafe { write_msr(APIC_BASE, read_msr(APIC_BASE) & !APIC_BASE_X2APIC) };
    })
}

/// A failure by hypercall.
pub(crate) fn finish_7(machine: &Machine) -> Result<(), Error> {
    end(machine, "about to finish with status 7", || {
        // SAFETY: ends the partition.
        unsafe { hypercall(FINISH, STATUS, 0) };
    })
}

/// A failure by the exit port.
pub(crate) fn exit_byte(machine: &Machine) -> Result<(), Error> {
    end(machine, "about to write a failure to the exit port", || {
        // SAFETY: ends the partition.
        unsafe { asm!("out dx, al", in("dx") EXIT_PORT, in("al") EXIT_FAILURE, options(nomem, nostack)) };
    })
}

fn write_port(port: u16, value: u8) {
    // SAFETY: the port is one by which a partition ends, and nothing else.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

/// A power-off by ACPI's sleep control register.
pub(crate) fn power_off(machine: &Machine) -> Result<(), Error> {
    end(machine, "about to power itself off", || {
        write_port(SLEEP_CONTROL_PORT, SLEEP_ENABLE | SLEEP_TYPE_OFF << SLEEP_TYPE_SHIFT);
    })
}

/// Reboots in its first lives, by ACPI's reset register and the keyboard controller in turn, and finishes in the one that
/// is behind them.
pub(crate) fn reboot(machine: &Machine) -> Result<(), Error> {
    let life = __cpuid(LEAF_LIFE).eax;
    if life > REBOOTS {
        let mut claims = Claims::from(1000);
        claims.equal("the lives are counted", life.into(), u64::from(REBOOTS) + 1);
        return Ok(());
    }
    end(machine, "about to reboot", || {
        if life.is_multiple_of(2) {
            write_port(KEYBOARD_COMMAND, KEYBOARD_RESET);
        } else {
            write_port(RESET_PORT, RESET_NOW);
        }
    })
}

/// Reboots in every life.
pub(crate) fn reboot_for_ever(machine: &Machine) -> Result<(), Error> {
    end(machine, "about to reboot", || write_port(RESET_PORT, RESET_NOW))
}

unsafe extern "C" {
    // From the runtime's linker script: the region that was announced as the trace window.
    static __trace_start: u8;
}

/// Garbage for a trace window. The hypervisor must say so and take no notice of it otherwise.
pub(crate) fn bad_window(machine: &Machine) -> Result<(), Error> {
    let mut claims = Claims::from(1000);
    timer::pass_time(machine);
    claims.holds("about to spoil the trace window", true);
    let start = &raw const __trace_start as *mut u64;
    for word in 0..512 {
        // SAFETY: the header of this guest's own region: whoever reads it must expect anything.
        unsafe { start.add(word).write_volatile(0x5A5A_5A5A_5A5A_5A5A) };
    }
    // SAFETY: does nothing.
    claims.equal("the partition goes on", unsafe { hypercall(NOP, 0, 0) }, 0);
    Ok(())
}
