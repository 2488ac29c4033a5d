//! The ACPI tables of a guest: RSDP, XSDT, FADT (hardware-reduced), DSDT, and a MADT that names the partition's vCPUs by
//! their x2APIC IDs (ACPI 6.5, chapter 5).
//!
//! They say how to power off and to reset, and where the partition's serial port is, which has no interrupt. Nothing else is
//! described: no I/O APIC, no timer, no other device. A guest has its local APIC and its TSC.

use partita_abi::guest::{RESET_PORT, RESET_VALUE, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT, SLEEP_TYPE_OFF};
use partita_core::system::SerialPort;

use crate::aml::Aml;
use crate::apic_view::{ApicView, VCPUS_MAX};
use crate::msr_values::APIC_PAGE;
use crate::ports::{SERIAL_LEN, serial_base};

// Where the tables lie from the RSDP on, each on 64 bytes.
const RSDP: usize = 0;
const RSDP_LEN: usize = 36;
const RSDP_V1_LEN: usize = 20;
const XSDT: usize = 0x40;
const XSDT_LEN: usize = HEADER_LEN + 2 * 8;
const FADT: usize = 0x80;
const FADT_LEN: usize = 276;
const DSDT: usize = 0x1C0;
const DSDT_LEN_MAX: usize = MADT - DSDT;
const MADT: usize = 0x280;
const MADT_FIXED_LEN: usize = HEADER_LEN + 8;
const X2APIC_ENTRY: u8 = 9;
const X2APIC_ENTRY_LEN: usize = 16;
const HEADER_LEN: usize = 36;

/// Bytes that the tables take at most.
pub const TABLES_LEN: usize = MADT + MADT_FIXED_LEN + VCPUS_MAX * X2APIC_ENTRY_LEN;
const _: () = assert!(TABLES_LEN as u64 <= partita_abi::guest::ACPI_LEN);
const _: () = assert!(FADT + FADT_LEN <= DSDT && XSDT + XSDT_LEN <= FADT && HEADER_LEN <= DSDT_LEN_MAX);

const OEM_ID: &[u8; 6] = b"PARTIT";
const OEM_TABLE_ID: &[u8; 8] = b"PARTITA ";
const CREATOR_ID: &[u8; 4] = b"PRTA";

// FADT.
const FADT_DSDT: usize = 40;
const FADT_PROFILE: usize = 45;
const FADT_BOOT_ARCH: usize = 109;
const FADT_FLAGS: usize = 112;
const FADT_RESET_REG: usize = 116;
const FADT_RESET_VALUE: usize = 128;
const FADT_X_DSDT: usize = 140;
const FADT_SLEEP_CONTROL_REG: usize = 244;
const FADT_SLEEP_STATUS_REG: usize = 256;
const FADT_HYPERVISOR: usize = 268;
const PROFILE_ENTERPRISE_SERVER: u8 = 4;
/// No VGA to probe; no 8042 and no legacy devices either, whose bits stay 0. The CMOS clock is there.
const BOOT_ARCH_NO_VGA: u16 = 1 << 2;
/// WBINVD works; there is a reset register; no fixed ACPI hardware.
const FLAGS: u32 = 1 << 0 | 1 << 10 | 1 << 20;

/// A PC's serial port, compatible with the 16550A.
const PNP_16550A: u16 = 0x0501;

/// The area for the tables is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// Bytes there.
    pub actual: usize,
}

impl core::fmt::Display for TooSmall {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} bytes for a guest's ACPI tables, which take {TABLES_LEN}; enlarge the area", self.actual)
    }
}

impl core::error::Error for TooSmall {}

