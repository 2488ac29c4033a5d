//! x87, MMX, SSE, AVX and what else XCR0 can enable: it works, and it is kept while the guest is left, in whatever way.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_abi::hypercall::NOP;
use partita_rt::{Error, Machine, apic, cpu, hypercall};

use crate::catch::open;
use crate::claims::Claims;
use crate::counters::FIRST_VECTOR;
use crate::peer::{CPUS, Pair};
use crate::trap::{self, GENERAL_PROTECTION, INVALID_OPCODE, NOTHING, trial, user_trial};
use crate::user;

const CR0_MONITOR: u64 = 1 << 1;
const CR0_EMULATE: u64 = 1 << 2;
const CR4_SSE: u64 = 0b11 << 9;
const CR4_OSXSAVE: u64 = 1 << 18;
const LEAF_XSAVE: u32 = 0xD;
/// Components of XCR0 (APM vol. 2 section 11.5.3).
const X87: u64 = 1 << 0;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
const AVX512: u64 = 0b111 << 5;
const PKRU: u64 = 1 << 9;
/// Bits of leaf 0xD.1.
const XSAVEOPT: u32 = 1 << 0;
const XSAVEC: u32 = 1 << 1;
const XGETBV_1: u32 = 1 << 2;
const XSAVES: u32 = 1 << 3;
/// Patterns, and exits of each kind that each of them has to survive.
const PATTERNS: u64 = 12;
const EXITS: u64 = 40;
const AREA_LEN: usize = 4096;
const LEGACY_LEN: usize = 512;
const HEADER_LEN: usize = 64;

/// Areas of XSAVE.
#[repr(C, align(64))]
struct Area([u8; AREA_LEN]);

struct Own(UnsafeCell<[Area; 2]>);

// SAFETY: each is its CPU's own.
unsafe impl Sync for Own {}

static AREAS: [Own; CPUS] = [const { Own(UnsafeCell::new([const { Area([0; AREA_LEN]) }; 2])) }; CPUS];
/// Makes the patterns of two partitions different.
static SEED: AtomicU64 = AtomicU64::new(0);

/// A generator of patterns (Vigna, "splitmix64").
struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let word = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ word >> 31
    }
}

fn enable() {
    // SAFETY: switches on what no other code uses.
    unsafe {
        asm!(
            "mov {0}, cr0", "and {0}, {1}", "or {0}, {2}", "mov cr0, {0}", "mov {0}, cr4", "or {0}, {3}", "mov cr4, {0}",
            out(reg) _, const !CR0_EMULATE as i64, const CR0_MONITOR, const CR4_SSE | CR4_OSXSAVE, options(nostack),
        );
    }
}

fn xsetbv(register: u32, value: u64) -> u64 {
    trial!(["xsetbv"], in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32).vector
}

