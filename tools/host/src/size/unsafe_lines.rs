//! Lines of `unsafe`, by crate, from the source.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

/// The hypervisor's crates that may have `unsafe`, by their folders.
const CRATES: [&str; 10] = [
    "hv",
    "hv/abi",
    "hv/console",
    "hv/core",
    "hv/multiboot2",
    "hv/x86",
    "hv/x86-bare",
    "hv/x86-policy",
    "hv/x86-vcpu",
    "trace",
];

/// What a crate has of `unsafe`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UnsafeLines {
    /// Its folder.
    pub folder: String,
    /// Lines of code, without blank ones and comments.
    pub lines: usize,
    /// `unsafe` blocks.
    pub blocks: usize,
    /// `unsafe` functions, their declarations in traits and foreign ones included.
    pub functions: usize,
    /// `unsafe impl`, `unsafe extern` and attributes.
    pub others: usize,
}

impl UnsafeLines {
    fn count(&mut self, source: &str) {
        let code = source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
        for line in code {
            self.lines += 1;
            let line = line.split(" // ").next().unwrap_or(line);
            for (at, word) in line.match_indices("unsafe") {
                let before = line[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '"') {
                    continue;
                }
                let after = line[at + word.len()..].trim_start();
                if after.starts_with('{') {
                    self.blocks += 1;
                } else if after.starts_with("fn ") || after.starts_with("extern \"C\" fn ") {
                    self.functions += 1;
                } else if after.starts_with("impl") || after.starts_with("extern") || after.starts_with('(') {
                    self.others += 1;
                }
            }
        }
    }
}

/// What the hypervisor's crates in the repository at `root` have of it.
///
/// # Errors
/// A source file cannot be read.
pub fn unsafe_lines(root: &Path) -> anyhow::Result<Vec<UnsafeLines>> {
    CRATES
        .iter()
        .map(|folder| {
            let mut lines = UnsafeLines { folder: (*folder).into(), ..UnsafeLines::default() };
            for path in sources(&root.join(folder).join("src"))? {
                let source =
                    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                lines.count(&source);
            }
            Ok(lines)
        })
        .collect()
}

fn sources(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unsafe_is_counted() {
        let mut lines = UnsafeLines::default();
        lines.count(
            "//! unsafe { not this }\n\nunsafe fn a() {\n    // unsafe { nor this }\n    let b = unsafe { c() }; // unsafe { }\n\
             #![forbid(unsafe_code)]\nunsafe impl Sync for A {}\n#[unsafe(no_mangle)]\npub unsafe extern \"C\" fn d();\n",
        );
        let expected = UnsafeLines { lines: 6, blocks: 1, functions: 2, others: 2, ..UnsafeLines::default() };
        assert_eq!(lines, expected);
    }
}
