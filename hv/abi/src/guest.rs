//! The guest-physical places that the bundle's builder and the hypervisor fill in for a partition.
//!
//! A partition's memory starts at guest-physical 0. The 128 KiB below 1 MiB, where a PC keeps its firmware,
//! belong to Partita: the host tool puts what it can compute there (PVH start info, Linux's boot parameters,
//! first page tables, command line), the hypervisor adds the ACPI tables, because only it knows the APIC IDs.

/// Start of the area that Partita fills in, guest-physical.
pub const FIRMWARE_BASE: u64 = 0xE_0000;
/// Length of that area in bytes.
pub const FIRMWARE_LEN: u64 = 0x2_0000;

/// Where the hypervisor puts the RSDP. The tables it points to follow.
pub const RSDP: u64 = FIRMWARE_BASE;
/// Bytes that the hypervisor may fill from [`RSDP`] on.
pub const ACPI_LEN: u64 = 0x4000;

/// Where the host tool may put what it computes, up to the end of the firmware area.
pub const HOST_BASE: u64 = FIRMWARE_BASE + ACPI_LEN;
/// Bytes that the host tool may fill from [`HOST_BASE`] on.
pub const HOST_LEN: u64 = RESET_VECTOR - HOST_BASE;

/// Where a PC's firmware begins: a guest that resets the PC by a jump there resets its partition. The hypervisor puts
/// [`RESET_CODE`] there.
pub const RESET_VECTOR: u64 = FIRMWARE_BASE + FIRMWARE_LEN - 16;
/// Real-mode code: `mov al, RESET_VALUE; mov dx, RESET_PORT; out dx, al; hlt`, and a jump back to the HLT.
pub const RESET_CODE: [u8; 9] =
    [0xB0, RESET_VALUE, 0xBA, RESET_PORT as u8, (RESET_PORT >> 8) as u8, 0xEE, 0xF4, 0xEB, 0xFD];

/// Largest memory of one partition: it lies below the APIC page and the PCI hole.
pub const MEMORY_MAX: u64 = 3 << 30;
/// Smallest memory of one partition, and the granule of its size and of its host-physical address.
pub const MEMORY_GRANULE: u64 = 2 << 20;

/// I/O port of the sleep control register that the FADT names: a byte with [`SLEEP_ENABLE`] and the sleep type
/// [`SLEEP_TYPE_OFF`] powers the partition off (ACPI 6.5, section 4.8.3.7).
pub const SLEEP_CONTROL_PORT: u16 = 0x4004;
/// I/O port of the sleep status register that the FADT names. It reads 0.
pub const SLEEP_STATUS_PORT: u16 = 0x4005;
/// Bit of the sleep control register that starts what the sleep type says.
pub const SLEEP_ENABLE: u8 = 1 << 5;
/// Where the sleep type, of three bits, lies in the sleep control register.
pub const SLEEP_TYPE_SHIFT: u32 = 2;
/// Sleep type of power-off, as `\_S5` in the DSDT says.
pub const SLEEP_TYPE_OFF: u8 = 5;

/// I/O port of the reset register that the FADT names: a PC's reset control register.
pub const RESET_PORT: u16 = 0xCF9;
/// What the FADT says is to be written there.
pub const RESET_VALUE: u8 = 6;
/// Bit of the reset control register that resets.
pub const RESET_NOW: u8 = 1 << 2;
