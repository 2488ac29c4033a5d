//! The local APIC of this CPU in x2APIC mode: model-specific registers 0x800 to 0x83F (SDM vol. 3, "Extended XAPIC
//! (x2APIC)"; APM vol. 2, chapter 16).

use core::arch::asm;

use crate::{read_msr, write_msr};

/// Vector of spurious interrupts, which need no EOI. Nobody can send one below 16 (SDM vol. 3, "Valid Interrupt
/// Vectors"), and no exception has it: in Bochs 2.7 no EOI ends an interrupt that was sent with this vector.
pub const SPURIOUS_VECTOR: u8 = 0x0F;

const APIC_BASE: u32 = 0x1B;
const APIC_BASE_X2APIC: u64 = 1 << 10;
const APIC_BASE_ENABLE: u64 = 1 << 11;

const ID: u32 = 0x802;
const TPR: u32 = 0x808;
const EOI: u32 = 0x80B;
const SPURIOUS: u32 = 0x80F;
const ESR: u32 = 0x828;
const ISR: u32 = 0x810;
const IRR: u32 = 0x820;
const ICR: u32 = 0x830;
const LVT_CMCI: u32 = 0x82F;
const LVT_TIMER: u32 = 0x832;
const LVT_THERMAL: u32 = 0x833;
const LVT_PERFORMANCE: u32 = 0x834;
const LVT_LINT0: u32 = 0x835;
const LVT_LINT1: u32 = 0x836;
const LVT_ERROR: u32 = 0x837;
const TIMER_INITIAL: u32 = 0x838;
const TIMER_DIVIDE: u32 = 0x83E;
const VERSION: u32 = 0x803;

const LVT_MASKED: u64 = 1 << 16;
const LVT_TIMER_PERIODIC: u64 = 1 << 17;
const SOFTWARE_ENABLE: u64 = 1 << 8;
const DIVIDE_BY_1: u64 = 0b1011;

const ICR_DELIVERY_NMI: u64 = 0b100 << 8;
const ICR_DELIVERY_INIT: u64 = 0b101 << 8;
const ICR_DELIVERY_STARTUP: u64 = 0b110 << 8;
const ICR_LOGICAL: u64 = 1 << 11;
const ICR_LEVEL_ASSERT: u64 = 1 << 14;

/// Switches this CPU's local APIC to x2APIC mode, enabled, with every local source masked. The CPU must have x2APIC.
pub fn enable() {
    const X2APIC: u64 = APIC_BASE_X2APIC | APIC_BASE_ENABLE;
    // SAFETY: the callers made sure of x2APIC, and take no interrupt here yet.
    unsafe {
        let base = read_msr(APIC_BASE);
        if base & X2APIC != X2APIC {
            write_msr(APIC_BASE, base | X2APIC);
            // Bochs 2.7 sets the logical ID at a write in x2APIC mode only; elsewhere this changes nothing.
            write_msr(APIC_BASE, base | X2APIC);
        }
        write_msr(SPURIOUS, SOFTWARE_ENABLE | SPURIOUS_VECTOR as u64);
    }
    mask_local_sources();
    // SAFETY: accept interrupts of every priority.
    unsafe { write_msr(TPR, 0) };
}

fn mask_local_sources() {
    // The version register says how many LVT entries there are: thermal, performance and CMCI may be missing.
    // SAFETY: reads a register that every local APIC has.
    let max_lvt = (unsafe { read_msr(VERSION) } >> 16) & 0xFF;
    let present = [
        (LVT_TIMER, 0),
        (LVT_LINT0, 0),
        (LVT_LINT1, 0),
        (LVT_ERROR, 3),
        (LVT_PERFORMANCE, 4),
        (LVT_THERMAL, 5),
        (LVT_CMCI, 6),
    ];
    for (register, needs) in present {
        if max_lvt >= needs {
            // SAFETY: a present LVT entry takes the masked state with any vector.
            unsafe { write_msr(register, LVT_MASKED) };
        }
    }
}

/// Hands this CPU's local APIC to a guest, in the state of a reset in x2APIC mode: every source masked, nothing
/// in service, software-disabled. What is pending stays pending. Call with interrupts off and nobody sending vectors to
/// this CPU.
pub fn hand_over() {
    mask_local_sources();
    // SAFETY: stops the timer and resets its divider; ends every interrupt in service (at most 256); clears the
    // error status; sets the reset value of the spurious-interrupt register.
    unsafe {
        write_msr(TIMER_INITIAL, 0);
        write_msr(TIMER_DIVIDE, 0);
        // That of the guest can be in service.
        write_msr(SPURIOUS, SOFTWARE_ENABLE | SPURIOUS_VECTOR as u64);
        for _ in 0..256 {
            if (0..8).all(|word| read_msr(ISR + word) == 0) {
                break;
            }
            write_msr(EOI, 0);
        }
        write_msr(TPR, 0);
        write_msr(ESR, 0);
        write_msr(SPURIOUS, 0xFF);
    }
}

