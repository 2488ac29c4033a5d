//! Page tables of the guest's own, in long mode: sizes, rights, accessed and dirty bits, and what CR4 adds to that.
//!
//! The tests use addresses that the boot page tables leave alone, so that the kernel's own pages stay as they are.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use partita_rt::{Error, Machine};

use crate::claims::Claims;
use crate::peer::Pair;
use crate::tables::{USER_CODE, USER_DATA};
use crate::trap::{self, GENERAL_PROTECTION, NOTHING, PAGE, Trap, trial};

/// The first address of the second entry of the top level.
const BASE: u64 = 0x80_0000_0000;
/// Addresses that show the first pages in three sizes, by the table's entries.
const HUGE: u64 = BASE;
const LARGE: u64 = BASE + (1 << 30);
const SMALL: u64 = BASE + (1 << 30) + (2 << 20);

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const IS_LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits of a page fault's error code (APM vol. 2 section 8.4.2).
const ERROR_PRESENT: u64 = 1 << 0;
const ERROR_WRITE: u64 = 1 << 1;
const ERROR_USER: u64 = 1 << 2;
const ERROR_RESERVED: u64 = 1 << 3;
const ERROR_FETCH: u64 = 1 << 4;
const CR0_WRITE_PROTECT: u64 = 1 << 16;
const CR4_GLOBAL: u64 = 1 << 7;
const CR4_LA57: u64 = 1 << 12;
const CR4_PCID: u64 = 1 << 17;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
const RFLAGS_AC: u64 = 1 << 18;

const WORDS: usize = 512;

/// A page: a table, data, or code.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u64; WORDS]>);

// SAFETY: one CPU at a time uses them.
unsafe impl Sync for Page {}

static POINTERS: Page = Page::new();
static DIRECTORY: Page = Page::new();
static TABLE: Page = Page::new();
static DATA: [Page; 2] = [const { Page::new() }; 2];

impl Page {
    const fn new() -> Self {
        Self(UnsafeCell::new([0; WORDS]))
    }

    fn address(&self) -> u64 {
        self.0.get() as u64
    }

    fn get(&self, index: usize) -> u64 {
        // SAFETY: one CPU at a time uses it, and the processor changes it behind the compiler's back.
        unsafe { self.0.get().cast::<u64>().add(index % WORDS).read_volatile() }
    }

    fn set(&self, index: usize, value: u64) {
        // SAFETY: as above.
        unsafe { self.0.get().cast::<u64>().add(index % WORDS).write_volatile(value) };
    }
}

fn cr3() -> u64 {
    let cr3: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags)) };
    cr3
}

fn flush() {
    // SAFETY: flushes translations.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags)) };
}

fn invalidate(address: u64) {
    // SAFETY: flushes a translation.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
}

fn cr4() -> u64 {
    let cr4: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags)) };
    cr4
}

/// Writes CR4, and gives the exception.
fn set_cr4(value: u64) -> u64 {
    trial!(["mov cr4, rax"], in("rax") value).vector
}

fn set_top(value: u64) {
    // SAFETY: an entry of the boot page tables that nobody else uses.
    unsafe { ((cr3() & !0xFFF) as *mut u64).add(1).write_volatile(value) };
}

/// Maps a page of 4 KiB at [`SMALL`], with these rights besides being present.
fn map(page: &Page, rights: u64) {
    TABLE.set(0, page.address() | PRESENT | rights);
    invalidate(SMALL);
}

fn read(address: u64) -> (Trap, u64) {
    let value: u64;
    let trap = trial!(["mov rax, [rdx]"], in("rdx") address, out("rax") value);
    (trap, value)
}

fn write(address: u64, value: u64) -> Trap {
    trial!(["mov [rdx], rax"], in("rdx") address, in("rax") value)
}

/// Calls code that is RET alone.
fn call(address: u64) -> Trap {
    trial!(["call rdx"], in("rdx") address)
}

/// Executes at `address` as user code, with a stack that it does not use.
fn enter_user(address: u64) -> Trap {
    trial!(
        ["push rdx", "push rax", "push 2", "push rcx", "push rsi", "iretq"],
        in("rdx") USER_DATA, in("rax") SMALL + 4096, in("rcx") USER_CODE, in("rsi") address,
    )
}

fn claim_fault(claims: &mut Claims, text: &str, trap: Trap, error: u64) {
    claims.about(text, trap.vector == PAGE && trap.error == error, trap.vector, trap.error);
}

