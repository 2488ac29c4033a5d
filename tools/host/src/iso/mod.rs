//! ISO images that boot a program by GRUB and multiboot2: on BIOS machines and in emulators, on UEFI machines, from a CD
//! or a stick.
//!
//! GRUB's own `grub-mkrescue` puts the time into what it makes. Its parts are put together here instead, so that two
//! images with the same contents are the same, byte for byte.

mod command_line;
mod error;
mod grub;
mod kernel;
mod pack;
mod system;

pub use error::IsoError;
pub use system::{BuiltImage, SystemImage, build_system};

use command_line::quoted;
use pack::Staging;
use std::path::{Path, PathBuf};

/// Where GRUB's images and modules are, in a directory for each platform.
const GRUB_DIR: &str = "/usr/lib/grub";

/// Where an image is to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsoTarget {
    /// On machines, from a CD or a stick, by BIOS or by UEFI; with a menu for some seconds, in which the command line can be
    /// changed.
    Machine,
    /// In an emulator with a BIOS, as a CD, with as few instructions as possible.
    Emulator,
}

/// What is in an image.
#[derive(Clone, Copy, Debug)]
pub struct IsoContents<'a> {
    /// The ELF file that boots, with a multiboot2 header.
    pub kernel: &'a Path,
    /// Its only module.
    pub module: Option<&'a Path>,
    /// Its command line.
    pub cmdline: &'a str,
    /// Where it is to boot.
    pub target: IsoTarget,
}

/// Writes the image to `out`.
///
/// # Errors
/// A file cannot be read or written, the kernel or its command line cannot be booted, or a program is not installed.
pub fn build(contents: &IsoContents<'_>, out: &Path) -> Result<(), IsoError> {
    let arguments = quoted(contents.cmdline)?;
    let kernel = std::fs::read(contents.kernel).map_err(IsoError::reading(contents.kernel))?;
    let kernel = kernel::without_sections(&kernel)
        .map_err(|why| IsoError::Kernel { path: contents.kernel.to_path_buf(), why })?;
    let bios = platform("i386-pc", "BIOS machines")?;
    let efi = match contents.target {
        IsoTarget::Machine => Some(platform("x86_64-efi", "UEFI machines")?),
        IsoTarget::Emulator => None,
    };
    let staging = Staging::new()?;
    staging.write(grub::KERNEL, &kernel)?;
    if let Some(module) = contents.module {
        staging.copy(grub::MODULE, module)?;
    }
    let commands = grub::boot_commands(&arguments, contents.module.is_some());
    match efi {
        None => staging.make_bios_core(&bios, &grub::emulator_config(&commands), grub::EMULATOR_MODULES)?,
        Some(efi) => {
            staging.write(grub::CONFIG, grub::machine_config(&commands).as_bytes())?;
            staging.make_bios_core(&bios, grub::FIND_CONFIG, &[grub::MACHINE_MODULES, &["biosdisk"]].concat())?;
            staging.make_efi_partition(&efi, grub::FIND_CONFIG, grub::MACHINE_MODULES)?;
        }
    }
    staging.make_iso(&bios, contents.target, out)
}

/// The directory of GRUB for a platform.
fn platform(name: &str, machines: &'static str) -> Result<PathBuf, IsoError> {
    let dir = Path::new(GRUB_DIR).join(name);
    if dir.is_dir() { Ok(dir) } else { Err(IsoError::NoGrub { machines, dir }) }
}
