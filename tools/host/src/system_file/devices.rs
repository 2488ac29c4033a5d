//! What a system file says of the devices that a partition owns: I/O ports, device memory, test devices of the emulator.

use super::convert::Converter;
use super::raw::{RawMmio, RawPartition, RawPorts, RawTestDevice};
use partita_core::system::{MMIO_RANGES_MAX, MmioRange, PORT_RANGES_MAX, PortRange};
use partita_x86_policy::reserved;

/// A device of the emulator, for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestDevice {
    /// What is written to its two ports ends the emulator.
    IsaDebugExit,
    /// What is written to its port goes into a file.
    DebugCon,
    /// A PCI device with device memory, made for practice. It can do no harm: its DMA needs the bus-master bit, which the
    /// firmware leaves off, and no partition can be given PCI configuration.
    Edu,
}

impl TestDevice {
    /// The I/O ports of [`Self::IsaDebugExit`]: not QEMU's default, where the hypervisor may have one of its own.
    pub const DEBUG_EXIT_PORTS: PortRange = PortRange { first: 0x501, last: 0x502 };
    /// The I/O port of [`Self::DebugCon`], which is QEMU's default.
    pub const DEBUGCON_PORTS: PortRange = PortRange { first: 0xE9, last: 0xE9 };
    /// The device memory of [`Self::Edu`], its BAR 0, seen by the guest where it is. SeaBIOS chooses the address: it packs
    /// memory BARs below the I/O APICs at 0xFEC0_0000, larger ones first and aligned to their size, and the only other one
    /// is that of q35's SATA controller, 4 KiB. It does not depend on the machine's RAM or CPUs.
    pub const EDU_MEMORY: MmioRange = MmioRange { gpa: 0xFEA0_0000, hpa: 0xFEA0_0000, bytes: 1 << 20 };

    /// Its I/O ports, if it has some.
    pub const fn ports(self) -> Option<PortRange> {
        match self {
            Self::IsaDebugExit => Some(Self::DEBUG_EXIT_PORTS),
            Self::DebugCon => Some(Self::DEBUGCON_PORTS),
            Self::Edu => None,
        }
    }

    /// Its device memory, if it has some.
    pub const fn memory(self) -> Option<MmioRange> {
        match self {
            Self::Edu => Some(Self::EDU_MEMORY),
            Self::IsaDebugExit | Self::DebugCon => None,
        }
    }
}

impl Converter<'_> {
    /// The partition's I/O ports, those of its test devices included.
    pub(super) fn io_ports(&mut self, raw: &RawPartition) -> heapless::Vec<PortRange, PORT_RANGES_MAX> {
        let mut ranges = heapless::Vec::new();
        let devices = raw.devices.iter();
        let devices = devices.filter_map(|device| Some((device.span(), test_device(*device.get_ref()).ports()?)));
        let written = raw.io_ports.iter().map(|ports| (ports.span(), range_of(ports.get_ref())));
        for (span, range) in written.chain(devices) {
            if let Some(use_) = reserved::port_use(range) {
                self.add(span.clone(), format!("I/O ports {range}: {use_}; leave them out"));
            }
            if ranges.push(range).is_err() {
                self.add(span, format!("more than {PORT_RANGES_MAX} ranges of I/O ports; leave some out"));
                break;
            }
        }
        ranges
    }

    /// The partition's device memory: what is written, and that of its test devices of which nothing is written.
    pub(super) fn mmio(&mut self, raw: &RawPartition) -> heapless::Vec<MmioRange, MMIO_RANGES_MAX> {
        let mut ranges = heapless::Vec::new();
        let written = raw.mmio.iter().map(|entry| (entry.span(), mmio_of(entry.get_ref())));
        let devices = raw.devices.iter();
        let devices = devices.filter_map(|device| Some((device.span(), test_device(*device.get_ref()).memory()?)));
        let is_written = |memory: &MmioRange| raw.mmio.iter().any(|entry| overlap(&mmio_of(entry.get_ref()), memory));
        for (span, range) in written.chain(devices.filter(|(_, memory)| !is_written(memory))) {
            if let Some(use_) = reserved::mmio_use(&range) {
                self.add(span.clone(), format!("device memory at {:#x}: {use_}; leave it out", range.hpa));
            }
            if ranges.push(range).is_err() {
                self.add(span, format!("more than {MMIO_RANGES_MAX} ranges of device memory; leave some out"));
                break;
            }
        }
        ranges
    }
}

/// The test devices of a partition.
pub(super) fn test_devices(raw: &RawPartition) -> Vec<TestDevice> {
    raw.devices.iter().map(|device| test_device(*device.get_ref())).collect()
}

const fn test_device(raw: RawTestDevice) -> TestDevice {
    match raw {
        RawTestDevice::IsaDebugExit => TestDevice::IsaDebugExit,
        RawTestDevice::DebugCon => TestDevice::DebugCon,
        RawTestDevice::Edu => TestDevice::Edu,
    }
}

const fn range_of(raw: &RawPorts) -> PortRange {
    PortRange { first: raw.first, last: raw.last }
}

fn mmio_of(raw: &RawMmio) -> MmioRange {
    MmioRange { gpa: raw.gpa.unwrap_or(raw.hpa).0, hpa: raw.hpa.0, bytes: raw.size.0 }
}

/// Whether both are, in part, the same memory of the machine.
const fn overlap(a: &MmioRange, b: &MmioRange) -> bool {
    a.hpa < b.hpa.saturating_add(b.bytes) && b.hpa < a.hpa.saturating_add(a.bytes)
}
