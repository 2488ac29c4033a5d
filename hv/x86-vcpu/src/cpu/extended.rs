//! Registers of a guest that neither an entry nor an exit switches, because the hypervisor does not use them: a guest
//! that starts finds them as a reset leaves them, and nothing of the guest before it.

use core::arch::asm;

use x86_64::registers::control::{Cr4, Cr4Flags};

use partita_x86_policy::start_state::PAT_RESET;

use super::features::cpuid;
use super::idt::write_msr_checked;

const SPEC_CTRL: u32 = 0x48;
const PAT: u32 = 0x277;
const XSS: u32 = 0xDA0;
const TSC_AUX: u32 = 0xC000_0103;
/// CPUID 1, ECX: XSAVE.
const XSAVE: u32 = 1 << 26;
/// CPUID 0xD.1, EAX: XSAVES and with it XSS.
const XSAVES: u32 = 1 << 3;
/// The value of MXCSR after a reset (APM vol. 1 section 4.2.2).
const MXCSR_RESET: u32 = 0x1F80;
/// The x87 control word that FNINIT leaves.
const FCW_INIT: u16 = 0x037F;

/// An area for FXRSTOR and XRSTOR (APM vol. 2 section 11.5.2): with an empty XSTATE_BV every component gets its initial
/// state, and only MXCSR is taken from the area.
#[repr(C, align(64))]
struct InitialState {
    fcw: u16,
    _other: [u16; 11],
    mxcsr: u32,
    _registers: [u8; 484],
    _header: [u8; 64],
}

static INITIAL: InitialState =
    InitialState { fcw: FCW_INIT, _other: [0; 11], mxcsr: MXCSR_RESET, _registers: [0; 484], _header: [0; 64] };
const _: () = assert!(size_of::<InitialState>() == 576 && core::mem::offset_of!(InitialState, mxcsr) == 24);

/// Resets x87, SSE, AVX and what else XCR0 can enable, XCR0 itself, the debug address registers, and the model-specific
/// registers that guests may write and VMRUN does not load.
pub fn reset() {
    let before = Cr4::read();
    // SAFETY: enables the instructions below; the old value comes back.
    unsafe { Cr4::write(before | Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE) };
    if cpuid(1, 0)[2] & XSAVE != 0 {
        let [low, _, _, high] = cpuid(0xD, 0);
        // SAFETY: XCR0 gets what the CPU has, every component its initial state from an area that is large and aligned
        // enough for the standard form, then XCR0 its value after a reset. The hypervisor uses none of these registers.
        unsafe {
            Cr4::write(Cr4::read() | Cr4Flags::OSXSAVE);
            asm!(
                "xsetbv",
                // XRSTOR leaves the last instruction's addresses alone where no exception waits (APM vol. 2 section 11.5).
                "fninit",
                "xrstor64 [{area}]",
                "mov eax, 1",
                "xor edx, edx",
                "xsetbv",
                area = in(reg) &raw const INITIAL,
                inout("eax") low => _, inout("edx") high => _, in("ecx") 0,
                options(nostack),
            );
        }
        if cpuid(0xD, 1)[0] & XSAVES != 0 {
            // SAFETY: no component is saved by XSAVES until a guest says so.
            let _ = unsafe { write_msr_checked(XSS, 0) };
        }
    } else {
        // SAFETY: the area is large and aligned enough; the hypervisor uses none of these registers.
        unsafe { asm!("fninit", "fxrstor64 [{area}]", area = in(reg) &raw const INITIAL, options(nostack)) };
    }
    // SAFETY: the value from before.
    unsafe { Cr4::write(before) };
    clear_breakpoints();
    // PAT: where VMRUN does not load the guest's own, as in QEMU, the guest has changed this one.
    for (msr, value) in [(SPEC_CTRL, 0), (TSC_AUX, 0), (PAT, PAT_RESET)] {
        // SAFETY: the values after a reset, with which the hypervisor's page tables mean what they say; a CPU need not
        // have these registers.
        let _ = unsafe { write_msr_checked(msr, value) };
    }
}

/// Clears the addresses of breakpoints.
pub fn clear_breakpoints() {
    // SAFETY: the hypervisor sets no breakpoints, so that their addresses are without meaning to it.
    unsafe {
        asm!("mov dr0, {zero}", "mov dr1, {zero}", "mov dr2, {zero}", "mov dr3, {zero}", zero = in(reg) 0_u64,
            options(nomem, nostack, preserves_flags));
    }
}

/// The addresses of breakpoints, which are the guest's: no exit saves them.
pub fn breakpoints() -> [u64; 4] {
    let (dr0, dr1, dr2, dr3): (u64, u64, u64, u64);
    // SAFETY: only reads.
    unsafe {
        asm!("mov {0}, dr0", "mov {1}, dr1", "mov {2}, dr2", "mov {3}, dr3", out(reg) dr0, out(reg) dr1,
            out(reg) dr2, out(reg) dr3, options(nomem, nostack, preserves_flags));
    }
    [dr0, dr1, dr2, dr3]
}
