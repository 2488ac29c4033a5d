//! Getting the images of a system: built, fetched or read, then linked for their partitions.

use crate::image::{self, LinkedImage};
use crate::initramfs;
use crate::packages::PackageCache;
use crate::system_file::{ImageSource, InitrdSource, KernelSource, Part, Place, SystemFile};
use crate::{cargo_build, progress};
use std::path::{Path, PathBuf};

/// The images of a system.
#[derive(Debug)]
pub struct Assembled {
    /// By partition number.
    pub images: Vec<LinkedImage>,
    /// The ELF files among them.
    pub elves: Vec<PathBuf>,
}

/// Checks what can be checked about the images of `system` without building or fetching anything: files are there and
/// fit, payloads exist.
///
/// # Errors
/// All problems, with their place in the system file.
pub fn check(system: &SystemFile) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for (number, source) in system.images.iter().enumerate() {
        if let Err(error) = check_one(system, number, source) {
            found.push((Place::Partition(number, Part::Image), format!("{error:#}")));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(system.problems(found).into()) }
}

fn check_one(system: &SystemFile, number: usize, source: &ImageSource) -> anyhow::Result<()> {
    let target = Target::of(system, number);
    match source {
        ImageSource::Elf { path } => target.pvh(path).map(drop),
        ImageSource::Payload { name } => {
            let names = cargo_build::payload_names(&cargo_build::repository()?);
            anyhow::ensure!(names.contains(name), "no payload is called {name:?}; there are {}", names.join(", "));
            Ok(())
        }
        ImageSource::Linux { kernel, initrd } => {
            let initrd = match initrd {
                Some(InitrdSource::File(path)) => Some(read(path, "initial RAM disk")?),
                Some(InitrdSource::Initramfs(source)) => initramfs::read_init(source).map(|_| None)?,
                None => None,
            };
            match kernel {
                KernelSource::File(path) => target.linux(path, initrd.as_deref()).map(drop),
                KernelSource::Package(_) => Ok(()),
            }
        }
    }
}

/// Gets and links all images of `system`.
///
/// # Errors
/// The first image that cannot be had or does not fit, with its place in the system file.
pub fn assemble(system: &SystemFile) -> anyhow::Result<Assembled> {
    let mut assembled = Assembled { images: Vec::new(), elves: Vec::new() };
    for (number, source) in system.images.iter().enumerate() {
        let (image, elf) = assemble_one(system, number, source)
            .map_err(|error| system.problem(number, Part::Image, format!("{error:#}")))?;
        assembled.images.push(image);
        assembled.elves.extend(elf);
    }
    system.check_images(&assembled.images)?;
    Ok(assembled)
}

fn assemble_one(
    system: &SystemFile,
    number: usize,
    source: &ImageSource,
) -> anyhow::Result<(LinkedImage, Option<PathBuf>)> {
    let target = Target::of(system, number);
    match source {
        ImageSource::Elf { path } => Ok((target.pvh(path)?, Some(path.clone()))),
        ImageSource::Payload { name } => {
            let path = cargo_build::payload(name)?;
            Ok((target.pvh(&path)?, Some(path)))
        }
        ImageSource::Linux { kernel, initrd } => {
            let cache = PackageCache::open()?;
            let kernel = match kernel {
                KernelSource::File(path) => path.clone(),
                KernelSource::Package(name) => cache.kernel(name)?,
            };
            let initrd = match initrd {
                Some(InitrdSource::File(path)) => Some(read(path, "initial RAM disk")?),
                Some(InitrdSource::Initramfs(source)) => {
                    let _step = progress::Step::start("building the initramfs");
                    Some(initramfs::build(source, &cache)?)
                }
                None => None,
            };
            Ok((target.linux(&kernel, initrd.as_deref())?, None))
        }
    }
}

/// What an image is linked for.
struct Target<'s> {
    memory: u64,
    cmdline: &'s str,
}

impl<'s> Target<'s> {
    fn of(system: &'s SystemFile, number: usize) -> Self {
        let memory = system.config.partitions.get(number).map_or(0, |partition| partition.memory_bytes);
        Self { memory, cmdline: system.cmdlines.get(number).map_or("", String::as_str) }
    }

    fn pvh(&self, path: &Path) -> anyhow::Result<LinkedImage> {
        let elf = read(path, "image")?;
        image::link_pvh(&elf, self.memory, self.cmdline, None)
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
    }

    fn linux(&self, path: &Path, initrd: Option<&[u8]>) -> anyhow::Result<LinkedImage> {
        let kernel = read(path, "kernel")?;
        image::link_linux(&kernel, self.memory, self.cmdline, initrd)
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
    }
}

/// Reads a whole file; `what` it is goes into the error.
pub(crate) fn read(path: &Path, what: &str) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        let cure = "check the path (relative to the system file)";
        anyhow::anyhow!("cannot read the {what} {}: {error}; {cure}", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(image: &str) -> Result<(), String> {
        let text = format!(
            "[system]\nname = 's'\n[[partition]]\nname = 'p'\npcpus = [1]\nmemory = '2 MiB'\nexpect = 'run'\n{image}"
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("text"), "#!/bin/sh\n").unwrap();
        let path = dir.path().join("s.toml");
        check(&SystemFile::parse(&text, &path).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn images_are_checked_by_name_and_content() {
        assert_eq!(check_text("image = { kind = 'payload', name = 'latency' }"), Ok(()));
        for (image, expected) in [
            (
                "image = { kind = 'payload', name = 'late' }",
                "no payload is called \"late\"; there are guest-tests, latency",
            ),
            ("image = { kind = 'elf', path = 'no.elf' }", "cannot read the image"),
            ("image = { kind = 'elf', path = 'text' }", "not an x86-64 ELF64 file"),
            ("image = { kind = 'linux', kernel = 'text' }", "not a Linux bzImage"),
            ("image = { kind = 'linux', kernel = 'text', initrd = 'no' }", "cannot read the initial RAM disk"),
            ("image = { kind = 'linux', package = 'x', initramfs = { init = 'no' } }", "cannot read the init program"),
        ] {
            let error = check_text(image).unwrap_err();
            assert!(error.contains(expected) && error.contains("s.toml:8:9: partition[0].image: "), "{error}");
        }
    }
}