/// Builds the tables for the vCPUs of `view` and the serial port `console` at the start of `area`, which the guest sees at
/// the guest-physical address `gpa` (the RSDP's). The rest of `area` is left alone.
///
/// # Errors
/// `area` is shorter than [`TABLES_LEN`].
pub fn write_tables(area: &mut [u8], gpa: u64, view: &ApicView, console: Option<SerialPort>) -> Result<(), TooSmall> {
    let actual = area.len();
    let mut tables = Tables(area.first_chunk_mut().ok_or(TooSmall { actual })?);
    tables.0.fill(0);
    let at = |table: usize| gpa.wrapping_add(table as u64).to_le_bytes();

    let body = tables.0.get_mut(DSDT + HEADER_LEN..MADT).and_then(|area| describe_devices(area, console));
    // The longest of the few bodies there are fits, as a test shows.
    tables.header(DSDT, b"DSDT", 2, HEADER_LEN + body.unwrap_or(0));

    tables.put(FADT + FADT_DSDT, &(gpa.wrapping_add(DSDT as u64) as u32).to_le_bytes());
    tables.put(FADT + FADT_PROFILE, &[PROFILE_ENTERPRISE_SERVER]);
    tables.put(FADT + FADT_BOOT_ARCH, &BOOT_ARCH_NO_VGA.to_le_bytes());
    tables.put(FADT + FADT_FLAGS, &FLAGS.to_le_bytes());
    tables.put(FADT + FADT_RESET_REG, &byte_port(RESET_PORT));
    tables.put(FADT + FADT_RESET_VALUE, &[RESET_VALUE]);
    tables.put(FADT + FADT_X_DSDT, &at(DSDT));
    tables.put(FADT + FADT_SLEEP_CONTROL_REG, &byte_port(SLEEP_CONTROL_PORT));
    tables.put(FADT + FADT_SLEEP_STATUS_REG, &byte_port(SLEEP_STATUS_PORT));
    tables.put(FADT + FADT_HYPERVISOR, OEM_TABLE_ID);
    tables.header(FADT, b"FACP", 6, FADT_LEN);

    tables.put(MADT + HEADER_LEN, &(APIC_PAGE as u32).to_le_bytes());
    let mut entry = MADT + MADT_FIXED_LEN;
    for (uid, &id) in view.ids().iter().enumerate() {
        const ENABLED: u32 = 1;
        tables.put(entry, &[X2APIC_ENTRY, X2APIC_ENTRY_LEN as u8]);
        tables.put(entry + 4, &id.to_le_bytes());
        tables.put(entry + 8, &ENABLED.to_le_bytes());
        tables.put(entry + 12, &(uid as u32).to_le_bytes());
        entry += X2APIC_ENTRY_LEN;
    }
    tables.header(MADT, b"APIC", 5, entry - MADT);

    tables.put(XSDT + HEADER_LEN, &at(FADT));
    tables.put(XSDT + HEADER_LEN + 8, &at(MADT));
    tables.header(XSDT, b"XSDT", 1, XSDT_LEN);

    tables.put(RSDP, b"RSD PTR ");
    tables.put(RSDP + 9, OEM_ID);
    tables.put(RSDP + 15, &[2]);
    tables.put(RSDP + 20, &(RSDP_LEN as u32).to_le_bytes());
    tables.put(RSDP + 24, &at(XSDT));
    tables.sum(RSDP, RSDP_V1_LEN, RSDP + 8);
    tables.sum(RSDP, RSDP_LEN, RSDP + 32);
    Ok(())
}

/// The body of the DSDT: how to power off, and the serial port. Its length, or `None` if it does not fit.
fn describe_devices(area: &mut [u8], console: Option<SerialPort>) -> Option<usize> {
    let mut aml = Aml::new(area);
    aml.name(*b"_S5_", |aml| aml.package([SLEEP_TYPE_OFF, SLEEP_TYPE_OFF, 0, 0]));
    if let Some(port) = console {
        let number = port.number();
        let name = [b'C', b'O', b'M', b'0' + number];
        aml.scope(*b"_SB_", |aml| {
            aml.device(name, |aml| {
                aml.name(*b"_HID", |aml| aml.pnp_id(PNP_16550A));
                aml.name(*b"_UID", |aml| aml.byte(number));
                aml.name(*b"_DDN", |aml| aml.string(&name));
                // No interrupt, for there is nothing that could bring one: Linux then polls the port by a timer.
                aml.name(*b"_CRS", |aml| aml.io_ports(serial_base(port), SERIAL_LEN as u8));
            });
        });
    }
    aml.finish()
}

/// A register of one byte at an I/O port, as a Generic Address Structure (ACPI 6.5, section 5.2.3.2).
fn byte_port(port: u16) -> [u8; 12] {
    const SYSTEM_IO: u8 = 1;
    const BITS: u8 = 8;
    const BYTE_ACCESS: u8 = 1;
    let [low, high] = port.to_le_bytes();
    [SYSTEM_IO, BITS, 0, BYTE_ACCESS, low, high, 0, 0, 0, 0, 0, 0]
}

/// All offsets are constants, or bounded by the vCPUs of a view: none lies outside.
struct Tables<'a>(&'a mut [u8; TABLES_LEN]);

impl Tables<'_> {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.0.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }

    /// Writes a table's header, once its body is there.
    fn header(&mut self, table: usize, signature: &[u8; 4], revision: u8, len: usize) {
        self.put(table, signature);
        self.put(table + 4, &(len as u32).to_le_bytes());
        self.put(table + 8, &[revision]);
        self.put(table + 10, OEM_ID);
        self.put(table + 16, OEM_TABLE_ID);
        self.put(table + 24, &1u32.to_le_bytes());
        self.put(table + 28, CREATOR_ID);
        self.put(table + 32, &1u32.to_le_bytes());
        self.sum(table, len, table + 9);
    }

    /// Makes the bytes of a table add up to 0 by the one at `at`, which is 0 yet.
    fn sum(&mut self, table: usize, len: usize, at: usize) {
        let sum = self.0.iter().skip(table).take(len).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        self.put(at, &[sum.wrapping_neg()]);
    }
}