/// Takes no interrupt with a vector below 32 until the task priority is set anew (SDM vol. 3, "Task and Processor
/// Priorities").
pub fn hold_back_exception_vectors() {
    // SAFETY: accepts fewer interrupts.
    unsafe { write_msr(TPR, 0x1F) };
}

/// Whether a vector waits for delivery to this CPU.
pub fn has_pending_vectors() -> bool {
    // SAFETY: reads the interrupt request register of the local APIC.
    (0..8).any(|word| unsafe { read_msr(IRR + word) } != 0)
}

/// The x2APIC ID of this CPU.
pub fn id() -> u32 {
    // SAFETY: the local APIC is in x2APIC mode.
    unsafe { read_msr(ID) as u32 }
}

/// Writes the interrupt command register.
///
/// In x2APIC mode the write does not serialise: without the fences a target could act on the interrupt before it
/// can see what was stored for it (SDM vol. 3, "MSR Access in x2APIC Mode").
///
/// # Safety
/// The command must not break the memory safety of any CPU: no INIT, SIPI or SMI but to CPUs being started.
#[inline(always)]
pub unsafe fn write_icr(value: u64) {
    // SAFETY: fences, and by the contract above.
    unsafe {
        asm!("mfence", "lfence", options(nostack, preserves_flags));
        write_msr(ICR, value);
    }
}

fn to(destination: u32) -> u64 {
    (destination as u64) << 32
}

/// Sends an NMI to one CPU.
///
/// # Safety
/// The target must have an NMI handler, or intercept NMIs.
#[inline(always)]
pub unsafe fn send_nmi(apic_id: u32) {
    // SAFETY: by the contract above.
    unsafe { write_icr(to(apic_id) | ICR_LEVEL_ASSERT | ICR_DELIVERY_NMI) };
}

/// Sends an NMI to the CPUs that a logical destination names: of one cluster of 16, a bit for each.
///
/// # Safety
/// Each target must have an NMI handler, or intercept NMIs.
#[inline(always)]
pub unsafe fn send_nmi_logical(destination: u32) {
    // SAFETY: by the contract above.
    unsafe { write_icr(to(destination) | ICR_LEVEL_ASSERT | ICR_LOGICAL | ICR_DELIVERY_NMI) };
}

/// Sends a fixed interrupt to one CPU.
///
/// # Safety
/// The target must have a handler for the vector.
#[inline(always)]
pub unsafe fn send_fixed(apic_id: u32, vector: u8) {
    // SAFETY: by the contract above.
    unsafe { write_icr(to(apic_id) | ICR_LEVEL_ASSERT | vector as u64) };
}

/// Sends INIT to a CPU that is not in use.
///
/// # Safety
/// The target loses whatever it was doing: it must be one that the hypervisor has not started.
pub unsafe fn send_init(apic_id: u32) {
    // SAFETY: by the contract above.
    unsafe { write_icr(to(apic_id) | ICR_LEVEL_ASSERT | ICR_DELIVERY_INIT) };
}

/// Sends a start-up IPI: the target begins in real mode at `page` * 4 KiB.
///
/// # Safety
/// The target must be waiting for it, and the page hold code for it.
pub unsafe fn send_startup(apic_id: u32, page: u8) {
    // SAFETY: by the contract above.
    unsafe { write_icr(to(apic_id) | ICR_LEVEL_ASSERT | ICR_DELIVERY_STARTUP | page as u64) };
}

/// Starts a one-shot of `count` timer ticks, at divide-by-1, that interrupts with `vector`.
///
/// # Safety
/// The vector must have a handler that ends the interrupt.
pub unsafe fn timer_one_shot(vector: u8, count: u32) {
    timer(vector as u64, count);
}

/// Starts a periodic timer of `count` ticks, at divide-by-1, that interrupts with `vector`.
///
/// # Safety
/// The vector must have a handler that ends the interrupt.
pub unsafe fn timer_periodic(vector: u8, count: u32) {
    timer(vector as u64 | LVT_TIMER_PERIODIC, count);
}

/// Stops the timer.
pub fn timer_stop() {
    timer(LVT_MASKED, 0);
}

fn timer(lvt: u64, count: u32) {
    // SAFETY: the vector has a handler, by the callers' contracts.
    unsafe {
        write_msr(TIMER_DIVIDE, DIVIDE_BY_1);
        write_msr(LVT_TIMER, lvt);
        write_msr(TIMER_INITIAL, count as u64);
    }
}
