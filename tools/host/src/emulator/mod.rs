//! Emulators behind one small interface, and the supervision of what runs in them.

mod console;
mod dialogue;
mod input_pipe;
mod keyboard;
mod log_tail;
mod painter;
mod qemu;
mod screen;
mod script;
mod supervise;
mod terminal;

pub use console::{Console, Shown};
pub use dialogue::Unspoken;
pub use keyboard::{ConsoleInput, Keyboard, Typist, Unfinished};
pub use qemu::Qemu;
pub use screen::{Screen, ShownLine, answers};
pub use script::Untaken;
pub use supervise::{Ended, Supervised, Supervision, interrupted, supervise, supervise_typing};

use crate::outcome::TestExit;
#[cfg(doc)]
use crate::system_file::TestDevice;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Serial ports of the machine: COM1 to COM4.
pub const SERIAL_PORTS: usize = 4;

/// How time passes in the emulated machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// As on the host, with a thread for each pCPU: for function, not for figures.
    Host,
    /// One nanosecond an instruction, one pCPU after the other: two runs are identical.
    Icount,
}

/// The machine to emulate.
#[derive(Clone, Debug)]
pub struct MachineSpec<'a> {
    /// Number of pCPUs.
    pub pcpus: u16,
    /// Bytes of RAM.
    pub memory: u64,
    /// How time passes.
    pub clock: Clock,
    /// The ELF file that boots.
    pub kernel: &'a Path,
    /// Its only module.
    pub module: Option<&'a Path>,
    /// Its command line.
    pub cmdline: &'a str,
    /// Where what COM1 to COM4 print goes; a port without a file is there but mute.
    pub serial: [Option<PathBuf>; SERIAL_PORTS],
    /// A file that is the machine's RAM, created by the emulator; its offsets are physical addresses below 2 GiB.
    pub ram_file: Option<&'a Path>,
}

/// A device that the machine has for a partition's tests, at the ports of [`TestDevice::ports`] or with the memory of
/// [`TestDevice::memory`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachedDevice {
    /// [`TestDevice::IsaDebugExit`].
    IsaDebugExit,
    /// [`TestDevice::DebugCon`], which writes to this file.
    DebugCon(PathBuf),
    /// [`TestDevice::Edu`].
    Edu,
}

/// What is attached to the machine from outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attached<'a> {
    /// Serial ports at which somebody types; the others read nothing.
    pub keyboards: &'a [Keyboard],
    /// Test devices.
    pub devices: &'a [AttachedDevice],
    /// A file to which the emulator notes each entry into a guest and each exit from one.
    pub witness: Option<&'a Path>,
}

/// Why an emulator cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It cannot be started.
    #[error("cannot run {program}: {cause}; run ci/setup.sh to install it")]
    NotFound {
        /// The program.
        program: String,
        /// Why.
        cause: std::io::Error,
    },
    /// It is too old.
    #[error("{program} is version {found}, at least {needed} is needed ({why}); run ci/setup.sh to install it")]
    TooOld {
        /// The program.
        program: String,
        /// Its version.
        found: String,
        /// The version needed.
        needed: &'static str,
        /// What older versions lack.
        why: &'static str,
    },
    /// Its version cannot be told.
    #[error("cannot tell the version of {program} from {output:?}; run ci/setup.sh to install a known one")]
    Unknown {
        /// The program.
        program: String,
        /// What it printed.
        output: String,
    },
}

/// An emulator.
pub trait Emulator {
    /// What people call it.
    fn name(&self) -> &'static str;

    /// Checks that it is there and new enough.
    ///
    /// # Errors
    /// It is not; the error says what to do.
    fn probe(&self) -> Result<(), ProbeError>;

    /// The command that boots `machine` with nothing attached.
    fn command(&self, machine: &MachineSpec<'_>) -> Command {
        self.command_attached(machine, &Attached::default())
    }

    /// The command that boots `machine`.
    fn command_attached(&self, machine: &MachineSpec<'_>, attached: &Attached<'_>) -> Command;

    /// Where the physical address `address` lies in the RAM file of a machine with `memory` bytes of RAM.
    fn ram_offset(&self, memory: u64, address: u64) -> Option<u64>;

    /// The byte that the guest ended the machine with through its exit port, from the exit code of the process.
    fn exit_byte(&self, code: i32) -> Option<u8>;

    /// What a guest wrote to an isa-debug-exit of its own, if the exit code of the process can be from there.
    fn test_exit_value(&self, code: i32) -> Option<TestExit>;
}
