//! Devices, ends and requirements of partitions in system files.

use super::*;
use partita_core::system::{MmioRange, OnReboot, PortRange};

/// Two partitions; `first` is in the table of the first, from line 9 on.
fn parse(first: &str, second: &str) -> Result<SystemFile, String> {
    let partition = |name: &str, pcpu: u32, more: &str| {
        format!(
            "[[partition]]\nname = '{name}'\npcpus = [{pcpu}]\nmemory = '4 MiB'\nexpect = 'finish'\n\
             image = {{ kind = 'elf', path = 'k' }}\n{more}\n"
        )
    };
    let text = format!("[system]\nname = 's'\n{}{}", partition("p", 1, first), partition("q", 2, second));
    SystemFile::parse(&text, Path::new("s.toml")).map_err(|error| error.to_string())
}

fn refused(first: &str, second: &str, expected: &str) {
    let error = parse(first, second).unwrap_err();
    assert!(error.contains(expected), "{first} {second}: {expected:?} is not in {error}");
}

#[test]
fn a_partition_has_no_devices_unless_it_is_given_some() {
    let file = parse("", "").unwrap();
    let [p, q] = &file.config.partitions[..] else { panic!("two partitions") };
    assert!(p.io_ports.is_empty() && p.mmio.is_empty() && q.io_ports.is_empty());
    assert_eq!(file.test_devices, [vec![], vec![]]);
}

#[test]
fn ports_are_ranges_or_single_ones() {
    let file = parse("io_ports = ['0x300-0x307', '0X310', '1024 - 1025']", "").unwrap();
    let ranges = [(0x300, 0x307), (0x310, 0x310), (1024, 1025)].map(|(first, last)| PortRange { first, last });
    assert_eq!(file.config.partitions[0].io_ports[..], ranges);
    for bad in ["0x300-", "-5", "65536", "0x10000", "x", "", "1-2-3"] {
        refused(
            &format!("io_ports = ['{bad}']"),
            "",
            "is not a range of I/O ports; write \"0x300-0x307\" or \"0x310\"",
        );
    }
    refused("io_ports = ['0x307-0x300']", "", "port-range-backward: ");
    refused("io_ports = ['0x300-0x307']", "io_ports = ['0x307']", "partition[1].io_ports[0]: port-owned-twice: ");
    let many: Vec<String> = (0..17).map(|port| format!("'{}'", 0x300 + port)).collect();
    refused(&format!("io_ports = [{}]", many.join(", ")), "", "more than 16 ranges of I/O ports; leave some out");
}

#[test]
fn ports_of_the_hypervisor_are_not_to_be_had() {
    for port in ["0x3f8", "0xf4", "0x2f8", "0xcf8-0xcff"] {
        let error = parse(&format!("io_ports = ['{port}']"), "").unwrap_err();
        assert!(error.contains("I/O ports 0x") && error.contains("leave them out"), "{port}: {error}");
        assert!(error.starts_with("s.toml:9:13: partition[0].io_ports[0]: "), "{error}");
    }
}

#[test]
fn device_memory_is_seen_where_it_is_unless_told_otherwise() {
    let text =
        "mmio = [{ hpa = '0xfea00000', size = '4 KiB' }, { gpa = '0x80000000', hpa = '0xfea01000', size = 8192 }]";
    let file = parse(text, "").unwrap();
    let ranges = [(0xFEA0_0000, 0xFEA0_0000, 4096), (0x8000_0000, 0xFEA0_1000, 8192)]
        .map(|(gpa, hpa, bytes)| MmioRange { gpa, hpa, bytes });
    assert_eq!(file.config.partitions[0].mmio[..], ranges);
    refused("mmio = [{ hpa = '0xfea00008', size = '4 KiB' }]", "", "partition[0].mmio[0]: mmio-misaligned: ");
    refused("mmio = [{ gpa = '0x1000', hpa = '0xfea00000', size = '4 KiB' }]", "", "mmio-out-of-range: ");
    let device = "mmio = [{ hpa = '0xfea00000', size = '4 KiB' }]";
    refused(device, device, "partition[1].mmio[0]: mmio-owned-twice: ");
    refused("mmio = [{ size = '4 KiB' }]", "", "missing field `hpa`");
}

