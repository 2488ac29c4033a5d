//! What the machine has: CPUs, PM timer and the console's interrupt from ACPI.

use core::pin::Pin;
use core::ptr::NonNull;

use acpi::fadt::Fadt;
use acpi::madt::{Madt, MadtEntry};
use acpi::{AcpiError, AcpiHandler, AcpiTables, PhysicalMapping};
use heapless::Vec;

/// Most CPUs that are listed.
pub const CPUS_MAX: usize = 256;

/// What ACPI tells.
#[derive(Debug)]
pub struct Platform {
    /// x2APIC IDs of the usable CPUs; the boot CPU first, the others in the order of the MADT. The index is the
    /// number of the pCPU, or vCPU.
    pub apic_ids: Vec<u32, CPUS_MAX>,
    /// I/O port of the PM timer.
    pub pm_timer_port: u16,
    /// The interrupt line of the console, if it leads to an I/O APIC.
    pub console_line: Option<InterruptLine>,
}

/// An input of an I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptLine {
    /// Physical address of the I/O APIC's registers.
    pub io_apic: u64,
    /// Number of the input.
    pub input: u32,
    /// Whether it is level-triggered.
    pub is_level: bool,
    /// Whether it is active low.
    pub is_low: bool,
}

/// Why the tables are of no use.
#[derive(Debug)]
pub enum PlatformError {
    /// The loader passed no RSDP.
    NoRsdp,
    /// A table is missing or broken.
    Table {
        /// Its signature.
        table: &'static str,
        /// What the parser says.
        error: AcpiError,
    },
    /// More than [`CPUS_MAX`] CPUs.
    TooManyCpus,
    /// No PM timer in I/O space.
    NoPmTimer,
    /// The tables do not list the CPU that this program booted on.
    BootCpuMissing {
        /// Its x2APIC ID.
        apic_id: u32,
    },
}

impl core::fmt::Display for PlatformError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoRsdp => write!(f, "the loader passed no ACPI RSDP; boot with one that does, for instance by PVH"),
            Self::Table { table, error } => write!(f, "ACPI table {table}: {error:?}"),
            Self::TooManyCpus => write!(f, "more than {CPUS_MAX} CPUs; this build can use no more"),
            Self::NoPmTimer => write!(f, "ACPI names no PM timer in I/O space, by which the clocks are measured"),
            Self::BootCpuMissing { apic_id } => {
                write!(f, "the CPU that booted (x2APIC ID {apic_id}) is not in ACPI's MADT")
            }
        }
    }
}

/// Physical memory below 4 GiB is mapped one to one while discovery runs.
#[derive(Clone)]
struct IdentityMapped;

impl AcpiHandler for IdentityMapped {
    unsafe fn map_physical_region<T>(&self, address: usize, size: usize) -> PhysicalMapping<Self, T> {
        let pointer = NonNull::new(address as *mut T).unwrap_or(NonNull::dangling());
        // SAFETY: the boot page tables map the low 4 GiB one to one, where firmware keeps its tables.
        unsafe { PhysicalMapping::new(address, pointer, size, size, self.clone()) }
    }

    fn unmap_physical_region<T>(_region: &PhysicalMapping<Self, T>) {}
}

const ENABLED: u32 = 1;

/// Reads the tables. `boot_apic_id` is the ID of the CPU that executes this, `console_irq` the console's interrupt on the ISA
/// bus.
///
/// # Errors
/// What is missing or broken.
///
/// # Safety
/// `rsdp` must be 0 or the address of the firmware's RSDP, and the low 4 GiB be mapped one to one.
pub unsafe fn discover(rsdp: u64, boot_apic_id: u32, console_irq: Option<u8>) -> Result<Platform, PlatformError> {
    // SAFETY: by the contract above.
    let tables = unsafe { tables(rsdp) }?;
    Ok(Platform {
        apic_ids: apic_ids(&tables, boot_apic_id)?,
        pm_timer_port: pm_timer_port(&tables)?,
        console_line: console_irq.map_or(Ok(None), |irq| isa_line(&tables, irq))?,
    })
}

/// As [`discover`], but for the CPUs alone: [`Platform::apic_ids`]. A partition has no PM timer.
///
/// # Errors
/// What is missing or broken.
///
/// # Safety
/// As for [`discover`].
pub unsafe fn discover_cpus(rsdp: u64, boot_apic_id: u32) -> Result<Vec<u32, CPUS_MAX>, PlatformError> {
    // SAFETY: by the contract above.
    let tables = unsafe { tables(rsdp) }?;
    apic_ids(&tables, boot_apic_id)
}

