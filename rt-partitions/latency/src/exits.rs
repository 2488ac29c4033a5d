//! Instructions that leave a guest: RDTSC, the instruction, RDTSC.

use core::arch::asm;

use partita_abi::hypercall::NOP;
use partita_rows::Row;
use partita_rt::place;

use crate::record::Recorder;

/// APIC_BASE: every CPU has it, and the hypervisor traps it.
const APIC_BASE: u32 = 0x1B;

/// MTRRcap: every CPU has it, no guest has MTRRs.
const MTRRCAP: u32 = 0xFE;
/// The LVT's timer entry.
const LVT_TIMER: u32 = 0x832;
/// A masked one-shot timer, with a vector: as after a reset, but for that.
const MASKED_TIMER: u32 = 1 << 16 | 0x40;

/// Takes one sample for each place: `$operation`, which may change RAX, RBX, RCX and RDX, and finds its own RCX and RDI
/// as given.
macro_rules! time {
    ($samples:ident, rcx: $rcx:expr, rdi: $rdi:expr, [$($operation:literal),+]) => {{
        for place in $samples.iter_mut() {
            let ticks: u64;
            // SAFETY: the operation changes no memory and no register but those named.
            unsafe {
                asm!(
                    "mov {saved}, rbx",
                    "rdtsc",
                    "mov esi, eax",
                    "mov r8d, edx",
                    $($operation,)+
                    "rdtsc",
                    "mov rbx, {saved}",
                    "shl rdx, 32",
                    "or rax, rdx",
                    "shl r8, 32",
                    "or rsi, r8",
                    "sub rax, rsi",
                    saved = out(reg) _,
                    out("rax") ticks,
                    inout("rcx") u64::from($rcx) => _,
                    out("rdx") _,
                    out("rsi") _,
                    in("rdi") u64::from($rdi),
                    out("r8") _,
                    options(nostack),
                );
            }
            *place = ticks;
        }
    }};
}

/// Measures the rows. `hypercalls`: whether there is a hypervisor to call.
pub(crate) fn measure(hypercalls: bool, recorder: &mut Recorder) {
    cpuid(Row::ExitCpuid, recorder);
    if hypercalls {
        hypercall(Row::ExitHypercall, recorder);
    }
    recorder.row(Row::ExitRdmsr, |samples| time!(samples, rcx: APIC_BASE, rdi: 0u32, ["rdmsr"]));
    // The POST port: nobody minds what is written to it, and no partition owns it. AL is what the RDTSC left in it.
    recorder.row(Row::ExitIo, |samples| time!(samples, rcx: 0u32, rdi: 0u32, ["out 0x80, al"]));
    recorder.row(Row::ExitCpuidLeaf1, |samples| time!(samples, rcx: 0u32, rdi: 1u32, ["mov eax, edi", "cpuid"]));
    recorder.row(Row::ExitRdmsrValue, |samples| time!(samples, rcx: MTRRCAP, rdi: 0u32, ["rdmsr"]));
    recorder.row(Row::ExitWrmsrLvt, |samples| {
        time!(samples, rcx: LVT_TIMER, rdi: MASKED_TIMER, ["mov eax, edi", "xor edx, edx", "wrmsr"]);
    });
    // The DMA controller's spare page register.
    recorder.row(Row::ExitIn, |samples| time!(samples, rcx: 0u32, rdi: 0u32, ["in al, 0x84"]));
}

/// Measures the rows of exits that are not traced.
pub(crate) fn measure_untraced(recorder: &mut Recorder) {
    cpuid(Row::UntracedExitCpuid, recorder);
    hypercall(Row::UntracedExitHypercall, recorder);
}

/// Leaf 0.
fn cpuid(row: Row, recorder: &mut Recorder) {
    recorder.row(row, |samples| time!(samples, rcx: 0u32, rdi: 0u32, ["xor eax, eax", "cpuid"]));
}

/// The hypercall that does nothing.
fn hypercall(row: Row, recorder: &mut Recorder) {
    recorder.row(row, |samples| {
        if place::uses_vmmcall() {
            time!(samples, rcx: 0u32, rdi: NOP, ["mov eax, edi", "vmmcall"]);
        } else {
            time!(samples, rcx: 0u32, rdi: NOP, ["mov eax, edi", "vmcall"]);
        }
    });
}
