//! The peer to compare with: a bare-metal payload as a guest of KVM, on Debian's kernel, in the same emulator.
//!
//! Linux boots from an initial RAM disk whose only program, `tools/kvm-peer`, is a small virtual machine monitor. It gets the
//! payload as it lies in memory, PVH start info and ACPI tables included, and leaves the guest's trace in a part of the RAM
//! that Linux does not use; there it is found as that of a bare payload is.

use crate::emulator::{Clock, MachineKind};
use crate::image::{LinkedImage, Target, link_elf};
use crate::packages::PackageCache;
use crate::run::{BareRun, RunOptions, RunReport, run_bare};
use crate::{cargo_build, initramfs};
use anyhow::Context;
use partita_abi::guest::{ACPI_LEN, RSDP};
use partita_core::system::Entry;
use partita_x86_policy::acpi::write_tables;
use partita_x86_policy::apic_view::ApicView;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Debian's kernel packages, of which the first one that is known is taken: of Debian 12's backports, or of Debian itself.
pub const KERNEL_PACKAGES: [&str; 2] = ["linux-image-amd64/bookworm-backports", "linux-image-amd64"];
/// KVM's modules for a CPU with SVM, in the order in which they need each other.
const MODULES: [&str; 4] = ["irqbypass", "ccp", "kvm", "kvm-amd"];
/// RAM of the machine in bytes.
const MEMORY: u64 = 512 << 20;
/// RAM of the guest in bytes.
const GUEST_MEMORY: u64 = 64 << 20;
/// The part of the machine's RAM that Linux leaves alone.
const RESERVED_AT: u64 = 256 << 20;
const RESERVED_LEN: u64 = 16 << 20;
/// Most vCPUs of a guest.
pub const VCPUS_MAX: u16 = 8;

/// A payload to be run under KVM.
#[derive(Clone, Debug)]
pub struct KvmGuest<'a> {
    /// Its ELF file.
    pub payload: &'a Path,
    /// Its command line.
    pub cmdline: &'a str,
    /// Its vCPUs, each on a CPU of its own; CPU 0 of the machine is Linux's.
    pub vcpus: u16,
}

/// Linux with KVM, ready to boot.
#[derive(Clone, Debug)]
pub struct KvmHost {
    kernel: PathBuf,
    modules: Vec<PathBuf>,
    init: PathBuf,
}

impl KvmHost {
    /// Fetches kernel and modules, and builds the program.
    ///
    /// # Errors
    /// Something cannot be had; the error names it.
    pub fn prepare() -> anyhow::Result<Self> {
        let cache = PackageCache::open()?;
        let (package, kernel) = first_of(KERNEL_PACKAGES, |package| Ok(cache.kernel(package)?))?;
        let modules = cache.kernel_modules(package, &MODULES)?;
        Ok(Self { kernel, modules, init: cargo_build::kvm_peer()? })
    }

    /// The kernel's release, as `uname -r` says it.
    pub fn release(&self) -> String {
        let name = self.kernel.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix("vmlinuz-").unwrap_or(&name).to_owned()
    }

    /// Boots, and runs the guest; logs and trace go to `out_dir`.
    ///
    /// # Errors
    /// It could not be run. What a run that took place came to is in the report.
    pub fn run(&self, guest: &KvmGuest<'_>, out_dir: &Path, timeout: Duration) -> anyhow::Result<RunReport> {
        anyhow::ensure!(
            (1..=VCPUS_MAX).contains(&guest.vcpus),
            "a guest of KVM with {} vCPUs; it can have 1 to {VCPUS_MAX}",
            guest.vcpus
        );
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let target = Target { memory: GUEST_MEMORY, cmdline: guest.cmdline, modules: &[] };
        let image =
            link_elf(&read(guest.payload)?, None, &target).with_context(|| guest.payload.display().to_string())?;
        let Entry::Pvh { entry, start_info } = image.entry else {
            anyhow::bail!("{} has no PVH entry, by which it would be started", guest.payload.display());
        };
        let mut files = pieces(image, guest.vcpus)?;
        for (number, path) in self.modules.iter().enumerate() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            files.push((format!("/modules/{number}-{name}"), read(path)?));
        }
        let initramfs = initramfs::of_files(&read(&self.init)?, files)?;
        // The run's own directory is emptied when the run begins.
        let dir = tempfile::tempdir().context("no directory for the initial RAM disk")?;
        let module = dir.path().join("initramfs.cpio");
        std::fs::write(&module, initramfs).with_context(|| format!("cannot write {}", module.display()))?;
        let cmdline = format!(
            "console=ttyS0,115200 quiet panic=-1 mitigations=off memmap={RESERVED_LEN:#x}${RESERVED_AT:#x} -- \
             memory={GUEST_MEMORY:#x} vcpus={} entry={entry:#x} start_info={start_info:#x} trace_at={RESERVED_AT:#x} \
             trace_len={RESERVED_LEN:#x}",
            guest.vcpus
        );
        run_bare(
            &BareRun {
                kernel: &self.kernel,
                module: Some(&module),
                cmdline: &cmdline,
                pcpus: guest.vcpus + 1,
                memory: MEMORY,
                has_end_marker: true,
            },
            &RunOptions {
                machine: MachineKind::Qemu,
                clock: Clock::Icount,
                timeout,
                out_dir: out_dir.to_path_buf(),
                hypervisor: None,
                keep_ram: false,
                quiet: true,
            },
        )
    }
}

/// The first of two packages of which `get` has something, and that. If it has nothing of either, the error tells of both.
fn first_of<T>(
    packages: [&'static str; 2],
    get: impl Fn(&str) -> anyhow::Result<T>,
) -> anyhow::Result<(&'static str, T)> {
    let [first, last] = packages;
    match get(first) {
        Ok(got) => Ok((first, got)),
        Err(why) => {
            let got = get(last).with_context(|| format!("neither {first} ({why:#}) nor {last} can be had"))?;
            Ok((last, got))
        }
    }
}

/// The guest's memory, piece by piece: the names are the addresses.
fn pieces(image: LinkedImage, vcpus: u16) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let ids: Vec<u32> = (0..vcpus.into()).collect();
    let view = ApicView::new(&ids).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut tables = vec![0; ACPI_LEN as usize];
    write_tables(&mut tables, RSDP, &view, None)?;
    let segments = image.segments.into_iter().map(|segment| (segment.gpa, segment.data));
    let all = segments.chain([(RSDP, tables)]).filter(|(_, bytes)| !bytes.is_empty());
    Ok(all.map(|(address, bytes)| (format!("/guest/{address:x}"), bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_is_missing_is_replaced_or_named() {
        let get = |there: &'static [&str]| {
            move |name: &str| if there.contains(&name) { Ok(7) } else { Err(anyhow::anyhow!("no {name}")) }
        };
        assert_eq!(first_of(["a", "b"], get(&["a", "b"])).unwrap(), ("a", 7));
        assert_eq!(first_of(["a", "b"], get(&["b"])).unwrap(), ("b", 7));
        let error = format!("{:#}", first_of(["a", "b"], get(&[])).unwrap_err());
        assert_eq!(error, "neither a (no a) nor b can be had: no b");
    }
}
