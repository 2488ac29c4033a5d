//! Taking the trace out of a machine's RAM file.

use partita_host::artifacts::save_trace;
use partita_trace::file::TraceFile;
use partita_trace::layout::{REGION_ALIGN, Region, RegionSpec, Window, WriterKind};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const MIB: u64 = 1 << 20;

/// The bytes of a fresh region with one window.
fn region(writer: WriterKind, window: Option<Window>) -> Vec<u8> {
    let spec =
        RegionSpec { writer, pcpus: 1, ring_slots: 1024, histograms: false, tsc_hz: 1_000_000_000, build_id: [7; 20] };
    let layout = Layout::from_size_align(spec.len(), REGION_ALIGN).unwrap();
    // SAFETY: the layout has a size; `init` gets all of the allocation, which is zeroed and nobody else's; it is
    // read only when nobody writes any more, and freed with the layout it was made with.
    unsafe {
        let memory = alloc_zeroed(layout);
        assert!(!memory.is_null());
        let region = Region::init(memory, layout.size(), &spec).unwrap();
        if let Some(window) = window {
            region.add_window(window).unwrap();
        }
        let bytes = std::slice::from_raw_parts(memory, layout.size()).to_vec();
        dealloc(memory, layout);
        bytes
    }
}

struct Ram {
    _dir: tempfile::TempDir,
    path: PathBuf,
    trace: PathBuf,
}

fn ram(parts: &[(u64, &[u8])]) -> Ram {
    let dir = tempfile::tempdir().unwrap();
    let (path, trace) = (dir.path().join("ram.bin"), dir.path().join("trace.bin"));
    let file = File::create(&path).unwrap();
    file.set_len(64 * MIB).unwrap();
    for (offset, bytes) in parts {
        file.write_all_at(bytes, *offset).unwrap();
    }
    Ram { _dir: dir, path, trace }
}

#[test]
fn the_hypervisors_region_and_its_windows_are_saved() {
    let guest = region(WriterKind::Guest, None);
    let window = Window { partition: 1, gpa: 2 * MIB, hpa: 32 * MIB, len: guest.len() as u64 };
    let own = region(WriterKind::Hypervisor, Some(window));
    let ram = ram(&[(8 * MIB, &own), (32 * MIB, &guest), (48 * MIB, &guest)]);
    let saved = save_trace(&ram.path, &Some, "", &ram.trace).unwrap();
    assert_eq!((saved.regions, saved.notes), (2, vec![]));
    let bytes = std::fs::read(&ram.trace).unwrap();
    let (file, damage) = TraceFile::read(&bytes);
    assert_eq!(damage, []);
    let sections: Vec<_> = file.sections.iter().map(|s| (s.partition, s.hpa, s.data)).collect();
    assert_eq!(sections, [(None, 8 * MIB, &own[..]), (Some(1), 32 * MIB, &guest[..])]);
}

#[test]
fn a_window_outside_the_ram_is_left_out_with_a_note() {
    let window = Window { partition: 1, gpa: 0, hpa: 62 * MIB, len: 100 * MIB };
    let own = region(WriterKind::Hypervisor, Some(window));
    let ram = ram(&[(8 * MIB, &own)]);
    let saved = save_trace(&ram.path, &Some, "", &ram.trace).unwrap();
    assert_eq!(saved.regions, 1);
    assert!(saved.notes[0].contains("window of partition 1"), "{:?}", saved.notes);
}

#[test]
fn a_forged_region_does_not_count() {
    let own = region(WriterKind::Hypervisor, None);
    let ram = ram(&[(8 * MIB, &own), (16 * MIB, &own)]);
    assert_eq!(save_trace(&ram.path, &Some, "", &ram.trace).unwrap().regions, 2);
    assert_eq!(save_trace(&ram.path, &Some, "trace region at 0x800000", &ram.trace).unwrap().regions, 1);
}

#[test]
fn ram_without_a_region_is_no_error() {
    let mut damaged = region(WriterKind::Hypervisor, None);
    damaged[40] ^= 1;
    let ram = ram(&[(8 * MIB, &damaged)]);
    let saved = save_trace(&ram.path, &Some, "", &ram.trace).unwrap();
    assert!(saved.regions == 0 && saved.notes[0].contains("No trace region"), "{saved:?}");
    assert!(!ram.trace.exists());
}
