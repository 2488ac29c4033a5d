//! Images in system files: kinds, their keys, and reports.

use super::*;
use crate::image::{ElfBoot, FlatMode, FlatPlace};

/// A system of one partition with this image, from column 9 of line 7 on.
fn parse(image: &str) -> Result<SystemFile, String> {
    let text = format!(
        "[system]\nname = 's'\n[[partition]]\nname = 'p'\npcpus = [1]\nmemory = '4 MiB'\nimage = {image}\nexpect = 'run'\n"
    );
    SystemFile::parse(&text, Path::new("dir/s.toml")).map_err(|error| error.to_string())
}

fn image(text: &str) -> ImageSource {
    let [image] = &parse(text).unwrap().images[..] else { panic!("one image") };
    image.clone()
}

#[test]
fn elf_files_boot_by_what_they_have_unless_told_otherwise() {
    let elf = |boot| ImageSource::Elf { path: "dir/k".into(), boot, modules: Vec::new() };
    assert_eq!(image("{ kind = 'elf', path = 'k' }"), elf(None));
    for (name, boot) in [("pvh", ElfBoot::Pvh), ("multiboot", ElfBoot::Multiboot), ("plain", ElfBoot::Plain)] {
        assert_eq!(image(&format!("{{ kind = 'elf', path = 'k', boot = '{name}' }}")), elf(Some(boot)));
    }
}

#[test]
fn modules_have_files_and_command_lines() {
    let modules = "[{ path = 'a', cmdline = 'x y' }, { path = '/b' }]";
    let expected = [("dir/a", "x y"), ("/b", "")]
        .map(|(path, cmdline)| ModuleSource { path: path.into(), cmdline: cmdline.into() })
        .to_vec();
    let multiboot = image(&format!("{{ kind = 'multiboot', path = 'k', modules = {modules} }}"));
    assert_eq!(multiboot, ImageSource::Multiboot { path: "dir/k".into(), modules: expected.clone() });
    let payload = image(&format!("{{ kind = 'payload', name = 'n', boot = 'multiboot', modules = {modules} }}"));
    let boot = PayloadBoot::Elf(ElfBoot::Multiboot);
    assert_eq!(payload, ImageSource::Payload { name: "n".into(), boot, modules: expected });
}

#[test]
fn flat_images_have_a_place_and_a_mode() {
    let place = |at, entry, mode| ImageSource::Flat { path: "dir/f".into(), place: FlatPlace { at, entry, mode } };
    assert_eq!(
        image("{ kind = 'flat', path = 'f', at = '0x7c00', mode = 'real' }"),
        place(0x7C00, 0x7C00, FlatMode::Real)
    );
    assert_eq!(
        image("{ kind = 'flat', path = 'f', at = '1 MiB', entry = 0x100010, mode = 'protected' }"),
        place(1 << 20, 0x10_0010, FlatMode::Protected)
    );
    let flat =
        |mode, at| ImageSource::Payload { name: "n".into(), boot: PayloadBoot::Flat { mode, at }, modules: Vec::new() };
    assert_eq!(image("{ kind = 'payload', name = 'n', boot = 'long' }"), flat(FlatMode::Long, None));
    assert_eq!(image("{ kind = 'payload', name = 'n', boot = 'real', at = 4096 }"), flat(FlatMode::Real, Some(4096)));
}

#[test]
fn what_does_not_belong_to_a_kind_is_refused() {
    for (text, expected) in [
        (
            "{ kind = 'elf', path = 'k', mode = 'real' }",
            "kind \"elf\" has no key \"mode\"; it takes path, boot, modules",
        ),
        ("{ kind = 'elf', path = 'k', boot = 'real' }", "an ELF file does not boot so; write \"pvh\""),
        ("{ kind = 'elf', path = 'k', boot = 'efi' }", "unknown variant `efi`"),
        ("{ kind = 'multiboot' }", "an image of kind \"multiboot\" needs its file: add path"),
        ("{ kind = 'multiboot', path = 'k', boot = 'pvh' }", "has no key \"boot\""),
        (
            "{ kind = 'flat', path = 'f', mode = 'real' }",
            "needs the address that it is loaded at, and its mode: add at",
        ),
        ("{ kind = 'flat', path = 'f', at = 0 }", "add at = \"0x...\" and mode = "),
        ("{ kind = 'flat', path = 'f', at = 0, mode = 'virtual' }", "unknown variant `virtual`"),
        ("{ kind = 'flat', path = 'f', at = 0, mode = 'real', modules = [{ path = 'm' }] }", "no key \"modules\""),
        ("{ kind = 'payload', name = 'n', at = 0 }", "only a flat image is loaded where \"at\" says; remove it"),
        (
            "{ kind = 'payload', name = 'n', boot = 'long', modules = [{ path = 'm' }] }",
            "a flat image takes no modules; remove them",
        ),
        ("{ kind = 'elf', path = 'k', modules = [{ file = 'm' }] }", "unknown field `file`"),
        ("{ kind = 'elf', path = 'k', modules = [{ path = 'm', cmdline = \"a\\u0000\" }] }", "NUL"),
        ("{ kind = 'linux', kernel = 'k', path = 'k' }", "kind \"linux\" has no key \"path\""),
        ("{ kind = 'linux', package = 'x/Suite' }", "a package's name, or NAME/SUITE"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(expected) && error.starts_with("dir/s.toml:7:"), "{text}: {error}");
    }
}

#[test]
fn a_report_names_partitions() {
    let with = |report: &str| {
        let text = "[system]\nname = 's'\n[[partition]]\nname = 'p'\npcpus = [1]\nmemory = '4 MiB'\nexpect = 'run'\n\
                    image = { kind = 'elf', path = 'k' }\n";
        let parsed = SystemFile::parse(&format!("{text}[report]\n{report}"), Path::new("s.toml"));
        parsed.map(|file| file.report).map_err(|error| error.to_string())
    };
    assert_eq!(with("cyclictest = 'p'"), Ok(Some(CyclictestReport { partition: 0, beside: None })));
    assert_eq!(with("cyclictest = 'p'\nbeside = 'p'"), Ok(Some(CyclictestReport { partition: 0, beside: Some(0) })));
    let error = with("cyclictest = 'q'").unwrap_err();
    assert!(
        error.contains("s.toml:10:14: ") && error.contains("there is no partition \"q\"; name one of p"),
        "{error}"
    );
    assert!(with("beside = 'p'").unwrap_err().contains("missing field `cyclictest`"));
    assert_eq!(parse("{ kind = 'elf', path = 'k' }").unwrap().report, None);
}
