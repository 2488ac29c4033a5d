//! A system as an image that boots on machines.

use super::{IsoContents, IsoTarget, build};
use crate::run::machine_memory;
use crate::system_file::SystemFile;
use crate::{assemble, bundle, cargo_build};
use anyhow::Context;
use std::path::Path;

/// What an image is made of, beside the system file.
#[derive(Clone, Copy, Debug)]
pub struct SystemImage<'a> {
    /// The hypervisor's ELF file, instead of the one that is built.
    pub hypervisor: Option<&'a Path>,
    /// The hypervisor's command line.
    pub cmdline: &'a str,
    /// Where the image is to boot.
    pub target: IsoTarget,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltImage {
    /// Why partitions are left out, each in a line.
    pub warnings: Vec<String>,
    /// Bytes of RAM that a machine with it has to have.
    pub memory: u64,
}

/// Builds hypervisor, payloads and boot bundle of `system`, and writes the image of them to `out`.
///
/// # Errors
/// The system or the command line is bad, `out` cannot be written, or the machine is not set up.
pub fn build_system(system: &SystemFile, image: &SystemImage<'_>, out: &Path) -> anyhow::Result<BuiltImage> {
    check_target(out)?;
    // Nothing is built for a command line that no image can have.
    super::command_line::quoted(image.cmdline)?;
    assemble::check(system)?;
    let built;
    let hypervisor = match image.hypervisor {
        Some(path) => path,
        None => {
            built = cargo_build::hypervisor()?;
            &built
        }
    };
    let assembled = assemble::assemble(system)?;
    let bytes = bundle::build(&system.config, &assembled.images)?;
    let memory = machine_memory(system, bytes.len() as u64)?;
    let bundle = tempfile::NamedTempFile::new().context("cannot make a temporary file for the boot bundle")?;
    std::fs::write(bundle.path(), bytes).with_context(|| format!("cannot write {}", bundle.path().display()))?;
    let contents =
        IsoContents { kernel: hypervisor, module: Some(bundle.path()), cmdline: image.cmdline, target: image.target };
    build(&contents, out)?;
    Ok(BuiltImage { warnings: assembled.warnings, memory })
}

/// Refuses a file that cannot be written, before any work is done.
fn check_target(out: &Path) -> anyhow::Result<()> {
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    anyhow::ensure!(
        dir.is_dir(),
        "cannot write {}: {} is no directory; make it, or choose another file",
        out.display(),
        dir.display()
    );
    anyhow::ensure!(!out.is_dir(), "cannot write {}: it is a directory; choose a file", out.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_is_refused_first() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_target(&dir.path().join("a.iso")).is_ok());
        assert!(check_target(Path::new("a.iso")).is_ok());
        let error = check_target(&dir.path().join("missing/a.iso")).unwrap_err().to_string();
        assert!(error.contains("missing is no directory; make it"), "{error}");
        let error = check_target(dir.path()).unwrap_err().to_string();
        assert!(error.contains("it is a directory; choose a file"), "{error}");
    }
}
