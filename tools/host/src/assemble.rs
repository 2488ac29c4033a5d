//! Getting the images of a system: built, fetched or read, then linked for their partitions.

use crate::image::{self, FlatPlace, LinkedImage, Module, Target, payload};
use crate::initramfs;
use crate::packages::PackageCache;
use crate::system_file::{ImageSource, InitrdSource, KernelSource, ModuleSource, Part, PayloadBoot, Place, SystemFile};
use crate::{cargo_build, progress};
use std::path::{Path, PathBuf};

/// The images of a system.
#[derive(Debug)]
pub struct Assembled {
    /// By partition number. Bad ones of partitions that are not required are [`LinkedImage::missing`].
    pub images: Vec<LinkedImage>,
    /// The ELF files among them.
    pub elves: Vec<PathBuf>,
    /// Why partitions are left out, each in a line.
    pub warnings: Vec<String>,
}

/// Checks what can be checked about the images of `system` without building or fetching anything: files are there and
/// fit, payloads exist. Returns why partitions that are not required will be left out, each in a line.
///
/// # Errors
/// All problems of required partitions, with their place in the system file.
pub fn check(system: &SystemFile) -> anyhow::Result<Vec<String>> {
    let mut left_out = LeftOut::new(system);
    let mut found = Vec::new();
    for (number, source) in system.images.iter().enumerate() {
        if let Err(error) = check_one(system, number, source) {
            let place = Place::Partition(number, Part::Image);
            found.extend(left_out.unless_required(place, format!("{error:#}")));
        }
    }
    if found.is_empty() { left_out.finish() } else { Err(system.problems(found).into()) }
}

fn check_one(system: &SystemFile, number: usize, source: &ImageSource) -> anyhow::Result<()> {
    let partition = Partition::of(system, number);
    match source {
        ImageSource::Elf { .. } | ImageSource::Multiboot { .. } | ImageSource::Flat { .. } => {
            partition.file(source).map(drop)
        }
        ImageSource::Payload { name, modules, .. } => {
            let names = cargo_build::payload_names(&cargo_build::repository()?);
            anyhow::ensure!(names.contains(name), "no payload is called {name:?}; there are {}", names.join(", "));
            read_modules(modules).map(drop)
        }
        ImageSource::Linux { kernel, initrd } => {
            let initrd = match initrd {
                Some(InitrdSource::File(path)) => Some(read(path, "initial RAM disk")?),
                Some(InitrdSource::Initramfs(source)) => initramfs::read_init(source).map(|_| None)?,
                None => None,
            };
            match kernel {
                KernelSource::File(path) => partition.linux(path, initrd.as_deref()).map(drop),
                KernelSource::Package(_) => {
                    Ok(image::check_initrd(initrd.unwrap_or_default().len(), partition.memory)?)
                }
            }
        }
    }
}

/// Gets and links all images of `system`.
///
/// # Errors
/// The first image of a required partition that cannot be had or does not fit, with its place in the system file.
pub fn assemble(system: &SystemFile) -> anyhow::Result<Assembled> {
    let mut left_out = LeftOut::new(system);
    let (mut images, mut elves) = (Vec::new(), Vec::new());
    for (number, source) in system.images.iter().enumerate() {
        match assemble_one(system, number, source) {
            Ok((image, elf)) => {
                images.push(image);
                elves.extend(elf);
            }
            Err(error) => {
                let place = Place::Partition(number, Part::Image);
                if let Some(found) = left_out.unless_required(place, format!("{error:#}")) {
                    return Err(system.problems([found]).into());
                }
                images.push(LinkedImage::missing());
            }
        }
    }
    let mut found = Vec::new();
    for (place, message) in system.image_problems(&images) {
        found.extend(left_out.unless_required(place, message));
    }
    if !found.is_empty() {
        return Err(system.problems(found).into());
    }
    for number in &left_out.numbers {
        if let Some(image) = images.get_mut(*number) {
            *image = LinkedImage::missing();
        }
    }
    Ok(Assembled { images, elves, warnings: left_out.finish()? })
}

fn assemble_one(
    system: &SystemFile,
    number: usize,
    source: &ImageSource,
) -> anyhow::Result<(LinkedImage, Option<PathBuf>)> {
    let partition = Partition::of(system, number);
    match source {
        ImageSource::Elf { path, .. } => Ok((partition.file(source)?, Some(path.clone()))),
        ImageSource::Multiboot { .. } | ImageSource::Flat { .. } => Ok((partition.file(source)?, None)),
        ImageSource::Payload { name, boot, modules } => {
            let path = cargo_build::payload(name)?;
            Ok((partition.payload(&path, boot, modules)?, Some(path)))
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
            Ok((partition.linux(&kernel, initrd.as_deref())?, None))
        }
    }
}

