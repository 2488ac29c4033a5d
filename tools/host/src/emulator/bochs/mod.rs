//! Bochs 2.7: the emulator with Intel VMX, and a second opinion on AMD SVM. Its clocks go by instructions, so that two runs
//! are identical; it boots a GRUB ISO; its RAM cannot be had from outside, so that the machine writes its trace to the debug port
//! ([`partita_abi::debug_port`]), which Bochs prints on its standard output.

mod bridge;
mod config;
mod ram;
mod stream;

pub use bridge::Bridge;
pub use config::Cpu;
pub use stream::{Piece, Stream, StreamDamage};

use super::{Attached, AttachedDevice, Emulator, Launch, MachineSpec, Misfit, ProbeError, Remains};
use crate::iso::{self, IsoContents, IsoTarget};
use crate::run_dir::{BOCHS_COMMANDS, BOCHS_CONFIG, BOCHS_LOG, BOCHS_MESSAGES, DEBUG_PORT_FILE, ISO_FILE};
use anyhow::Context;
use config::{Config, Serial};
use partita_abi::debug_port::{DEBUG_PORT, OPTION, SHUTDOWN_PORT};
use std::path::Path;
use std::process::{Command, Stdio};

const PROGRAM: &str = "bochs";
/// The version whose behaviour is known.
const VERSION: &str = "2.7";
/// Files of the packages `bochs-term`, `bochsbios` and `vgabios`, without which it does not start.
const FILES: [&str; 2] = ["/usr/share/bochs/BIOS-bochs-latest", "/usr/share/vgabios/vgabios.bin"];
/// Most pCPUs.
const PCPUS_MAX: u16 = 8;
/// Most RAM in bytes.
const MEMORY_MAX: u64 = 2 << 30;
const MEBIBYTE: u64 = 1 << 20;
/// COM1 to COM4.
const SERIAL_PORTS: usize = 4;
/// The exit code of Bochs when the machine wrote what ends it to its shutdown port.
const SHUTDOWN_CODE: i32 = 1;
/// How often the debugger goes on after a stop. With SVM it stops at each triple fault of a guest.
const CONTINUES_SVM: usize = 1000;

/// Bochs with a CPU.
#[derive(Clone, Copy, Debug)]
pub struct Bochs {
    /// The CPU.
    pub cpu: Cpu,
}

