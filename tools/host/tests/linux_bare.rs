//! Debian's PREEMPT_RT kernel and the initramfs of `linux-rt.toml` on the bare emulated machine: what the host prepares
//! works before a hypervisor has a part in it.

use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::RunOutcome;
use partita_host::packages::PackageCache;
use partita_host::run::{BareRun, RunOptions, run_bare};
use partita_host::system_file::{ImageSource, InitrdSource, KernelSource, SystemFile};
use partita_host::{cargo_build, image, initramfs};
use std::time::Duration;

#[test]
#[ignore = "fetches Debian packages and runs QEMU for a minute; ci/test.sh runs it"]
fn cyclictest_runs_on_the_bare_machine() {
    let root = cargo_build::repository().unwrap();
    let system = SystemFile::load(&root.join("rt-partitions/systems/linux-rt.toml")).unwrap();
    let ImageSource::Linux { kernel: KernelSource::Package(package), initrd: Some(InitrdSource::Initramfs(source)) } =
        &system.images[0]
    else {
        panic!("{:?}", system.images)
    };
    let cache = PackageCache::open().unwrap();
    let kernel = cache.kernel(package).unwrap();
    let initrd = initramfs::build(source, &cache).unwrap();
    // The real kernel links, too.
    let bytes = std::fs::read(&kernel).unwrap();
    let memory = system.config.partitions[0].memory_bytes;
    let linked = image::link_linux(&bytes, memory, &system.cmdlines[0], Some(&initrd)).unwrap();
    assert!(linked.segments.iter().all(|segment| segment.end() <= memory));

    let dir = tempfile::tempdir().unwrap();
    let module = dir.path().join("initrd");
    std::fs::write(&module, initrd).unwrap();
    let bare = BareRun {
        kernel: &kernel,
        module: Some(&module),
        cmdline: "console=ttyS0,115200 printk.devkmsg=on reboot=t panic=-1 cyclictest_loops=100",
        pcpus: 1,
        memory,
        has_end_marker: false,
    };
    let options = RunOptions {
        machine: MachineKind::Qemu,
        clock: Clock::Host,
        timeout: Duration::from_secs(240),
        out_dir: dir.path().join("run"),
        hypervisor: None,
        keep_ram: false,
        quiet: true,
    };
    let report = run_bare(&bare, &options).unwrap();
    let console = String::from_utf8_lossy(&std::fs::read(dir.path().join("run/payload.log")).unwrap()).into_owned();
    assert_eq!(report.outcome, RunOutcome::Success, "{console}");
    assert!(console.contains("linux-rt: T: 0") && console.contains("Max:"), "{console}");
}
