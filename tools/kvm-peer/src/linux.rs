//! What is asked of Linux besides KVM.

use anyhow::Context;
use partita_abi::report::EXIT_PORT;
use rustix::mount::{MountFlags, mount};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// `finit_module` is to unpack the module (linux/module.h, MODULE_INIT_COMPRESSED_FILE).
const COMPRESSED_FILE: i32 = 4;

/// Mounts `/dev`.
pub(crate) fn mount_devices() -> anyhow::Result<()> {
    mount("devtmpfs", "/dev", "devtmpfs", MountFlags::empty(), None).context("cannot mount /dev")
}

/// Loads all modules in `dir`, in the order of their names.
pub(crate) fn load_modules(dir: &str) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {dir}"))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
    paths.sort();
    for path in paths {
        let what = || format!("cannot load the kernel module {}", path.display());
        let file = File::open(&path).with_context(what)?;
        let flags = if path.extension().is_some_and(|end| end == "ko") { 0 } else { COMPRESSED_FILE };
        rustix::system::finit_module(&file, c"", flags).with_context(what)?;
    }
    Ok(())
}

/// Keeps this thread on a CPU.
pub(crate) fn stay_on(cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot stay on CPU {cpu}; the machine needs as many"))
}

/// Writes to physical memory that Linux does not use.
pub(crate) fn write_physical(address: u64, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || OpenOptions::new().write(true).open("/dev/mem")?.write_all_at(bytes, address);
    write().with_context(|| format!("cannot write {} bytes at the physical address {address:#x}", bytes.len()))
}

/// Ends the machine by its exit port, when all that was printed is out.
pub(crate) fn end_machine(byte: u8) -> ! {
    // Where this fails there is nobody to tell, and the host's time runs out.
    let _ = rustix::termios::tcdrain(std::io::stdout());
    if let Ok(ports) = OpenOptions::new().write(true).open("/dev/port") {
        let _ = ports.write_all_at(&[byte], EXIT_PORT.into());
    }
    loop {
        std::thread::park();
    }
}
