//! Memory of the hypervisor: the pool it is carved from, its own page tables, and its guests' nested ones.

pub mod nested;
pub mod paging;
pub mod pool;
