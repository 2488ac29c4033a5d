//! The I/O port policy and its permission map.

use partita_abi::guest;
use partita_core::system::{Identity, PortRange, SerialPort};
use partita_x86_policy::ports::{
    IOPM_LEN, IoAccess, PortDecision, PortPolicy, iopm_intercepts, quick_out, serial_base,
};
use proptest::prelude::*;

/// The consoles that a partition can have.
fn consoles() -> impl Strategy<Value = Option<SerialPort>> {
    proptest::option::of(proptest::sample::select(&SerialPort::ALL))
}

fn out(port: u16, size: u8) -> IoAccess {
    IoAccess { port, size, input: false, string: false, rep: false }
}

fn input(port: u16, size: u8) -> IoAccess {
    IoAccess { input: true, ..out(port, size) }
}

fn map(policy: PortPolicy) -> Box<[u8; IOPM_LEN]> {
    let mut map = Box::new([0; IOPM_LEN]);
    policy.fill_iopm(&[], &mut map);
    map
}

#[test]
fn ports_do_what_the_table_says() {
    let linux = PortPolicy::new(Some(SerialPort::Com2), Identity::Linux);
    for (access, decision) in [
        (out(0xF4, 1), PortDecision::Finish),
        (out(0xF4, 4), PortDecision::Finish),
        (input(0xF4, 1), PortDecision::Refuse),
        (out(0x70, 1), PortDecision::CmosSelect),
        (input(0x71, 1), PortDecision::CmosRead),
        (out(0x71, 1), PortDecision::Quiet),
        (input(0x70, 1), PortDecision::Quiet),
        (out(0x70, 2), PortDecision::Refuse),
        (out(0x80, 1), PortDecision::Quiet),
        (out(0xCF8, 4), PortDecision::Quiet),
        (input(0xCFC, 4), PortDecision::Quiet),
        (input(0xCFF, 1), PortDecision::Quiet),
        (input(0x5658, 4), PortDecision::Vmware),
        (out(0x5658, 4), PortDecision::Refuse),
        (out(0xB2, 1), PortDecision::Refuse),
        (out(0x3F8, 1), PortDecision::Refuse),
        (out(0x604, 2), PortDecision::Refuse),
        (out(0xCF9, 1), PortDecision::Quiet),
        (out(0xF3, 2), PortDecision::Refuse),
        (IoAccess { string: true, ..out(0xF4, 1) }, PortDecision::Gp),
        (IoAccess { string: true, rep: true, ..input(0x71, 1) }, PortDecision::Gp),
    ] {
        assert_eq!(linux.decide(access, 0), decision, "{access:?}");
    }
    let own = PortPolicy::new(None, Identity::Partita);
    assert_eq!(own.decide(input(0x5658, 4), 0), PortDecision::Refuse);
}

#[test]
fn what_is_written_decides_about_power() {
    let policy = PortPolicy::new(Some(SerialPort::Com2), Identity::Linux);
    for (access, value, decision) in [
        // SLP_EN with the sleep type of S5.
        (out(0x4004, 1), 0x34, PortDecision::PowerOff),
        (out(0x4004, 1), 0xABCD_FF34, PortDecision::PowerOff),
        (out(0x4004, 1), 0x14, PortDecision::Zero),
        (out(0x4004, 1), 0x20, PortDecision::Zero),
        (out(0x4004, 1), 0x3C, PortDecision::Zero),
        (out(0x4004, 2), 0x34, PortDecision::Refuse),
        (input(0x4004, 1), 0x34, PortDecision::Zero),
        (out(0x4005, 1), 0x80, PortDecision::Zero),
        (input(0x4005, 1), 0, PortDecision::Zero),
        (out(0x4006, 1), 0x34, PortDecision::Refuse),
        (out(0xCF9, 1), 0x06, PortDecision::Reset),
        (out(0xCF9, 1), 0x0E, PortDecision::Reset),
        (out(0xCF9, 1), 0x02, PortDecision::Quiet),
        (out(0xCF8, 4), 0x8000_0600, PortDecision::Quiet),
        (input(0xCF9, 1), 0x06, PortDecision::Quiet),
        (out(0x64, 1), 0xFE, PortDecision::Reset),
        (out(0x64, 1), 0xFF, PortDecision::Refuse),
        (out(0x60, 1), 0xFE, PortDecision::Refuse),
        (input(0x64, 1), 0xFE, PortDecision::Refuse),
        (IoAccess { string: true, ..out(0xCF9, 1) }, 0x06, PortDecision::Gp),
    ] {
        assert_eq!(policy.decide(access, value), decision, "{access:?} {value:#x}");
    }
}

#[test]
fn what_lies_at_the_reset_vector_resets() {
    // mov al, imm8; mov dx, imm16; out dx, al; hlt; jmp to the hlt.
    let [0xB0, value, 0xBA, low, high, 0xEE, 0xF4, 0xEB, 0xFD] = guest::RESET_CODE else { panic!() };
    let policy = PortPolicy::new(None, Identity::Linux);
    assert_eq!(policy.decide(out(u16::from_le_bytes([low, high]), 1), value.into()), PortDecision::Reset);
    // F000:FFF0.
    assert_eq!(guest::RESET_VECTOR, 0xF_0000 + 0xFFF0);
    assert_eq!(guest::HOST_BASE + guest::HOST_LEN, guest::RESET_VECTOR);
}