fn xgetbv(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the CPU has it, and CR4.OSXSAVE is on.
    unsafe { asm!("xgetbv", in("ecx") register, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Whether the components make a value of XCR0.
fn is_valid(xcr0: u64) -> bool {
    let all_512 = xcr0 & AVX512 == AVX512;
    xcr0 & X87 != 0 && (xcr0 & AVX == 0 || xcr0 & SSE != 0) && (xcr0 & AVX512 == 0 || all_512 && xcr0 & AVX != 0)
}

fn shown() -> u64 {
    let leaf = __cpuid_count(LEAF_XSAVE, 0);
    // The bare machine shows MPX, too.
    (u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & (X87 | SSE | AVX | AVX512 | PKRU)
}

/// How an area is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Save {
    Plain,
    Optimised,
    Compact,
}

fn save(area: &mut Area, how: Save) {
    area.0 = [0; AREA_LEN];
    // SAFETY: the area is large enough and aligned; whoever asks for a form has seen its bit.
    unsafe {
        match how {
            Save::Plain => asm!("xsave64 [{0}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX),
            Save::Optimised => asm!("xsaveopt64 [{0}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX),
            Save::Compact => asm!("xsavec64 [{0}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX),
        }
    }
}

fn restore(area: &Area) {
    // SAFETY: the area holds a valid image; nobody else uses these registers.
    unsafe { asm!("xrstor64 [{0}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX) };
}

/// Fills an area of the standard form with a pattern, for the components of `xcr0`.
fn fill(area: &mut Area, xcr0: u64, seed: u64) {
    let mut words = Words(seed);
    for chunk in area.0.chunks_exact_mut(8) {
        chunk.copy_from_slice(&words.next().to_le_bytes());
    }
    let legacy = &mut area.0;
    // Control and status words: all exceptions masked, none waiting; all x87 registers in use.
    legacy[..8].copy_from_slice(&[0x7F, 0x03 | (seed as u8 & 0x0C), 0, (seed as u8 & 0x07) << 3, 0xFF, 0, 0, 0]);
    legacy[8..24].fill(0);
    let mxcsr = 0x1F80 | (seed as u32 & 3) << 13;
    legacy[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    legacy[28..32].fill(0);
    for register in 0..8 {
        legacy[32 + register * 16 + 10..48 + register * 16].fill(0);
    }
    legacy[416..LEGACY_LEN].fill(0);
    let header = &mut area.0[LEGACY_LEN..LEGACY_LEN + HEADER_LEN];
    header.fill(0);
    header[..8].copy_from_slice(&xcr0.to_le_bytes());
    if xcr0 & PKRU != 0 {
        let at = __cpuid_count(LEAF_XSAVE, 9).ebx as usize;
        area.0[at + 4..at + 8].fill(0);
    }
}

/// Whether all components of `xcr0` are the same in both areas.
fn same(left: &Area, right: &Area, xcr0: u64) -> bool {
    // MXCSR's mask tells of the CPU, and the last instruction's addresses and the bytes for software are not state here.
    let legacy = |area: &Area| {
        let mut legacy = [0; 416];
        legacy.copy_from_slice(&area.0[..416]);
        legacy[5..24].fill(0);
        legacy[28..32].fill(0);
        if xcr0 & SSE == 0 {
            legacy[24..28].fill(0);
            legacy[160..].fill(0);
        }
        legacy
    };
    let others = (2..63).filter(|component| xcr0 >> component & 1 == 1).all(|component| {
        let leaf = __cpuid_count(LEAF_XSAVE, component);
        let place = leaf.ebx as usize..(leaf.ebx + leaf.eax) as usize;
        left.0.get(place.clone()) == right.0.get(place)
    });
    legacy(left) == legacy(right) && others
}

/// Whether the reserved part of an area's header is 0. Bochs 2.7 begins AVX's part of the compact form 160 bytes too early, over
/// the header, on the bare machine, too.
fn has_clean_header(area: &Area) -> bool {
    area.0[LEGACY_LEN + 16..LEGACY_LEN + HEADER_LEN].iter().all(|byte| *byte == 0)
}

/// Leaves the guest in every way that comes back.
fn leave(machine_is_partition: bool) {
    let own = apic::id();
    for _ in 0..EXITS {
        core::hint::black_box(__cpuid(0));
        // SAFETY: registers that may be read or written as they are, a port without effect, an interrupt to this CPU that
        // is counted, a hypercall that does nothing.
        unsafe {
            asm!("rdmsr", in("ecx") 0xC000_0080_u32, out("eax") _, out("edx") _, options(nostack));
            asm!("rdmsr", "wrmsr", in("ecx") 0xC000_0080_u32, out("eax") _, out("edx") _, options(nostack));
            asm!("out 0x80, al", "in al, 0x80", out("al") _, options(nostack));
            asm!("wbinvd", options(nostack));
            apic::send_fixed(own, FIRST_VECTOR);
            if machine_is_partition {
                hypercall(NOP, 0, 0);
            }
        }
        open();
    }
}

static IN_PARTITION: AtomicU64 = AtomicU64::new(0);

fn keeps(claims: &mut Claims, xcr0: u64, areas: &mut [Area; 2]) {
    let [pattern, found] = areas;
    let own = SEED.load(Ordering::Relaxed) << 8 | cpu::index() as u64;
    let features = __cpuid_count(LEAF_XSAVE, 1).eax;
    let mut ways = [Some(Save::Plain), None];
    if features & XSAVEOPT != 0 {
        ways[1] = Some(Save::Optimised);
    }
    let mut wrong = 0;
    for round in 0..PATTERNS {
        fill(pattern, xcr0, own << 32 | round);
        restore(pattern);
        leave(IN_PARTITION.load(Ordering::Relaxed) != 0);
        for way in ways.into_iter().flatten() {
            save(found, way);
            wrong += u64::from(!same(pattern, found, xcr0));
        }
        if features & XSAVEC != 0 {
            // The compact form is read back instead of compared: the standard form has to come out the same.
            save(found, Save::Compact);
            if has_clean_header(found) {
                restore(found);
                save(found, Save::Plain);
                wrong += u64::from(!same(pattern, found, xcr0));
            }
        }
        if features & XGETBV_1 != 0 {
            // Every component holds a pattern. TCG tells of them as in use as far as it knows.
            wrong += u64::from(xgetbv(1) & !xcr0 != 0);
        }
    }
    claims.about("state is kept over exits and kicks with XCR0", wrong == 0, xcr0, wrong);
}

fn values(claims: &mut Claims, areas: &mut [Area; 2]) {
    let shown = shown();
    for xcr0 in (0..=shown).filter(|value| value & !shown == 0 && is_valid(*value)) {
        let set = xsetbv(0, xcr0);
        claims.about("XCR0 takes what CPUID shows", set == NOTHING && xgetbv(0) == xcr0, xcr0, set);
        keeps(claims, xcr0, areas);
    }
    let before = xgetbv(0);
    for (register, value, text) in [
        (0, 0, "XCR0 without x87 is #GP"),
        (0, X87 | AVX, "XCR0 with AVX and without SSE is #GP"),
        (0, 1 << 63 | before, "XCR0 with bit 63 is #GP"),
        (0, 1 << 40 | before, "XCR0 with a bit that nobody knows is #GP"),
        (1, before, "XSETBV of another register is #GP"),
    ] {
        claims.equal(text, xsetbv(register, value), GENERAL_PROTECTION);
    }
    claims.equal("  none of which changed it", xgetbv(0), before);
    let (code, stack): (u64, u64);
    // SAFETY: reads registers.
    unsafe { asm!("lea {}, [rip]", "mov {}, rsp", out(reg) code, out(reg) stack, options(nomem, nostack)) };
    user::open_page(code);
    user::open_page(stack);
    let (low, high) = (before as u32, (before >> 32) as u32);
    let by_user = user_trial!(["xsetbv"], 2_u64, in("ecx") 0, in("eax") low, in("edx") high);
    claims.equal("XSETBV of user code is #GP", by_user.vector, GENERAL_PROTECTION);
    let misaligned = trial!(["xsave [rdi + 8]"], in("rdi") areas, in("eax") 7, in("edx") 0);
    claims.equal("an area that is not aligned is #GP", misaligned.vector, GENERAL_PROTECTION);
    // TCG executes XSAVES where CPUID does not show it.
    if __cpuid_count(LEAF_XSAVE, 1).eax & XSAVES != 0 {
        let [area, _] = areas;
        area.0 = [0; AREA_LEN];
        let saves = trial!(["xsaves [rdi]"], in("rdi") &raw mut *area, in("eax") 7, in("edx") 0);
        claims.equal("XSAVES works", saves.vector, NOTHING);
        if has_clean_header(area) {
            let restores = trial!(["xrstors [rdi]"], in("rdi") &raw mut *area, in("eax") 7, in("edx") 0);
            claims.equal("  and so does XRSTORS", restores.vector, NOTHING);
        }
    }
    // SAFETY: switches XSAVE off, and on again.
    let off = trial!(
        ["mov rdi, cr4", "btr rdi, 18", "mov cr4, rdi", "xgetbv"],
        in("ecx") 0, out("rax") _, out("rdx") _, out("rdi") _,
    );
    claims.equal("XGETBV without CR4.OSXSAVE is #UD", off.vector, INVALID_OPCODE);
    claims.equal("  which CPUID shows", u64::from(__cpuid(1).ecx >> 27 & 1), 0);
    enable();
    claims.equal("  and shows otherwise with it", u64::from(__cpuid(1).ecx >> 27 & 1), 1);
}

/// Some arithmetic with each kind of registers.
fn computes(claims: &mut Claims) {
    let x87: u64;
    // SAFETY: nobody else uses these registers; what is pushed is popped.
    unsafe {
        asm!("fninit", "push 9", "fild qword ptr [rsp]", "fsqrt", "fldpi", "fmulp", "fistp qword ptr [rsp]", "pop {0}",
            out(reg) x87);
    }
    claims.equal("x87 computes: 3 pi", x87, 9);
    let mmx: u64;
    // SAFETY: as above.
    unsafe {
        asm!("movq mm0, {1}", "movq mm7, {2}", "paddb mm0, mm7", "movq {0}, mm0", "emms",
            out(reg) mmx, in(reg) 0x01FF_0203_0405_0607_u64, in(reg) 0x0101_0101_0101_0101_u64);
    }
    claims.equal("MMX computes: bytes do not carry", mmx, 0x0200_0304_0506_0708);
    let sse: u64;
    // SAFETY: as above.
    unsafe {
        asm!("cvtsi2sd xmm15, {1}", "sqrtsd xmm15, xmm15", "cvttsd2si {0}, xmm15", out(reg) sse, in(reg) 1_000_000_u64)
    };
    claims.equal("SSE2 computes: a square root", sse, 1000);
    if shown() & AVX != 0 && __cpuid(1).ecx >> 28 & 1 == 1 {
        xsetbv(0, X87 | SSE | AVX);
        let avx: u64;
        // SAFETY: as above.
        unsafe {
            asm!("vmovq xmm1, {1}", "vpermilps ymm2, ymm1, 0", "vinsertf128 ymm3, ymm2, xmm1, 1",
                "vextractf128 xmm4, ymm3, 1", "vmovq {0}, xmm4", out(reg) avx, in(reg) 0x1234_5678_9ABC_DEF0_u64);
        }
        claims.equal("AVX computes: the upper half of YMM", avx, 0x1234_5678_9ABC_DEF0);
        xsetbv(0, X87 | SSE);
        let off = trial!(["vaddps ymm0, ymm0, ymm0"]);
        claims.equal("  AVX is #UD where XCR0 has it not", off.vector, INVALID_OPCODE);
    }
}

fn all(claims: &mut Claims) {
    let Some(own) = AREAS.get(cpu::index()) else { return };
    // SAFETY: this CPU's own, and nothing else refers to it.
    let areas = unsafe { &mut *own.0.get() };
    trap::begin();
    enable();
    computes(claims);
    values(claims, areas);
    trap::end();
}

/// The claims. The option `seed=N` makes the patterns differ from another partition's.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    SEED.store(machine.options(crate::OPTIONS)?.number("seed", 1, 0..=255)?, Ordering::Relaxed);
    IN_PARTITION.store(machine.place.is_partition().into(), Ordering::Relaxed);
    let mut claims = Claims::from(3200);
    if __cpuid(1).ecx >> 26 & 1 == 0 {
        claims.holds("the CPU has no XSAVE", true);
        return Ok(());
    }
    let pair = Pair::start(machine)?;
    all(&mut claims);
    pair.call(|| all(&mut Claims::from(3400)))
}
