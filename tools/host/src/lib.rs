//! Everything the host tool does: system files, partition images, boot bundles, emulators, artefacts of a run.

#![forbid(unsafe_code)]

pub mod artifacts;
pub mod assemble;
pub mod bundle;
pub mod cargo_build;
pub mod console_script;
pub mod dialogue;
pub mod emulator;
pub mod image;
pub mod initramfs;
pub mod iso;
pub mod itrace;
pub mod measure;
pub mod outcome;
pub mod packages;
pub mod peers;
pub mod progress;
pub mod run;
pub mod run_dir;
pub mod run_info;
pub mod size;
pub mod system_file;
mod terminal;
pub mod trace;
pub mod witness;
