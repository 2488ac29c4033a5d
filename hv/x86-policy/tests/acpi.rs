//! The guest's ACPI tables, as another parser reads them.

use std::ptr::NonNull;

use acpi::fadt::Fadt;
use acpi::madt::{Madt, MadtEntry};
use acpi::{AcpiHandler, AcpiTables, PhysicalMapping};
use partita_abi::guest;
use partita_x86_policy::acpi::{TABLES_LEN, write_tables};
use partita_x86_policy::apic_view::ApicView;

/// Guest memory from [`guest::RSDP`] on.
#[derive(Clone, Copy)]
struct Memory<'a>(&'a [u8]);

impl AcpiHandler for Memory<'_> {
    unsafe fn map_physical_region<T>(&self, address: usize, size: usize) -> PhysicalMapping<Self, T> {
        let at = address - guest::RSDP as usize;
        let bytes = &self.0[at..at + size];
        let start = NonNull::new(bytes.as_ptr().cast_mut().cast::<T>()).unwrap();
        // SAFETY: the bytes are borrowed for as long as the handler lives, there are `size` of them, and the tables
        // are packed structures, only read through shared references.
        unsafe { PhysicalMapping::new(address, start, size, size, *self) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}

fn tables(ids: &[u32]) -> Vec<u8> {
    let mut area = vec![0xAA; guest::ACPI_LEN as usize];
    write_tables(&mut area, guest::RSDP, &ApicView::new(ids).unwrap()).unwrap();
    area
}

fn madt_cpus(area: &[u8]) -> Vec<(u32, u32, u32)> {
    // SAFETY: `Memory` maps exactly the area that holds the tables.
    let tables = unsafe { AcpiTables::from_rsdp(Memory(area), guest::RSDP as usize) }.unwrap();
    let madt = tables.find_table::<Madt>().unwrap();
    assert!(!madt.get().supports_8259());
    assert_eq!({ madt.get().local_apic_address }, 0xFEE0_0000);
    madt.get()
        .entries()
        .map(|entry| match entry {
            MadtEntry::LocalX2Apic(cpu) => (cpu.processor_uid, cpu.x2apic_id, cpu.flags),
            _ => panic!("an entry that is not type 9"),
        })
        .collect()
}

#[test]
fn the_madt_names_the_vcpus_by_their_physical_ids() {
    assert_eq!(madt_cpus(&tables(&[2, 3])), [(0, 2, 1), (1, 3, 1)]);
    assert_eq!(madt_cpus(&tables(&[0x1234_5678])), [(0, 0x1234_5678, 1)]);
    let ids: Vec<u32> = (100..132).collect();
    let expected: Vec<_> = ids.iter().enumerate().map(|(uid, &id)| (uid as u32, id, 1)).collect();
    assert_eq!(madt_cpus(&tables(&ids)), expected);
}

#[test]
fn the_fadt_is_hardware_reduced_and_finds_the_dsdt() {
    let area = tables(&[2, 3]);
    // SAFETY: `Memory` maps exactly the area that holds the tables.
    let tables = unsafe { AcpiTables::from_rsdp(Memory(&area), guest::RSDP as usize) }.unwrap();
    let fadt = tables.find_table::<Fadt>().unwrap();
    fadt.validate().unwrap();
    let flags = { fadt.flags };
    assert!(flags.system_is_hw_reduced_acpi());
    let dsdt = tables.dsdt().unwrap();
    assert_eq!(dsdt.length, 0, "a header and nothing else");
    let header = dsdt.address - 36 - guest::RSDP as usize;
    assert_eq!(&area[header..header + 4], b"DSDT");
    assert_eq!(area[header..header + 36].iter().fold(0u8, |sum, &b| sum.wrapping_add(b)), 0);
}

#[test]
fn the_rsdp_has_both_checksums() {
    let area = tables(&[2]);
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
    assert_eq!(&area[..8], b"RSD PTR ");
    assert_eq!((sum(&area[..20]), sum(&area[..36])), (0, 0));
    assert_eq!(area[16..20], [0; 4], "no RSDT");
}

#[test]
fn only_the_tables_are_written() {
    let area = tables(&(0..32).collect::<Vec<_>>());
    assert!(area[TABLES_LEN..].iter().all(|&byte| byte == 0xAA));
    let mut short = vec![0; TABLES_LEN - 1];
    let error = write_tables(&mut short, guest::RSDP, &ApicView::new(&[0]).unwrap()).unwrap_err();
    assert_eq!(error.actual, TABLES_LEN - 1);
    assert!(short.iter().all(|&byte| byte == 0));
}
