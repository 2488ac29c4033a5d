//! What is said of images, good and bad, before anything runs.

use super::*;
use crate::image::test_images::{MULTIBOOT, TestElf, TestSegment, bzimage};

/// Writes `files` beside a system of these partitions, given as the lines of their tables from line 8 on.
fn system(dir: &Path, partitions: &[&str], files: &[(&str, Vec<u8>)]) -> SystemFile {
    for (name, bytes) in files {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    let mut text = String::from("[system]\nname = 's'\n");
    for (index, more) in partitions.iter().enumerate() {
        let pcpu = index + 1;
        text +=
            &format!("[[partition]]\nname = 'p{index}'\npcpus = [{pcpu}]\nmemory = '2 MiB'\nexpect = 'run'\n{more}\n");
    }
    SystemFile::parse(&text, &dir.join("s.toml")).unwrap()
}

fn check_one(more: &str, files: &[(&str, Vec<u8>)]) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    check(&system(dir.path(), &[more], files)).map_err(|error| error.to_string())
}

fn script() -> (&'static str, Vec<u8>) {
    ("text", b"#!/bin/sh\n".to_vec())
}

fn elf(paddr: u64, memsz: u64) -> TestElf {
    let segment = TestSegment { paddr, memsz, data: vec![0x90; 16] };
    TestElf { note: Some(paddr as u32), segments: vec![segment], ..TestElf::default() }
}

#[test]
fn good_images_pass() {
    let at_1_mib = elf(0x10_0000, 0x1000).build();
    for image in [
        "image = { kind = 'payload', name = 'latency' }",
        "image = { kind = 'elf', path = 'elf' }",
        "image = { kind = 'elf', path = 'elf', modules = [{ path = 'text' }] }",
        "image = { kind = 'flat', path = 'text', at = '0x7c00', mode = 'real' }",
        "image = { kind = 'linux', package = 'x', initrd = 'text' }",
    ] {
        assert_eq!(check_one(image, &[script(), ("elf", at_1_mib.clone())]), Ok(Vec::new()), "{image}");
    }
}

