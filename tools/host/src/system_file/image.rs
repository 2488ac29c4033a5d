//! What a system file says of a partition's image: which keys belong to which kind, and what they mean.

use super::convert::Converter;
use super::raw::{RawFileEntry, RawImage, RawInitramfs, RawKind, RawMode, RawModule};
use super::{
    CMDLINE_MAX, ImageSource, InitramfsSource, InitrdSource, KernelSource, ModuleSource, PackageFile, PayloadBoot,
};
use crate::image::{ElfBoot, FlatMode, FlatPlace};
use std::ops::Range;
use toml::Spanned;

/// The keys of each kind.
const fn keys(kind: RawKind) -> (&'static str, &'static [&'static str]) {
    match kind {
        RawKind::Elf => ("elf", &["path", "boot", "modules"]),
        RawKind::Multiboot => ("multiboot", &["path", "modules"]),
        RawKind::Flat => ("flat", &["path", "at", "entry", "mode"]),
        RawKind::Payload => ("payload", &["name", "boot", "at", "modules"]),
        RawKind::Linux => ("linux", &["package", "kernel", "initrd", "initramfs"]),
    }
}

impl Converter<'_> {
    pub(super) fn image(&mut self, image: &Spanned<RawImage>) -> Option<ImageSource> {
        let (span, image) = (image.span(), image.get_ref());
        let (kind, mine) = keys(image.kind);
        for (key, key_span) in image.given() {
            if let Some(key_span) = key_span
                && !mine.contains(&key)
            {
                let message = format!("an image of kind {kind:?} has no key {key:?}; it takes {}", mine.join(", "));
                self.add(key_span, message);
            }
        }
        if image.kind == RawKind::Linux {
            return self.linux(span, image);
        }
        let modules = self.modules(&image.modules);
        if image.kind == RawKind::Payload {
            let Some(name) = &image.name else {
                self.add(span, "an image of kind \"payload\" needs the payload's name: add name = \"...\"");
                return None;
            };
            self.package_name(name, "a payload's name");
            let boot = self.payload_boot(image);
            return Some(ImageSource::Payload { name: name.get_ref().clone(), boot, modules });
        }
        let Some(path) = &image.path else {
            self.add(span, format!("an image of kind {kind:?} needs its file: add path = \"...\""));
            return None;
        };
        let path = self.dir.join(path.get_ref());
        match image.kind {
            RawKind::Flat => Some(ImageSource::Flat { path, place: self.flat_place(span, image)? }),
            RawKind::Multiboot => Some(ImageSource::Multiboot { path, modules }),
            _ => Some(ImageSource::Elf { path, boot: self.elf_boot(image), modules }),
        }
    }

    fn elf_boot(&mut self, image: &RawImage) -> Option<ElfBoot> {
        let boot = image.boot.as_ref()?;
        let found = boot.get_ref().of_elf();
        if found.is_err() {
            let cure = "write \"pvh\", \"multiboot\" or \"plain\", or make it an image of kind \"flat\"";
            self.add(boot.span(), format!("an ELF file does not boot so; {cure}"));
        }
        found.ok()
    }

    fn payload_boot(&mut self, image: &RawImage) -> PayloadBoot {
        let boot = image.boot.as_ref().map_or(Ok(ElfBoot::Pvh), |boot| boot.get_ref().of_elf());
        match boot {
            Ok(boot) => {
                if let Some(at) = &image.at {
                    self.add(at.span(), "only a flat image is loaded where \"at\" says; remove it");
                }
                PayloadBoot::Elf(boot)
            }
            Err(mode) => {
                if let Some(modules) = image.modules.first() {
                    self.add(modules.span(), "a flat image takes no modules; remove them");
                }
                PayloadBoot::Flat { mode, at: image.at.as_ref().map(|at| at.get_ref().0) }
            }
        }
    }

    fn flat_place(&mut self, span: Range<usize>, image: &RawImage) -> Option<FlatPlace> {
        let (Some(at), Some(mode)) = (&image.at, &image.mode) else {
            let cure = "add at = \"0x...\" and mode = \"real\", \"protected\" or \"long\"";
            self.add(
                span,
                format!("an image of kind \"flat\" needs the address that it is loaded at, and its mode: {cure}"),
            );
            return None;
        };
        let at = at.get_ref().0;
        let entry = image.entry.as_ref().map_or(at, |entry| entry.get_ref().0);
        let mode = match mode.get_ref() {
            RawMode::Real => FlatMode::Real,
            RawMode::Protected => FlatMode::Protected,
            RawMode::Long => FlatMode::Long,
        };
        Some(FlatPlace { at, entry, mode })
    }

    fn modules(&mut self, raw: &[Spanned<RawModule>]) -> Vec<ModuleSource> {
        let modules = raw.iter().map(|module| {
            let RawModule { path, cmdline } = module.get_ref();
            ModuleSource { path: self.dir.join(path), cmdline: self.cmdline(cmdline.as_ref(), CMDLINE_MAX) }
        });
        modules.collect()
    }

    fn linux(&mut self, span: Range<usize>, image: &RawImage) -> Option<ImageSource> {
        let kernel = match (&image.package, &image.kernel) {
            (Some(package), None) => {
                self.package_and_suite(package);
                KernelSource::Package(package.get_ref().clone())
            }
            (None, Some(kernel)) => KernelSource::File(self.dir.join(kernel.get_ref())),
            (Some(package), Some(_)) => {
                self.add(package.span(), "both \"package\" and \"kernel\" are given; remove one");
                return None;
            }
            (None, None) => {
                let cure = "add package = \"linux-image-rt-amd64\" or kernel = \"path of a bzImage\"";
                self.add(span, format!("an image of kind \"linux\" needs a kernel: {cure}"));
                return None;
            }
        };
        let initrd = match (&image.initrd, &image.initramfs) {
            (Some(initrd), Some(_)) => {
                self.add(initrd.span(), "both \"initrd\" and \"initramfs\" are given; remove one");
                return None;
            }
            (Some(initrd), None) => Some(InitrdSource::File(self.dir.join(initrd.get_ref()))),
            (None, Some(initramfs)) => Some(InitrdSource::Initramfs(self.initramfs(initramfs.get_ref()))),
            (None, None) => None,
        };
        Some(ImageSource::Linux { kernel, initrd })
    }

    fn initramfs(&mut self, raw: &RawInitramfs) -> InitramfsSource {
        let mut files = Vec::new();
        for entry in &raw.files {
            let (from, to) = match entry.get_ref() {
                RawFileEntry::Path(path) => (path.clone(), format!("/{}", path.trim_start_matches('/'))),
                RawFileEntry::Move(entry) => (entry.from.clone(), entry.to.clone()),
            };
            let from = from.trim_start_matches('/').to_owned();
            let parts_fine = |path: &str| path.split('/').all(|part| !part.is_empty() && part != ".." && part != ".");
            if !parts_fine(&from) {
                self.add(entry.span(), format!("{from:?} is not a path in a package, such as \"usr/bin/cyclictest\""));
            }
            if !to.strip_prefix('/').is_some_and(parts_fine) {
                self.add(entry.span(), format!("{to:?} is not an absolute path, such as \"/bin/cyclictest\""));
            }
            files.push(PackageFile { from, to });
        }
        for package in &raw.packages {
            self.package_and_suite(package);
        }
        if !raw.files.is_empty() && raw.packages.is_empty() {
            self.add(raw.init.span(), "\"files\" are given but no package to take them from; add packages = [\"...\"]");
        }
        InitramfsSource {
            init: self.dir.join(raw.init.get_ref()),
            packages: raw.packages.iter().map(|package| package.get_ref().clone()).collect(),
            files,
        }
    }

    /// A package by name, or `NAME/SUITE`.
    fn package_and_suite(&mut self, name: &Spanned<String>) {
        for part in name.get_ref().splitn(2, '/') {
            self.package_name(&Spanned::new(name.span(), part.to_owned()), "a package's name, or NAME/SUITE");
        }
    }

    /// A name that is passed to other programs must not look like an option or a path.
    fn package_name(&mut self, name: &Spanned<String>, what: &str) {
        let text = name.get_ref();
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
        let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !text.starts_with(first) || !text.chars().all(fine) {
            self.add(name.span(), format!("{text:?} is not {what}; use lower-case letters, digits, '+', '-' and '.'"));
        }
    }
}