fn sizes(claims: &mut Claims) {
    let [first, _] = &DATA;
    let at = first.address();
    first.set(3, 0x1234_5678_9ABC_DEF0);
    map(first, WRITABLE);
    claims.equal("a page of 4 KiB translates", read(SMALL + 24).1, first.get(3));
    claims.equal("a page of 2 MiB translates", read(LARGE + at % (2 << 20) + 24).1, first.get(3));
    let (trap, value) = read(HUGE + at + 24);
    if __cpuid(0x8000_0001).edx >> 26 & 1 == 1 {
        claims.equal("a page of 1 GiB translates", value, first.get(3));
    } else {
        claim_fault(claims, "a page of 1 GiB is reserved", trap, ERROR_PRESENT | ERROR_RESERVED);
    }
    DIRECTORY.set(2, PRESENT | IS_LARGE | 1 << 13);
    flush();
    // TCG leaves the present bit out, on the bare machine, too.
    let reserved = read(LARGE + (4 << 20)).0;
    claims.about(
        "a reserved bit faults",
        reserved.vector == PAGE && reserved.error & ERROR_RESERVED != 0,
        PAGE,
        reserved.error,
    );
    DIRECTORY.set(2, 0);
    flush();
    claim_fault(claims, "a page that is not present faults", read(LARGE + (4 << 20)).0, 0);
    claim_fault(claims, "  at a write, too", write(LARGE + (4 << 20), 0), ERROR_WRITE);
}

fn rights(claims: &mut Claims) {
    let [first, second] = &DATA;
    // RET.
    first.set(0, 0xC3);
    map(first, WRITABLE);
    claims.equal("code executes", call(SMALL).vector, NOTHING);
    map(first, WRITABLE | NO_EXECUTE);
    claim_fault(claims, "NX forbids that", call(SMALL), ERROR_PRESENT | ERROR_FETCH);
    claims.equal("  and no reading", read(SMALL).0.vector, NOTHING);
    map(first, 0);
    claim_fault(claims, "a read-only page faults at a write", write(SMALL + 8, 1), ERROR_PRESENT | ERROR_WRITE);
    set_write_protect(false);
    claims.equal("  not without CR0.WP", write(SMALL + 8, 1).vector, NOTHING);
    set_write_protect(true);

    map(first, WRITABLE);
    claims.equal("a page is neither accessed nor dirty", TABLE.get(0) & (ACCESSED | DIRTY), 0);
    read(SMALL);
    claims.equal("  accessed after a read", TABLE.get(0) & (ACCESSED | DIRTY), ACCESSED);
    write(SMALL + 8, 2);
    claims.equal("  and dirty after a write", TABLE.get(0) & (ACCESSED | DIRTY), ACCESSED | DIRTY);

    second.set(1, 77);
    TABLE.set(0, second.address() | PRESENT);
    invalidate(SMALL);
    claims.equal("after INVLPG another page is there", read(SMALL + 8).1, 77);
    map(first, WRITABLE | GLOBAL);
    claims.equal("CR4.PGE can be set", set_cr4(cr4() | CR4_GLOBAL), NOTHING);
    read(SMALL);
    map(second, WRITABLE | GLOBAL);
    claims.equal("  INVLPG flushes a global page", read(SMALL + 8).1, 77);
    set_cr4(cr4() & !CR4_GLOBAL);
}

fn set_write_protect(on: bool) {
    // SAFETY: all that is written meanwhile is this test's.
    unsafe {
        asm!("mov {0}, cr0", "and {0}, {keep}", "or {0}, {1}", "mov cr0, {0}", out(reg) _,
            in(reg) u64::from(on) * CR0_WRITE_PROTECT, keep = const !(CR0_WRITE_PROTECT as i64), options(nostack));
    }
}

