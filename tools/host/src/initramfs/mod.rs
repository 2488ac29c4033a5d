//! Initial RAM disks: a newc cpio archive of files from Debian packages, the libraries they need, and an init program.
//!
//! The archive is a function of its inputs: no time stamps, owners or directory orders get in.

mod archive;
mod libraries;
mod package_root;

use crate::assemble::read;
use crate::packages::PackageCache;
use crate::system_file::InitramfsSource;
use archive::Archive;
use package_root::PackageRoot;

/// Directories that an init program mounts to or writes in.
const DIRECTORIES: [&str; 6] = ["/dev", "/proc", "/sys", "/tmp", "/run", "/root"];
/// Character devices that a program finds before `/dev` is mounted: path, major, minor.
const DEVICES: [(&str, u32, u32); 2] = [("/dev/console", 5, 1), ("/dev/null", 1, 3)];

/// Reads and checks the init program of `source`.
///
/// # Errors
/// It cannot be read, or the kernel could not start it.
pub fn read_init(source: &InitramfsSource) -> anyhow::Result<Vec<u8>> {
    let init = read(&source.init, "init program")?;
    anyhow::ensure!(
        init.starts_with(b"#!") || init.starts_with(b"\x7FELF"),
        "the init program {} is neither a script nor an ELF file; begin it with #!/bin/busybox sh, for instance",
        source.init.display()
    );
    Ok(init)
}

/// Builds the archive.
///
/// # Errors
/// A package, a file or a library cannot be had; the error names it.
pub fn build(source: &InitramfsSource, cache: &PackageCache) -> anyhow::Result<Vec<u8>> {
    let dirs = cache.unpacked_all(&source.packages)?;
    let roots: Vec<PackageRoot> =
        source.packages.iter().zip(dirs).map(|(name, dir)| PackageRoot::new(name, dir)).collect();
    let init = read_init(source)?;
    build_from(source, &init, &roots).map_err(|error| {
        let hints: Vec<String> = source.packages.iter().map(|name| hint(name, cache)).collect();
        error.context(format!("cannot build the initramfs (packages: {})", hints.join("; ")))
    })
}

/// A package and what it depends on: where a missing library most likely is.
fn hint(name: &str, cache: &PackageCache) -> String {
    let depends = cache.depends(name);
    if depends.is_empty() { name.to_owned() } else { format!("{name}, which depends on {}", depends.join(", ")) }
}

/// An archive of an init program that needs no libraries, and files: path and bytes.
///
/// # Errors
/// A path is too long for an archive.
pub fn of_files(init: &[u8], files: Vec<(String, Vec<u8>)>) -> anyhow::Result<Vec<u8>> {
    let mut archive = with_directories();
    archive.add_file("/init", init.to_vec());
    for (path, bytes) in files {
        archive.add_file(&path, bytes);
    }
    archive.write()
}

/// An archive of what every init program finds.
fn with_directories() -> Archive {
    let mut archive = Archive::default();
    for path in DIRECTORIES {
        archive.add_directory(path);
    }
    for (path, major, minor) in DEVICES {
        archive.add_device(path, major, minor);
    }
    archive
}

fn build_from(source: &InitramfsSource, init: &[u8], roots: &[PackageRoot]) -> anyhow::Result<Vec<u8>> {
    let mut archive = with_directories();
    for file in &source.files {
        let Some(bytes) = package_root::find(roots, &file.from)? else {
            let names: Vec<&str> = roots.iter().map(PackageRoot::name).collect();
            anyhow::bail!("no file {:?} in {}; check the path with dpkg-deb --contents", file.from, names.join(", "));
        };
        libraries::add(&mut archive, roots, &file.from, &bytes)?;
        archive.add_file(&file.to, bytes);
    }
    libraries::add(&mut archive, roots, "/init", init)?;
    if let Some(interpreter) = script_interpreter(init) {
        anyhow::ensure!(
            archive.has_file(&interpreter),
            "the init program asks for {interpreter}, which is not among the files; add it to \"files\""
        );
    }
    archive.add_file("/init", init.to_vec());
    archive.write()
}

/// The interpreter that a script's first line names.
fn script_interpreter(init: &[u8]) -> Option<String> {
    let line = init.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    String::from_utf8_lossy(line).split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system_file::PackageFile;
    use std::io::Read;
    use std::path::Path;

    fn source(files: &[(&str, &str)]) -> InitramfsSource {
        let files = files.iter().map(|(from, to)| PackageFile { from: (*from).into(), to: (*to).into() });
        InitramfsSource { init: "init.sh".into(), packages: vec!["p".into()], files: files.collect() }
    }

    fn root() -> (tempfile::TempDir, PackageRoot) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        std::fs::write(dir.path().join("usr/bin/sh"), "shell").unwrap();
        std::os::unix::fs::symlink("/usr/bin/sh", dir.path().join("usr/bin/link")).unwrap();
        let root = PackageRoot::new("p", dir.path().to_path_buf());
        (dir, root)
    }

    fn entries(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut rest = bytes;
        let mut found = Vec::new();
        loop {
            let mut reader = cpio::NewcReader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return found;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut data = Vec::new();
            reader.read_to_end(&mut data).unwrap();
            found.push((name, mode, data));
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn the_archive_has_what_was_asked_for() {
        let (_dir, root) = root();
        let source = source(&[("usr/bin/sh", "/bin/sh"), ("usr/bin/link", "/bin/link")]);
        let bytes = build_from(&source, b"#!/bin/sh\n", std::slice::from_ref(&root)).unwrap();
        let entries = entries(&bytes);
        let find = |name: &str| entries.iter().find(|entry| entry.0 == name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!((find("bin").1, find("dev").1), (0o40755, 0o40755));
        assert_eq!((find("init").1, &find("init").2[..]), (0o100755, &b"#!/bin/sh\n"[..]));
        assert_eq!(find("bin/sh").2, b"shell");
        assert_eq!(find("bin/link").2, b"shell");
        assert_eq!(find("dev/console").1, 0o20600);
        assert_eq!(bytes, build_from(&source, b"#!/bin/sh\n", &[root]).unwrap());
    }

    #[test]
    fn what_is_missing_is_named() {
        let (_dir, root) = root();
        let error = build_from(&source(&[("bin/no", "/bin/no")]), b"#!/bin/sh\n", std::slice::from_ref(&root));
        assert!(error.unwrap_err().to_string().contains("no file \"bin/no\" in p"));
        let error = build_from(&source(&[]), b"#!/bin/sh -e\n", &[root]).unwrap_err().to_string();
        assert!(error.contains("asks for /bin/sh"), "{error}");
    }

    #[test]
    fn an_init_program_must_be_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = source(&[]);
        source.init = dir.path().join("init");
        assert!(read_init(&source).unwrap_err().to_string().contains("cannot read the init program"));
        std::fs::write(&source.init, "echo hello\n").unwrap();
        assert!(read_init(&source).unwrap_err().to_string().contains("#!/bin/busybox sh"));
        assert_ne!(source.init, Path::new(""));
    }
}
