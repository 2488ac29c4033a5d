//! QEMU's system emulator for x86_64, with AMD SVM under TCG.

use super::{
    Attached, AttachedDevice, Clock, Emulator, InstructionLog, Launch, MachineSpec, ProbeError, Remains, read_lossy,
};
use crate::outcome::TestExit;
use crate::run_dir::QEMU_LOG;
use crate::system_file::TestDevice;
use anyhow::Context;
use partita_abi::report::EXIT_PORT;
use partita_core::system::{PortRange, SerialPort};
use partita_x86_policy::ports::serial_base;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

const PROGRAM: &str = "qemu-system-x86_64";
/// First version with x2APIC under TCG.
const VERSION_MIN: (u32, u32) = (9, 0);

/// Bytes of RAM from which on the q35 machine splits it.
const Q35_SPLIT_FROM: u64 = 0xB000_0000;
/// Bytes of RAM below the PCI hole then.
const Q35_LOW_MEMORY: u64 = 0x8000_0000;
/// Serial ports that a PC has whether somebody uses them or not.
const PC_SERIAL_PORTS: usize = 4;
const ABOVE_4G: u64 = 1 << 32;

/// What executes the machine's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// QEMU's own emulation.
    Tcg,
    /// The host's processor.
    Kvm,
}

/// Makes ready what boots `machine`.
pub(super) fn prepare(
    machine: &MachineSpec<'_>,
    attached: &Attached<'_>,
    accelerator: Accelerator,
    dir: &Path,
) -> anyhow::Result<Launch> {
    let path = dir.join(QEMU_LOG);
    let log = std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = Qemu::command(machine, attached, accelerator);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(Launch { command, bridges: Vec::new() })
}

/// QEMU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Qemu;

impl Emulator for Qemu {
    fn name(&self) -> &'static str {
        "QEMU"
    }

    fn probe(&self) -> Result<(), ProbeError> {
        let program = || PROGRAM.to_owned();
        let output = Command::new(PROGRAM)
            .arg("--version")
            .output()
            .map_err(|cause| ProbeError::NotFound { program: program(), cause })?;
        let text = String::from_utf8_lossy(&output.stdout);
        check_version(&text)
    }

    fn prepare(&self, machine: &MachineSpec<'_>, attached: &Attached<'_>, dir: &Path) -> anyhow::Result<Launch> {
        prepare(machine, attached, Accelerator::Tcg, dir)
    }

    fn remains(&self, _machine: &MachineSpec<'_>, dir: &Path, exit_code: Option<i32>) -> anyhow::Result<Remains> {
        Ok(Remains {
            exit_byte: exit_code.and_then(exit_byte),
            test_exit: exit_code.and_then(test_exit_value),
            log: read_lossy(&dir.join(QEMU_LOG)),
            damage: Vec::new(),
            why_no_ram: "QEMU did not start",
        })
    }

    fn ram_offset(&self, memory: u64, address: u64) -> Option<u64> {
        // q35 splits RAM of more than 2.75 GiB: 2 GiB of it lie below the PCI hole, the rest above 4 GiB.
        let below = if memory >= Q35_SPLIT_FROM { Q35_LOW_MEMORY } else { memory };
        if address < below {
            return Some(address);
        }
        let offset = address.checked_sub(ABOVE_4G)?.checked_add(below)?;
        (offset < memory).then_some(offset)
    }
}

