//! The registers at the entry, one by one.

use crate::claims::Claims;
use crate::format;
use crate::slots::*;
use crate::state::{State, u64_at};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
/// CR0 behind a reset: NW and CD, too.
const CR0_RESET: u64 = 0x6000_0000 | CR0_ET;
const CR4_PAE: u64 = 1 << 5;
const EFER_LONG: u64 = 1 << 8 | 1 << 10;
/// RFLAGS: the bit that is always 1.
const RFLAGS_CLEAR: u64 = 2;
const RFLAGS_IF: u64 = 1 << 9;
const RFLAGS_VM: u64 = 1 << 17;
const DR6_RESET: u64 = 0xFFFF_0FF0;
const DR7_RESET: u64 = 0x400;
/// EAX of multiboot.
const MULTIBOOT_MAGIC: u64 = 0x2BAD_B002;
/// Linux's `__BOOT_CS` and `__BOOT_DS`.
const BOOT_CS: u64 = 0x10;
const BOOT_DS: u64 = 0x18;
/// What LAR says of them: present, ring 0, accessed, granular; 64-bit code that can be read, 32-bit data that can be
/// written. The other bits are undefined.
const ACCESS_MASK: u64 = 0x00F0_FF00;
const CODE_64: u64 = 0x00A0_9B00;
const DATA: u64 = 0x00C0_9300;
const LIMIT_4G: u64 = 0xFFFF_FFFF;
/// Limit of descriptor tables after a reset.
const TABLE_LIMIT: u64 = 0xFFFF;

const READS: [&str; 6] = [
    "CS reads at base 0",
    "SS reads at base 0",
    "DS reads at base 0",
    "ES reads at base 0",
    "FS reads at base 0",
    "GS reads at base 0",
];
const WRITES: [&str; 6] = [
    "",
    "SS writes at base 0",
    "DS writes at base 0",
    "ES writes at base 0",
    "FS writes at base 0",
    "GS writes at base 0",
];

/// The claims about them.
pub(crate) fn check(claims: &mut Claims, state: &State) {
    let get = |slot| state.get(slot);
    let number = get(FORMAT);
    match number {
        format::REAL => real(claims, state),
        format::PVH | format::MULTIBOOT | format::PROTECTED => protected(claims, state),
        _ => long(claims, state),
    }
    general(claims, state);
    for (slot, text) in (READ..).zip(READS) {
        claims.equal(text, get(slot), MARKER.into());
    }
    for (index, text) in WRITES.into_iter().enumerate().skip(1) {
        claims.equal(text, get(WRITTEN + index), index as u64);
    }
    claims.equal_here("CR2 is 0", get(CR2), 0);
    claims.equal_here("DR6 is as after a reset", get(DR6), DR6_RESET);
    claims.equal_here("DR7 is as after a reset", get(DR7), DR7_RESET);
    claims.equal_here("the FS base is 0", get(FS_BASE), 0);
    claims.equal_here("the GS base is 0", get(GS_BASE), 0);
    claims.equal_here("the IDT's base is 0", get(IDT_BASE), 0);
    claims.equal_here("the IDT's limit is as after a reset", get(IDT_LIMIT), TABLE_LIMIT);
    if number != format::REAL {
        claims.equal_here("TR is 0", get(TR), 0);
        claims.equal_here("LDTR is 0", get(LDTR), 0);
    }
}

/// One register has a meaning, or two; Partita leaves the others as a reset does.
fn general(claims: &mut Claims, state: &State) {
    let number = state.get(FORMAT);
    let pointer = match number {
        format::PVH | format::MULTIBOOT | format::PROTECTED => "RBX",
        format::PLAIN | format::LONG => "RDI",
        format::LINUX => "RSI",
        _ => "",
    };
    for (name, value) in state.general() {
        match name {
            "RAX" if number == format::MULTIBOOT => claims.equal("EAX is multiboot's magic", value, MULTIBOOT_MAGIC),
            "RDX" => claims.equal_here("EDX is the CPU's signature, as after a reset", value, signature()),
            _ if name == pointer => claims.holds("the pointer to what the loader tells is there", value != 0),
            _ => claims.equal_here(name, value, 0),
        }
    }
}

/// Family, model and stepping, as CPUID tells them.
fn signature() -> u64 {
    core::arch::x86_64::__cpuid(1).eax.into()
}

