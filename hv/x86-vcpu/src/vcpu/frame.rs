//! What lies at the top of the stack of a pCPU that runs a vCPU.

use core::fmt;
use core::mem::offset_of;

use partita_core::smp_call::Inbox;
use partita_trace::raw::RawRing;
use partita_x86_policy::msr_values::apic_base_read;

use super::Vcpu;
use crate::arch::X86;
use crate::cpu::percpu::{self, EXIT_FRAME_LEN};
use crate::trace;
use crate::virt::{GuestRegisters, VirtualCpu};

/// The guest's registers while it does not run, and what the way out of it and back into it needs. Its address is that of the stack
/// pointer when Rust code is called for an exit; the stack of that is below it.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct ExitFrame<V> {
    /// The guest's registers.
    pub registers: GuestRegisters,
    /// One more word: of SVM the physical address of the VMCB, of VMX the guest's RAX.
    pub vendor: u64,
    /// The vCPU.
    pub vcpu: *mut Vcpu<V>,
    /// What the [quick exits](super::quick) need to know.
    pub quick: Quick,
}

/// What the [quick exits](super::quick) need to know: constants of a vCPU's life.
#[repr(C)]
pub struct Quick {
    /// The pCPU's inbox, which the vCPU has.
    inbox: *const Inbox<'static, X86>,
    /// The first time-stamp after an exit for a kick.
    pub entered: u64,
    /// Address of the word of marks of SMP calls, 64 bits: 0 for none.
    marks: u64,
    /// Address of the vCPU's request word, 32 bits: 0 for none.
    requests: u64,
    /// The pCPU's trace ring.
    ring: RawRing,
    /// Its histograms.
    histograms: u64,
    /// The partition's x2APIC IDs below 64, a bit for each.
    low_ids: u64,
    /// The vCPU's own x2APIC ID.
    own_id: u32,
    /// EAX, EBX, ECX, EDX of CPUID leaf 0.
    leaf_0: [u32; 4],
    /// EAX, EDX of RDMSR of APIC_BASE.
    apic_base: [u32; 2],
}

const _: () = assert!(size_of::<ExitFrame<u8>>() <= EXIT_FRAME_LEN);
// So that the stack is aligned as a call wants it: with all registers pushed, and with the first eight.
const _: () = assert!(size_of::<GuestRegisters>().is_multiple_of(16));
const _: () = assert!(offset_of!(GuestRegisters, r11).is_multiple_of(16));

/// The offset of a field, from the stack pointer of a quick exit: the last register that it saves is RDI.
macro_rules! from_rdi {
    ($($field:ident).+) => {
        offset_of!(ExitFrame<u8>, $($field).+) - offset_of!(ExitFrame<u8>, registers.rdi)
    };
}

/// The places of a frame, by their offsets from the stack pointer of a quick exit.
pub mod place {
    use super::{ExitFrame, offset_of};

    /// The guest's RCX.
    pub const RCX: usize = from_rdi!(registers.rcx);
    /// The guest's RDX.
    pub const RDX: usize = from_rdi!(registers.rdx);
    /// Bytes of the registers that are left out before a common exit: those that called code preserves, but RBX.
    pub const UNSAVED: usize = offset_of!(ExitFrame<u8>, registers.rbx);
    /// Address of the vCPU, behind all registers.
    pub const VCPU_FROM_FRAME: usize = offset_of!(ExitFrame<u8>, vcpu);
    /// The vendor's word.
    pub const VENDOR: usize = from_rdi!(vendor);
    /// See [`Quick::inbox`](super::Quick), behind the registers that are saved before Rust code is called for a kick.
    pub const INBOX_FROM_R11: usize = offset_of!(ExitFrame<u8>, quick.inbox) - offset_of!(ExitFrame<u8>, registers.r11);
    /// See [`Quick::entered`](super::Quick), behind these.
    pub const ENTERED_FROM_R11: usize =
        offset_of!(ExitFrame<u8>, quick.entered) - offset_of!(ExitFrame<u8>, registers.r11);
    /// See [`Quick::entered`](super::Quick).
    pub const ENTERED: usize = from_rdi!(quick.entered);
    /// See [`Quick::marks`](super::Quick).
    pub const MARKS: usize = from_rdi!(quick.marks);
    /// See [`Quick::requests`](super::Quick).
    pub const REQUESTS: usize = from_rdi!(quick.requests);
    /// The same, behind all registers.
    pub const REQUESTS_FROM_FRAME: usize = offset_of!(ExitFrame<u8>, quick.requests);
    /// See [`Quick::ring`](super::Quick).
    pub const RING: usize = from_rdi!(quick.ring.head);
    /// See [`Quick::ring`](super::Quick).
    pub const RING_MASK: usize = from_rdi!(quick.ring.mask);
    /// See [`Quick::histograms`](super::Quick).
    pub const HISTOGRAMS: usize = from_rdi!(quick.histograms);
    /// See [`Quick::low_ids`](super::Quick).
    pub const LOW_IDS: usize = from_rdi!(quick.low_ids);
    /// See [`Quick::own_id`](super::Quick).
    pub const OWN_ID: usize = from_rdi!(quick.own_id);
    /// See [`Quick::leaf_0`](super::Quick).
    pub const LEAF_0: usize = from_rdi!(quick.leaf_0);
    /// See [`Quick::apic_base`](super::Quick).
    pub const APIC_BASE: usize = from_rdi!(quick.apic_base);
}

impl Quick {
    /// For a vCPU, by its own pCPU. `inbox` is its own, by a pointer that outlives all references to the vCPU.
    pub fn of<V: VirtualCpu>(vcpu: &Vcpu<V>, inbox: *const Inbox<'static, X86>) -> Self {
        let (ring, histograms) = trace::raw();
        let apic_base = apic_base_read(vcpu.number);
        Self {
            inbox,
            entered: 0,
            marks: vcpu.inbox.marks_address(),
            requests: vcpu.requests.address(),
            ring,
            histograms,
            low_ids: vcpu.partition.apic_view.low_ids(),
            own_id: vcpu.cpuid.apic_id,
            leaf_0: vcpu.answers.get(0, || 0).unwrap_or_default(),
            apic_base: [apic_base as u32, (apic_base >> 32) as u32],
        }
    }
}

impl fmt::Debug for Quick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Quick")
    }
}

/// The frame of the pCPU that executes this.
#[inline(always)]
pub fn own<V>() -> *mut ExitFrame<V> {
    percpu::own_exit_frame() as *mut ExitFrame<V>
}
