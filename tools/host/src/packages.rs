//! Debian packages, fetched by name with the system's own package tools and kept unpacked in a cache.

use crate::progress::Step;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What kernel packages are called; a meta package depends on such a one.
const KERNEL_PREFIX: &str = "linux-image-";
/// What no partition needs: it would be most of what is unpacked.
const LEFT_OUT: [&str; 4] = ["./lib/modules", "./usr/lib/modules", "./usr/share/doc", "./usr/share/man"];

/// What is unpacked of a package.
#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    /// All but [`LEFT_OUT`].
    Main,
    /// Kernel modules of these names only.
    Modules(&'a [&'a str]),
}

impl Part<'_> {
    /// What is appended to the name of the directory.
    fn suffix(self) -> String {
        match self {
            Self::Main => String::new(),
            Self::Modules(names) => format!("_modules-{}", names.join("-")),
        }
    }

    /// Arguments of tar.
    fn arguments(self) -> Vec<String> {
        match self {
            Self::Main => LEFT_OUT.map(|path| format!("--exclude={path}")).into(),
            Self::Modules(names) => {
                let patterns = names.iter().map(|name| format!("{name}.ko*"));
                ["--wildcards", "--no-anchored"].map(str::to_owned).into_iter().chain(patterns).collect()
            }
        }
    }
}

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
    /// They know it, but not in the suite that is asked for.
    #[error(
        "no package {name} in the suite {suite}; the package lists have it in: {}; name one of these, or run ci/setup.sh, \
         which adds bookworm-backports on Debian 12",
        in_suites.join(", ")
    )]
    NotInSuite {
        /// The package.
        name: String,
        /// The suite.
        suite: String,
        /// Suites that have it.
        in_suites: Vec<String>,
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
    /// It has no such kernel module.
    #[error(
        "package {name} has no kernel module {module}; name a kernel package that has it, such as linux-image-amd64"
    )]
    NoModule {
        /// The package.
        name: String,
        /// The module.
        module: String,
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

    /// The directory in which the package `name` is unpacked, in the version that would be installed now, or for
    /// `NAME/SUITE` in that of the suite. Kernel modules and documentation are left out.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn unpacked(&self, name: &str) -> Result<PathBuf, PackageError> {
        self.unpack(split_suite(name).0, &record(name)?, Part::Main)
    }

    /// The same for several packages at once, in their order: the package lists are slow to be asked.
    ///
    /// # Errors
    /// One of them cannot be had.
    pub fn unpacked_all(&self, names: &[String]) -> Result<Vec<PathBuf>, PackageError> {
        let plain: Vec<&str> = names.iter().map(String::as_str).filter(|name| split_suite(name).1.is_none()).collect();
        let known = records(&plain)?;
        let unpack = |name: &String| match known.get(name) {
            Some(record) => self.unpack(name, record, Part::Main),
            None => self.unpacked(name),
        };
        names.iter().map(unpack).collect()
    }

    fn unpack(&self, name: &str, record: &Record, part: Part<'_>) -> Result<PathBuf, PackageError> {
        let version = record.version.replace([':', '/'], "%");
        let target = self.dir.join(format!("{name}_{version}{}", part.suffix()));
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
        let done = download(name, record, &work).and_then(|deb| extract(name, &deb, &root, part));
        let renamed = done.and_then(|()| match std::fs::rename(&root, &target) {
            Err(_) if target.is_dir() => Ok(()),
            result => result.map_err(|cause| self.error(cause)),
        });
        remove()?;
        renamed.map(|()| target)
    }

    /// The kernel (`boot/vmlinuz-*`) of the package `name` (or `NAME/SUITE`), or of the kernel package that it depends on.
    ///
    /// # Errors
    /// It cannot be had, or has none.
    pub fn kernel(&self, name: &str) -> Result<PathBuf, PackageError> {
        let (package, record) = kernel_package(name)?;
        let boot = self.unpack(&package, &record, Part::Main)?.join("boot");
        let entries = std::fs::read_dir(&boot).into_iter().flatten().flatten();
        let kernels = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"));
        kernels.map(|entry| entry.path()).min().ok_or(PackageError::NoKernel { name: name.into() })
    }

    /// The modules of these names, in their order, of the kernel that [`Self::kernel`] gives.
    ///
    /// # Errors
    /// The package cannot be had, or has no such module.
    pub fn kernel_modules(&self, name: &str, modules: &[&str]) -> Result<Vec<PathBuf>, PackageError> {
        let (package, record) = kernel_package(name)?;
        let dir = self.unpack(&package, &record, Part::Modules(modules))?;
        let mut files = Vec::new();
        list_files(&dir, &mut files);
        let find = |module: &&str| {
            let start = format!("{module}.ko");
            let is_it =
                |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start));
            let missing = || PackageError::NoModule { name: package.clone(), module: (*module).to_owned() };
            files.iter().find(is_it).cloned().ok_or_else(missing)
        };
        modules.iter().map(find).collect()
    }

    /// Names of the packages that the package `name` depends on, for advice.
    pub fn depends(&self, name: &str) -> Vec<String> {
        record(name).map(|record| record.depends).unwrap_or_default()
    }
}

/// The kernel package that `NAME` or `NAME/SUITE` is or depends on.
fn kernel_package(name: &str) -> Result<(String, Record), PackageError> {
    let (plain, suite) = split_suite(name);
    let meta = record(name)?;
    match meta.depends.iter().find(|depend| depend.starts_with(KERNEL_PREFIX)).cloned() {
        Some(real) => {
            // A suite's meta package depends on that suite's kernel.
            let record = record(&suite.map_or_else(|| real.clone(), |suite| format!("{real}/{suite}")))?;
            Ok((real, record))
        }
        None => Ok((plain.to_owned(), meta)),
    }
}

