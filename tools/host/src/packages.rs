//! Debian packages, fetched by name with the system's own package tools and kept unpacked in a cache.

use crate::progress::Step;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What kernel packages are called; a meta package depends on such a one.
const KERNEL_PREFIX: &str = "linux-image-";
/// What no partition needs: it would be most of what is unpacked.
const LEFT_OUT: [&str; 4] = ["./lib/modules", "./usr/lib/modules", "./usr/share/doc", "./usr/share/man"];

/// Why a package cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// There is no place for a cache.
    #[error("cannot use the package cache {}: {cause}; set XDG_CACHE_HOME to a writable directory", path.display())]
    Cache {
        /// The directory.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A program is missing.
    #[error("cannot run {program}: {cause}; Debian packages need Debian's package tools (apt, dpkg, tar)")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// The package lists do not know it.
    #[error(
        "the package lists have no package {name}; check the name, and run ci/setup.sh, which fetches the lists{detail}"
    )]
    Unknown {
        /// The package.
        name: String,
        /// What the program said.
        detail: String,
    },
    /// It cannot be downloaded or unpacked.
    #[error("{program} failed for package {name}; if the package lists are old, run ci/setup.sh{detail}")]
    Failed {
        /// The program.
        program: &'static str,
        /// The package.
        name: String,
        /// What the program said.
        detail: String,
    },
    /// It has no kernel.
    #[error(
        "package {name} has no boot/vmlinuz-*, and depends on no kernel package; name one such as linux-image-rt-amd64"
    )]
    NoKernel {
        /// The package.
        name: String,
    },
}

/// Packages, unpacked, by name and version.
#[derive(Debug)]
pub struct PackageCache {
    dir: PathBuf,
}

/// What the package lists say about a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record {
    version: String,
    depends: Vec<String>,
}

impl PackageCache {
    /// The user's cache: `$XDG_CACHE_HOME/partita/packages`, by default in `~/.cache`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open() -> Result<Self, PackageError> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        Self::open_at(&cache.unwrap_or_else(std::env::temp_dir).join("partita/packages"))
    }

    /// A cache in `dir`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open_at(dir: &Path) -> Result<Self, PackageError> {
        let cache = Self { dir: dir.to_path_buf() };
        std::fs::create_dir_all(dir).map_err(|cause| cache.error(cause))?;
        Ok(cache)
    }

    fn error(&self, cause: io::Error) -> PackageError {
        PackageError::Cache { path: self.dir.clone(), cause }
    }

    /// The directory in which the package `name` is unpacked, in the version that would be installed now. Kernel
    /// modules and documentation are left out.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn unpacked(&self, name: &str) -> Result<PathBuf, PackageError> {
        self.unpack(name, &record(name)?)
    }

    fn unpack(&self, name: &str, record: &Record) -> Result<PathBuf, PackageError> {
        let target = self.dir.join(format!("{name}_{}", record.version.replace([':', '/'], "%")));
        if target.is_dir() {
            return Ok(target);
        }
        let _step = Step::start(format!("fetching the package {name} {}", record.version));
        // Made beside its place and then renamed: a cached directory is always whole, whoever else fetches it.
        let work = self.dir.join(format!(".{name}.{}", std::process::id()));
        let remove = || match std::fs::remove_dir_all(&work) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error(error)),
            _ => Ok(()),
        };
        remove()?;
        let root = work.join("root");
        std::fs::create_dir_all(&root).map_err(|cause| self.error(cause))?;
        let done = download(name, record, &work).and_then(|deb| extract(name, &deb, &root));
        let renamed = done.and_then(|()| match std::fs::rename(&root, &target) {
            Err(_) if target.is_dir() => Ok(()),
            result => result.map_err(|cause| self.error(cause)),
        });
        remove()?;
        renamed.map(|()| target)
    }

    /// The kernel (`boot/vmlinuz-*`) of the package `name`, or of the kernel package that it depends on.
    ///
    /// # Errors
    /// It cannot be had, or has none.
    pub fn kernel(&self, name: &str) -> Result<PathBuf, PackageError> {
        let mut found = (name.to_owned(), record(name)?);
        if let Some(real) = found.1.depends.iter().find(|depend| depend.starts_with(KERNEL_PREFIX)).cloned() {
            let record = record(&real)?;
            found = (real, record);
        }
        let boot = self.unpack(&found.0, &found.1)?.join("boot");
        let entries = std::fs::read_dir(&boot).into_iter().flatten().flatten();
        let kernels = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"));
        kernels.map(|entry| entry.path()).min().ok_or(PackageError::NoKernel { name: name.into() })
    }

    /// Names of the packages that the package `name` depends on, for advice.
    pub fn depends(&self, name: &str) -> Vec<String> {
        record(name).map(|record| record.depends).unwrap_or_default()
    }
}

