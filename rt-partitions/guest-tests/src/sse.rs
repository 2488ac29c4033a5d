//! The SSE registers, which the hypervisor must leave alone.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_abi::hypercall::NOP;
use partita_rt::place::uses_vmmcall;
use partita_rt::rdtsc;

const CR0_MONITOR: u64 = 1 << 1;
const CR0_EMULATE: u64 = 1 << 2;
const CR4_SSE: u64 = 0b11 << 9;
/// Rounds of exits; kicks come in between.
const ROUNDS: u64 = 1000;
/// Bytes of the 16 registers.
const LEN: usize = 256;

#[repr(align(16))]
struct Registers([u8; LEN]);

static KEPT: AtomicU64 = AtomicU64::new(0);

/// Switches SSE on, which no other code uses.
pub(crate) fn switch_on() {
    // SAFETY: only code that is asked to uses the registers.
    unsafe {
        asm!(
            "mov rax, cr0",
            "and rax, {not_emulate}",
            "or rax, {monitor}",
            "mov cr0, rax",
            "mov rax, cr4",
            "or rax, {sse}",
            "mov cr4, rax",
            not_emulate = const !CR0_EMULATE as i64, monitor = const CR0_MONITOR, sse = const CR4_SSE,
            out("rax") _, options(nostack),
        );
    }
}

/// Fills this CPU's registers, leaves the guest often, and tells whether they are as before.
pub(crate) fn keeps() -> bool {
    let mut before = Registers([0; LEN]);
    let seed = rdtsc();
    for (index, byte) in before.0.iter_mut().enumerate() {
        *byte = (seed >> (index % 8 * 8)) as u8 ^ (index as u8).wrapping_mul(37);
    }
    let mut after = Registers([0; LEN]);
    switch_on();
    // SAFETY: loads, keeps and stores the registers. A hypercall with this number does nothing, and the port has no effect.
    unsafe {
        asm!(
            "movdqa xmm0, [rsi]", "movdqa xmm1, [rsi + 16]", "movdqa xmm2, [rsi + 32]", "movdqa xmm3, [rsi + 48]",
            "movdqa xmm4, [rsi + 64]", "movdqa xmm5, [rsi + 80]", "movdqa xmm6, [rsi + 96]", "movdqa xmm7, [rsi + 112]",
            "movdqa xmm8, [rsi + 128]", "movdqa xmm9, [rsi + 144]", "movdqa xmm10, [rsi + 160]",
            "movdqa xmm11, [rsi + 176]", "movdqa xmm12, [rsi + 192]", "movdqa xmm13, [rsi + 208]",
            "movdqa xmm14, [rsi + 224]", "movdqa xmm15, [rsi + 240]",
            "mov r9, rbx",
            "2: mov eax, {nop}",
            "test r10d, r10d",
            "jz 3f",
            "vmmcall",
            "jmp 4f",
            "3: vmcall",
            "4: xor eax, eax",
            "cpuid",
            "out 0x80, al",
            "pause",
            "dec r8",
            "jnz 2b",
            "mov rbx, r9",
            "movdqa [rdi], xmm0", "movdqa [rdi + 16], xmm1", "movdqa [rdi + 32], xmm2", "movdqa [rdi + 48], xmm3",
            "movdqa [rdi + 64], xmm4", "movdqa [rdi + 80], xmm5", "movdqa [rdi + 96], xmm6", "movdqa [rdi + 112], xmm7",
            "movdqa [rdi + 128], xmm8", "movdqa [rdi + 144], xmm9", "movdqa [rdi + 160], xmm10",
            "movdqa [rdi + 176], xmm11", "movdqa [rdi + 192], xmm12", "movdqa [rdi + 208], xmm13",
            "movdqa [rdi + 224], xmm14", "movdqa [rdi + 240], xmm15",
            nop = const NOP,
            in("rsi") before.0.as_ptr(), in("rdi") after.0.as_mut_ptr(),
            inout("r8") ROUNDS => _, in("r10") u64::from(uses_vmmcall()), out("r9") _, out("rax") _, out("rcx") _, out("rdx") _,
            options(nostack),
        );
    }
    before.0 == after.0
}

/// [`keeps`], for CPU 1.
pub(crate) fn check() {
    KEPT.store(keeps().into(), Ordering::Relaxed);
}

/// What [`check`] found.
pub(crate) fn checked() -> bool {
    KEPT.load(Ordering::Relaxed) != 0
}
