//! Images that boot by GRUB and multiboot2, in QEMU by BIOS and by UEFI.

use partita_abi::report::{END_MARKER, END_SUCCESS, PAYLOAD_END_MARKER};
use partita_host::cargo_build;
use partita_host::emulator::{Ended, Supervision, supervise};
use partita_host::iso::{IsoContents, IsoTarget, SystemImage, build, build_system};
use partita_host::system_file::SystemFile;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Exit codes of QEMU after a success, and after a refusal.
const SUCCEEDED: Option<i32> = Some(33);
const REFUSED: Option<i32> = Some(37);

const ICOUNT: &[&str] = &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-seed", "7"];
/// The menu waits some seconds of the machine's clock, which take long by instruction count.
const THREADS: &[&str] = &["-accel", "tcg,thread=multi"];
const OVMF: &[&str] = &["-bios", "/usr/share/ovmf/OVMF.fd"];

/// A system of two small partitions; the console of the first one is COM2.
const SYSTEM: &str = "[system]\nname = 's'\n[[partition]]\nname = 'p'\npcpus = [1, 2]\nmemory = '16 MiB'\n\
    image = { kind = 'payload', name = 'latency' }\ncmdline = 'group=exit samples=20'\nexpect = 'finish'\n";

fn system() -> SystemFile {
    SystemFile::parse(SYSTEM, Path::new("s.toml")).unwrap()
}

/// What a boot left.
struct Left {
    code: Option<i32>,
    com1: String,
    com2: String,
    com4: String,
}

/// Boots `iso`, as a CD or as a disk.
fn boot(iso: &Path, is_disk: bool, options: &[&[&str]]) -> Left {
    let dir = iso.parent().unwrap();
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", "q35", "-cpu", "max", "-smp", "3", "-m", "192", "-display", "none", "-nodefaults"]);
    command.args(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    for com in ["com1", "com2", "com3", "com4"] {
        command.args(["-serial", &format!("file:{}/{com}.log", dir.display())]);
    }
    if is_disk {
        command.args(["-drive", &format!("file={},format=raw,if=ide,snapshot=on", iso.display())]);
    } else {
        command.arg("-cdrom").arg(iso);
    }
    command.args(options.iter().copied().flatten());
    let supervision = Supervision {
        label: "iso".into(),
        timeout: Duration::from_secs(120),
        consoles: Vec::new(),
        quiet: true,
        ignores_sigterm: false,
    };
    let ended = supervise(command, supervision).unwrap();
    let code = if let Ended::Exited(status) = ended { status.code() } else { None };
    let log = |name: &str| String::from_utf8_lossy(&std::fs::read(dir.join(name)).unwrap_or_default()).into_owned();
    Left { code, com1: log("com1.log"), com2: log("com2.log"), com4: log("com4.log") }
}

/// Builds an image of the small system and boots it.
fn boot_system(cmdline: &str, target: IsoTarget, is_disk: bool, options: &[&[&str]]) -> Left {
    let dir = tempfile::tempdir().unwrap();
    let iso = dir.path().join("system.iso");
    build_system(&system(), &SystemImage { hypervisor: None, cmdline, target }, &iso).unwrap();
    boot(&iso, is_disk, options)
}

fn has_line(log: &str, line: &str) -> bool {
    log.lines().any(|found| found == line)
}

#[test]
#[ignore = "needs GRUB; ci/test.sh runs it"]
fn two_images_of_the_same_contents_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = cargo_build::payload("latency").unwrap();
    for target in [IsoTarget::Machine, IsoTarget::Emulator] {
        let contents = IsoContents { kernel: &kernel, module: Some(&kernel), cmdline: "a=b", target };
        let [first, second] = ["1.iso", "2.iso"].map(|name| {
            let path = dir.path().join(name);
            build(&contents, &path).unwrap();
            // FAT has times of two seconds.
            std::thread::sleep(Duration::from_millis(2100));
            std::fs::read(path).unwrap()
        });
        assert!(first == second, "{target:?}");
        // The kernel is there without its symbols and debug information, of which it has more than of anything else.
        let limit = if target == IsoTarget::Emulator { 2 << 20 } else { 4 << 20 };
        assert!(first.len() < limit, "{target:?}: {} bytes", first.len());
    }
}

#[test]
#[ignore = "needs QEMU and GRUB; ci/test.sh runs it"]
fn a_bare_payload_boots_and_gets_its_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let iso = dir.path().join("latency.iso");
    let kernel = cargo_build::payload("latency").unwrap();
    let cmdline = "group=exit samples=20";
    build(&IsoContents { kernel: &kernel, module: None, cmdline, target: IsoTarget::Emulator }, &iso).unwrap();
    let left = boot(&iso, false, &[ICOUNT]);
    assert_eq!(left.code, SUCCEEDED, "{}", left.com1);
    assert!(left.com1.starts_with("payload: latency "), "GRUB leaves COM1 alone: {}", left.com1);
    assert!(left.com1.contains("exit.cpuid (20, 20)"), "{}", left.com1);
    assert!(has_line(&left.com1, &format!("{PAYLOAD_END_MARKER}{END_SUCCESS}")), "{}", left.com1);

    // What means something to GRUB gets there as it is.
    let cmdline = "$root;{x}=#1";
    build(&IsoContents { kernel: &kernel, module: None, cmdline, target: IsoTarget::Emulator }, &iso).unwrap();
    let left = boot(&iso, false, &[ICOUNT]);
    assert!(left.com1.contains("$root;{x}"), "{}", left.com1);
}

#[test]
#[ignore = "needs QEMU and GRUB; ci/test.sh runs it"]
fn a_system_boots_by_bios_and_by_uefi() {
    let end = format!("{END_MARKER}{END_SUCCESS}");
    for (is_disk, firmware) in [(true, &[][..]), (false, OVMF), (true, OVMF)] {
        let left = boot_system("", IsoTarget::Machine, is_disk, &[THREADS, firmware]);
        assert_eq!(left.code, SUCCEEDED, "disk {is_disk}, {firmware:?}: {}", left.com1);
        assert!(has_line(&left.com1, &end), "{}", left.com1);
        assert!(left.com2.contains("exit.cpuid (20, 20)"), "{}", left.com2);
    }
    // The same system by the image for emulators, with the hypervisor's console elsewhere.
    let left = boot_system("trap-timer-count serial=com4,9600", IsoTarget::Emulator, false, &[ICOUNT]);
    assert_eq!((left.code, left.com1.as_str()), (SUCCEEDED, ""), "{}", left.com4);
    assert!(has_line(&left.com4, &end), "{}", left.com4);
}

#[test]
#[ignore = "needs QEMU and GRUB; ci/test.sh runs it"]
fn a_serial_port_that_cannot_be_the_console_is_refused() {
    for (cmdline, words) in [
        ("serial=com2", "partition 0 is to own COM2, which is the hypervisor's console; give one of them another port"),
        ("serial=com9", "\"com9\" is no serial port; write com1"),
        ("serial=com1,7000", "\"7000\" baud cannot be had"),
    ] {
        let left = boot_system(cmdline, IsoTarget::Emulator, false, &[ICOUNT]);
        assert_eq!(left.code, REFUSED, "{cmdline}");
        let console = [left.com1, left.com2].concat();
        assert!(console.contains("partita: refused to start: ") && console.contains(words), "{console}");
    }
}
