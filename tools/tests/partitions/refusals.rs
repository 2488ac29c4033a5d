//! What the hypervisor does not start on, or with.

use partita_host::emulator::{Attached, Clock, Emulator, Ended, MachineSpec, Qemu, Supervision, supervise};
use partita_host::{assemble, bundle, cargo_build};
use std::path::PathBuf;
use std::time::Duration;

use crate::system::load;

/// Exit code of the emulator after a refusal.
const REFUSED: i32 = 37;

/// A machine and what it boots.
struct Boot {
    bundle: Option<Vec<u8>>,
    cpu: &'static str,
    pcpus: u16,
    memory: u64,
}

fn good_bundle() -> Vec<u8> {
    let system = load("kicks.toml", &[]);
    bundle::build(&system.config, &assemble::assemble(&system).unwrap().images).unwrap()
}

impl Boot {
    fn good() -> Self {
        Self { bundle: Some(good_bundle()), cpu: "max", pcpus: 2, memory: 256 << 20 }
    }
}

/// Boots the hypervisor; gives the emulator's exit code and the console.
fn boot(machine: &Boot) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let log: PathBuf = dir.path().join("hypervisor.log");
    let module = machine.bundle.as_ref().map(|bytes| {
        let path = dir.path().join("bundle.bin");
        std::fs::write(&path, bytes).unwrap();
        path
    });
    let kernel = cargo_build::hypervisor().unwrap();
    let spec = MachineSpec {
        pcpus: machine.pcpus,
        memory: machine.memory,
        clock: Clock::Icount,
        kernel: &kernel,
        module: module.as_deref(),
        cmdline: "",
        serial: std::array::from_fn(|index| (index == 0).then(|| log.clone())),
        ram_file: None,
    };
    let mut command = Qemu.prepare(&spec, &Attached::default(), dir.path()).unwrap().command;
    // The last one counts.
    command.args(["-cpu", machine.cpu]);
    let supervision = Supervision {
        label: "refusal".into(),
        timeout: Duration::from_secs(60),
        consoles: Vec::new(),
        quiet: true,
        ignores_sigterm: false,
    };
    let ended = supervise(command, supervision).unwrap();
    let code = if let Ended::Exited(status) = ended { status.code() } else { None };
    (code, String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned())
}

fn assert_refused(machine: &Boot, words: &[&str]) {
    let (code, console) = boot(machine);
    assert_eq!(code, Some(REFUSED), "{console}");
    let said = console.lines().find(|line| line.starts_with("partita: refused to start: "));
    let said = said.unwrap_or_else(|| panic!("{console}"));
    println!("{said}");
    for word in words {
        assert!(console.contains(word), "{word:?}: {console}");
    }
    assert_eq!(console.lines().last(), Some("partita: end: refused"), "{console}");
}

#[test]
#[ignore = "boots an emulator"]
fn a_bad_bundle_is_refused() {
    assert_refused(&Boot { bundle: None, ..Boot::good() }, &["no boot bundle", "-initrd"]);
    let good = good_bundle();
    let cut = good[..good.len() / 2].to_vec();
    assert_refused(&Boot { bundle: Some(cut), ..Boot::good() }, &["the boot bundle is truncated", "build it again"]);
    assert_refused(&Boot { bundle: Some(b"no bundle".repeat(10)), ..Boot::good() }, &["not a Partita boot bundle"]);
    for (at, words) in [
        (20, "checksum of its header"),
        (100, "checksum of its contents"),
        (good.len() - 1, "checksum of its contents"),
    ] {
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        assert_refused(&Boot { bundle: Some(flipped), ..Boot::good() }, &[words, "build it again"]);
    }
}

#[test]
#[ignore = "boots an emulator"]
fn a_machine_that_is_too_small_is_refused() {
    assert_refused(&Boot { pcpus: 1, ..Boot::good() }, &["pCPU 1"]);
    assert_refused(&Boot { memory: 16 << 20, ..Boot::good() }, &["memory"]);
}

#[test]
#[ignore = "boots an emulator"]
fn a_cpu_that_lacks_something_is_refused() {
    for (cpu, words) in [
        ("max,-svm", "this CPU has neither SVM"),
        ("max,-x2apic", "this CPU has no x2APIC"),
        ("max,-npt", "nested paging"),
    ] {
        assert_refused(&Boot { cpu, ..Boot::good() }, &[words]);
    }
}