type Tables = AcpiTables<IdentityMapped>;

fn broken(table: &'static str) -> impl Fn(AcpiError) -> PlatformError {
    move |error| PlatformError::Table { table, error }
}

/// Finds the tables.
///
/// # Safety
/// As for [`discover`].
unsafe fn tables(rsdp: u64) -> Result<Tables, PlatformError> {
    if rsdp == 0 {
        return Err(PlatformError::NoRsdp);
    }
    // SAFETY: by the contract above.
    unsafe { AcpiTables::from_rsdp(IdentityMapped, rsdp as usize) }.map_err(broken("RSDP"))
}

fn apic_ids(tables: &Tables, boot_apic_id: u32) -> Result<Vec<u32, CPUS_MAX>, PlatformError> {
    let madt = tables.find_table::<Madt>().map_err(broken("APIC"))?;
    // SAFETY: the mapping is not moved out of, and stays for as long as the pin.
    let madt: Pin<&Madt> = unsafe { Pin::new_unchecked(madt.virtual_start().as_ref()) };
    let mut apic_ids: Vec<u32, CPUS_MAX> = Vec::new();
    apic_ids.push(boot_apic_id).map_err(|_| PlatformError::TooManyCpus)?;
    let mut boot_cpu_listed = false;
    for entry in madt.entries() {
        let (id, flags) = match entry {
            MadtEntry::LocalApic(cpu) => (cpu.apic_id as u32, cpu.flags),
            MadtEntry::LocalX2Apic(cpu) => (cpu.x2apic_id, cpu.flags),
            _ => continue,
        };
        boot_cpu_listed |= id == boot_apic_id;
        if flags & ENABLED != 0 && !apic_ids.contains(&id) {
            apic_ids.push(id).map_err(|_| PlatformError::TooManyCpus)?;
        }
    }
    if !boot_cpu_listed {
        return Err(PlatformError::BootCpuMissing { apic_id: boot_apic_id });
    }
    Ok(apic_ids)
}

/// Where an interrupt of the ISA bus arrives: at the global interrupt of its number, edge-triggered and active high,
/// unless the MADT says otherwise (ACPI section 5.2.12.5), of the I/O APIC whose inputs begin next below.
fn isa_line(tables: &Tables, irq: u8) -> Result<Option<InterruptLine>, PlatformError> {
    const ACTIVE_LOW: u16 = 0b11;
    const LEVEL: u16 = 0b11 << 2;
    let madt = tables.find_table::<Madt>().map_err(broken("APIC"))?;
    // SAFETY: the mapping is not moved out of, and stays for as long as the pin.
    let madt: Pin<&Madt> = unsafe { Pin::new_unchecked(madt.virtual_start().as_ref()) };
    let (mut global, mut flags) = (u32::from(irq), 0);
    for entry in madt.entries() {
        match entry {
            MadtEntry::InterruptSourceOverride(entry) if entry.bus == 0 && entry.irq == irq => {
                (global, flags) = (entry.global_system_interrupt, entry.flags);
            }
            _ => {}
        }
    }
    let mut line: Option<InterruptLine> = None;
    for entry in madt.entries() {
        let MadtEntry::IoApic(entry) = entry else { continue };
        let Some(input) = global.checked_sub(entry.global_system_interrupt_base) else { continue };
        if line.is_none_or(|line| input < line.input) {
            let (is_level, is_low) = (flags & LEVEL == LEVEL, flags & ACTIVE_LOW == ACTIVE_LOW);
            line = Some(InterruptLine { io_apic: entry.io_apic_address.into(), input, is_level, is_low });
        }
    }
    Ok(line)
}

fn pm_timer_port(tables: &Tables) -> Result<u16, PlatformError> {
    let fadt = tables.find_table::<Fadt>().map_err(broken("FACP"))?;
    let timer = fadt.pm_timer_block().map_err(broken("FACP"))?.ok_or(PlatformError::NoPmTimer)?;
    let in_io_space = timer.address_space == acpi::address::AddressSpace::SystemIo;
    u16::try_from(timer.address).ok().filter(|_| in_io_space).ok_or(PlatformError::NoPmTimer)
}
