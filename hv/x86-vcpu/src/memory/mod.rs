//! Memory of the hypervisor that a vCPU is made of: the pool it is carved from, and its guest's nested tables.

pub mod nested;
pub mod pool;
