//! One guest by every format of images: it claims, register by register, that it starts as the format asks for, and that
//! it finds what the format's loader tells. And bad images beside a good one.

use crate::system::{Left, load, run};
use partita_host::emulator::{Clock, MachineKind};
use partita_host::image::payload::{self, Flat};
use partita_host::outcome::RunOutcome;
use partita_host::run::{BareRun, RunOptions, run_bare};
use partita_host::system_file::SystemFile;
use partita_host::{assemble, cargo_build};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Linux's 64-bit entry point lies so far behind its load address.
const ENTRY_64: u64 = 0x200;

fn assert_good(system: &SystemFile, claims: &[(&str, &str, usize)]) -> Left {
    let left = run(system, Clock::Icount, 60);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    for (partition, format, count) in claims {
        let title = format!("entries: {format}");
        assert!(left.console(partition).lines().any(|line| line == title), "{title}\n{}", left.consoles());
        left.assert_claims(partition, *count);
    }
    left
}

#[test]
#[ignore = "boots an emulator"]
fn elf_files_start_as_their_formats_ask() {
    let claims = [("pvh", "PVH", 67), ("multiboot", "multiboot", 70), ("plain", "plain ELF64", 76)];
    assert_good(&load("entries-elf.toml", &[]), &claims);
}

#[test]
#[ignore = "boots an emulator"]
fn flat_images_start_in_their_mode() {
    let claims =
        [("real", "flat, real mode", 48), ("protected", "flat, protected mode", 59), ("long", "flat, long mode", 72)];
    assert_good(&load("entries-flat.toml", &[]), &claims);
}

/// The payload as a bzImage without a compressed kernel: its 64-bit entry point is the payload's.
fn bzimage(elf: &[u8]) -> Vec<u8> {
    const SETUP: usize = 2 * 512;
    /// Bytes that the payload uses behind its beginning, its trace included.
    const INIT_SIZE: u32 = 8 << 20;
    let Flat { base, bytes } = payload::flatten(elf).unwrap();
    assert_eq!(payload::symbol(elf, "linux_entry").unwrap(), base + ENTRY_64);
    let mut image = vec![0; SETUP];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1F1, &[1]); // setup sectors
    put(0x1F4, &(bytes.len() as u32).div_ceil(16).to_le_bytes());
    put(0x1FE, &0xAA55u16.to_le_bytes());
    put(0x200, &[0xEB, 0x6A]); // the jump that ends the header
    put(0x202, b"HdrS\x0F\x02"); // protocol 2.15
    put(0x211, &[1]); // loaded high
    put(0x22C, &0x7FFF_FFFFu32.to_le_bytes()); // highest address of an initial RAM disk
    put(0x230, &0x20_0000u32.to_le_bytes()); // alignment
    put(0x236, &[1]); // there is a 64-bit entry point
    put(0x238, &255u32.to_le_bytes()); // command line
    put(0x258, &base.to_le_bytes());
    put(0x260, &INIT_SIZE.to_le_bytes());
    image.extend(bytes);
    image
}

fn in_repository(path: &str) -> PathBuf {
    cargo_build::repository().unwrap().join(path)
}

fn first_module() -> PathBuf {
    in_repository("rt-partitions/entries/modules/first.txt")
}

#[test]
#[ignore = "boots an emulator"]
fn linux_starts_as_its_boot_protocol_asks() {
    let dir = tempfile::tempdir().unwrap();
    let elf = std::fs::read(cargo_build::payload("entries").unwrap()).unwrap();
    let kernel = dir.path().join("bzimage");
    std::fs::write(&kernel, bzimage(&elf)).unwrap();
    let text = format!(
        "[system]\nname = 'entries-linux'\n[[partition]]\nname = 'linux'\npcpus = [1]\nmemory = '16 MiB'\n\
         image = {{ kind = 'linux', kernel = '{}', initrd = '{}' }}\ncmdline = 'memory=16 end'\nexpect = 'finish'\n",
        kernel.display(),
        first_module().display()
    );
    let system = SystemFile::parse(&text, &dir.path().join("s.toml")).unwrap();
    assert_good(&system, &[("linux", "Linux, 64-bit entry", 75)]);
}

