//! Mechanism on x86_64 but for running vCPUs: boot, the hypervisor's address space, its console, its partitions' lives. All of
//! it runs at boot or on the housekeeping core, and is built for size; what a running vCPU needs is in `partita-x86-vcpu`.
//!
//! What a guest *may* do is decided in `partita-x86-policy`, what all architectures share in `partita-core`.

#![no_std]

pub mod application;
pub mod budget;
pub mod console;
pub mod debug_port;
pub mod error;
pub mod fatal;
pub mod housekeeping;
pub mod io_apic;
pub mod launch;
pub mod lifecycle;
pub mod liveness;
pub mod load;
pub mod machine;
pub mod memory;
pub mod set_up;
pub mod shell;
pub mod start;
pub mod system;

pub use partita_x86_vcpu::{
    apic, arch, calls, clock, cpu, dump, orders, partition, rounds, soak, svm, trace, tracer, vcpu, virt, vmx,
};

unsafe extern "C" {
    static __build_id_start: u8;
    static __build_id_end: u8;
}

/// Bytes of a build ID: SHA-1.
const BUILD_ID_LEN: usize = 20;
/// Bytes before it in its note: three words, and the name "GNU".
const NOTE_HEADER_LEN: usize = 16;

/// The GNU build ID of this image; zeros if the linker left none.
pub fn build_id() -> [u8; BUILD_ID_LEN] {
    let start = &raw const __build_id_start;
    let len = &raw const __build_id_end as usize - start as usize;
    let mut id = [0; BUILD_ID_LEN];
    if len >= NOTE_HEADER_LEN + BUILD_ID_LEN {
        // SAFETY: the linker script puts the note between the two symbols, in read-only data.
        let note = unsafe { core::slice::from_raw_parts(start, len) };
        if let Some(bytes) = note.get(NOTE_HEADER_LEN..NOTE_HEADER_LEN + BUILD_ID_LEN) {
            id.copy_from_slice(bytes);
        }
    }
    id
}
