//! Writing a file of results: all of it or nothing, and a path that cannot be written is found before any work is done.

use serde::Serialize;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A path that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {why}; choose another file with --json", path.display())]
pub struct JsonFileError {
    path: PathBuf,
    why: String,
}

/// A file of results, still to be written.
#[derive(Clone, Debug)]
pub struct JsonFile {
    path: PathBuf,
}

impl JsonFile {
    /// Checks that a file can be written at `path`, and leaves what is there as it is.
    ///
    /// # Errors
    /// It cannot: its directory is not there or not writable, or something is in its place that is no file.
    pub fn at(path: &Path) -> Result<Self, JsonFileError> {
        let file = Self { path: path.to_path_buf() };
        let is_no_file = path.file_name().is_none() || path.metadata().is_ok_and(|found| !found.is_file());
        if is_no_file {
            return Err(file.error("it is not a file"));
        }
        if !file.parent().is_dir() {
            return Err(file.error(format!("{} is no directory", file.parent().display())));
        }
        file.temporary()?;
        Ok(file)
    }

    /// Writes `content`; a reader sees the file as it was before, or all of it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, content: &impl Serialize) -> Result<(), JsonFileError> {
        let mut file = self.temporary()?;
        let text = serde_json::to_string_pretty(content).map_err(|cause| self.error(cause.to_string()))?;
        writeln!(file, "{text}").map_err(|cause| self.error(cause.kind().to_string()))?;
        file.persist(&self.path).map_err(|cause| self.error(cause.error.kind().to_string()))?;
        Ok(())
    }

    fn parent(&self) -> &Path {
        self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// A new file beside it.
    fn temporary(&self) -> Result<NamedTempFile, JsonFileError> {
        // As any other file; the process's umask still counts.
        tempfile::Builder::new()
            .prefix(".bench")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(self.parent())
            .map_err(|cause| self.error(cause.kind().to_string()))
    }

    fn error(&self, why: impl Into<String>) -> JsonFileError {
        JsonFileError { path: self.path.clone(), why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.json");
        std::fs::write(&path, "old").unwrap();
        let file = JsonFile::at(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        file.write(&[1, 2]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[\n  1,\n  2\n]\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_bad_path_is_found_early_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let no_such = dir.path().join("no/such/b.json");
        for (path, expected) in [
            (dir.path(), "it is not a file"),
            // Replacing a device by a file would be a surprise.
            (Path::new("/dev/null"), "it is not a file"),
            (Path::new(""), "it is not a file"),
            (&no_such, "no/such is no directory"),
        ] {
            let error = JsonFile::at(path).unwrap_err().to_string();
            let start = format!("cannot write {}: ", path.display());
            let is_readable = error.starts_with(&start) && error.contains(expected) && error.contains("--json");
            assert!(is_readable && !error.contains(".bench"), "{error}");
        }
    }
}