/// The test of the test: what the guest claims of multiboot holds in QEMU's own loader, too.
#[test]
#[ignore = "boots an emulator"]
fn the_multiboot_image_boots_without_partita() {
    let dir = tempfile::tempdir().unwrap();
    let elf = std::fs::read(cargo_build::payload("entries").unwrap()).unwrap();
    let entry = payload::symbol(&elf, payload::MULTIBOOT_ENTRY).unwrap();
    let kernel = dir.path().join("entries.elf32");
    std::fs::write(&kernel, payload::to_elf32(&elf, entry).unwrap()).unwrap();
    let module = first_module();
    let bare = BareRun {
        kernel: &kernel,
        module: Some(&module),
        cmdline: "modules=1 end",
        pcpus: 1,
        memory: 128 << 20,
        has_end_marker: true,
    };
    let options = RunOptions {
        machine: MachineKind::Qemu,
        clock: Clock::Icount,
        timeout: Duration::from_secs(60),
        out_dir: dir.path().join("out"),
        hypervisor: None,
        keep_ram: false,
        quiet: true,
    };
    let report = run_bare(&bare, &options).unwrap();
    let console = std::fs::read_to_string(report.dir.join("payload.log")).unwrap_or_default();
    assert_eq!(report.outcome, RunOutcome::Success, "{console}");
    assert!(console.contains("entries: multiboot\n") || console.contains("entries: multiboot\r\n"), "{console}");
    assert_eq!(console.lines().filter(|line| line.starts_with("ok ")).count(), BARE_CLAIMS, "{console}");
}

/// Without those that only Partita makes true.
const BARE_CLAIMS: usize = 28;

#[test]
#[ignore = "boots an emulator"]
fn a_system_starts_without_bad_images_that_are_not_required() {
    let system = load("entries-bad.toml", &[]);
    let warnings = assemble::assemble(&system).unwrap().warnings;
    let expected = [
        "partition[0].image: ",
        "not an ELF64 file for x86-64",
        "; the system starts without partition \"no-kernel\"",
        "partition[2].image: ",
        "is not in the partition's RAM",
        "; the system starts without partition \"too-large\"",
    ];
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (text, index) in expected.iter().zip([0, 0, 0, 1, 1, 1]) {
        assert!(warnings[index].contains(text), "{text:?}: {warnings:?}");
    }
    let left = assert_good(&system, &[("good", "multiboot", 62)]);
    for name in ["no-kernel", "too-large"] {
        let line = format!("\"{name}\": not started: it has no image");
        assert!(left.console("hypervisor").contains(&line), "{line}\n{}", left.consoles());
        assert_eq!(left.console(name), "");
    }
}

/// A boot sector for any segment: it compares CS with its own idea of it, and ends the partition.
fn says_its_segment(segment: u16) -> Vec<u8> {
    let [low, high] = segment.to_le_bytes();
    vec![
        0x8C, 0xC8, // mov ax, cs
        0x3D, low, high, // cmp ax, segment
        0xB0, 0x10, // mov al, success
        0x74, 0x02, // je +2
        0xB0, 0x11, // mov al, failure
        0xE6, 0xF4, // out 0xf4, al
        0xF4, // hlt
    ]
}

#[test]
#[ignore = "boots an emulator"]
fn a_flat_image_begins_anywhere_below_640_kib() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = String::from("[system]\nname = 'segments'\n");
    for (index, (at, segment)) in [(0x1000, 0), (0x1_0000, 0x1000), (0x8_F000, 0x8000)].into_iter().enumerate() {
        let name = format!("at-{at:x}");
        std::fs::write(dir.path().join(&name), says_its_segment(segment)).unwrap();
        text += &format!(
            "[[partition]]\nname = '{name}'\npcpus = [{}]\nmemory = '2 MiB'\nexpect = 'finish'\n\
             image = {{ kind = 'flat', path = '{name}', at = {at}, mode = 'real' }}\n",
            index + 1
        );
    }
    let system = SystemFile::parse(&text, &dir.path().join("s.toml")).unwrap();
    assert_good(&system, &[]);
}

fn check(path: &Path) -> Result<Vec<String>, String> {
    let system = SystemFile::load(path).map_err(|error| error.to_string())?;
    assemble::check(&system).map_err(|error| error.to_string())
}

#[test]
fn the_systems_pass_the_check() {
    let tests = in_repository("rt-partitions/systems/tests");
    for name in ["entries-elf.toml", "entries-flat.toml"] {
        assert_eq!(check(&tests.join(name)), Ok(Vec::new()), "{name}");
    }
    let warnings = check(&tests.join("entries-bad.toml")).unwrap();
    // Whether a payload fits is known when it is built.
    assert!(matches!(&warnings[..], [one] if one.contains("partition \"no-kernel\"")), "{warnings:?}");
}