/// PVH (Xen, docs/misc/pvh.pandoc) and multiboot (section 3.2).
fn protected(claims: &mut Claims, state: &State) {
    let (cr0, flags) = (state.get(CR0), state.get(RFLAGS));
    claims.equal("CR0 has PE and not PG", cr0 & (CR0_PE | CR0_PG), CR0_PE);
    claims.equal("EFLAGS has neither VM nor IF", flags & (RFLAGS_VM | RFLAGS_IF), 0);
    claims.equal_here("CR0 has nothing but PE", cr0 & !CR0_ET, CR0_PE);
    claims.equal_here("EFLAGS is clear", flags, RFLAGS_CLEAR);
    claims.equal_here("CR3 is 0", state.get(CR3), 0);
    claims.equal_here("CR4 is 0", state.get(CR4), 0);
    claims.equal_here("EFER is 0", state.get(EFER), 0);
    claims.equal_here("the GDT's base is 0", state.get(GDT_BASE), 0);
    claims.equal_here("the GDT's limit is as after a reset", state.get(GDT_LIMIT), TABLE_LIMIT);
    claims.holds("address line 20 is on", address_line_20_is_on());
}

/// Linux's 64-bit boot protocol (Documentation/arch/x86/boot.rst), and what is made like it.
fn long(claims: &mut Claims, state: &State) {
    let get = |slot| state.get(slot);
    claims.equal("CR0 has PG and PE", get(CR0) & !CR0_ET, CR0_PG | CR0_PE);
    claims.equal("CR4 has PAE", get(CR4), CR4_PAE);
    claims.equal("EFER has LME and LMA", get(EFER), EFER_LONG);
    claims.equal("RFLAGS is clear", get(RFLAGS), RFLAGS_CLEAR);
    claims.equal("CS is __BOOT_CS", get(CS), BOOT_CS);
    for (slot, text) in (CS + 1..).zip(["SS is __BOOT_DS", "DS is __BOOT_DS", "ES is __BOOT_DS"]) {
        claims.equal(text, get(slot), BOOT_DS);
    }
    claims.equal("CS is 64-bit code that can be read", get(CS_ACCESS) & ACCESS_MASK, CODE_64);
    claims.equal("SS is data that can be written", get(SS_ACCESS) & ACCESS_MASK, DATA);
    claims.equal("CS has 4 GiB", get(CS_LIMIT), LIMIT_4G);
    claims.equal("SS has 4 GiB", get(SS_LIMIT), LIMIT_4G);
    claims.equal("the GDT has them", get(GDT_LIMIT), 0x1F);
    claims.equal("its code descriptor is in memory", u64_at(get(GDT_BASE) + BOOT_CS), 0x00AF_9B00_0000_FFFF);
    claims.equal("its data descriptor is in memory", u64_at(get(GDT_BASE) + BOOT_DS), 0x00CF_9300_0000_FFFF);
    for address in [0, 0x1234, 0x9_FFFF, 0xE_0000, 0x10_0000, 0x20_0200, 0x7FFF_FFFF, 0xFFFF_F000] {
        claims.equal("memory is mapped one to one", mapped_to(get(CR3), address), address);
    }
}

/// As behind a start-up IPI, but for CS.
fn real(claims: &mut Claims, state: &State) {
    let get = |slot| state.get(slot);
    claims.equal("CR0 is as after a reset", get(CR0), CR0_RESET);
    claims.equal("CR3 is 0", get(CR3), 0);
    claims.equal("CR4 is 0", get(CR4), 0);
    claims.equal("EFER is 0", get(EFER), 0);
    claims.equal("FLAGS is clear", get(RFLAGS), RFLAGS_CLEAR);
    for (slot, name) in (CS..).zip(SEGMENTS) {
        claims.equal(name, get(slot), 0);
    }
    claims.equal("the GDT's base is 0", get(GDT_BASE), 0);
    claims.equal("the GDT's limit is as after a reset", get(GDT_LIMIT), TABLE_LIMIT);
}

/// Where the page tables at `root` map an address, if it can be written; something else if it is not.
fn mapped_to(root: u64, address: u64) -> u64 {
    const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
    const WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let mut table = root & ADDRESS;
    for shift in [39, 30, 21, 12] {
        let entry = u64_at(table + (address >> shift & 511) * 8);
        if entry & WRITABLE != WRITABLE {
            break;
        }
        if shift == 12 || (shift < 39 && entry & LARGE != 0) {
            let within = (1 << shift) - 1;
            return entry & ADDRESS & !within | address & within;
        }
        table = entry & ADDRESS;
    }
    !address
}

/// Whether two addresses that differ in bit 20 only are two places: one below 1 MiB that nobody uses, and one above.
fn address_line_20_is_on() -> bool {
    const LOW: *mut u32 = 0x6000 as *mut u32;
    const HIGH: *mut u32 = 0x10_6000 as *mut u32;
    // SAFETY: RAM that is neither the image's nor the loader's, mapped one to one.
    unsafe {
        LOW.write_volatile(1);
        HIGH.write_volatile(2);
        LOW.read_volatile() == 1 && HIGH.read_volatile() == 2
    }
}