/// Adds all files in and below `dir`.
fn list_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        // A package's links lead nowhere here.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list_files(&path, files),
            Ok(kind) if kind.is_file() => files.push(path),
            _ => {}
        }
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

/// A package's name, and the suite that is asked for, if any: `NAME/SUITE`, as apt writes it.
fn split_suite(name: &str) -> (&str, Option<&str>) {
    name.split_once('/').map_or((name, None), |(name, suite)| (name, Some(suite)))
}

/// What the package lists say about `NAME` or `NAME/SUITE`.
fn record(name: &str) -> Result<Record, PackageError> {
    let output = run("apt-cache", Command::new("apt-cache").args(["show", "--no-all-versions", name]))?;
    if let Some(record) = parse_record(&String::from_utf8_lossy(&output.stdout)) {
        return Ok(record);
    }
    if let (name, Some(suite)) = split_suite(name) {
        let in_suites = suites_of(name)?;
        if !in_suites.is_empty() {
            return Err(PackageError::NotInSuite { name: name.into(), suite: suite.into(), in_suites });
        }
    }
    Err(PackageError::Unknown { name: name.into(), detail: detail(&output) })
}

/// What the package lists say about packages, by name; what they do not know is left out.
fn records(names: &[&str]) -> Result<BTreeMap<String, Record>, PackageError> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let output = run("apt-cache", Command::new("apt-cache").args(["show", "--no-all-versions"]).args(names))?;
    Ok(parse_records(&String::from_utf8_lossy(&output.stdout)))
}

/// The records of `apt-cache show`, by name: of each package the first.
fn parse_records(text: &str) -> BTreeMap<String, Record> {
    let mut records = BTreeMap::new();
    for text in text.split("\n\n") {
        let name = text.lines().find_map(|line| line.strip_prefix("Package: "));
        if let (Some(name), Some(record)) = (name, parse_record(text)) {
            records.entry(name.to_owned()).or_insert(record);
        }
    }
    records
}

/// The suites that have a package.
fn suites_of(name: &str) -> Result<Vec<String>, PackageError> {
    let output = run("apt-cache", Command::new("apt-cache").args(["madison", name]))?;
    Ok(parse_suites(&String::from_utf8_lossy(&output.stdout)))
}

/// Suites in the output of `apt-cache madison`: `NAME | VERSION | MIRROR SUITE/COMPONENT ARCHITECTURE Packages`.
fn parse_suites(text: &str) -> Vec<String> {
    let places = text.lines().filter_map(|line| line.split('|').nth(2)?.split_whitespace().nth(1));
    let mut suites: Vec<String> = places.filter_map(|place| Some(place.rsplit_once('/')?.0.to_owned())).collect();
    suites.sort();
    suites.dedup();
    suites
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

fn extract(name: &str, deb: &Path, root: &Path, part: Part<'_>) -> Result<(), PackageError> {
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
    // Files belong to who runs this: nothing in a package may need more.
    tar.args(["--extract", "--file=-", "--no-same-owner", "--no-same-permissions", "--directory"]).arg(root);
    tar.args(part.arguments());
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
        let all = parse_records(text);
        assert_eq!(all.keys().collect::<Vec<_>>(), ["other", "rt-tests"]);
        assert_eq!((&all["rt-tests"], all["other"].version.as_str()), (&record, "9"));
    }

    #[test]
    fn modules_have_a_place_of_their_own() {
        let part = Part::Modules(&["kvm", "kvm-amd"]);
        assert_eq!((part.suffix(), Part::Main.suffix()), ("_modules-kvm-kvm-amd".to_owned(), String::new()));
        assert_eq!(part.arguments(), ["--wildcards", "--no-anchored", "kvm.ko*", "kvm-amd.ko*"]);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("lib/modules")).unwrap();
        std::fs::write(dir.path().join("lib/modules/kvm.ko.xz"), "").unwrap();
        let mut files = Vec::new();
        list_files(dir.path(), &mut files);
        assert_eq!(files, [dir.path().join("lib/modules/kvm.ko.xz")]);
    }

    #[test]
    fn a_suite_is_part_of_a_name() {
        assert_eq!(split_suite("rt-tests"), ("rt-tests", None));
        assert_eq!(split_suite("rt-tests/bookworm-backports"), ("rt-tests", Some("bookworm-backports")));
        let text = " k | 6.12-1 | http://m/debian bookworm-backports/main amd64 Packages\n \
                    k |  6.1-2 | http://m/debian-security bookworm-security/main amd64 Packages\n \
                    k |  6.1-1 | http://m/debian bookworm/main amd64 Packages\n \
                    k |  6.1-1 | http://n/debian bookworm/main amd64 Packages\n";
        assert_eq!(parse_suites(text), ["bookworm", "bookworm-backports", "bookworm-security"]);
        assert!(parse_suites("").is_empty());
        let suite = PackageError::NotInSuite { name: "k".into(), suite: "sid".into(), in_suites: parse_suites(text) };
        let text = suite.to_string();
        assert!(text.contains("no package k in the suite sid") && text.contains("bookworm-backports, "), "{text}");
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
        assert_eq!(cache.unpack("no-such", &record, Part::Main).unwrap(), place);
    }
}
