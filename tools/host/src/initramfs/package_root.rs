//! An unpacked package as a file system of its own: symbolic links in it never lead out of it.

use anyhow::Context;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Most symbolic links on the way to one file.
const LINKS_MAX: usize = 40;

/// The directory of an unpacked package.
pub(super) struct PackageRoot {
    name: String,
    dir: PathBuf,
}

impl PackageRoot {
    pub(super) fn new(name: &str, dir: PathBuf) -> Self {
        Self { name: name.to_owned(), dir }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Follows `path` from the root of the package; `None` if there is nothing, or it leads around in circles.
    fn resolve(&self, path: &str) -> Option<PathBuf> {
        let parts = |path: &Path| -> Vec<OsString> {
            let named = path.components().filter_map(|part| match part {
                Component::Normal(name) => Some(name.to_owned()),
                Component::ParentDir => Some("..".into()),
                _ => None,
            });
            named.collect()
        };
        let mut pending = parts(Path::new(path));
        pending.reverse();
        let mut done: Vec<OsString> = Vec::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            done.push(part);
            let here = self.dir.join(done.iter().collect::<PathBuf>());
            if here.symlink_metadata().ok()?.is_symlink() {
                links += 1;
                if links > LINKS_MAX {
                    return None;
                }
                let target = here.read_link().ok()?;
                done.pop();
                if target.is_absolute() {
                    done.clear();
                }
                pending.extend(parts(&target).into_iter().rev());
            }
        }
        Some(self.dir.join(done.iter().collect::<PathBuf>()))
    }
}

/// The file at `path` in the first of `roots` that has it.
pub(super) fn find(roots: &[PackageRoot], path: &str) -> anyhow::Result<Option<Vec<u8>>> {
    for root in roots {
        let Some(file) = root.resolve(path) else { continue };
        match std::fs::read(&file) {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("usr/lib")).unwrap();
        std::fs::write(root.join("usr/lib/x.so.1.2"), "library").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("x.so.1.2", root.join("usr/lib/x.so.1")).unwrap();
        symlink("/lib/x.so.1", root.join("absolute")).unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        let roots = [PackageRoot::new("p", root)];
        let found = |path: &str| find(&roots, path).unwrap().map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(found("lib/x.so.1").as_deref(), Some("library"));
        assert_eq!(found("absolute").as_deref(), Some("library"));
        for path in ["out", "../secret", "circle", "usr/lib", "nothing"] {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
