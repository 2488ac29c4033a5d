//! How much the hypervisor takes: its image, its code, and the memory that it keeps for itself.

use partita_host::cargo_build;
use partita_host::size::{RAM_MAX, Sections, TEXT_MAX, measure_memory, references_astray, unsafe_lines};

/// Most bytes of the image's PT_LOAD segments, in memory.
const IMAGE_MAX: u64 = 512 << 10;

#[test]
#[ignore = "boots an emulator; ci/test.sh runs it"]
fn the_hypervisor_stays_small() {
    let elf = std::fs::read(cargo_build::hypervisor().unwrap()).unwrap();
    let sections = Sections::read(&elf).unwrap();
    assert!(sections.text_svm <= TEXT_MAX && sections.text_vmx <= TEXT_MAX, "at most {TEXT_MAX} bytes: {sections:?}");
    assert!(sections.text_boot > 0 && sections.image <= IMAGE_MAX, "the image has at most {IMAGE_MAX}: {sections:?}");

    let dir = tempfile::tempdir().unwrap();
    let memory = measure_memory(4, dir.path()).unwrap();
    assert!(memory.per_partition > 0 && memory.ram <= RAM_MAX, "at most {RAM_MAX} bytes: {memory:?}");
}

#[test]
#[ignore = "builds the hypervisor; ci/test.sh runs it"]
fn nothing_calls_code_that_is_unmapped() {
    let elf = std::fs::read(cargo_build::hypervisor().unwrap()).unwrap();
    let astray = references_astray(&elf).unwrap();
    assert!(
        astray.is_empty(),
        "put the users into the targets' section, or the targets out of it (hv/hv.ld): {astray:#?}"
    );
}

#[test]
fn only_mechanism_is_unsafe() {
    for lines in unsafe_lines(&cargo_build::repository().unwrap()).unwrap() {
        let uses = lines.blocks + lines.functions + lines.others;
        assert!((uses == 0) == (lines.unsafe_lines == 0) && lines.unsafe_lines < lines.lines, "{lines:?}");
        let is_pure = matches!(&*lines.folder, "hv/console" | "hv/multiboot2" | "hv/x86-policy");
        assert!(!is_pure || uses == 0, "{lines:?}");
    }
}