/// The partitions that the system starts without.
struct LeftOut<'s> {
    system: &'s SystemFile,
    numbers: Vec<usize>,
    warnings: Vec<String>,
}

impl<'s> LeftOut<'s> {
    const fn new(system: &'s SystemFile) -> Self {
        Self { system, numbers: Vec::new(), warnings: Vec::new() }
    }

    /// Leaves out the partition that a problem is about, or gives the problem back, if the partition is required.
    fn unless_required(&mut self, place: Place, message: String) -> Option<(Place, String)> {
        let Place::Partition(number, _) = place else { return Some((place, message)) };
        let Some(partition) = self.system.config.partitions.get(number).filter(|partition| !partition.is_required)
        else {
            return Some((place, message));
        };
        let consequence = format!("the system starts without partition \"{}\"", partition.name);
        self.warnings.push(format!("{}; {consequence}", self.system.problems([(place, message)])));
        if !self.numbers.contains(&number) {
            self.numbers.push(number);
        }
        None
    }

    /// The warnings.
    ///
    /// # Errors
    /// No partition is left.
    fn finish(self) -> anyhow::Result<Vec<String>> {
        if self.numbers.len() == self.system.config.partitions.len() {
            let why = "no partition has a good image, so that there is nothing to start; mend one of them";
            let lines = self.warnings.join("\n");
            anyhow::bail!("{lines}\n{}", self.system.problems([(Place::System, why.to_owned())]));
        }
        Ok(self.warnings)
    }
}

/// The partition that an image is linked for.
struct Partition<'s> {
    memory: u64,
    cmdline: &'s str,
}

impl<'s> Partition<'s> {
    fn of(system: &'s SystemFile, number: usize) -> Self {
        let memory = system.config.partitions.get(number).map_or(0, |partition| partition.memory_bytes);
        Self { memory, cmdline: system.cmdlines.get(number).map_or("", String::as_str) }
    }

    fn target<'a>(&'a self, modules: &'a [Module<'a>]) -> Target<'a> {
        Target { memory: self.memory, cmdline: self.cmdline, modules }
    }

    /// Links a file that is there.
    fn file(&self, source: &ImageSource) -> anyhow::Result<LinkedImage> {
        let (path, modules) = match source {
            ImageSource::Elf { path, modules, .. } | ImageSource::Multiboot { path, modules } => (path, &modules[..]),
            ImageSource::Flat { path, .. } => (path, &[][..]),
            ImageSource::Payload { .. } | ImageSource::Linux { .. } => anyhow::bail!("the image is no file"),
        };
        let bytes = read(path, "image")?;
        let files = read_modules(modules)?;
        let modules = with_cmdlines(&files, modules);
        let target = self.target(&modules);
        let linked = match source {
            ImageSource::Flat { place, .. } => image::link_flat(&bytes, place, &target),
            ImageSource::Elf { boot, .. } => image::link_elf(&bytes, *boot, &target),
            _ => image::link_multiboot(&bytes, &target),
        };
        linked.map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
    }

    fn payload(&self, path: &Path, boot: &PayloadBoot, modules: &[ModuleSource]) -> anyhow::Result<LinkedImage> {
        let elf = read(path, "payload")?;
        let files = read_modules(modules)?;
        let modules = with_cmdlines(&files, modules);
        let target = self.target(&modules);
        let linked = match *boot {
            PayloadBoot::Elf(boot) => payload::link(&elf, boot, &target),
            PayloadBoot::Flat { mode, at } => payload::flatten(&elf).and_then(|flat| {
                let entry = payload::symbol(&elf, mode.symbol())?;
                let at = at.unwrap_or(flat.base);
                let entry = entry.wrapping_sub(flat.base).wrapping_add(at);
                image::link_flat(&flat.bytes, &FlatPlace { at, entry, mode }, &target)
            }),
        };
        linked.map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
    }

    fn linux(&self, path: &Path, initrd: Option<&[u8]>) -> anyhow::Result<LinkedImage> {
        let kernel = read(path, "kernel")?;
        image::link_linux(&kernel, self.memory, self.cmdline, initrd)
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
    }
}

fn read_modules(modules: &[ModuleSource]) -> anyhow::Result<Vec<Vec<u8>>> {
    modules.iter().map(|module| read(&module.path, "module")).collect()
}

fn with_cmdlines<'a>(files: &'a [Vec<u8>], modules: &'a [ModuleSource]) -> Vec<Module<'a>> {
    files.iter().zip(modules).map(|(data, module)| Module { data, cmdline: &module.cmdline }).collect()
}

/// Reads a whole file; `what` it is goes into the error.
pub(crate) fn read(path: &Path, what: &str) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        let cure = "check the path (relative to the system file)";
        anyhow::anyhow!("cannot read the {what} {}: {error}; {cure}", path.display())
    })
}

#[cfg(test)]
mod tests;
