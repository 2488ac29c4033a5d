//! Touches, and executes, what is not its own: one address in each life, because the first access stops the partition.

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::cell::UnsafeCell;

use partita_x86_policy::msr_values::APIC_PAGE;

use crate::Orders;
use crate::cpus::cr3;
use crate::gates::{PF, attempt};
use crate::random::Random;
use crate::tally::Tally;

const PAGE: u64 = 4096;
/// Present, writable.
const TABLE: u64 = 0b11;
/// Where the foreign page shows: the second 512 GiB, of which the boot page tables map nothing.
const WINDOW: u64 = 1 << 39;
const WINDOW_SLOT: usize = 1;
/// Bits of a physical address that a page table has room for.
const ADDRESS_BITS: u32 = 52;
/// CPUID leaf of the address sizes.
const LEAF_ADDRESS_SIZES: u32 = 0x8000_0008;
/// Error code of a page fault: a reserved bit is set.
const RESERVED_BIT: u64 = 1 << 3;

/// Pages of q35 and of the APIC that are no memory: the APIC's at several registers, I/O APIC, HPET, IOMMU, the PCI
/// configuration window, the flash.
const DEVICES: [u64; 14] = [
    APIC_PAGE,
    APIC_PAGE + 0x20,
    APIC_PAGE + 0xB0,
    APIC_PAGE + 0x300,
    APIC_PAGE + 0x310,
    APIC_PAGE + 0xFF8,
    APIC_PAGE - 8,
    APIC_PAGE + PAGE,
    0xFEC0_0000,
    0xFED0_0000,
    0xFED8_0000,
    0xB000_0000,
    0xFFFF_FFF0,
    0xE000_0000,
];

#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; 512]>);

// SAFETY: only vCPU 0 uses it.
unsafe impl Sync for Table {}

static TABLES: [Table; 3] = [const { Table(UnsafeCell::new([0; 512])) }; 3];

fn set(table: u64, slot: usize, entry: u64) {
    // SAFETY: a page table of this guest's, mapped one to one.
    unsafe { (table as *mut u64).add(slot).write_volatile(entry) };
}

/// Shows the page at `gpa` in the window; gives the address there.
fn show(gpa: u64) -> u64 {
    let [first, second, third] = TABLES.each_ref().map(|table| table.0.get() as u64);
    let root = cr3();
    set(root, WINDOW_SLOT, first | TABLE);
    set(first, 0, second | TABLE);
    set(second, 0, third | TABLE);
    set(third, 0, gpa & !(PAGE - 1) | TABLE);
    // SAFETY: flushes what was there.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
    WINDOW | gpa & (PAGE - 1)
}

/// Bits of a guest-physical address.
fn address_bits() -> u32 {
    (__cpuid(LEAF_ADDRESS_SIZES).eax & 0xFF).clamp(32, ADDRESS_BITS)
}

/// The address of this life: devices, powers of two and their neighbours, each `steps`-th page of the command line's range,
/// then any.
fn target(orders: &Orders, bits: u32) -> u64 {
    let mut index = orders.life - 1;
    if let Some(device) = DEVICES.get(index as usize) {
        return *device;
    }
    index -= DEVICES.len() as u64;
    // From the end of this memory on.
    let first = orders.memory.next_power_of_two().trailing_zeros();
    let powers = u64::from(bits - first);
    if index < powers * 3 {
        let power = 1 << (u64::from(first) + index / 3);
        let neighbour = [power, power - PAGE, power + PAGE].get((index % 3) as usize).copied().unwrap_or(power);
        return neighbour.max(orders.memory);
    }
    index -= powers * 3;
    if index < orders.count {
        return ((orders.from + index * orders.steps_or(1)) * PAGE).max(orders.memory);
    }
    let mut random = Random::new(orders.seed ^ index << 32);
    let end = 1 << (first + 1 + random.below(powers) as u32);
    (orders.memory + random.below(end - orders.memory)) & !7
}

/// Addresses past what the CPU has do not reach the hypervisor: the guest's own page tables refuse them.
fn past_the_cpu(tally: &mut Tally, bits: u32) {
    for bit in bits..ADDRESS_BITS {
        let address = show(1 << bit);
        let caught = attempt!(["mov rax, [rdx]"], in("rdx") address, out("rax") _);
        let error_code = crate::gates::guard().error_code();
        tally.tries += 1;
        tally.faults += 1;
        tally.check(
            caught == PF && error_code & RESERVED_BIT != 0,
            format_args!("bit {bit} of an address: exception {caught}, error code {error_code:#x}"),
        );
    }
}

/// Reads, writes, or has page tables at an address.
pub(crate) fn touch(orders: &Orders, tally: &mut Tally) {
    let bits = address_bits();
    if orders.life == 1 {
        past_the_cpu(tally, bits);
    }
    let gpa = target(orders, bits);
    tally.tries += 1;
    let value: u64;
    match (orders.life + orders.seed) % 3 {
        0 => {
            orders.say(format_args!("read {gpa:#x}"));
            // SAFETY: ends the partition.
            unsafe { asm!("mov {}, [{}]", out(reg) value, in(reg) show(gpa), options(nostack, readonly)) };
        }
        1 => {
            orders.say(format_args!("write {gpa:#x}"));
            // SAFETY: ends the partition.
            unsafe { asm!("mov [{}], {}", in(reg) show(gpa), in(reg) u64::MAX, options(nostack)) };
            value = u64::MAX;
        }
        _ => {
            let root = gpa & !(PAGE - 1);
            orders.say(format_args!("walk {root:#x}"));
            // SAFETY: ends the partition: no page is mapped any more.
            unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack)) };
            value = root;
        }
    }
    tally.wrong(format_args!("an access to {gpa:#x} came back with {value:#x}"));
}

/// Jumps to an address.
pub(crate) fn execute(orders: &Orders, tally: &mut Tally) {
    let gpa = target(orders, address_bits());
    tally.tries += 1;
    orders.say(format_args!("execute {gpa:#x}"));
    let address = show(gpa);
    // SAFETY: ends the partition.
    unsafe { asm!("call {}", in(reg) address) };
    tally.wrong(format_args!("the code at {gpa:#x} came back"));
}
