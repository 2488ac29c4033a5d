//! Building the hypervisor and the bare-metal payloads of this repository with Cargo.

use crate::progress::Step;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The target of everything that runs without an operating system.
pub const BARE_METAL_TARGET: &str = "x86_64-unknown-none";
/// The target of programs for the Linux of [`crate::peers`].
pub const LINUX_TARGET: &str = "x86_64-unknown-linux-gnu";
/// The package of the program that runs guests under KVM.
pub const KVM_PEER_PACKAGE: &str = "partita-kvm-peer";
/// The hypervisor's package.
pub const HYPERVISOR_PACKAGE: &str = "partita-hv";
/// What the packages of payloads start with.
pub const PAYLOAD_PACKAGE_PREFIX: &str = "partita-payload-";

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The repository is not where it was when this program was built.
    #[error("the Partita repository is no longer at {}; run `cargo partita` inside it", path.display())]
    NoRepository {
        /// Where it was.
        path: PathBuf,
    },
    /// Cargo cannot be started.
    #[error("cannot run {program}: {cause}; install Rust's toolchain with ci/setup.sh")]
    NoCargo {
        /// The program.
        program: String,
        /// Why.
        cause: std::io::Error,
    },
    /// The bare-metal target is not installed.
    #[error(
        "the target {BARE_METAL_TARGET} is not installed; run ci/setup.sh (or `rustup target add {BARE_METAL_TARGET}`)"
    )]
    NoTarget,
    /// The compiler found errors.
    #[error("building {package} failed:\n{output}")]
    Failed {
        /// The package.
        package: String,
        /// What Cargo printed.
        output: String,
    },
    /// Cargo built no executable.
    #[error("building {package} gave no executable; does the package have a binary?")]
    NoExecutable {
        /// The package.
        package: String,
    },
}

/// The root of the repository that this program was built from.
///
/// # Errors
/// It is not there any more.
pub fn repository() -> Result<PathBuf, BuildError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match path.canonicalize() {
        Ok(root) if root.join("Cargo.toml").is_file() => Ok(root),
        _ => Err(BuildError::NoRepository { path }),
    }
}

/// Names of the payloads in the repository at `root`, sorted.
pub fn payload_names(root: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(root.join("rt-partitions")) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("src/main.rs").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Builds the hypervisor and returns its ELF file.
///
/// # Errors
/// Cargo or the compiler failed.
pub fn hypervisor() -> Result<PathBuf, BuildError> {
    build(HYPERVISOR_PACKAGE, "hv", "building the hypervisor")
}

/// Builds the payload called `name` and returns its ELF file.
///
/// # Errors
/// Cargo or the compiler failed.
pub fn payload(name: &str) -> Result<PathBuf, BuildError> {
    build(&format!("{PAYLOAD_PACKAGE_PREFIX}{name}"), "release", &format!("building the payload {name}"))
}

/// Builds the init program of [`crate::peers`] for Linux, linked statically, and returns its ELF file.
///
/// # Errors
/// Cargo or the compiler failed.
pub fn kvm_peer() -> Result<PathBuf, BuildError> {
    let flags = "-C target-feature=+crt-static -C strip=symbols";
    build_for(LINUX_TARGET, KVM_PEER_PACKAGE, "release", "building the program that runs guests under KVM", Some(flags))
}

fn build(package: &str, profile: &str, label: &str) -> Result<PathBuf, BuildError> {
    build_for(BARE_METAL_TARGET, package, profile, label, None)
}

/// Builds a package for a target, by a profile, with `flags` for the compiler in the place of those of `.cargo/config.toml`, if there are
/// any.
fn build_for(
    target: &str,
    package: &str,
    profile: &str,
    label: &str,
    flags: Option<&str>,
) -> Result<PathBuf, BuildError> {
    let root = repository()?;
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let _step = Step::start(label);
    let mut cargo = Command::new(&program);
    cargo
        .args(["build", "--quiet", "--profile", profile, "--target", target, "--package", package])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root)
        // These would replace the flags of .cargo/config.toml, by which the ELF files get their addresses.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if let Some(flags) = flags {
        cargo.env("RUSTFLAGS", flags);
    }
    let output = cargo.stdin(Stdio::null()).output().map_err(|cause| BuildError::NoCargo { program, cause })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(if text.contains("target may not be installed") {
            BuildError::NoTarget
        } else {
            BuildError::Failed { package: package.into(), output: text.trim_end().into() }
        });
    }
    executable(&output.stdout, package).ok_or(BuildError::NoExecutable { package: package.into() })
}

/// The part of Cargo's messages that is of interest here.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

/// The last executable that Cargo reports: that of the package asked for, as all others come before it.
fn executable(messages: &[u8], package: &str) -> Option<PathBuf> {
    let lines = messages.split(|&byte| byte == b'\n');
    let mut found = lines.filter_map(|line| serde_json::from_slice::<Message>(line).ok()?.executable);
    found.rfind(|path| path.file_stem().is_some_and(|stem| stem == package))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_messages() {
        let messages = b"{\"reason\":\"compiler-artifact\",\"executable\":null}\nnoise\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/other\"}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/partita-hv\"}\n{\"reason\":\"build-finished\"}\n";
        assert_eq!(executable(messages, "partita-hv"), Some("/t/partita-hv".into()));
        assert_eq!(executable(messages, "partita"), None);
    }

    #[test]
    fn the_payloads_of_this_repository_are_known() {
        let names = payload_names(&repository().unwrap());
        assert!(names.iter().any(|name| name == "latency"), "{names:?}");
        assert!(!names.iter().any(|name| name == "rt" || name == "systems"), "{names:?}");
    }
}
