//! Memory of the hypervisor: the pool it is carved from, its own page tables, and its guests' nested ones.

pub mod paging;

pub use partita_x86_vcpu::memory::{nested, pool};