impl Emulator for Bochs {
    fn name(&self) -> &'static str {
        "Bochs"
    }

    fn probe(&self) -> Result<(), ProbeError> {
        let program = || PROGRAM.to_owned();
        let output = Command::new(PROGRAM)
            .args(["--help", "cpu"])
            .stdin(Stdio::null())
            .output()
            .map_err(|cause| ProbeError::NotFound { program: program(), cause })?;
        let text = [output.stdout, output.stderr].concat();
        check_version(&String::from_utf8_lossy(&text))?;
        let missing = FILES.into_iter().find(|file| !Path::new(file).is_file());
        missing.map_or(Ok(()), |file| Err(ProbeError::Incomplete { program: program(), file: file.into() }))
    }

    fn serial_ports(&self) -> usize {
        SERIAL_PORTS
    }

    fn option(&self) -> Option<&'static str> {
        Some(OPTION)
    }

    fn own_ports(&self) -> &'static [u16] {
        &[DEBUG_PORT, SHUTDOWN_PORT]
    }

    fn ignores_sigterm(&self) -> bool {
        true
    }

    fn check(&self, machine: &MachineSpec<'_>, attached: &Attached<'_>) -> Result<(), Misfit> {
        let emulator = self.name();
        if machine.pcpus > PCPUS_MAX {
            return Err(Misfit::Pcpus { emulator, asked: machine.pcpus, most: PCPUS_MAX });
        }
        if machine.memory > MEMORY_MAX || !machine.memory.is_multiple_of(MEBIBYTE) {
            return Err(Misfit::Memory { emulator, asked: machine.memory, most: MEMORY_MAX });
        }
        if let Some(device) = attached.devices.first() {
            let device = match device {
                AttachedDevice::IsaDebugExit => "isa-debug-exit",
                AttachedDevice::DebugCon(_) => "debugcon",
                AttachedDevice::Edu => "edu",
            };
            return Err(Misfit::Device { emulator, device });
        }
        if attached.instructions.is_some() {
            return Err(Misfit::Instructions { emulator });
        }
        if attached.witness.is_some() {
            return Err(Misfit::Witness { emulator });
        }
        Ok(())
    }

    fn prepare(&self, machine: &MachineSpec<'_>, attached: &Attached<'_>, dir: &Path) -> anyhow::Result<Launch> {
        let MachineSpec { kernel, module, cmdline, .. } = *machine;
        let contents = IsoContents { kernel, module, cmdline, target: IsoTarget::Emulator };
        iso::build(&contents, &dir.join(ISO_FILE))?;
        let mut bridges = Vec::new();
        let mut serial = Vec::new();
        for (index, log) in machine.serial.iter().enumerate().take(SERIAL_PORTS) {
            let keyboard = attached.keyboards.iter().find(|keyboard| keyboard.port == index);
            serial.push(match (log, keyboard) {
                (None, _) => Serial::Mute,
                (Some(log), None) => Serial::File(relative(log, dir)?),
                (Some(log), Some(keyboard)) => {
                    let bridge = Bridge::listen(log, keyboard.pipe.clone());
                    let bridge =
                        bridge.with_context(|| format!("cannot connect to the serial port COM{}", index + 1))?;
                    let port = bridge.port();
                    bridges.push(bridge);
                    Serial::Socket(port)
                }
            });
        }
        let config = Config {
            cpu: &self.cpu,
            pcpus: machine.pcpus,
            mebibytes: machine.memory / MEBIBYTE,
            iso: ISO_FILE,
            log: BOCHS_LOG,
            serial,
        };
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write(BOCHS_CONFIG, &config.text())?;
        let continues = if self.cpu.has_svm { CONTINUES_SVM } else { 1 };
        write(BOCHS_COMMANDS, &format!("{}q\n", "c\n".repeat(continues)))?;
        let create = |name: &str| {
            let path = dir.join(name);
            std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))
        };
        let mut command = Command::new(PROGRAM);
        command.args(["-q", "-f", BOCHS_CONFIG, "-rc", BOCHS_COMMANDS]).current_dir(dir).env("TERM", "vt100");
        command.stdin(Stdio::null()).stdout(create(DEBUG_PORT_FILE)?).stderr(create(BOCHS_MESSAGES)?);
        Ok(Launch { command, bridges })
    }

    fn remains(&self, machine: &MachineSpec<'_>, dir: &Path, exit_code: Option<i32>) -> anyhow::Result<Remains> {
        let path = dir.join(DEBUG_PORT_FILE);
        let output = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let stream = Stream::read(&output);
        if let Some(ram) = machine.ram_file.filter(|_| !stream.memory.is_empty()) {
            let kept = ram::write(&stream.memory, machine.memory, ram);
            kept.with_context(|| format!("cannot write {}", ram.display()))?;
        }
        let text = |name: &str| super::read_lossy(&dir.join(name));
        Ok(Remains {
            exit_byte: stream.exit.filter(|_| exit_code == Some(SHUTDOWN_CODE)),
            test_exit: None,
            log: format!("{}{}", text(BOCHS_MESSAGES), problems(&text(BOCHS_LOG))),
            // A machine that did not end by itself had no occasion to finish.
            damage: exit_code.map_or_else(Vec::new, |_| stream.damage.iter().map(ToString::to_string).collect()),
            why_no_ram: "a machine in Bochs writes its trace at its end, and this one had no trace or did not end by itself",
        })
    }

    fn ram_offset(&self, memory: u64, address: u64) -> Option<u64> {
        (address < memory).then_some(address)
    }
}

