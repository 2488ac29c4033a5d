//! Images, good and bad, as a whole.

use super::test_images::{MULTIBOOT, TestElf, TestSegment, bzimage};
use super::*;
use proptest::prelude::*;

const MEMORY: u64 = 4 << 20;
const MODULES: &[Module<'static>] =
    &[Module { data: &[7; 5000], cmdline: "first" }, Module { data: &[8; 3], cmdline: "second" }];

fn target<'a>(cmdline: &'a str, modules: &'a [Module<'a>]) -> Target<'a> {
    Target { memory: MEMORY, cmdline, modules }
}

fn link(elf: &TestElf, boot: Option<ElfBoot>) -> Result<LinkedImage, ImageError> {
    link_elf(&elf.build(), boot, &target("x=1", &[]))
}

fn refused(change: impl FnOnce(&mut TestElf)) -> ImageError {
    let mut elf = TestElf::default();
    change(&mut elf);
    link(&elf, None).unwrap_err()
}

fn without_note() -> TestElf {
    TestElf { note: None, ..TestElf::default() }
}

fn multiboot() -> TestElf {
    let data = [MULTIBOOT, &[0x90; 16]].concat();
    let segments = vec![TestSegment { paddr: 0x20_0000, memsz: 0x2000, data }];
    TestElf { class: 1, machine: 3, note: None, segments, ..TestElf::default() }
}

#[test]
fn segments_and_entry_are_taken_over() {
    let linked = link(&TestElf::default(), None).unwrap();
    let [text, boot] = &linked.segments[..] else { panic!("{:?}", linked.segments) };
    assert_eq!((boot.gpa, text.gpa, text.mem_len), (guest::HOST_BASE, 0x20_0000, 0x2000));
    assert_eq!(text.data, [0x90; 16]);
    assert_eq!(linked.entry, Entry::Pvh { entry: 0x20_0004, start_info: guest::HOST_BASE as u32 });
}

#[test]
fn an_elf_file_says_how_it_boots() {
    assert!(matches!(link(&TestElf::default(), None).unwrap().entry, Entry::Pvh { .. }));
    let Entry::Long { entry, .. } = link(&without_note(), None).unwrap().entry else { panic!("long mode") };
    assert_eq!(entry, 0x20_0008);
    let Entry::Multiboot { entry, .. } = link(&multiboot(), None).unwrap().entry else { panic!("multiboot") };
    assert_eq!(entry, 0x20_0008);
    // A note is for 32 bits, too.
    let elf32 = TestElf { note: Some(0x20_0004), ..multiboot() };
    assert!(matches!(link(&elf32, None).unwrap().entry, Entry::Pvh { entry: 0x20_0004, .. }));
}

#[test]
fn a_system_file_can_say_it_instead() {
    let boot = |elf: &TestElf, boot| link(elf, Some(boot));
    assert!(matches!(boot(&TestElf::default(), ElfBoot::Plain).unwrap().entry, Entry::Long { .. }));
    assert_eq!(boot(&without_note(), ElfBoot::Pvh), Err(ImageError::NoPvhNote));
    assert_eq!(boot(&without_note(), ElfBoot::Multiboot), Err(ImageError::NoMultibootHeader));
    assert_eq!(boot(&multiboot(), ElfBoot::Plain), Err(ImageError::PlainElf32));
    let elf64 = TestElf { class: 2, machine: 62, ..multiboot() };
    assert!(matches!(boot(&elf64, ElfBoot::Multiboot).unwrap().entry, Entry::Multiboot { .. }));
}

#[test]
fn modules_lie_at_the_top_on_page_boundaries() {
    for elf in [TestElf::default(), without_note(), multiboot()] {
        let linked = link_elf(&elf.build(), None, &target("", MODULES)).unwrap();
        let tops: Vec<_> = linked.segments.iter().filter(|s| s.gpa > 0x30_0000).map(|s| (s.gpa, s.mem_len)).collect();
        assert_eq!(tops, [(MEMORY - 8192, 5000), (MEMORY - 12288, 3)]);
        let large = [Module { data: &[0; 2 << 20], cmdline: "" }];
        let error = link_elf(&elf.build(), None, &target("", &large)).unwrap_err();
        assert_eq!(error, ImageError::ModuleTooLarge { number: 0, len: 2 << 20, room: MEMORY - 0x20_2000 });
    }
}

