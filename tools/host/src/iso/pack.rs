//! The files of an image, and the programs that put them together.

use super::{IsoError, IsoTarget};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// The time of everything in an image, in seconds since 1970: the same in all of them.
const TIME: u64 = 1_767_225_600;
/// The same for xorriso: year to hundredths of a second.
const DATE: &str = "2026010100000000";

/// GRUB's core for a BIOS.
const BIOS_CORE: &str = "boot/grub/bios.img";
/// The partition with GRUB for UEFI: a FAT file system.
const EFI_PARTITION: &str = "boot/grub/efi.img";
/// Bytes that it has at least: mformat wants more than a few.
const EFI_LEN_MIN: u64 = 1 << 20;
/// What it has beside GRUB: tables and directories.
const EFI_OVERHEAD: u64 = 64 << 10;
const SECTOR: u64 = 512;

/// The files of an image, while it is being made.
pub(super) struct Staging {
    dir: tempfile::TempDir,
}

impl Staging {
    pub(super) fn new() -> Result<Self, IsoError> {
        let dir = tempfile::tempdir().map_err(IsoError::writing(&std::env::temp_dir()))?;
        Ok(Self { dir })
    }

    /// Where the files of the image are.
    fn root(&self) -> PathBuf {
        self.dir.path().join("iso")
    }

    /// Makes room for a file of the image, which others write.
    fn place(&self, name: &str) -> Result<PathBuf, IsoError> {
        let path = self.root().join(name);
        let dir = path.parent().unwrap_or(&path);
        fs::create_dir_all(dir).map_err(IsoError::writing(dir))?;
        Ok(path)
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), IsoError> {
        let path = self.place(name)?;
        fs::write(&path, bytes).map_err(IsoError::writing(&path))
    }

    pub(super) fn copy(&self, name: &str, from: &Path) -> Result<(), IsoError> {
        let path = self.place(name)?;
        // The file alone, so that it is named in what may be wrong.
        let mut source = File::open(from).map_err(IsoError::reading(from))?;
        let mut target = File::create(&path).map_err(IsoError::writing(&path))?;
        std::io::copy(&mut source, &mut target).map(drop).map_err(IsoError::writing(&path))
    }

    /// Makes GRUB's core for BIOS machines, with what it does first and the modules for that.
    pub(super) fn make_bios_core(&self, grub: &Path, config: &str, modules: &[&str]) -> Result<(), IsoError> {
        let core = self.place(BIOS_CORE)?;
        self.make_core("i386-pc-eltorito", grub, config, modules, &core)
    }

    /// Makes the partition with GRUB for UEFI machines.
    pub(super) fn make_efi_partition(&self, grub: &Path, config: &str, modules: &[&str]) -> Result<(), IsoError> {
        let core = self.dir.path().join("bootx64.efi");
        self.make_core("x86_64-efi", grub, config, modules, &core)?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(TIME);
        let file = File::options().write(true).open(&core).map_err(IsoError::writing(&core))?;
        file.set_modified(time).map_err(IsoError::writing(&core))?;
        let len = file.metadata().map_err(IsoError::reading(&core))?.len();
        let sectors = (len + EFI_OVERHEAD).max(EFI_LEN_MIN).div_ceil(SECTOR);
        let partition = self.place(EFI_PARTITION)?;
        let image = ["-i".as_ref(), partition.as_os_str()];
        let size = ["-C", "-N", "50415254", "-T", &sectors.to_string(), "-h", "1", "-s", "1"];
        run(Command::new("mformat").args(image).args(size).arg("::"), "mformat")?;
        run(Command::new("mmd").args(image).args(["::/EFI", "::/EFI/BOOT"]), "mmd")?;
        run(Command::new("mcopy").args(image).arg("-m").arg(&core).arg("::/EFI/BOOT/BOOTX64.EFI"), "mcopy")
    }