/// The errors and panics in a log of Bochs: lines such as `00000000000p[CPU0  ] >>PANIC<< ...`.
fn problems(log: &str) -> String {
    let is_problem = |line: &&str| {
        let level = line.split('[').next().unwrap_or_default().trim_start_matches(|c: char| c.is_ascii_digit());
        matches!(level, "e" | "p")
    };
    log.lines().filter(is_problem).flat_map(|line| [line, "\n"]).collect()
}

/// A file as it is called in the directory in which Bochs runs: its configuration file has no way to write every path.
fn relative(file: &Path, dir: &Path) -> anyhow::Result<String> {
    let name = file.strip_prefix(dir).ok().and_then(Path::to_str);
    name.map(str::to_owned).with_context(|| format!("{} does not lie in {}", file.display(), dir.display()))
}

fn check_version(text: &str) -> Result<(), ProbeError> {
    let program = PROGRAM.to_owned();
    match text.split("Bochs x86 Emulator ").nth(1).and_then(|rest| rest.split_whitespace().next()) {
        Some(VERSION) => Ok(()),
        Some(found) => {
            let why = "the configuration is made for that version";
            Err(ProbeError::WrongVersion { program, found: found.to_owned(), needed: VERSION, why })
        }
        None => Err(ProbeError::Unknown { program, output: text.lines().next().unwrap_or_default().to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Clock, SERIAL_PORTS as ALL_PORTS};
    use super::*;

    fn spec(pcpus: u16, memory: u64) -> MachineSpec<'static> {
        MachineSpec {
            pcpus,
            memory,
            clock: Clock::Icount,
            kernel: Path::new("hv.elf"),
            module: None,
            cmdline: "",
            serial: [const { None }; ALL_PORTS],
            ram_file: None,
        }
    }

    #[test]
    fn what_bochs_does_not_have_is_refused_by_name() {
        let bochs = Bochs { cpu: Cpu::VMX };
        let check = |spec: MachineSpec<'_>, attached: Attached<'_>| {
            bochs.check(&spec, &attached).map_err(|error| error.to_string())
        };
        assert_eq!(check(spec(8, 2 << 30), Attached::default()), Ok(()));
        let words = check(spec(9, 1 << 30), Attached::default()).unwrap_err();
        assert!(
            words.contains("9 pCPUs") && words.contains("at most 8") && words.contains("--machine qemu"),
            "{words}"
        );
        for memory in [(2 << 30) + MEBIBYTE, (64 << 20) + 4096] {
            assert!(check(spec(2, memory), Attached::default()).unwrap_err().contains("2 GiB"));
        }
        let devices = [AttachedDevice::Edu];
        let words = check(spec(2, 1 << 30), Attached { devices: &devices, ..Attached::default() }).unwrap_err();
        assert!(words.contains("no edu"), "{words}");
        let witness = Some(Path::new("w.log"));
        assert!(
            check(spec(2, 1 << 30), Attached { witness, ..Attached::default() }).unwrap_err().contains("--witness")
        );
    }

    #[test]
    fn only_the_known_version_is_used() {
        assert!(check_version("====\n      Bochs x86 Emulator 2.7\n   Built").is_ok());
        let other = check_version("Bochs x86 Emulator 3.0\n").unwrap_err().to_string();
        assert!(other.contains("3.0") && other.contains("2.7") && other.contains("ci/setup.sh"), "{other}");
        assert!(matches!(check_version("hello"), Err(ProbeError::Unknown { .. })));
    }

    #[test]
    fn problems_are_found_in_the_log() {
        let log =
            "00000000000i[CPU0  ] hello\n00000000012p[CPU0  ] >>PANIC<< no\n  e[x\n00000000013e[IDE  ] time out\n";
        assert_eq!(problems(log), "00000000012p[CPU0  ] >>PANIC<< no\n00000000013e[IDE  ] time out\n");
    }

    #[test]
    fn a_log_elsewhere_is_refused() {
        assert_eq!(relative(Path::new("/a b/hypervisor.log"), Path::new("/a b")).unwrap(), "hypervisor.log");
        assert!(relative(Path::new("/c/x.log"), Path::new("/a")).is_err());
    }
}
