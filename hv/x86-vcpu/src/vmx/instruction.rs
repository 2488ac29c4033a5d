//! VMX's instructions (SDM vol. 3 chapter 31).

use core::arch::asm;

use partita_x86_policy::vmx::capability::{Invept, Invvpid};
use partita_x86_policy::vmx::field::{AnyField, Field, Value};

/// Begins VMX operation; whether the CPU does.
///
/// # Safety
/// The CPU has VMX, CR0 and CR4 are as it demands, and the page begins with its revision and is this pCPU's alone.
pub(super) unsafe fn vmxon(page: u64) -> bool {
    let failed: u8;
    // SAFETY: by the contract above.
    unsafe { asm!("vmxon [{}]", "setbe {}", in(reg) &page, out(reg_byte) failed, options(nostack)) };
    failed == 0
}

/// Makes the VMCS of this region clear; whether the CPU does.
///
/// # Safety
/// VMX is on; the region is a VMCS that no other pCPU uses.
pub(super) unsafe fn vmclear(region: u64) -> bool {
    let failed: u8;
    // SAFETY: by the contract above.
    unsafe { asm!("vmclear [{}]", "setbe {}", in(reg) &region, out(reg_byte) failed, options(nostack)) };
    failed == 0
}

/// Makes the VMCS of this region the current one; whether the CPU does.
///
/// # Safety
/// As for [`vmclear`]; the region begins with the CPU's revision.
pub(super) unsafe fn vmptrld(region: u64) -> bool {
    let failed: u8;
    // SAFETY: by the contract above.
    unsafe { asm!("vmptrld [{}]", "setbe {}", in(reg) &region, out(reg_byte) failed, options(nostack)) };
    failed == 0
}

/// Reads a field of the current VMCS.
///
/// # Safety
/// VMX is on. Of a field that the CPU lacks, or without a current VMCS, the result is 0.
#[inline(always)]
pub(super) unsafe fn vmread<T: Value>(field: Field<T>) -> T {
    // SAFETY: by the contract above.
    T::from_u64(unsafe { vmread_any(field.any()) })
}

/// The same, whatever the field's type.
///
/// # Safety
/// As for [`vmread`].
#[inline(always)]
pub(super) unsafe fn vmread_any(field: AnyField) -> u64 {
    let value: u64;
    // SAFETY: by the contract above; it only reads.
    unsafe {
        asm!("vmread {value}, {field}", field = in(reg) u64::from(field.encoding()), value = inlateout(reg) 0_u64 => value,
            options(nostack));
    }
    value
}

/// Writes a field of the current VMCS. One that the CPU lacks stays away.
///
/// # Safety
/// VMX is on, and the guest that the VMCS describes may be entered with this value, or the value is set right before.
#[inline(always)]
pub(super) unsafe fn vmwrite<T: Value>(field: Field<T>, value: T) {
    let value: u64 = value.into();
    // SAFETY: by the contract above.
    unsafe { asm!("vmwrite {}, {}", in(reg) u64::from(field.encoding()), in(reg) value, options(nostack)) };
}

/// Operand of INVEPT and INVVPID: what is to be invalidated, and an address.
#[repr(C, align(16))]
struct Descriptor {
    what: u64,
    address: u64,
}

/// Forgets translations through extended page tables.
///
/// # Safety
/// VMX is on, and the CPU has INVEPT of this kind.
pub(super) unsafe fn invept(kind: Invept, pointer: u64) {
    let descriptor = Descriptor { what: pointer, address: 0 };
    // SAFETY: by the contract above.
    unsafe { asm!("invept {}, [{}]", in(reg) kind as u64, in(reg) &raw const descriptor, options(nostack)) };
}

/// Forgets translations of a guest with a VPID.
///
/// # Safety
/// VMX is on, and the CPU has INVVPID of this kind.
pub(super) unsafe fn invvpid(kind: Invvpid, vpid: u16) {
    let descriptor = Descriptor { what: vpid.into(), address: 0 };
    // SAFETY: by the contract above.
    unsafe { asm!("invvpid {}, [{}]", in(reg) kind as u64, in(reg) &raw const descriptor, options(nostack)) };
}
