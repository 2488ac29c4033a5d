//! The system to run: the bundle's description, validated against the rules and the machine, and the division of the
//! machine's memory by it.

use heapless::Vec;
use partita_abi::bundle::Bundle;
use partita_core::memory::{self, Division, Owner, Range, Request, Wanted};
use partita_core::rules::{self, MachineFacts, Segment};
use partita_core::system::{PARTITIONS_MAX, SystemConfig};
use spin::Once;

use crate::error::Refusal;
use crate::machine::{self, Machine};
use crate::memory::pool::PAGE;
use crate::{budget, console, println};
use partita_x86_bare::boot_info::{BootInfo, MEMORY_RANGES_MAX, MemoryRange, Module};
use partita_x86_policy::ports::serial_base;
use partita_x86_policy::reserved;

/// End of what the boot page tables map.
const BOOT_MAPPED_END: u64 = 4 << 30;
/// End of the memory that the firmware and the start-up page use.
const LOW_MEMORY: u64 = 1 << 20;

/// A system that has been checked, and where everything of it goes.
#[derive(Debug)]
pub struct System {
    /// Its description.
    pub config: &'static SystemConfig,
    /// Where it was read from.
    pub module: Module,
    /// The bundle.
    pub bundle: Bundle<'static>,
    /// Who gets which memory.
    pub division: Division,
}

/// Reads and checks the boot bundle, and divides the memory.
///
/// # Errors
/// What is wrong with the bundle or the system.
///
/// # Safety
/// The boot page tables must be in use, and the loader's description of the module be true.
pub unsafe fn read(boot: &BootInfo, machine: &Machine) -> Result<System, Refusal> {
    let module = boot.module.ok_or(Refusal::NoBundle)?;
    let end = module.start.saturating_add(module.len);
    if end > BOOT_MAPPED_END {
        return Err(Refusal::BundleTooHigh { end });
    }
    // SAFETY: by the contract above.
    let module = unsafe { out_of_low_memory(boot, module) }?;
    // SAFETY: the module is the loader's, mapped one to one, and nobody writes to it from now on.
    let bytes = unsafe { core::slice::from_raw_parts(module.start as *const u8, module.len as usize) };
    let bundle = Bundle::parse(bytes)?;
    let config = keep(bundle.config())?;
    check(config, &bundle, machine)?;
    check_devices(config, boot)?;
    let division = divide(config, boot, module, machine)?;
    Ok(System { config, module, bundle, division })
}

/// Moves the module if it lies in low memory, where GRUB puts a small one on UEFI machines: the start-up page goes there.
///
/// # Safety
/// As for [`read`]. Nothing that the loader left in free memory but the module may be in use.
unsafe fn out_of_low_memory(boot: &BootInfo, module: Module) -> Result<Module, Refusal> {
    let range = Range::at(module.start, module.len);
    let low = Range::at(0, LOW_MEMORY);
    if !range.overlaps(&low) {
        return Ok(module);
    }
    let usable: Vec<Range, MEMORY_RANGES_MAX> = boot.memory.iter().map(|r| Range::at(r.start, r.len)).collect();
    let mut taken: Vec<Range, { MEMORY_RANGES_MAX + 3 }> =
        boot.reserved.iter().map(|r| Range::at(r.start, r.len)).collect();
    taken
        .extend_from_slice(&[low, machine::image(), range])
        .map_err(|_| Refusal::TooLarge("ranges of reserved memory"))?;
    let room = memory::highest_room(&usable, &taken, module.len, PAGE as u64, BOOT_MAPPED_END);
    let room = room.ok_or(Refusal::BundleTooLow { end: range.end })?;
    // SAFETY: the room is RAM that nobody uses, mapped one to one, and does not overlap the module.
    unsafe { core::ptr::copy_nonoverlapping(module.start as *const u8, room.start as *mut u8, module.len as usize) };
    Ok(Module { start: room.start, len: module.len })
}

/// Largest description: the stack holds two while it is decoded, and has 56 KiB.
const CONFIG_MAX: usize = 8 << 10;
const _: () = assert!(size_of::<SystemConfig>() <= CONFIG_MAX);

