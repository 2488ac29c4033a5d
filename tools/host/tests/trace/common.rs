//! The directory of a run that never was.

use object::write::{Object, StandardSection, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};
use partita_host::trace::{DecodeOptions, Decoder, Trace};
use partita_trace::file::{Section, TraceFile};
use partita_trace::layout::{REGION_ALIGN, Region, RegionSpec, WriterKind};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::path::Path;

pub(crate) const SYSTEM: &str = "[system]\nname = 's'\n[housekeeping]\npcpu = 0\n\
    [[partition]]\nname = 'rt0'\npcpus = [2, 3]\nmemory = '64 MiB'\nimage = { kind = 'elf', path = 'rt0' }\nexpect = 'finish'\n\
    [[partition]]\nname = 'other'\npcpus = [1]\nmemory = '64 MiB'\nimage = { kind = 'elf', path = 'other' }\nexpect = 'run'\n";

pub(crate) const RUN: &str =
    r#"{"version": 1, "clock": "icount", "emulator": "QEMU", "pcpus": 4, "memory": 268435456}"#;

pub(crate) const HYPERVISOR: RegionSpec = RegionSpec {
    writer: WriterKind::Hypervisor,
    pcpus: 4,
    ring_slots: 256,
    histograms: true,
    tsc_hz: 2_000_000_000,
    build_id: [0xAA; 20],
};

pub(crate) const GUEST: RegionSpec =
    RegionSpec { writer: WriterKind::Guest, pcpus: 2, histograms: false, build_id: [0xBB; 20], ..HYPERVISOR };

/// The bytes of a region that `fill` filled.
pub(crate) fn region(spec: &RegionSpec, fill: impl FnOnce(Region<'_>)) -> Vec<u8> {
    let layout = Layout::from_size_align(spec.len(), REGION_ALIGN).unwrap();
    // SAFETY: the layout has a size; `init` gets all of the allocation, which is zeroed and nobody else's; it is
    // read only when nobody writes any more, and freed with the layout it was made with.
    unsafe {
        let memory = alloc_zeroed(layout);
        assert!(!memory.is_null());
        fill(Region::init(memory, layout.size(), spec).unwrap());
        let bytes = std::slice::from_raw_parts(memory, layout.size()).to_vec();
        dealloc(memory, layout);
        bytes
    }
}

/// The trace file of a hypervisor's region and, perhaps, that of partition 0.
pub(crate) fn file(hypervisor: &[u8], guest: Option<&[u8]>) -> Vec<u8> {
    let mut sections = vec![Section::new(None, 0x40_0000, hypervisor)];
    sections.extend(guest.map(|guest| Section::new(Some(0), 0x1000_0000, guest)));
    TraceFile { sections }.write().unwrap()
}

/// A directory with this trace.
pub(crate) fn run_dir(trace: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("trace.bin"), trace).unwrap();
    std::fs::write(dir.path().join("system.toml"), SYSTEM).unwrap();
    std::fs::write(dir.path().join("run.json"), RUN).unwrap();
    std::fs::create_dir(dir.path().join("elf")).unwrap();
    dir
}

/// What is printed of a trace. The name of the directory is taken out.
pub(crate) fn decoded(dir: &Path, options: &DecodeOptions) -> String {
    let trace = Trace::load(dir).unwrap();
    let mut out = Vec::new();
    Decoder::new(&trace).write(&mut out, options).unwrap();
    String::from_utf8(out).unwrap().replace(&*dir.to_string_lossy(), "DIR")
}

/// An ELF file with a build ID and these format strings for defmt: index, level, text.
pub(crate) fn defmt_elf(build_id: [u8; 20], strings: &[(u64, &str, &str)]) -> Vec<u8> {
    let mut elf = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let note = elf.add_section(Vec::new(), b".note.gnu.build-id".to_vec(), SectionKind::Note);
    let head: Vec<u8> = [4u32, 20, 3].iter().flat_map(|word| word.to_le_bytes()).collect();
    elf.append_section_data(note, &[&head[..], b"GNU\0", &build_id].concat(), 4);
    let text = elf.section_id(StandardSection::Data);
    let defmt = elf.add_section(Vec::new(), b".defmt".to_vec(), SectionKind::ReadOnlyData);
    elf.append_section_data(defmt, &[0; 64], 1);
    let mut symbol = |name: String, value, section| {
        elf.add_symbol(Symbol {
            name: name.into_bytes(),
            value,
            size: 1,
            kind: SymbolKind::Data,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    };
    symbol("_defmt_version_ = 4".into(), 0, text);
    symbol("_defmt_encoding_ = raw".into(), 1, text);
    for (index, level, string) in strings {
        let name = serde_json::json!({
            "package": "payload", "tag": format!("defmt_{level}"), "data": string,
            "disambiguator": index.to_string(), "crate_name": "payload",
        });
        symbol(name.to_string(), *index, defmt);
    }
    elf.write().unwrap()
}
