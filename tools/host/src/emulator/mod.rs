//! Emulators behind one small interface, and the supervision of what runs in them.

mod bochs;
mod console;
mod dialogue;
mod input_pipe;
mod keyboard;
mod kind;
mod kvm;
mod log_tail;
mod painter;
mod qemu;
mod screen;
mod script;
mod supervise;
mod terminal;

pub use bochs::{Bochs, Bridge, Cpu, Piece, Stream, StreamDamage};
pub use console::{Console, Shown};
pub use dialogue::Unspoken;
pub use keyboard::{ConsoleInput, Keyboard, Typist, Unfinished};
pub use kind::{MachineKind, UnknownMachine};
pub use kvm::{Kvm, KvmLack, check_host};
pub use qemu::Qemu;
pub use screen::{Screen, ShownLine, answers};
pub use script::{ScriptStep, Untaken};
pub use supervise::{Ended, Supervised, Supervision, interrupted, supervise, supervise_typing};

use crate::outcome::TestExit;
#[cfg(doc)]
use crate::system_file::TestDevice;
use crate::system_file::human;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most serial ports of a machine: COM1 to COM8.
pub const SERIAL_PORTS: usize = 8;

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
    /// Where what COM1 to COM8 print goes. Of those without a file COM1 to COM4 are there but mute, the others are not.
    pub serial: [Option<PathBuf>; SERIAL_PORTS],
    /// A file for the machine's RAM: shared by the emulator during the run, or made afterwards of what the machine wrote to
    /// its debug port. Its offsets are physical addresses below 2 GiB.
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
    /// What the emulator notes of the instructions that it executes. Not together with a witness.
    pub instructions: Option<InstructionLog<'a>>,
}

/// A log of executed instructions, for [`crate::itrace`].
#[derive(Clone, Copy, Debug)]
pub struct InstructionLog<'a> {
    /// The file.
    pub file: &'a Path,
    /// The addresses of the instructions that are noted: from the first one up to the second, which is not.
    pub range: (u64, u64),
    /// The socket of the debugger that lets the machine run, and switches the log on.
    pub socket: &'a Path,
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
    /// It is too old, or another than the known one.
    #[error("{program} is version {found}, {needed} is needed ({why}); run ci/setup.sh to install it")]
    WrongVersion {
        /// The program.
        program: String,
        /// Its version.
        found: String,
        /// The version needed.
        needed: &'static str,
        /// What is wrong with others.
        why: &'static str,
    },
    /// A file that it needs is not there.
    #[error("{program} lacks its file {}; run ci/setup.sh to install it", file.display())]
    Incomplete {
        /// The program.
        program: String,
        /// The file.
        file: PathBuf,
    },
    /// The host has no nested KVM.
    #[error(transparent)]
    Kvm(#[from] KvmLack),
    /// Its version cannot be told.
    #[error("cannot tell the version of {program} from {output:?}; run ci/setup.sh to install a known one")]
    Unknown {
        /// The program.
        program: String,
        /// What it printed.
        output: String,
    },
}

/// What a machine asks that an emulator does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// More pCPUs.
    #[error(
        "the system has {asked} pCPUs, but {emulator} has at most {most}; use fewer, or leave that to --machine qemu"
    )]
    Pcpus {
        /// The emulator.
        emulator: &'static str,
        /// How many.
        asked: u16,
        /// How many there can be.
        most: u16,
    },
    /// RAM.
    #[error(
        "the machine needs {} of RAM, but {emulator} takes whole MiB, at most {}; use less (machine.memory, or the memory of \
         partitions), or leave that to --machine qemu", human(*asked), human(*most)
    )]
    Memory {
        /// The emulator.
        emulator: &'static str,
        /// Bytes.
        asked: u64,
        /// Most bytes.
        most: u64,
    },
    /// A device.
    #[error("{emulator} has no {device}; leave it out of the partition's `devices`, or leave that to --machine qemu")]
    Device {
        /// The emulator.
        emulator: &'static str,
        /// Its name in system files.
        device: &'static str,
    },
    /// A log of instructions.
    #[error("{emulator} does not log instructions; leave that to --machine qemu")]
    Instructions {
        /// The emulator.
        emulator: &'static str,
    },
    /// A witness.
    #[error(
        "{emulator} does not log exits as a witness needs it; leave out --witness, or leave that to --machine qemu"
    )]
    Witness {
        /// The emulator.
        emulator: &'static str,
    },
}

/// An emulator that is ready to start.
#[derive(Debug)]
pub struct Launch {
    /// The command, its standard streams included.
    pub command: Command,
    /// What has to go on while it runs.
    pub bridges: Vec<Bridge>,
}

/// What a machine left.
#[derive(Clone, Debug, Default)]
pub struct Remains {
    /// The byte that ended it, if the program in it ended it.
    pub exit_byte: Option<u8>,
    /// What a guest wrote to an isa-debug-exit of its own, if the machine may have ended by that.
    pub test_exit: Option<TestExit>,
    /// What the emulator printed itself.
    pub log: String,
    /// What of the machine's memory was lost on its way out, a sentence each.
    pub damage: Vec<String>,
    /// Why there is no RAM file, if there is none.
    pub why_no_ram: &'static str,
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

    /// Serial ports that its machine can have: COM1 and those that follow.
    fn serial_ports(&self) -> usize {
        SERIAL_PORTS
    }

    /// The last word on the command line of what boots, if the emulator needs one.
    fn option(&self) -> Option<&'static str> {
        None
    }

    /// I/O ports by which the machine talks to the emulator, so that no guest can have them.
    fn own_ports(&self) -> &'static [u16] {
        &[]
    }

    /// Whether a request to terminate is lost on it.
    fn ignores_sigterm(&self) -> bool {
        false
    }

    /// Checks that it can emulate such a machine.
    ///
    /// # Errors
    /// The first thing that it does not have.
    fn check(&self, _machine: &MachineSpec<'_>, _attached: &Attached<'_>) -> Result<(), Misfit> {
        Ok(())
    }

    /// Makes ready what boots `machine`. Its own files are in `dir`.
    ///
    /// # Errors
    /// A file cannot be written, or what boots cannot be booted.
    fn prepare(&self, machine: &MachineSpec<'_>, attached: &Attached<'_>, dir: &Path) -> anyhow::Result<Launch>;

    /// What a machine left that was prepared in `dir`; `exit_code` is that of the emulator, if it ended by itself. The RAM file is
    /// complete then.
    ///
    /// # Errors
    /// A file cannot be read or written.
    fn remains(&self, machine: &MachineSpec<'_>, dir: &Path, exit_code: Option<i32>) -> anyhow::Result<Remains>;

    /// Where the physical address `address` lies in the RAM file of a machine with `memory` bytes of RAM.
    fn ram_offset(&self, memory: u64, address: u64) -> Option<u64>;
}

/// The text of a file, as far as it is text; nothing, if there is none.
pub(crate) fn read_lossy(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
