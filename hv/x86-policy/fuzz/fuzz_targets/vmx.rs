//! Whatever a VMCS says when a guest is left or is not entered, it is decoded, and what is reported is true.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use partita_x86_policy::ports::IoAccess;
use partita_x86_policy::vmx::capability::{FixedBits, Misc, VmxCapabilities};
use partita_x86_policy::vmx::control_state::ControlState;
use partita_x86_policy::vmx::ept::{Level, explain, misconfiguration};
use partita_x86_policy::vmx::event::InterruptionInfo;
use partita_x86_policy::vmx::exit::VmxExit;
use partita_x86_policy::vmx::field::AnyField;
use partita_x86_policy::vmx::guest_state::{Cpu, GuestState};
use partita_x86_policy::vmx::host_state::HostState;
use partita_x86_policy::vmx::qualification::{CrAccess, DebugException, DrAccess, TaskSwitch};

#[derive(Arbitrary, Debug)]
struct Input {
    exit_reason: u32,
    interruption: u32,
    qualification: u64,
    fixed: [u64; 4],
    misc: u64,
    physical_bits: u8,
    linear_bits: u8,
    any_error_code: bool,
    /// Values of a VMCS's fields, or entries of tables; 0 behind the last.
    values: Vec<u64>,
}

fuzz_target!(|input: Input| {
    let exit = VmxExit::decode(input.exit_reason, || input.interruption);
    assert!(exit != VmxExit::Nmi || InterruptionInfo(input.interruption).nmi());
    assert!([1, 2, 4].contains(&IoAccess::from_vmx(input.qualification).size));
    let _ = CrAccess::decode(input.qualification).cr0(input.misc);
    let _ = (DrAccess::decode(input.qualification), TaskSwitch::decode(input.qualification));
    let _ = DebugException(input.qualification).dr6(input.misc);
    if let Some(event) = InterruptionInfo(input.interruption).redeliver(|| 0, || 1) {
        assert_eq!(event.info & 0x7FFF_F000, 0);
    }

    let [cr0_must, cr0_may, cr4_must, cr4_may] = input.fixed;
    let cpu = Cpu {
        cr0: FixedBits { must_be_1: cr0_must, may_be_1: cr0_may },
        cr4: FixedBits { must_be_1: cr4_must, may_be_1: cr4_may },
        misc: Misc(input.misc),
        any_error_code: input.any_error_code,
        physical_bits: input.physical_bits,
        linear_bits: input.linear_bits,
    };
    let mut msrs = input.fixed.iter().copied().cycle();
    let capabilities = VmxCapabilities::collect(|_| msrs.next().unwrap_or(0));
    let (mut values, mut read) = (input.values.iter().copied(), Vec::new());
    let mut note = |field| {
        let value = values.next().unwrap_or(0);
        read.push((field, value));
        value
    };
    let guest = GuestState::collect(&mut note);
    let controls = ControlState::collect(&mut note);
    let host = HostState::collect(&mut note);
    let results = [
        guest.check(&cpu),
        guest.check_event(&cpu),
        controls.check(&capabilities, &cpu),
        host.check(&capabilities, &cpu),
    ];
    for broken in results.into_iter().filter_map(Result::err) {
        // Values are cut to the width of their field.
        let is_as_read =
            |&(field, value): &(AnyField, u64)| field == broken.field && value & broken.value == broken.value;
        assert!(read.iter().any(is_as_read), "{broken}");
        assert!(broken.to_string().contains(broken.section));
    }

    let mut entries = input.values.iter().copied();
    let _ = explain(input.qualification, input.misc, input.physical_bits, |_| entries.next());
    for &entry in &input.values {
        for level in Level::ALL {
            let _ = misconfiguration(entry, level, input.physical_bits);
        }
    }
});