fn run(program: &'static str, command: &mut Command) -> Result<Output, PackageError> {
    // Messages are matched and shown in one language.
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output();
    output.map_err(|cause| PackageError::NoProgram { program, cause })
}

/// What a program said, as an appendix to a message.
fn detail(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("E:") || line.contains("error")).collect();
    if lines.is_empty() { String::new() } else { format!(":\n  {}", lines.join("\n  ")) }
}

fn record(name: &str) -> Result<Record, PackageError> {
    let output = run("apt-cache", Command::new("apt-cache").args(["show", "--no-all-versions", name]))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_record(&text).ok_or_else(|| PackageError::Unknown { name: name.into(), detail: detail(&output) })
}

/// The first record of `apt-cache show`.
fn parse_record(text: &str) -> Option<Record> {
    let first = text.split("\n\n").next()?;
    let field = |name: &str| first.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let names = field("Depends").unwrap_or_default().split(',').filter_map(|depend| {
        // The first alternative, without its version and architecture.
        depend.split('|').next()?.split_whitespace().next()?.split(':').next().map(str::to_owned)
    });
    Some(Record { version: field("Version")?.to_owned(), depends: names.collect() })
}

fn download(name: &str, record: &Record, dir: &Path) -> Result<PathBuf, PackageError> {
    let mut command = Command::new("apt-get");
    // apt would change to a user that cannot write here, and warn when it cannot.
    command.args(["--quiet", "--option", "APT::Sandbox::User=root", "download"]);
    command.arg(format!("{name}={}", record.version)).current_dir(dir);
    let output = run("apt-get", &mut command)?;
    let failed = || PackageError::Failed { program: "apt-get download", name: name.into(), detail: detail(&output) };
    if !output.status.success() {
        return Err(failed());
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.into_iter().find(|path| path.extension().is_some_and(|ext| ext == "deb")).ok_or_else(failed)
}

fn extract(name: &str, deb: &Path, root: &Path) -> Result<(), PackageError> {
    let failed = |program, detail| PackageError::Failed { program, name: name.into(), detail };
    let mut dpkg = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|cause| PackageError::NoProgram { program: "dpkg-deb", cause })?;
    let mut tar = Command::new("tar");
    tar.args(LEFT_OUT.map(|path| format!("--exclude={path}")));
    // Files belong to who runs this: nothing in a package may need more.
    tar.args(["--extract", "--file=-", "--no-same-owner", "--no-same-permissions", "--directory"]).arg(root);
    if let Some(stdout) = dpkg.stdout.take() {
        tar.stdin(stdout);
    }
    let output = tar.env("LC_ALL", "C").output();
    let dpkg = dpkg.wait();
    let output = output.map_err(|cause| PackageError::NoProgram { program: "tar", cause })?;
    if !output.status.success() {
        return Err(failed("tar", detail(&output)));
    }
    match dpkg {
        Ok(status) if status.success() => Ok(()),
        _ => Err(failed("dpkg-deb", String::new())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let text = "Package: rt-tests\nVersion: 1:2.4-1\nDepends: libc6 (>= 2.33), a:any | b, python3\nSize: 1\n\n\
                    Package: other\nVersion: 9\n";
        let record = parse_record(text).unwrap();
        assert_eq!(record.version, "1:2.4-1");
        assert_eq!(record.depends, ["libc6", "a", "python3"]);
        assert_eq!(parse_record("Package: x\n"), None);
        assert_eq!(parse_record(""), None);
    }

    #[test]
    fn an_unknown_package_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let cache = PackageCache::open_at(dir.path()).unwrap();
        // With no package tools at all the error is another, and names them.
        let error = cache.unpacked("partita-no-such-package").unwrap_err().to_string();
        assert!(error.contains("partita-no-such-package") || error.contains("apt-cache"), "{error}");
    }

    #[test]
    fn a_cached_package_is_not_fetched_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = PackageCache::open_at(dir.path()).unwrap();
        let record = Record { version: "1:2-3".into(), depends: Vec::new() };
        let place = dir.path().join("no-such_1%2-3");
        std::fs::create_dir(&place).unwrap();
        assert_eq!(cache.unpack("no-such", &record).unwrap(), place);
    }
}