    fn make_core(
        &self,
        format: &str,
        grub: &Path,
        config: &str,
        modules: &[&str],
        core: &Path,
    ) -> Result<(), IsoError> {
        let early = self.dir.path().join("early.cfg");
        fs::write(&early, config).map_err(IsoError::writing(&early))?;
        let mut command = Command::new("grub-mkimage");
        command.args(["-O", format, "-p", "/boot/grub"]).arg("-d").arg(grub);
        command.arg("-c").arg(&early).arg("-o").arg(core).args(modules);
        run(&mut command, "grub-mkimage")
    }

    /// Makes the image of all files.
    pub(super) fn make_iso(&self, bios: &Path, target: IsoTarget, out: &Path) -> Result<(), IsoError> {
        let made = self.dir.path().join("image.iso");
        let mut command = Command::new("xorriso");
        command.args(["-as", "mkisofs", "-quiet", "-r", "-V", "PARTITA", "-o"]).arg(&made);
        command.arg(format!("--modification-date={DATE}")).args(["--set_all_file_dates", DATE]);
        command.args(["-b", BIOS_CORE, "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]);
        if target == IsoTarget::Machine {
            command.arg("--grub2-boot-info").arg("--grub2-mbr").arg(bios.join("boot_hybrid.img"));
            command.args(["--protective-msdos-label", "--efi-boot", EFI_PARTITION]);
            command.args(["-efi-boot-part", "--efi-boot-image"]);
        }
        run_or_run_again(command.arg(self.root()), "xorriso")?;
        // Copied only when it is whole: the temporary directory may be on another file system.
        fs::copy(&made, out).map(drop).map_err(IsoError::writing(out))
    }
}

/// What xorriso prints of a signal that ends it.
const CRASHED: &str = "UNIX-SIGNAL:";

/// [`run`], and once more if the program crashes, which it says: xorriso 1.5.4 has done so once in some thousand images, with the
/// input that it takes otherwise. What it refuses it refuses at once.
fn run_or_run_again(command: &mut Command, program: &'static str) -> Result<(), IsoError> {
    match run(command, program) {
        Err(IsoError::Failed { program, output }) if output.contains(CRASHED) => {
            // Nobody is left to tell where standard error is closed.
            let _ = writeln!(std::io::stderr(), "warning: {program} crashed, and is run again; it said: {output}");
            run(command, program)
        }
        result => result,
    }
}

/// Runs a program that writes what it is asked for, and nothing else.
fn run(command: &mut Command, program: &'static str) -> Result<(), IsoError> {
    // The time that mtools and xorriso take for now.
    command.env("SOURCE_DATE_EPOCH", TIME.to_string()).env("TZ", "UTC").stdin(Stdio::null());
    let output = command.output().map_err(|cause| IsoError::NoProgram { program, cause })?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(IsoError::Failed { program, output: String::from_utf8_lossy(&text).trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a script that may count its runs in a file, and gives the result and that number.
    fn runs(script: &str) -> (Result<(), IsoError>, usize) {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("runs");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo >> \"$0\"; {script}")]).arg(&count);
        let result = run_or_run_again(&mut command, "sh");
        (result, fs::read_to_string(&count).unwrap().lines().count())
    }

    #[test]
    fn a_program_that_crashes_is_run_once_more_and_one_that_refuses_is_not() {
        let (result, count) = runs("[ $(wc -l < \"$0\") = 2 ] || { echo UNIX-SIGNAL: SIGSEGV; exit 1; }");
        assert!(result.is_ok() && count == 2, "{result:?} {count}");
        let (result, count) = runs("echo UNIX-SIGNAL: SIGSEGV; exit 1");
        assert!(matches!(result, Err(IsoError::Failed { .. })) && count == 2, "{result:?} {count}");
        let (result, count) = runs("echo no; exit 1");
        assert!(matches!(result, Err(IsoError::Failed { .. })) && count == 1, "{result:?} {count}");
        let (result, count) = runs("exit 0");
        assert!(result.is_ok() && count == 1, "{result:?} {count}");
    }
}