/// Decodes the description to where it stays: it has several KiB, too many for a stack that hands it on by value.
#[inline(never)]
fn keep(encoded: &[u8]) -> Result<&'static SystemConfig, Refusal> {
    static CONFIG: Once<SystemConfig> = Once::new();
    CONFIG.try_call_once(|| Ok(partita_core::encode::decode(encoded)?))
}

fn check(config: &SystemConfig, bundle: &Bundle<'static>, machine: &Machine) -> Result<(), Refusal> {
    let segments =
        bundle.sections().skip(1).map(|s| Segment { partition: s.partition, gpa: s.gpa, mem_len: s.mem_len });
    let facts = MachineFacts { pcpus: machine.pcpus() };
    let report = |violation: rules::Violation<'_>| println!("partita: {}: {violation}", violation.rule());
    let violations = rules::check(config, segments, Some(&facts), report);
    if violations > 0 { Err(Refusal::Rules { violations }) } else { Ok(()) }
}

/// What the rules do not know: what this architecture reserves, and where this machine has RAM.
fn check_devices(config: &SystemConfig, boot: &BootInfo) -> Result<(), Refusal> {
    for (number, partition) in config.partitions.iter().enumerate() {
        let refused = |what, first, why| Err(Refusal::Reserved { partition: number, what, first, why });
        let serial = console::serial();
        let console = partition.console.map(serial_base);
        let is_taken = |(first, last)| serial.overlaps(first, last);
        let owned = partition.io_ports.iter().map(|ports| (ports.first, ports.last));
        if console == Some(serial.base) || owned.into_iter().any(is_taken) {
            return Err(Refusal::ConsoleTaken { partition: number, serial });
        }
        for ports in &partition.io_ports {
            if let Some(why) = reserved::port_use(*ports) {
                return refused("I/O ports", ports.first.into(), why);
            }
        }
        for mmio in &partition.mmio {
            if let Some(why) = reserved::mmio_use(mmio) {
                return refused("device memory", mmio.hpa, why);
            }
            let device = Range::at(mmio.hpa, mmio.bytes);
            let is_among = |ranges: &[MemoryRange]| ranges.iter().any(|r| device.overlaps(&Range::at(r.start, r.len)));
            if is_among(&boot.memory) {
                return refused("device memory", mmio.hpa, "RAM");
            }
            if is_among(&boot.reserved) {
                return refused("device memory", mmio.hpa, "the firmware's, as the loader's memory map says");
            }
        }
    }
    Ok(())
}

fn divide(config: &SystemConfig, boot: &BootInfo, module: Module, machine: &Machine) -> Result<Division, Refusal> {
    let usable: Vec<Range, MEMORY_RANGES_MAX> = boot.memory.iter().map(|r| Range::at(r.start, r.len)).collect();
    let module_start = module.start & !(PAGE as u64 - 1);
    let module_end = (module.start + module.len).next_multiple_of(PAGE as u64);
    let mut reserved: Vec<(Owner, Range), { MEMORY_RANGES_MAX + 3 }> =
        boot.reserved.iter().map(|r| (Owner::Firmware, Range::at(r.start, r.len))).collect();
    let own = [
        (Owner::Firmware, Range::at(0, LOW_MEMORY)),
        (Owner::Hypervisor, machine::image()),
        (Owner::Bundle, Range::at(module_start, module_end - module_start)),
    ];
    reserved.extend_from_slice(&own).map_err(|_| Refusal::TooLarge("ranges of reserved memory"))?;
    let wanted: Vec<Wanted, PARTITIONS_MAX> =
        config.partitions.iter().map(|p| Wanted { bytes: p.memory_bytes, at: p.memory_at }).collect();
    let request = Request {
        usable: &usable,
        reserved: &reserved,
        pool_bytes: budget::pool_bytes(config, machine.pcpus(), module.len),
        pool_end: BOOT_MAPPED_END,
        partitions: &wanted,
    };
    Ok(memory::divide(&request)?)
}