#[test]
fn unfit_files_are_refused_by_name() {
    assert!(matches!(link_elf(b"#!/bin/sh\n", None, &target("", &[])), Err(ImageError::NotElf(_))));
    assert!(matches!(refused(|elf| elf.machine = 243), ImageError::NotElf(_)));
    assert!(matches!(refused(|elf| elf.class = 1), ImageError::NotElf(_)));
    assert_eq!(refused(|elf| elf.interpreter = true), ImageError::NeedsInterpreter);
    assert_eq!(refused(|elf| elf.segments.clear()), ImageError::NothingToLoad);
    assert_eq!(refused(|elf| elf.note = Some(0x30_0000)), ImageError::EntryOutside { entry: 0x30_0000 });
    // In memory, but not in the file.
    assert_eq!(refused(|elf| elf.note = Some(0x20_0010)), ImageError::EntryOutside { entry: 0x20_0010 });
    assert!(matches!(refused(|elf| elf.segments[0].memsz = 8), ImageError::DamagedElf(_)));
    let many = |elf: &mut TestElf| {
        let segment = |n: u64| TestSegment { paddr: 0x20_0000 + n * 0x100, memsz: 16, data: vec![1] };
        elf.segments = (0..100).map(segment).collect();
    };
    assert_eq!(refused(many), ImageError::TooManySegments { found: 100, max: SEGMENTS_MAX });
}

#[test]
fn segments_that_are_not_in_ram_are_refused() {
    let outside = |start, end| ImageError::SegmentOutside { index: 1, start, end, memory: MEMORY };
    let at = |paddr| refused(|elf| elf.segments[0].paddr = paddr);
    assert_eq!(at(MEMORY), outside(MEMORY, MEMORY + 0x2000));
    assert_eq!(at(MEMORY - 0x1000), outside(MEMORY - 0x1000, MEMORY + 0x1000));
    assert_eq!(at(0xE_1000), outside(0xE_1000, 0xE_3000));
    assert_eq!(at(0x9_F000), outside(0x9_F000, 0xA_1000));
    assert_eq!(at(u64::MAX), outside(u64::MAX, u64::MAX));
    let second = TestSegment { paddr: 0x20_1000, memsz: 0x1000, data: vec![1] };
    let overlap = ImageError::SegmentsOverlap { first: 0x20_0000, second: 0x20_1000 };
    assert_eq!(refused(|elf| elf.segments.push(second)), overlap);
}

#[test]
fn a_cut_file_is_refused() {
    for elf in [TestElf::default(), multiboot()] {
        let bytes = elf.build();
        for len in 0..bytes.len() {
            assert!(link_elf(&bytes[..len], None, &target("", &[])).is_err(), "{len} bytes");
        }
    }
}

#[test]
fn command_lines_that_do_not_fit_are_refused() {
    let long = "x".repeat(guest::HOST_LEN as usize);
    let module = [Module { data: &[1], cmdline: &long }];
    for elf in [TestElf::default(), without_note(), multiboot()] {
        for target in [target(&long, &[]), target("", &module)] {
            let error = link_elf(&elf.build(), None, &target).unwrap_err();
            assert!(matches!(error, ImageError::HostAreaFull { .. }), "{error}");
        }
    }
}

