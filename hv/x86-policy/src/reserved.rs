//! What no partition can be given, whatever a system file says: I/O ports and device memory by which a guest could
//! reach the hypervisor, another partition or the machine as a whole.

use partita_abi::guest::{SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT};
use partita_core::system::{MmioRange, PortRange};

use crate::msr_values::APIC_PAGE;
use crate::vmware::BACKDOOR_PORT;

/// I/O ports, first and last, and what they are for.
const PORTS: &[(u16, u16, &str)] = &[
    (0x00, 0x1F, "the DMA controller, which writes to any memory"),
    (0x20, 0x21, "the interrupt controller, which the hypervisor has masked"),
    (0x60, 0x60, "the keyboard controller, which can reset the machine"),
    (0x61, 0x61, "system control port B, which can let NMIs in"),
    (0x64, 0x64, "the keyboard controller, which can reset the machine"),
    (0x70, 0x71, "the clock and its memory, which are emulated"),
    (0x80, 0x80, "the POST port, which is emulated"),
    (0x81, 0x8F, "the DMA controller, which writes to any memory"),
    (0x92, 0x92, "system control port A, which can reset the machine"),
    (0xA0, 0xA1, "the interrupt controller, which the hypervisor has masked"),
    (0xB2, 0xB3, "system management interrupts, which reach the whole machine"),
    (0xC0, 0xDF, "the DMA controller, which writes to any memory"),
    (0xF4, 0xF4, "the port by which a partition ends, which is emulated"),
    (0x2E8, 0x2EF, "COM4; give it by `console`"),
    (0x2F8, 0x2FF, "COM2; give it by `console`"),
    (0x3E8, 0x3EF, "COM3; give it by `console`"),
    (0x3F8, 0x3FF, "COM1, the hypervisor's console"),
    (0x4D0, 0x4D1, "the interrupt controller, which the hypervisor has masked"),
    (0x4E8, 0x4EF, "COM8; give it by `console`"),
    (0x4F8, 0x4FF, "COM6; give it by `console`"),
    (0x510, 0x51B, "QEMU's firmware configuration, which writes to any memory"),
    (0x5E8, 0x5EF, "COM7; give it by `console`"),
    (0x5F8, 0x5FF, "COM5; give it by `console`"),
    (0x600, 0x67F, "power management of QEMU's q35, which can end the machine"),
    (0xA00, 0xA1B, "QEMU's memory hot-plug, which takes memory from under others"),
    (0xC00, 0xC01, "AMD chipsets' interrupt routing"),
    (0xC50, 0xC52, "AMD chipsets' power management and reset"),
    (0xCC0, 0xCE3, "QEMU's CPU and PCI hot-plug, which takes CPUs from others, and AMD chipsets' power management"),
    (SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT, "power-off by ACPI, which is emulated"),
    (BACKDOOR_PORT, BACKDOOR_PORT, "VMware's back door, which is emulated"),
    (0xCF8, 0xCFF, "PCI configuration and the reset control register, which reach the whole machine"),
];

/// End of the memory that firmware and legacy devices share.
const LOW_END: u64 = 1 << 20;

/// Device memory, first byte and first byte behind, and what it is for.
const MMIO: &[(u64, u64, &str)] = &[
    (0, LOW_END, "the first MiB, which firmware and the start of CPUs use"),
    (0xB000_0000, 0xC000_0000, "PCI configuration of QEMU's q35, by which a device can be made to write to any memory"),
    (0xFEC0_0000, 0xFED0_0000, "I/O APICs, by which a guest could interrupt every pCPU"),
    (0xFED0_0000, 0xFED0_1000, "the HPET, which can be made to write to any memory"),
    (0xFED1_C000, 0xFED2_0000, "Intel chipsets' configuration, which reaches the whole machine"),
    (0xFED8_0000, 0xFEE0_0000, "IOMMUs and AMD chipsets' power management"),
    (APIC_PAGE, APIC_PAGE + 0x10_0000, "the local APICs and the window of message-signalled interrupts"),
];

/// Why no partition can have these I/O ports; `None` if one can.
pub fn port_use(range: PortRange) -> Option<&'static str> {
    let hit = |&&(first, last, _): &&(u16, u16, &str)| range.first <= last && first <= range.last;
    PORTS.iter().find(hit).map(|&(.., use_)| use_)
}

/// Why no partition can have this device memory; `None` if one can. RAM is for the machine's memory map to say.
pub fn mmio_use(range: &MmioRange) -> Option<&'static str> {
    let overlaps = |start: u64, len: u64, from: u64, to: u64| start < to && from < start.saturating_add(len);
    let by_host =
        MMIO.iter().find(|&&(from, to, _)| overlaps(range.hpa, range.bytes, from, to)).map(|&(.., use_)| use_);
    let over_apic = overlaps(range.gpa, range.bytes, APIC_PAGE, APIC_PAGE + 0x1000);
    by_host.or_else(|| over_apic.then_some("seen where the guest's own local APIC would be"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{SERIAL_LEN, serial_base};
    use partita_core::system::SerialPort;

    fn port(first: u16, last: u16) -> Option<&'static str> {
        port_use(PortRange { first, last })
    }

    #[test]
    fn what_reaches_the_machine_is_reserved_to_the_last_port() {
        for &(first, last, use_) in PORTS {
            assert_eq!(port(first, first), Some(use_));
            assert_eq!(port(last, last), Some(use_));
            assert!(port(first.saturating_sub(1), last + 1).is_some());
        }
        assert!(port(0, u16::MAX).is_some() && port(0xF5, 0x2E8).is_some());
        for (first, last) in
            [(0xE9, 0xE9), (0x40, 0x43), (0x501, 0x502), (0x310, 0x317), (0xC000, 0xFFFF), (0xD00, 0xD00)]
        {
            assert_eq!(port(first, last), None, "{first:#x}");
        }
    }

    #[test]
    fn each_serial_port_is_given_as_a_console_only() {
        for console in SerialPort::ALL {
            let first = serial_base(console);
            let use_ = format!("{console}; give it by `console`");
            for number in [first, first + (SERIAL_LEN - 1)] {
                assert_eq!(port(number, number), Some(use_.as_str()));
            }
        }
    }

    #[test]
    fn what_interrupts_anybody_or_writes_anywhere_is_reserved_to_the_last_page() {
        let mmio = |gpa, hpa, bytes| mmio_use(&MmioRange { gpa, hpa, bytes });
        const GPA: u64 = 0xFEA0_0000;
        for &(from, to, use_) in MMIO {
            assert_eq!(mmio(GPA, from, 0x1000), Some(use_));
            assert_eq!(mmio(GPA, to - 0x1000, 0x1000), Some(use_));
            assert!(mmio(GPA, from.saturating_sub(0x1000), to - from + 0x2000).is_some());
        }
        assert_eq!(mmio(GPA, GPA, 0x10_0000), None);
        assert_eq!(mmio(GPA, 0xFED0_1000, 0x1000), None);
        assert!(mmio(APIC_PAGE, GPA, 0x1000).is_some(), "seen where the local APIC would be");
        assert!(mmio(APIC_PAGE - 0x1000, GPA, 0x2000).is_some());
        assert!(mmio(GPA, 0x1000, u64::MAX).is_some(), "a length that wraps around");
    }
}
