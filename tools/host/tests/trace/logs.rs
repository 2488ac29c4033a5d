//! Log frames and the ELF files they belong to.

use crate::common::{HYPERVISOR, decoded, defmt_elf, file, region, run_dir};
use partita_host::trace::{DecodeOptions, LogLine, LogTables};
use proptest::prelude::*;

const NAME: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.elf";

fn text(elf: Option<&[u8]>) -> String {
    let bytes = region(&HYPERVISOR, |region| region.ring(0).unwrap().writer().log(1000, &[1, 0, 42, 0]));
    let dir = run_dir(&file(&bytes, None));
    if let Some(elf) = elf {
        std::fs::write(dir.path().join("elf").join(NAME), elf).unwrap();
    }
    decoded(dir.path(), &DecodeOptions::default())
}

#[test]
fn a_log_frame_is_decoded_by_its_own_elf_file() {
    let text = text(Some(&defmt_elf([0xAA; 20], &[(1, "error", "the answer is {=u16}")])));
    assert!(
        text.contains("ERROR the answer is 42  (payload)") || text.contains("error the answer is 42  (payload)"),
        "{text}"
    );
    assert!(!text.contains("raw"), "{text}");
}

#[test]
fn without_its_elf_file_a_log_frame_is_shown_raw() {
    let text = text(None);
    assert!(text.contains("raw 01002a00"), "{text}");
    assert!(text.contains("note: cannot read DIR/elf/aaaa") && text.contains("The trace is whole"), "{text}");
}

#[test]
fn the_strings_of_another_build_are_never_used() {
    let text = text(Some(&defmt_elf([0xCC; 20], &[(1, "error", "the answer is {=u16}")])));
    assert!(text.contains("raw 01002a00") && !text.contains("the answer"), "{text}");
    assert!(text.contains(&format!("has build ID {}", "cc".repeat(20))), "{text}");
}

#[test]
fn a_frame_that_does_not_fit_its_strings_is_shown_raw() {
    for format in ["too short {=u32}", "too long {=u8}", "{=[?]}", "{=str}"] {
        let text = text(Some(&defmt_elf([0xAA; 20], &[(1, "info", format)])));
        assert!(text.contains("(does not fit its strings) raw 01002a00"), "{format}: {text}");
    }
    let broken = text(Some(b"\x7FELF"));
    assert!(broken.contains("raw 01002a00") && broken.contains("no ELF file with a build ID"), "{broken}");
}

fn tables() -> (tempfile::TempDir, LogTables) {
    let dir = tempfile::tempdir().unwrap();
    let formats = [
        (1, "info", "{=[?]:a} {=?} {=str:?}"),
        (2, "info", "{=u64:iso8601ms} {0=3..9} {=bool}"),
        (3, "info", "{=[u8]:#x} {=char} {=f32}"),
        (4, "prim", "{=u8}"),
        (5, "derived", "A|B({=?})|C { x: {=i16} }"),
        (6, "str", "interned"),
        (7, "info", "{=istr} {=__internal_FormatSequence}"),
        (8, "derived", "{=u64:us}"),
    ];
    std::fs::write(dir.path().join(NAME), defmt_elf([0xAA; 20], &formats)).unwrap();
    let tables = LogTables::new(dir.path());
    (dir, tables)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Guests write what they like.
    #[test]
    fn no_log_frame_is_too_wild(frames in prop::collection::vec(
        (1..9u8, prop::collection::vec(prop_oneof![0..9u8, any::<u8>()], 0..60)), 1..20)) {
        let (_dir, mut tables) = tables();
        for (index, arguments) in frames {
            let line = tables.decode(&[0xAA; 20], &[&[index, 0], &arguments[..]].concat());
            prop_assert!(line != LogLine::NoTable, "{:?}", tables.problems());
        }
    }
}