#[test]
fn a_multiboot_image_can_say_where_it_goes() {
    let header = |load_end: u32, bss_end: u32, entry: u32| {
        let flags = 1u32 << 16;
        let words = [0x1BAD_B002, flags, 0x1BAD_B002u32.wrapping_add(flags).wrapping_neg()];
        let addresses = [0x10_0008, 0x10_0000, load_end, bss_end, entry];
        let mut image = vec![0x90; 8];
        image.extend(words.iter().chain(&addresses).flat_map(|word| word.to_le_bytes()));
        image.resize(64, 0xF4);
        link_multiboot(&image, &target("", &[]))
    };
    let linked = header(0x10_0030, 0x10_1000, 0x10_0028).unwrap();
    let [image, _] = &linked.segments[..] else { panic!("{:?}", linked.segments) };
    assert_eq!((image.gpa, image.mem_len, image.data.len()), (0x10_0000, 0x1000, 0x30));
    assert_eq!(header(0, 0, 0x10_0028).unwrap().segments[0].data.len(), 64);
    assert_eq!(header(0, 0, 0x10_0040), Err(ImageError::EntryOutside { entry: 0x10_0040 }));
    assert!(matches!(header(0, 0x10_0020, 0x10_0028), Err(ImageError::MultibootAddresses(_))));
    assert!(matches!(header(0, u32::MAX, 0x10_0028), Err(ImageError::FlatOutside { .. })));
    assert_eq!(
        link_multiboot(&[&[0; 4], MULTIBOOT].concat(), &target("", &[])),
        Err(ImageError::MultibootWithoutAddresses)
    );
    assert_eq!(link_multiboot(b"text", &target("", &[])), Err(ImageError::NoMultibootHeader));
}

/// What linking promises: all in memory, none over the other, and nothing where the hypervisor puts the ACPI tables.
fn assert_sound(linked: &LinkedImage) -> Result<(), TestCaseError> {
    let mut ranges: Vec<_> = linked.segments.iter().map(|segment| (segment.gpa, segment.end())).collect();
    ranges.sort_unstable();
    prop_assert!(linked.segments.iter().all(|s| s.data.len() as u64 <= s.mem_len && s.end() <= MEMORY));
    prop_assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ranges:x?}");
    let acpi = (guest::RSDP, guest::RSDP + guest::ACPI_LEN);
    prop_assert!(ranges.iter().all(|range| range.1 <= acpi.0 || range.0 >= acpi.1), "{ranges:x?}");
    prop_assert!(linked.segments.len() <= SEGMENTS_MAX);
    Ok(())
}

/// Values that are likely to break something.
fn nasty() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        any::<u8>().prop_map(u64::from),
        (0u32..64).prop_map(|shift| 1 << shift),
        (0u32..64).prop_map(|shift| (1u64 << shift).wrapping_neg()),
        (0u64..16).prop_map(|page| 0xA_0000 - 0x8000 + page * 0x1000),
        (0u64..64).prop_map(|page| 0xE_0000 + page * 0x1000),
    ]
}

proptest! {
    #[test]
    fn damaged_files_link_within_memory_or_not_at_all(
        which in 0usize..4,
        flips in proptest::collection::vec((0usize..400, 1usize..9, nasty()), 1..6),
    ) {
        let images = [TestElf::default().build(), without_note().build(), multiboot().build(), bzimage(512)];
        let mut bytes = images[which].clone();
        for (at, len, value) in flips {
            for (place, byte) in bytes.iter_mut().skip(at).zip(&value.to_le_bytes()[..len.min(8)]) {
                *place = *byte;
            }
        }
        let target = target("a", MODULES);
        for boot in [None, Some(ElfBoot::Pvh), Some(ElfBoot::Multiboot), Some(ElfBoot::Plain)] {
            if let Ok(linked) = link_elf(&bytes, boot, &target) {
                assert_sound(&linked)?;
            }
        }
        if let Ok(linked) = link_linux(&bytes, MEMORY, "a", Some(&[0; 100])) {
            assert_sound(&linked)?;
        }
        if let Ok(linked) = link_multiboot(&bytes, &target) {
            assert_sound(&linked)?;
        }
        let _ = payload::flatten(&bytes);
        let _ = payload::to_elf32(&bytes, 0);
    }

    #[test]
    fn flat_images_link_within_memory_or_not_at_all(at in nasty(), entry in nasty(), len in 0usize..5000, mode in 0usize..3) {
        let mode = [FlatMode::Real, FlatMode::Protected, FlatMode::Long][mode];
        if let Ok(linked) = link_flat(&vec![0; len], &FlatPlace { at, entry, mode }, &target("", &[])) {
            assert_sound(&linked)?;
        }
    }

    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(link_elf(&bytes, None, &target("", &[])).is_err());
        prop_assert!(link_multiboot(&bytes, &target("", &[])).is_err());
    }
}
