//! The guest's ACPI tables, as another parser, or the test itself, reads them.

use std::ptr::NonNull;

use acpi::fadt::Fadt;
use acpi::madt::{Madt, MadtEntry};
use acpi::{AcpiHandler, AcpiTables, PhysicalMapping};
use partita_abi::guest;
use partita_core::system::SerialPort;
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
    tables_with(ids, Some(SerialPort::Com2))
}

fn tables_with(ids: &[u32], console: Option<SerialPort>) -> Vec<u8> {
    let mut area = vec![0xAA; guest::ACPI_LEN as usize];
    write_tables(&mut area, guest::RSDP, &ApicView::new(ids).unwrap(), console).unwrap();
    area
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The table that `pointer`, a guest-physical address, leads to, cut by its own length, and whole by its checksum.
fn table_at(area: &[u8], pointer: u64) -> &[u8] {
    let at = (pointer - guest::RSDP) as usize;
    let table = &area[at..at + u32_at(area, at + 4) as usize];
    assert_eq!(sum(table), 0);
    table
}

/// A table by its signature, found from the RSDP on.
fn table<'a>(area: &'a [u8], signature: &[u8; 4]) -> &'a [u8] {
    let pointer = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let xsdt = table_at(area, pointer(area, 24));
    if signature == b"DSDT" {
        return table_at(area, pointer(table(area, b"FACP"), 140));
    }
    let mut tables = xsdt[36..].chunks(8).map(|entry| table_at(area, pointer(entry, 0)));
    tables.find(|table| &table[..4] == signature).unwrap()
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
    let header = dsdt.address - 36 - guest::RSDP as usize;
    assert_eq!(&area[header..header + 4], b"DSDT");
    assert!(flags.supports_system_reset_via_fadt());
    let reset = fadt.reset_register().unwrap();
    assert_eq!((reset.address, reset.bit_width, reset.bit_offset), (0xCF9, 8, 0));
    let facp = table(&area, b"FACP");
    assert_eq!(facp[128], 6, "the value that resets");
    // Generic addresses: I/O space, 8 bits from bit 0, accessed by bytes.
    for (at, port) in [(116, 0xCF9), (244, 0x4004), (256, 0x4005)] {
        assert_eq!((&facp[at..at + 4], u32_at(facp, at + 4), u32_at(facp, at + 8)), (&[1, 8, 0, 1][..], port, 0));
    }
}

#[test]
fn the_dsdt_tells_how_to_power_off_and_where_the_console_is() {
    let off = b"\x08_S5_\x12\x49\x00\x04\x0A\x05\x0A\x05\x00\x00";
    let none = tables_with(&[1], None);
    assert_eq!(&table(&none, b"DSDT")[36..], off);
    for (console, name, [low, high]) in [
        (SerialPort::Com2, b"COM2", [0xF8, 0x02]),
        (SerialPort::Com3, b"COM3", [0xE8, 0x03]),
        (SerialPort::Com4, b"COM4", [0xE8, 0x02]),
        (SerialPort::Com5, b"COM5", [0xF8, 0x05]),
        (SerialPort::Com8, b"COM8", [0xE8, 0x04]),
    ] {
        let area = tables_with(&(0..32).collect::<Vec<_>>(), Some(console));
        let body = &table(&area, b"DSDT")[36..];
        assert_eq!(&body[..off.len()], off);
        let mut device = name.to_vec();
        device.extend(b"\x08_HID\x0C\x41\xD0\x05\x01");
        device.extend([b"\x08_UID\x0A", &name[3..]].concat());
        *device.last_mut().unwrap() -= b'0';
        device.extend([b"\x08_DDN\x0D", &name[..], b"\0"].concat());
        device.extend(b"\x08_CRS\x11\x4E\x00\x0A\x0A\x47\x01");
        device.extend([low, high, low, high, 1, 8, 0x79, 0]);
        let sized = |len: usize| [0x40 | (len & 0xF) as u8, (len >> 4) as u8];
        let mut expected = b"\x10".to_vec();
        expected.extend(sized(2 + 5 + 2 + 2 + device.len()));
        expected.extend(b"\\_SB_\x5B\x82");
        expected.extend(sized(2 + device.len()));
        expected.extend(device);
        assert_eq!(&body[off.len()..], expected);
    }
}

#[test]
fn the_rsdp_has_both_checksums() {
    let area = tables(&[2]);
    assert_eq!(&area[..8], b"RSD PTR ");
    assert_eq!((sum(&area[..20]), sum(&area[..36])), (0, 0));
    assert_eq!(area[16..20], [0; 4], "no RSDT");
}

#[test]
fn only_the_tables_are_written() {
    let area = tables(&(0..32).collect::<Vec<_>>());
    assert!(area[TABLES_LEN..].iter().all(|&byte| byte == 0xAA));
    let mut short = vec![0; TABLES_LEN - 1];
    let error = write_tables(&mut short, guest::RSDP, &ApicView::new(&[0]).unwrap(), None).unwrap_err();
    assert_eq!(error.actual, TABLES_LEN - 1);
    assert!(short.iter().all(|&byte| byte == 0));
}
