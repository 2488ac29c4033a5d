//! Whole systems in the emulator: what guests may rely on, how they end, kicks, and what the hypervisor refuses.

mod console;
mod ends;
mod flood;
mod guests;
mod kicks;
mod quiet;
mod refusals;
mod restart;
mod storm;
mod system;
mod timeout;
mod witness;