#[test]
fn bad_images_are_named_with_a_cure() {
    let multiboot = |change: usize| {
        let mut bytes = [MULTIBOOT, &[0x90; 16]].concat();
        bytes[change] ^= 4;
        bytes
    };
    let two = |second: u64| {
        let mut elf = elf(0x10_0000, 0x2000);
        elf.segments.push(TestSegment { paddr: second, memsz: 0x1000, data: vec![1] });
        elf.build()
    };
    let mut cut = elf(0x10_0000, 0x1000).build();
    cut.truncate(cut.len() - 4);
    let mut risc_v = elf(0x10_0000, 0x1000);
    risc_v.machine = 243;
    let mut program = elf(0x10_0000, 0x1000);
    program.interpreter = true;
    let mut short_line = bzimage(4096);
    short_line[0x238..0x23C].copy_from_slice(&3u32.to_le_bytes());
    let large = vec![0; 2 << 20];
    let long = "cmdline = 'abcd'\n";
    let file = "image = { kind = 'elf', path = 'f' }";
    let linux = "image = { kind = 'linux', kernel = 'f' }";
    for (more, bytes, expected) in [
        ("image = { kind = 'payload', name = 'late' }", vec![], "no payload is called \"late\"; there are "),
        ("image = { kind = 'elf', path = 'no.elf' }", vec![], "cannot read the image"),
        (file, script().1, "not an ELF64 file for x86-64 or an ELF32 file for i386"),
        (file, risc_v.build(), "machine 243"),
        (file, program.build(), "a program for an operating system"),
        (file, cut, "the ELF file is damaged: segment 1 lies outside the file; build it again"),
        (file, two(0x10_1000), "the segments at 0x100000 and 0x101000 overlap; check the image's linker script"),
        (file, two(u64::MAX), "segment 2 (0xffffffffffffffff..0xffffffffffffffff) is not in the partition's RAM"),
        (file, two(0xE_8000), "segment 2 (0xe8000..0xe9000) is not in the partition's RAM"),
        (file, two(0x9_F800), "segment 2 (0x9f800..0xa0800) is not in the partition's RAM"),
        (file, elf(0x10_0000, 2 << 20).build(), "give the partition more memory or link the image elsewhere"),
        (
            file,
            TestElf { note: Some(0x18_0000), ..elf(0x10_0000, 32) }.build(),
            "the entry point 0x180000 is not among",
        ),
        ("image = { kind = 'multiboot', path = 'f' }", vec![0; 9000], "no multiboot header (0x1badb002"),
        ("image = { kind = 'multiboot', path = 'f' }", multiboot(8), "offset 0x0 has a wrong checksum"),
        (
            "image = { kind = 'multiboot', path = 'f' }",
            MULTIBOOT.to_vec(),
            "no ELF file, and whose header has no addresses",
        ),
        (
            "image = { kind = 'flat', path = 'f', at = '1 MiB', mode = 'long' }",
            large.clone(),
            "is not in the partition's RAM",
        ),
        ("image = { kind = 'flat', path = 'f', at = '1 MiB', mode = 'long' }", vec![], "the image is empty"),
        (
            "image = { kind = 'linux', package = 'x', initrd = 'f' }",
            large,
            "2097152 bytes, 1048576 are free for it; raise",
        ),
        (linux, script().1, "not a Linux bzImage"),
        (linux, bzimage(4096), "raise its memory"),
        (&format!("{long}{linux}"), short_line, "the command line has 4 bytes, this image takes at most 3; shorten it"),
        ("image = { kind = 'linux', kernel = 'f', initrd = 'no' }", vec![], "cannot read the initial RAM disk"),
        (
            "image = { kind = 'linux', package = 'x', initramfs = { init = 'no' } }",
            vec![],
            "cannot read the init program",
        ),
        ("image = { kind = 'elf', path = 'f', modules = [{ path = 'no' }] }", vec![], "cannot read the module"),
    ] {
        let error = check_one(more, &[("f", bytes)]).unwrap_err();
        let place = if more.starts_with("cmdline") { "s.toml:9:9: " } else { "s.toml:8:9: " };
        assert!(error.contains(expected), "{more}: {expected:?} is not in {error}");
        assert!(error.contains(&format!("{place}partition[0].image: ")), "{error}");
    }
}

#[test]
fn a_system_starts_without_what_is_not_required() {
    let dir = tempfile::tempdir().unwrap();
    let bad = "image = { kind = 'elf', path = 'text' }\nrequired = false";
    let good = "image = { kind = 'elf', path = 'elf' }";
    let files = [script(), ("elf", elf(0x10_0000, 0x1000).build())];
    let system = system(dir.path(), &[bad, good], &files);
    let warnings = check(&system).unwrap();
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("s.toml:8:9: partition[0].image: ") && warning.contains("not an ELF64 file"), "{warning}");
    assert!(warning.ends_with("; the system starts without partition \"p0\""), "{warning}");
    let assembled = assemble(&system).unwrap();
    assert_eq!(assembled.warnings, warnings);
    assert!(assembled.images[0].is_missing() && assembled.images[0].segments.is_empty());
    assert!(!assembled.images[1].is_missing());
    assert_eq!(assembled.elves, [dir.path().join("elf")]);
}

#[test]
fn a_bad_image_of_a_required_partition_is_an_error_beside_others() {
    let dir = tempfile::tempdir().unwrap();
    let required = "image = { kind = 'elf', path = 'text' }";
    let other = "image = { kind = 'elf', path = 'no' }\nrequired = false";
    let system = system(dir.path(), &[required, other], &[script()]);
    for error in [check(&system).unwrap_err(), assemble(&system).unwrap_err()] {
        let error = error.to_string();
        assert!(error.contains("partition[0].image: ") && !error.contains("partition[1]"), "{error}");
    }
}

#[test]
fn something_has_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let bad = "image = { kind = 'elf', path = 'text' }\nrequired = false";
    let system = system(dir.path(), &[bad, bad], &[script()]);
    for error in [check(&system).unwrap_err(), assemble(&system).unwrap_err()] {
        let error = error.to_string();
        assert_eq!(error.lines().count(), 3, "{error}");
        assert!(error.contains("partition[1].image: ") && error.contains("there is nothing to start"), "{error}");
    }
}
