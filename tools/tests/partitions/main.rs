//! Whole systems in the emulator: what guests may rely on, how they end, kicks, and what the hypervisor refuses.

mod console;
mod ends;
mod guests;
mod kicks;
mod refusals;
mod system;
mod timeout;
mod witness;
