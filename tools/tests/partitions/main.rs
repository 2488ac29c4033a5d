//! Whole systems in the emulator: what guests may rely on, how they end, kicks, and what the hypervisor refuses.

mod bystander;
mod console;
mod cpu;
mod devices;
mod duo;
mod ends;
mod entries;
mod flood;
mod guests;
mod hostile;
mod kicks;
mod lateness;
mod linux;
mod quiet;
mod reboots;
mod refusals;
mod restart;
mod storm;
mod system;
mod terminal;
mod timeout;
mod together;
mod typing;
mod witness;
