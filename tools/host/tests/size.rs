//! How much the hypervisor takes: its image, and the memory that it keeps for itself.

use object::{Object, ObjectSegment};
use partita_host::cargo_build;
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::RunOutcome;
use partita_host::run::{RunOptions, run_system};
use partita_host::system_file::SystemFile;
use std::time::Duration;

/// Most bytes of the image's PT_LOAD segments, in memory.
const IMAGE_MAX: u64 = 512 << 10;
/// Most KiB that neither a partition nor the bundle has, with 4 pCPUs, trace rings included.
const RAM_KIB_MAX: u64 = 8 << 10;

const SYSTEM: &str = r#"
[system]
name = "size"
[machine]
pcpus = 4
[[partition]]
name = "rt0"
pcpus = [2, 3]
memory = "64 MiB"
image = { kind = "payload", name = "latency" }
cmdline = "group=exit samples=1"
expect = "finish"
"#;

#[test]
#[ignore = "boots an emulator; ci/test.sh runs it"]
fn the_hypervisor_stays_small() {
    let elf = std::fs::read(cargo_build::hypervisor().unwrap()).unwrap();
    let image: u64 = object::File::parse(&*elf).unwrap().segments().map(|segment| segment.size()).sum();
    assert!(image > 0 && image <= IMAGE_MAX, "the image takes {image} bytes, at most {IMAGE_MAX}");

    let dir = tempfile::tempdir().unwrap();
    let system = SystemFile::parse(SYSTEM, &dir.path().join("size.toml")).unwrap();
    let options = RunOptions {
        machine: MachineKind::Qemu,
        clock: Clock::Icount,
        timeout: Duration::from_secs(60),
        out_dir: dir.path().join("run"),
        hypervisor: None,
        keep_ram: false,
        quiet: true,
    };
    assert_eq!(run_system(&system, &options).unwrap().outcome, RunOutcome::Success);
    let console = std::fs::read_to_string(options.out_dir.join("hypervisor.log")).unwrap();
    let line = console.lines().find(|line| line.starts_with("partita: memory: ")).expect("the memory report");
    let after = line.split("hypervisor ").nth(1).unwrap();
    let kib: u64 = after.split(' ').next().unwrap().parse().unwrap();
    assert!(kib > 0 && kib <= RAM_KIB_MAX, "{line}");
}