#[test]
fn the_map_opens_the_console_and_nothing_else() {
    let bases = [0x2F8, 0x3E8, 0x2E8, 0x5F8, 0x4F8, 0x5E8, 0x4E8].map(Some);
    let consoles = SerialPort::ALL.map(Some);
    for (console, base) in consoles.into_iter().zip(bases).chain([(None, None)]) {
        let map = map(PortPolicy::new(console, Identity::Linux));
        let open: Vec<u16> = (0..=u16::MAX).filter(|&port| !iopm_intercepts(&map, port, 1)).collect();
        let expected: Vec<u16> = base.map_or(vec![], |base| (base..base + 8).collect());
        assert_eq!(open, expected);
        assert!(map[0x2000..].iter().all(|&byte| byte == 0xFF), "past the last port");
    }
}

proptest! {
    #[test]
    fn the_map_opens_a_partitions_devices_and_nothing_else(
        console in consoles(),
        bounds in prop::collection::vec((any::<u16>(), any::<u16>()), 0..4),
        last in any::<bool>(),
    ) {
        let mut devices: Vec<PortRange> =
            bounds.into_iter().map(|(a, b)| PortRange { first: a.min(b), last: a.max(b).min(a.min(b).saturating_add(300)) }).collect();
        if last {
            devices.push(PortRange { first: 0xFFF8, last: 0xFFFF });
        }
        let mut map = Box::new([0; IOPM_LEN]);
        PortPolicy::new(console, Identity::Partita).fill_iopm(&devices, &mut map);
        let own = console.map(|port| PortRange { first: serial_base(port), last: serial_base(port) + 7 });
        for port in 0..=u16::MAX {
            let is_owned = devices.iter().chain(&own).any(|range| (range.first..=range.last).contains(&port));
            prop_assert_eq!(!iopm_intercepts(&map, port, 1), is_owned, "{:#x}", port);
        }
        prop_assert!(map[0x2000..].iter().all(|&byte| byte == 0xFF), "past the last port");
    }
}

#[test]
fn an_access_that_leaves_the_console_exits() {
    let map = map(PortPolicy::new(Some(SerialPort::Com2), Identity::Linux));
    assert!(!iopm_intercepts(&map, 0x2FC, 4));
    assert!(iopm_intercepts(&map, 0x2FD, 4));
    assert!(iopm_intercepts(&map, 0x2F7, 2));
    assert!(iopm_intercepts(&map, 0xFFFF, 4));
}

#[test]
fn exit_information_is_decoded() {
    let access = |info| {
        let access = IoAccess::from_svm(info);
        (access.port, access.size, access.input, access.string, access.rep)
    };
    assert_eq!(access(0x00F4_0010), (0xF4, 1, false, false, false));
    assert_eq!(access(0x0071_0011), (0x71, 1, true, false, false));
    assert_eq!(access(0x0CFC_0041), (0xCFC, 4, true, false, false));
    assert_eq!(access(0x0CFA_0021), (0xCFA, 2, true, false, false));
    assert_eq!(access(0x03F8_009C), (0x3F8, 1, false, true, true));
}

#[test]
fn an_input_changes_what_its_size_says() {
    let rax = 0x1122_3344_5566_7788;
    assert_eq!(input(0, 1).merge_rax(rax, u32::MAX), 0x1122_3344_5566_77FF);
    assert_eq!(input(0, 2).merge_rax(rax, u32::MAX), 0x1122_3344_5566_FFFF);
    assert_eq!(input(0, 4).merge_rax(rax, u32::MAX), 0x0000_0000_FFFF_FFFF);
}

proptest! {
    #[test]
    fn ports_without_a_rule_are_refused(port in any::<u16>(), info in any::<u16>(), value in any::<u32>(), console in consoles()) {
        let policy = PortPolicy::new(console, Identity::Partita);
        let access = IoAccess::from_svm(u64::from(port) << 16 | u64::from(info));
        prop_assert!([1, 2, 4].contains(&access.size));
        let known = matches!(port, 0x64 | 0x70 | 0x71 | 0x80 | 0xF4 | 0xCF8..=0xCFF | 0x4004 | 0x4005);
        let decision = policy.decide(access, value);
        prop_assert_eq!(decision == PortDecision::Gp, access.string);
        prop_assert!(known || matches!(decision, PortDecision::Gp | PortDecision::Refuse));
    }
}

proptest! {
    #[test]
    fn the_quick_out_is_the_one_that_is_always_quiet(bits in any::<u32>(), is_near in any::<bool>(), console in consoles()) {
        let near = |value: u32| if is_near { value ^ (bits & 1 << (bits >> 27)) } else { bits };
        let (svm, vmx) = (near(quick_out::SVM_VALUE | 1 << 9), near(quick_out::VMX_VALUE));
        let is_quick = [
            (svm & quick_out::SVM_MASK == quick_out::SVM_VALUE, IoAccess::from_svm(svm.into())),
            (vmx & quick_out::VMX_MASK == quick_out::VMX_VALUE, IoAccess::from_vmx(vmx.into())),
        ];
        for (is_quick, access) in is_quick {
            prop_assert_eq!(is_quick, access == out(quick_out::PORT, 1));
            for identity in [Identity::Partita, Identity::Linux] {
                let decision = PortPolicy::new(console, identity).decide(access, bits);
                prop_assert!(!is_quick || decision == PortDecision::Quiet);
            }
        }
    }
}
