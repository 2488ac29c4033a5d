//! Shared libraries: what a program's ELF file says it needs, found in the packages.

use super::archive::Archive;
use super::package_root::{self, PackageRoot};
use object::LittleEndian;
use object::elf::{DT_NEEDED, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};

const ENDIAN: LittleEndian = LittleEndian;
/// Where packages keep libraries, and the dynamic linker looks for them by default.
const LIBRARY_DIRS: [&str; 4] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib", "usr/lib"];
/// Where they go: the first place that the dynamic linker looks at.
const LIBRARY_TARGET: &str = "/lib/x86_64-linux-gnu";

/// What an ELF file needs to be started.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    interpreter: Option<String>,
    libraries: Vec<String>,
}

/// Adds what the program `name` with the given bytes needs, and what that needs in turn. Anything but a dynamically
/// linked ELF64 file needs nothing.
pub(super) fn add(archive: &mut Archive, roots: &[PackageRoot], name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let mut pending = vec![(name.to_owned(), needs(bytes))];
    while let Some((user, needs)) = pending.pop() {
        let interpreter = needs.interpreter.map(|path| {
            let places = vec![path.clone(), format!("usr/{}", path.trim_start_matches('/'))];
            (path, places)
        });
        let libraries = needs.libraries.into_iter().map(|library| {
            let places = LIBRARY_DIRS.iter().map(|dir| format!("{dir}/{library}")).collect();
            (format!("{LIBRARY_TARGET}/{library}"), places)
        });
        for (target, places) in interpreter.into_iter().chain(libraries) {
            if archive.has_file(&target) {
                continue;
            }
            let mut found = None;
            for place in &places {
                found = match found {
                    None => package_root::find(roots, place)?,
                    found => found,
                };
            }
            let Some(library) = found else {
                let library = target.rsplit('/').next().unwrap_or_default();
                anyhow::bail!(
                    "{user} needs {library}, which no package has; add the package that has it to \"packages\""
                );
            };
            pending.push((target.clone(), self::needs(&library)));
            archive.add_file(&target, library);
        }
    }
    Ok(())
}

fn needs(elf: &[u8]) -> Needs {
    try_needs(elf).unwrap_or_default()
}

fn try_needs(elf: &[u8]) -> Option<Needs> {
    let header = FileHeader64::<LittleEndian>::parse(elf).ok()?;
    let mut needs = Needs::default();
    for segment in header.program_headers(ENDIAN, elf).ok()?.iter().filter(|s| s.p_type(ENDIAN) == PT_INTERP) {
        let path = segment.interpreter(ENDIAN, elf).ok()??;
        needs.interpreter = Some(String::from_utf8(path.to_vec()).ok()?);
    }
    let table = header.sections(ENDIAN, elf).ok()?.dynamic_table(ENDIAN, elf).ok()?;
    for entry in table.iter().filter(|entry| entry.tag == DT_NEEDED) {
        needs.libraries.push(String::from_utf8(table.string(entry).ok()?.to_vec()).ok()?);
    }
    Some(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_needs_of_a_program_are_read() {
        // This very test is a dynamically linked program.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = needs(&own);
        assert!(needs.libraries.iter().any(|library| library == "libc.so.6"), "{needs:?}");
        assert!(needs.interpreter.unwrap().contains("ld-linux"));
    }

    #[test]
    fn what_is_no_program_needs_nothing() {
        assert_eq!(needs(b"#!/bin/sh\n"), Needs::default());
        assert_eq!(needs(b"\x7FELF\x02\x01\x01"), Needs::default());
    }

    #[test]
    fn a_missing_library_is_named_with_its_user() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = add(&mut Archive::default(), &[], "bin/x", &own).unwrap_err().to_string();
        assert!(error.starts_with("bin/x needs ") && error.contains("add the package"), "{error}");
    }
}