#[test]
fn device_memory_that_writes_anywhere_is_not_to_be_had() {
    for (page, name) in [
        ("0xfed00000", "the HPET, which can be made to write to any memory"),
        ("0xb0000000", "PCI configuration of QEMU's q35"),
        ("0xbffff000", "PCI configuration of QEMU's q35"),
        ("0xfee00000", "the local APICs"),
    ] {
        let error = parse(&format!("mmio = [{{ hpa = '{page}', size = '4 KiB' }}]"), "").unwrap_err();
        let expected = format!("s.toml:9:9: partition[0].mmio[0]: device memory at {page}: {name}");
        assert!(error.starts_with(&expected) && error.contains("; leave it out"), "{error}");
    }
}

#[test]
fn test_devices_bring_their_ports() {
    let file = parse("devices = ['debugcon', 'isa-debug-exit']", "").unwrap();
    assert_eq!(file.test_devices, [vec![TestDevice::DebugCon, TestDevice::IsaDebugExit], vec![]]);
    let [p, q] = &file.config.partitions[..] else { panic!("two partitions") };
    assert_eq!(p.io_ports[..], [TestDevice::DEBUGCON_PORTS, TestDevice::DEBUG_EXIT_PORTS]);
    assert!(p.mmio.is_empty() && q.mmio.is_empty());
    refused("devices = ['debugcon']", "devices = ['debugcon']", "port-owned-twice: ");
    refused("devices = ['x']", "", "unknown variant `x`, expected one of `isa-debug-exit`, `debugcon`, `edu`");
}

#[test]
fn a_test_device_brings_its_memory_unless_the_file_says_where_the_guest_sees_it() {
    let mmio = |text: &str| parse(text, "").unwrap().config.partitions[0].mmio.clone();
    let file = parse("devices = ['edu']", "").unwrap();
    let [p, q] = &file.config.partitions[..] else { panic!("two partitions") };
    assert_eq!((&p.mmio[..], &q.mmio[..]), (&[TestDevice::EDU_MEMORY][..], &[][..]));
    assert!(p.io_ports.is_empty());
    let elsewhere = "devices = ['edu']\nmmio = [{ gpa = '0x80000000', hpa = '0xfeaff000', size = '4 KiB' }]";
    assert_eq!(mmio(elsewhere)[..], [MmioRange { gpa: 0x8000_0000, hpa: 0xFEAF_F000, bytes: 4096 }]);
    for beside in [0xFE9F_F000_u64, 0xFEB0_0000] {
        let text = format!("devices = ['edu']\nmmio = [{{ hpa = '{beside:#x}', size = '4 KiB' }}]");
        assert_eq!(mmio(&text)[..], [MmioRange { gpa: beside, hpa: beside, bytes: 4096 }, TestDevice::EDU_MEMORY]);
    }
    refused("devices = ['edu']", "devices = ['edu']", "s.toml:16:12: partition[1].devices[0]: mmio-owned-twice: ");
    refused("devices = ['edu']", "mmio = [{ hpa = '0xfea01000', size = '4 KiB' }]", "mmio-owned-twice: ");
    refused("devices = ['edu', 'edu']", "", "mmio-overlap: ");
}

#[test]
fn ends_and_requirements_have_defaults() {
    let file = parse("on_reboot = 'end'\nrequired = false", "").unwrap();
    let [p, q] = &file.config.partitions[..] else { panic!("two partitions") };
    assert_eq!((p.on_reboot, p.is_required), (OnReboot::End, false));
    assert_eq!((q.on_reboot, q.is_required), (OnReboot::Restart, true));
    refused("on_reboot = 'stop'", "", "unknown variant `stop`, expected `restart` or `end`");
    refused("required = 'no'", "", "expected a boolean");
}

#[test]
fn nobody_waits_for_a_partition_that_may_do_anything() {
    let text = |expect: &str| {
        format!(
            "[system]\nname = 's'\n[[partition]]\nname = 'p'\npcpus = [1]\nmemory = '4 MiB'\nexpect = '{expect}'\n\
             image = {{ kind = 'elf', path = 'k' }}\n"
        )
    };
    let parse = |expect| SystemFile::parse(&text(expect), Path::new("s.toml")).unwrap();
    assert_eq!(parse("anything").config.partitions[0].expect, Expectation::Anything);
    assert!(parse("anything").is_open_ended());
    assert!(!parse("finish").is_open_ended());
}
