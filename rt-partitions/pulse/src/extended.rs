//! x87, SSE and AVX: looked at and spoilt as a whole, by XSAVE and XRSTOR, or FXSAVE and FXRSTOR. No other code uses them.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};

use crate::stale::{Stale, What};

/// CR4: OSFXSR and OSXMMEXCPT.
const CR4_SSE: u64 = 0b11 << 9;
const CR4_OSXSAVE: u64 = 1 << 18;
/// CPUID 1, ECX.
const HAS_XSAVE: u32 = 1 << 26;
/// CPUID leaf of what XCR0 can enable.
const LEAF_EXTENDED: u32 = 0xD;
/// XCR0 after a reset: x87.
const XCR0_RESET: u64 = 1;
/// x87, SSE, AVX.
const COMPONENTS: u32 = 0b111;
const AVX: u32 = 1 << 2;

/// After FNINIT.
const CONTROL_WORD: u16 = 0x037F;
/// After a reset.
const MXCSR: u32 = 0x1F80;
/// What the next life must not find: another precision, flushing to zero, some pattern.
const SPOILT_CONTROL_WORD: u16 = 0x027F;
const SPOILT_MXCSR: u32 = 0x9FC0;
const PATTERN: u8 = 0xA5;
/// Of the 16 bytes of an x87 register, those that it has.
const X87_LEN: usize = 10;

/// An area of XSAVE in its standard form (APM vol. 2 section 11.5.2); the first 512 bytes are FXSAVE's.
#[repr(C, align(64))]
struct Area {
    control_word: u16,
    status_word: u16,
    tags: u8,
    _reserved: u8,
    _pointers: [u8; 18],
    mxcsr: u32,
    _mxcsr_mask: u32,
    x87: [[u8; 16]; 8],
    xmm: [[u8; 16]; 16],
    _unused: [u8; 96],
    header: [u64; 8],
    ymm: [[u8; 16]; 16],
}
const _: () = assert!(size_of::<Area>() == 832 && core::mem::offset_of!(Area, header) == 512);

impl Area {
    const fn filled(byte: u8) -> Self {
        Self {
            control_word: 0,
            status_word: 0,
            tags: 0,
            _reserved: 0,
            _pointers: [0; 18],
            mxcsr: 0,
            _mxcsr_mask: 0,
            x87: [[byte; 16]; 8],
            xmm: [[byte; 16]; 16],
            _unused: [0; 96],
            header: [0; 8],
            ymm: [[byte; 16]; 16],
        }
    }
}

fn has_xsave() -> bool {
    __cpuid(1).ecx & HAS_XSAVE != 0
}

/// What XSAVE and XRSTOR are to do.
fn components() -> u32 {
    __cpuid_count(LEAF_EXTENDED, 0).eax & COMPONENTS
}

/// Switches the instructions on, and looks.
pub(crate) fn check(stale: &mut Stale) {
    let has_xsave = has_xsave();
    let switches = CR4_SSE | if has_xsave { CR4_OSXSAVE } else { 0 };
    // SAFETY: allows instructions that only this file uses.
    unsafe { asm!("mov {0}, cr4", "or {0}, {1}", "mov cr4, {0}", out(reg) _, in(reg) switches, options(nostack)) };
    // What is not stored does not look fresh.
    let mut area = Area::filled(!0);
    let place = &raw mut area;
    if has_xsave {
        let (low, high): (u32, u32);
        // SAFETY: reads a register that the CPU has.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
        stale.check(What::Xcr0, u64::from(low) | u64::from(high) << 32 == XCR0_RESET);
        let components = components();
        // SAFETY: the CPU has these components, and the area is large and aligned enough for them.
        unsafe {
            asm!("xsetbv", "xsave64 [{area}]", area = in(reg) place, in("eax") components, in("edx") 0, in("ecx") 0,
                options(nostack));
        }
        let has_avx = components & AVX != 0;
        stale.check(What::Ymm, !has_avx || area.ymm.as_flattened().iter().all(|byte| *byte == 0));
    } else {
        // SAFETY: the area is large and aligned enough.
        unsafe { asm!("fxsave64 [{area}]", area = in(reg) place, options(nostack)) };
    }
    let x87 = area.x87.iter().flat_map(|register| register.iter().take(X87_LEN));
    let x87_fresh = area.status_word == 0 && area.tags == 0 && x87.fold(0, |any, byte| any | byte) == 0;
    stale.check(What::ControlWord, area.control_word == CONTROL_WORD);
    stale.check(What::X87, x87_fresh);
    stale.check(What::Mxcsr, area.mxcsr == MXCSR);
    stale.check(What::Xmm, area.xmm.as_flattened().iter().all(|byte| *byte == 0));
}

/// Fills all registers. After [`check`].
pub(crate) fn spoil() {
    let mut area = Area::filled(PATTERN);
    (area.control_word, area.tags, area.mxcsr) = (SPOILT_CONTROL_WORD, !0, SPOILT_MXCSR);
    let place = &raw mut area;
    if has_xsave() {
        let components = components();
        let [first, ..] = &mut area.header;
        *first = components.into();
        // SAFETY: the components are enabled, the area is complete; no other code uses the registers.
        unsafe {
            asm!("xrstor64 [{area}]", area = in(reg) place, in("eax") components, in("edx") 0, options(nostack));
        }
    } else {
        // SAFETY: as above.
        unsafe { asm!("fxrstor64 [{area}]", area = in(reg) place, options(nostack)) };
    }
}
