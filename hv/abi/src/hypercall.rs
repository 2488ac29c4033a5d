//! Hypercalls: VMMCALL (AMD) or VMCALL (Intel) with the number in EAX, arguments in RBX and RCX, the result in RAX.
//!
//! All other registers are preserved. A hypercall from CPL 1 to 3 gets #UD, as an unknown instruction would.

/// Does nothing and returns [`SUCCESS`]: what the round trip of an exit costs.
pub const NOP: u32 = 0x5041_0000;

/// Ends the partition. RBX = status, 0 for success. Does not return.
pub const FINISH: u32 = 0x5041_0001;

/// Announces the guest's trace window: RBX = guest-physical address of a region in the layout of the `trace`
/// crate, aligned to 2 MiB, RCX = its length in bytes, a multiple of 4 KiB.
pub const TRACE_WINDOW: u32 = 0x5041_0002;

/// Result: done.
pub const SUCCESS: u64 = 0;
/// Result: no hypercall has this number.
pub const UNKNOWN: u64 = -1i64 as u64;
/// Result: an argument is out of range, misaligned, or points outside the partition's memory.
pub const INVALID: u64 = -2i64 as u64;
/// Result: the thing may be done only once, or a table is full.
pub const BUSY: u64 = -3i64 as u64;

/// The VMware backdoor's magic number, which Linux guests put into EAX. No Partita hypercall may collide with it.
pub const VMWARE_MAGIC: u32 = 0x564D_5868;

const _: () = assert!(NOP != VMWARE_MAGIC && FINISH != VMWARE_MAGIC && TRACE_WINDOW != VMWARE_MAGIC);
