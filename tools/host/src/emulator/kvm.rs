//! QEMU with KVM: the processor's own virtualisation, nested. The hypervisor is a guest of the host's KVM, and its guests are guests
//! of a guest.

use super::qemu::{self, Accelerator};
use super::{Attached, Emulator, Launch, MachineSpec, Misfit, ProbeError, Qemu, Remains};
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The modules that have nested virtualisation.
const MODULES: [&str; 2] = ["kvm_amd", "kvm_intel"];

/// QEMU with KVM.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kvm;

/// What keeps a host from running a hypervisor in KVM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvmLack {
    /// There is no KVM.
    #[error(
        "there is no {}: load KVM (`modprobe kvm_amd nested=1`, or kvm_intel), or switch virtualisation on in the firmware's \
         set-up; without KVM take --machine qemu", .0.display()
    )]
    NoDevice(PathBuf),
    /// KVM cannot be used by this user.
    #[error("cannot open {}: {why}; become a member of its group (`usermod -aG kvm USER`, and log in again)", device.display())]
    NotOpen {
        /// The device.
        device: PathBuf,
        /// Why.
        why: String,
    },
    /// KVM is there, but with neither of the modules that have nested virtualisation.
    #[error(
        "KVM is there, but {} has neither kvm_amd nor kvm_intel, so that its guests have no SVM and no VMX; load one of them \
         (`modprobe kvm_amd nested=1`) on a host whose processor has SVM or VMX", .0.display()
    )]
    NoModule(PathBuf),
    /// Nested virtualisation is off.
    #[error(
        "nested virtualisation is off ({} is {value:?}): stop all virtual machines, then \
         `modprobe -r {module} && modprobe {module} nested=1`; to keep it, write `options {module} nested=1` to \
         /etc/modprobe.d/kvm.conf", parameter.display()
    )]
    NotNested {
        /// The module.
        module: &'static str,
        /// Its parameter.
        parameter: PathBuf,
        /// What that is.
        value: String,
    },
}

/// Checks that a host can run a hypervisor in KVM. `root` is where its `dev` and `sys` are: `/`.
///
/// # Errors
/// What is missing, and how to turn it on.
pub fn check_host(root: &Path) -> Result<(), KvmLack> {
    let device = root.join("dev/kvm");
    match OpenOptions::new().read(true).write(true).open(&device) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(KvmLack::NoDevice(device)),
        Err(error) => return Err(KvmLack::NotOpen { device, why: error.kind().to_string() }),
    }
    let modules = root.join("sys/module");
    let nested = |module: &'static str| {
        let parameter = modules.join(module).join("parameters/nested");
        let value = std::fs::read_to_string(&parameter).ok()?.trim().to_owned();
        Some((module, parameter, value))
    };
    let mut found = MODULES.into_iter().filter_map(nested).peekable();
    let Some((module, parameter, value)) = found.peek().cloned() else { return Err(KvmLack::NoModule(modules)) };
    if found.any(|(.., value)| matches!(value.as_str(), "1" | "Y" | "y")) {
        return Ok(());
    }
    Err(KvmLack::NotNested { module, parameter, value })
}

impl Emulator for Kvm {
    fn name(&self) -> &'static str {
        "QEMU with KVM"
    }

    fn probe(&self) -> Result<(), ProbeError> {
        Qemu.probe()?;
        Ok(check_host(Path::new("/"))?)
    }

    fn check(&self, _machine: &MachineSpec<'_>, attached: &Attached<'_>) -> Result<(), Misfit> {
        let emulator = self.name();
        match attached {
            Attached { instructions: Some(_), .. } => Err(Misfit::Instructions { emulator }),
            Attached { witness: Some(_), .. } => Err(Misfit::Witness { emulator }),
            _ => Ok(()),
        }
    }

    fn prepare(&self, machine: &MachineSpec<'_>, attached: &Attached<'_>, dir: &Path) -> anyhow::Result<Launch> {
        qemu::prepare(machine, attached, Accelerator::Kvm, dir)
    }

    fn remains(&self, machine: &MachineSpec<'_>, dir: &Path, exit_code: Option<i32>) -> anyhow::Result<Remains> {
        Qemu.remains(machine, dir, exit_code)
    }

    fn ram_offset(&self, memory: u64, address: u64) -> Option<u64> {
        Qemu.ram_offset(memory, address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with these files.
    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn words(files: &[(&str, &str)]) -> String {
        check_host(host(files).path()).map_or_else(|lack| lack.to_string(), |()| "good".to_owned())
    }

    #[test]
    fn what_is_missing_is_said_with_its_cure() {
        const DEVICE: (&str, &str) = ("dev/kvm", "");
        assert!(words(&[]).contains("dev/kvm: load KVM (`modprobe kvm_amd nested=1`"));
        assert!(words(&[DEVICE]).contains("neither kvm_amd nor kvm_intel"));
        assert!(words(&[DEVICE, ("sys/module/kvm_pvm/parameters/x", "1")]).contains("neither kvm_amd nor kvm_intel"));
        let off = words(&[DEVICE, ("sys/module/kvm_intel/parameters/nested", "N\n")]);
        assert!(off.contains("parameters/nested is \"N\"") && off.contains("modprobe kvm_intel nested=1"), "{off}");
        for on in [("sys/module/kvm_amd/parameters/nested", "1\n"), ("sys/module/kvm_intel/parameters/nested", "Y\n")] {
            assert_eq!(words(&[DEVICE, on]), "good");
        }
        // A directory cannot be opened to be written.
        let error = words(&[("dev/kvm/x", "")]);
        assert!(error.contains("cannot open") && error.contains("usermod -aG kvm"), "{error}");
    }
}