impl Qemu {
    /// The command line that boots `machine`.
    fn command(machine: &MachineSpec<'_>, attached: &Attached<'_>, accelerator: Accelerator) -> Command {
        let mut command = Command::new(PROGRAM);
        let memory = format!("{}k", machine.memory >> 10);
        match machine.ram_file {
            Some(file) => {
                command.args(["-machine", "q35,memory-backend=ram0"]);
                let start = format!("memory-backend-file,id=ram0,size={memory},share=on,mem-path=");
                command.arg("-object").arg(option(&start, file));
            }
            None => {
                command.args(["-machine", "q35"]);
            }
        }
        let cpu = match accelerator {
            Accelerator::Tcg => "max",
            // A machine that cannot be moved to another host has a TSC that is known to be invariant.
            Accelerator::Kvm => "host,migratable=off",
        };
        command.args(["-cpu", cpu, "-smp", &machine.pcpus.to_string(), "-m", &memory]);
        command.args(["-display", "none", "-nodefaults", "-no-reboot"]);
        for (index, log) in machine.serial.iter().enumerate() {
            let id = format!("com{}", index + 1);
            match log {
                Some(log) => {
                    // A file takes all that is printed, and at once: no reader of a console can slow the machine down.
                    let mut chardev = option(&format!("file,id={id},path="), log);
                    if let Some(keyboard) = attached.keyboards.iter().find(|keyboard| keyboard.port == index) {
                        chardev.push(option(",input-path=", &keyboard.pipe));
                    }
                    command.arg("-chardev").arg(chardev);
                }
                None if index < PC_SERIAL_PORTS => {
                    command.args(["-chardev", &format!("null,id={id}")]);
                }
                None => continue,
            }
            match index.checked_sub(1).and_then(|partition_port| SerialPort::ALL.get(partition_port)) {
                Some(&port) => command.args(["-device", &serial_port(port, &id)]),
                None => command.args(["-serial", &format!("chardev:{id}")]),
            };
        }
        command.args(["-device", &format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=0x04")]);
        for device in attached.devices {
            attach(&mut command, device);
        }
        command.arg("-kernel").arg(machine.kernel);
        if let Some(module) = machine.module {
            command.arg("-initrd").arg(module);
        }
        if !machine.cmdline.is_empty() {
            command.args(["-append", machine.cmdline]);
        }
        // Blocks of one instruction make an entry of the log of each.
        let tcg_of_one_thread =
            if attached.instructions.is_some() { "tcg,thread=single,one-insn-per-tb=on" } else { "tcg,thread=single" };
        match machine.clock {
            _ if accelerator == Accelerator::Kvm => command.args(["-accel", "kvm"]),
            Clock::Host => command.args(["-accel", "tcg,thread=multi"]),
            // With the seed and the fixed date two runs are identical, bit for bit.
            Clock::Icount => command
                .args(["-accel", tcg_of_one_thread, "-icount", "shift=0,sleep=off", "-seed", "7"])
                .args(["-rtc", "base=2026-01-01T00:00:00,clock=vm"]),
        };
        if let Some(log) = attached.witness {
            // Entries and exits are logged with translated code, of which there is none in this range.
            command.args(["-d", "in_asm", "-dfilter", "0xfffffffffffff000+0x1", "-D"]).arg(log);
        }
        if let Some(InstructionLog { file, range: (start, end), socket }) = attached.instructions {
            let range = format!("{start:#x}+{:#x}", end.saturating_sub(start));
            command.args(["-dfilter", &range, "-D"]).arg(file);
            command.arg("-S").arg("-chardev").arg(option("socket,id=gdb,server=on,wait=off,path=", socket));
            command.args(["-gdb", "chardev:gdb"]);
        }
        command
    }
}

/// The byte that the program in the machine wrote to its exit port, from the exit code of the process.
fn exit_byte(code: i32) -> Option<u8> {
    // isa-debug-exit makes (value << 1) | 1 of it. 1 is also what QEMU's own errors give.
    if code & 1 == 1 && code > 1 { u8::try_from(code >> 1).ok() } else { None }
}

/// What a guest wrote to an isa-debug-exit of its own, if the exit code of the process can be from there.
fn test_exit_value(code: i32) -> Option<TestExit> {
    // (value << 1) | 1, of which a process's exit code keeps 8 bits.
    let value = u8::try_from(code >> 1).ok()?;
    (code & 1 == 1).then_some(TestExit { value, bits: 7 })
}

/// A partition's serial port. QEMU takes more than four if no two have the same addresses, but counts them to four only.
fn serial_port(port: SerialPort, chardev: &str) -> String {
    // COM3 would share COM1's interrupt line, by which its guest could reach the hypervisor's console.
    const IRQ: u8 = 3;
    let index = usize::from(port.number()).min(PC_SERIAL_PORTS) - 1;
    format!("isa-serial,chardev={chardev},index={index},iobase={:#x},irq={IRQ}", serial_base(port))
}

fn attach(command: &mut Command, device: &AttachedDevice) {
    match device {
        AttachedDevice::IsaDebugExit => {
            let PortRange { first, last } = TestDevice::DEBUG_EXIT_PORTS;
            let size = u32::from(last) + 1 - u32::from(first);
            command.args(["-device", &format!("isa-debug-exit,iobase={first:#x},iosize={size:#04x}")]);
        }
        AttachedDevice::DebugCon(file) => {
            let port = TestDevice::DEBUGCON_PORTS.first;
            command.arg("-chardev").arg(option("file,id=debugcon,path=", file));
            command.args(["-device", &format!("isa-debugcon,iobase={port:#x},chardev=debugcon")]);
        }
        AttachedDevice::Edu => {
            command.args(["-device", "edu"]);
        }
    }
}

/// An option that ends with a path: QEMU wants commas doubled there.
fn option(start: &str, path: &Path) -> OsString {
    let mut text = OsString::from(start);
    let escaped: Vec<u8> = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .flat_map(|&byte| if byte == b',' { vec![b',', b','] } else { vec![byte] })
        .collect();
    text.push(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&escaped));
    text
}

fn check_version(text: &str) -> Result<(), ProbeError> {
    let program = PROGRAM.to_owned();
    let word = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
    let mut numbers = word.unwrap_or_default().split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= VERSION_MIN => Ok(()),
        (Some(Ok(_)), Some(Ok(_))) => {
            let found = word.unwrap_or_default().to_owned();
            let why = "older ones have no x2APIC without KVM";
            Err(ProbeError::WrongVersion { program, found, needed: "9.0 or later", why })
        }
        _ => Err(ProbeError::Unknown { program, output: text.lines().next().unwrap_or_default().to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Keyboard, Typist};
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(check_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2)").is_ok());
        assert!(check_version("QEMU emulator version 9.0.0").is_ok());
        let old = check_version("QEMU emulator version 7.2.22 (Debian)").unwrap_err().to_string();
        assert!(old.contains("7.2.22") && old.contains("9.0") && old.contains("ci/setup.sh"), "{old}");
        assert!(matches!(check_version("hello"), Err(ProbeError::Unknown { .. })));
    }

    fn spec<'a>(clock: Clock, ram_file: Option<&'a Path>) -> MachineSpec<'a> {
        MachineSpec {
            pcpus: 4,
            memory: 512 << 20,
            clock,
            kernel: Path::new("hv.elf"),
            module: Some(Path::new("a,b/bundle.bin")),
            cmdline: "",
            serial: std::array::from_fn(|index| match index {
                0 => Some("d/hypervisor.log".into()),
                2 => Some("d/rt0.log".into()),
                7 => Some("d/rt1.log".into()),
                _ => None,
            }),
            ram_file,
        }
    }

    fn line(command: &Command) -> String {
        command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_command_line_is_the_one_that_works() {
        let icount = line(&Qemu::command(
            &spec(Clock::Icount, Some(Path::new("d/ram,bin"))),
            &Attached::default(),
            Accelerator::Tcg,
        ));
        assert_eq!(
            icount,
            "-machine q35,memory-backend=ram0 \
             -object memory-backend-file,id=ram0,size=524288k,share=on,mem-path=d/ram,,bin -cpu max -smp 4 -m 524288k \
             -display none -nodefaults -no-reboot -chardev file,id=com1,path=d/hypervisor.log -serial chardev:com1 \
             -chardev null,id=com2 -device isa-serial,chardev=com2,index=1,iobase=0x2f8,irq=3 \
             -chardev file,id=com3,path=d/rt0.log -device isa-serial,chardev=com3,index=2,iobase=0x3e8,irq=3 \
             -chardev null,id=com4 -device isa-serial,chardev=com4,index=3,iobase=0x2e8,irq=3 \
             -chardev file,id=com8,path=d/rt1.log -device isa-serial,chardev=com8,index=3,iobase=0x4e8,irq=3 \
             -device isa-debug-exit,iobase=0xf4,iosize=0x04 -kernel hv.elf -initrd a,b/bundle.bin \
             -accel tcg,thread=single -icount shift=0,sleep=off -seed 7 -rtc base=2026-01-01T00:00:00,clock=vm"
        );
        let host = line(&Qemu::command(&spec(Clock::Host, None), &Attached::default(), Accelerator::Tcg));
        assert!(!icount.contains("input") && !icount.contains("-d "), "nothing is attached");
        let kvm = line(&Qemu::command(&spec(Clock::Host, None), &Attached::default(), Accelerator::Kvm));
        assert!(kvm.ends_with("-accel kvm") && kvm.contains("-cpu host,migratable=off -smp"), "{kvm}");
        assert!(host.contains("-accel tcg,thread=multi") && !host.contains("icount") && !host.contains("ram0"));
    }

    #[test]
    fn what_is_attached_is_there() {
        let keyboard = |port, pipe: &str| Keyboard {
            port,
            pipe: pipe.into(),
            log: PathBuf::new(),
            typist: Typist::Script(Vec::new()),
        };
        let attached = Attached {
            keyboards: &[keyboard(2, "d/a,b.in"), keyboard(0, "d/com1.in")],
            devices: &[
                AttachedDevice::IsaDebugExit,
                AttachedDevice::DebugCon("d/rt0.debugcon.log".into()),
                AttachedDevice::Edu,
            ],
            witness: Some(Path::new("d/w.log")),
            instructions: None,
        };
        let line = line(&Qemu::command(&spec(Clock::Icount, None), &attached, Accelerator::Tcg));
        for expected in [
            "-chardev file,id=com1,path=d/hypervisor.log,input-path=d/com1.in -serial chardev:com1 ",
            "-chardev file,id=com3,path=d/rt0.log,input-path=d/a,,b.in -device isa-serial,chardev=com3,",
            "-device isa-debug-exit,iobase=0xf4,iosize=0x04 -device isa-debug-exit,iobase=0x501,iosize=0x02 \
             -chardev file,id=debugcon,path=d/rt0.debugcon.log -device isa-debugcon,iobase=0xe9,chardev=debugcon -device edu ",
        ] {
            assert!(line.contains(expected), "{expected}\n{line}");
        }
        assert!(line.ends_with("-d in_asm -dfilter 0xfffffffffffff000+0x1 -D d/w.log"), "{line}");
    }

    #[test]
    fn instructions_are_logged_one_by_one() {
        let (file, socket) = (Path::new("d/i.log"), Path::new("d,/s"));
        let instructions = Some(InstructionLog { file, range: (0x200000, 0x248000), socket });
        let attached = Attached { instructions, ..Attached::default() };
        let line = line(&Qemu::command(&spec(Clock::Icount, None), &attached, Accelerator::Tcg));
        assert!(line.contains("-accel tcg,thread=single,one-insn-per-tb=on -icount"), "{line}");
        let end = "-dfilter 0x200000+0x48000 -D d/i.log -S -chardev socket,id=gdb,server=on,wait=off,path=d,,/s \
                   -gdb chardev:gdb";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn ram_is_split_around_the_pci_hole() {
        let offset = |memory, address| Qemu.ram_offset(memory, address);
        assert_eq!(offset(1 << 30, 0x1234), Some(0x1234));
        assert_eq!(offset(1 << 30, 1 << 30), None);
        assert_eq!(offset(4 << 30, 0x7FFF_FFFF), Some(0x7FFF_FFFF));
        assert_eq!(offset(4 << 30, 0x8000_0000), None);
        assert_eq!(offset(4 << 30, 1 << 32), Some(2 << 30));
        assert_eq!(offset(4 << 30, 6 << 30), None);
    }

    #[test]
    fn exit_codes_give_the_byte_back() {
        assert_eq!(exit_byte(33), Some(0x10));
        assert_eq!(exit_byte(35), Some(0x11));
        assert_eq!(exit_byte(1), None);
        assert_eq!(exit_byte(0), None);
        let value = |code| test_exit_value(code).map(|exit| exit.value);
        assert_eq!([33, 255, 1, 0, 2].map(value), [Some(0x10), Some(0x7F), Some(0), None, None]);
    }
}