fn privilege(claims: &mut Claims) {
    let [first, second] = &DATA;
    // INT3; that gate is open to user code.
    first.set(0, 0xCC);
    map(first, WRITABLE);
    claim_fault(
        claims,
        "user code cannot enter the kernel's page",
        enter_user(SMALL),
        ERROR_PRESENT | ERROR_USER | ERROR_FETCH,
    );
    map(first, WRITABLE | USER);
    claims.equal("user code executes in its own", enter_user(SMALL).vector, trap::BREAKPOINT);
    // MOV RAX, [RIP + 0xFF9], which is the first word of the next page, and INT3.
    first.set(0, 0xCC00_000F_F905_8B48);
    TABLE.set(1, second.address() | PRESENT | WRITABLE);
    invalidate(SMALL + 4096);
    claim_fault(claims, "user code cannot read the kernel's page", enter_user(SMALL), ERROR_PRESENT | ERROR_USER);

    let features = __cpuid_count(7, 0);
    first.set(0, 0xC3);
    if features.ebx >> 7 & 1 == 1 {
        claims.equal("CR4.SMEP can be set", set_cr4(cr4() | CR4_SMEP), NOTHING);
        claim_fault(
            claims,
            "  then the kernel cannot execute the user's page",
            call(SMALL),
            ERROR_PRESENT | ERROR_FETCH,
        );
        set_cr4(cr4() & !CR4_SMEP);
        claims.equal("  without it it can", call(SMALL).vector, NOTHING);
    } else {
        claims.equal("CR4.SMEP, which is not shown, is #GP", set_cr4(cr4() | CR4_SMEP), GENERAL_PROTECTION);
    }
    if features.ebx >> 20 & 1 == 1 {
        claims.equal("CR4.SMAP can be set", set_cr4(cr4() | CR4_SMAP), NOTHING);
        claim_fault(claims, "  then the kernel cannot read the user's page", read(SMALL).0, ERROR_PRESENT);
        let value: u64;
        let trap = trial!(["stac", "mov rax, [rdx]", "clac"], in("rdx") SMALL, out("rax") value);
        claims.about("  but behind STAC", trap.vector == NOTHING && value == first.get(0), trap.vector, value);
        let trap = trial!(
            ["pushfq", "or [rsp], rcx", "popfq", "mov rax, [rdx]", "clac"],
            in("rdx") SMALL, in("rcx") RFLAGS_AC, out("rax") _,
        );
        claims.equal("  or with RFLAGS.AC", trap.vector, NOTHING);
        set_cr4(cr4() & !CR4_SMAP);
    } else {
        claims.equal("CR4.SMAP, which is not shown, is #GP", set_cr4(cr4() | CR4_SMAP), GENERAL_PROTECTION);
    }
}

fn identifiers(claims: &mut Claims, in_partition: bool) {
    let [first, _] = &DATA;
    map(first, WRITABLE);
    // TCG takes the bit where CPUID does not show it, on the bare machine, too.
    if __cpuid(1).ecx >> 17 & 1 == 1 {
        claims.equal("CR4.PCIDE can be set", set_cr4(cr4() | CR4_PCID), NOTHING);
        let root = cr3();
        let trap = trial!(["mov cr3, rax", "mov rcx, [rdx]", "mov cr3, rsi"],
            in("rax") root | 5, in("rdx") SMALL, in("rsi") root, out("rcx") _);
        claims.equal("  an address space has an identifier", trap.vector, NOTHING);
        set_cr4(cr4() & !CR4_PCID);
    }
    if __cpuid_count(7, 0).ebx >> 10 & 1 == 1 {
        let descriptor = [0_u64, SMALL];
        let trap = trial!(["invpcid rax, [rdx]"], in("rax") 0_u64, in("rdx") descriptor.as_ptr());
        claims.equal("INVPCID works", trap.vector, NOTHING);
    }
    claims.equal("CR4.LA57 cannot change in long mode", set_cr4(cr4() ^ CR4_LA57), GENERAL_PROTECTION);
    if in_partition {
        claims.equal("5-level paging is not shown", u64::from(__cpuid_count(7, 0).ecx >> 16 & 1), 0);
    }
}

fn all(claims: &mut Claims) {
    trap::begin();
    // Page tables, large pages and all but the last level allow everything.
    let all = PRESENT | WRITABLE | USER;
    POINTERS.set(0, all | IS_LARGE);
    POINTERS.set(1, DIRECTORY.address() | all);
    DIRECTORY.set(1, TABLE.address() | all);
    let [first, _] = &DATA;
    DIRECTORY.set(0, first.address() & !((2 << 20) - 1) | PRESENT | WRITABLE | IS_LARGE);
    set_top(POINTERS.address() | all);
    flush();
    sizes(claims);
    rights(claims);
    privilege(claims);
    identifiers(claims, IN_PARTITION.load(Ordering::Relaxed));
    set_top(0);
    flush();
    trap::end();
}

static IN_PARTITION: AtomicBool = AtomicBool::new(false);

/// The claims.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    IN_PARTITION.store(machine.place.is_partition(), Ordering::Relaxed);
    let pair = Pair::start(machine)?;
    all(&mut Claims::from(3600));
    pair.call(|| all(&mut Claims::from(3800)))
}
