//! The rules about controls and the hypervisor's state that a refused VM entry broke, by name.

use std::collections::BTreeMap;

use partita_core::explanation;
use partita_x86_policy::start_state::PAT_RESET;
use partita_x86_policy::vmx::capability::VmxCapabilities;
use partita_x86_policy::vmx::control::negotiate;
use partita_x86_policy::vmx::control_state::ControlState;
use partita_x86_policy::vmx::ept;
use partita_x86_policy::vmx::exit::InstructionError;
use partita_x86_policy::vmx::explain::Explained;
use partita_x86_policy::vmx::field::{self, AnyField, Field};
use partita_x86_policy::vmx::guest_state::{Broken, Cpu};
use partita_x86_policy::vmx::host_state::HostState;
use proptest::prelude::*;

use super::cpus::{BOCHS_TIGERLAKE, GOOD};

/// 39 bits of physical addresses, 48 of linear ones.
const ADDRESS_SIZES: u32 = 48 << 8 | 39;

/// The fields of a VMCS, by encoding; what is not there is 0.
type Vmcs = BTreeMap<u32, u64>;

fn read(vmcs: &Vmcs) -> impl Fn(AnyField) -> u64 + Copy {
    |field| vmcs.get(&field.encoding()).copied().unwrap_or(0)
}

/// A VMCS as Partita makes it.
fn good(capabilities: &VmxCapabilities) -> Vmcs {
    let controls = negotiate(capabilities).unwrap();
    let words = [
        (field::PIN_BASED_CONTROLS, controls.pin.bits()),
        (field::PRIMARY_PROCESSOR_BASED_CONTROLS, controls.primary.bits()),
        (field::SECONDARY_PROCESSOR_BASED_CONTROLS, controls.secondary.bits()),
        (field::PRIMARY_VM_EXIT_CONTROLS, controls.exit.bits()),
        (field::VM_ENTRY_CONTROLS, controls.entry.bits()),
    ];
    let selectors = [
        (field::HOST_CS_SELECTOR, 8),
        (field::HOST_SS_SELECTOR, 16),
        (field::HOST_DS_SELECTOR, 16),
        (field::HOST_ES_SELECTOR, 16),
        (field::HOST_TR_SELECTOR, 24),
        (field::VIRTUAL_PROCESSOR_IDENTIFIER, 1),
    ];
    let wide = [
        (field::IO_BITMAP_A, 0x5000),
        (field::IO_BITMAP_B, 0x6000),
        (field::MSR_BITMAPS, 0x7000),
        (field::EPT_POINTER, ept::pointer(0x8000, false)),
        (field::HOST_CR0, 0x8001_0033),
        (field::HOST_CR3, 0x9000),
        (field::HOST_CR4, 0x2020),
        (field::HOST_IA32_EFER, 0xD00),
        (field::HOST_IA32_PAT, PAT_RESET),
        (field::HOST_TR_BASE, 0xFFFF_8000_0000_0000),
        (field::HOST_RIP, 0x20_0000),
    ];
    let words = words.map(|(field, value)| (field.encoding(), value.into()));
    let selectors = selectors.map(|(field, value)| (field.encoding(), value));
    words.into_iter().chain(selectors).chain(wide.map(|(field, value)| (field.encoding(), value))).collect()
}

fn controls(vmcs: &Vmcs, capabilities: &VmxCapabilities) -> Result<(), Broken> {
    ControlState::collect(read(vmcs)).check(capabilities, &Cpu::new(capabilities, ADDRESS_SIZES))
}

fn host(vmcs: &Vmcs, capabilities: &VmxCapabilities) -> Result<(), Broken> {
    HostState::collect(read(vmcs)).check(capabilities, &Cpu::new(capabilities, ADDRESS_SIZES))
}

type Check = fn(&Vmcs, &VmxCapabilities) -> Result<(), Broken>;

/// Flips bits of a good VMCS' fields, and expects the rule to be named: by a field, and some of its words.
fn names<T>(check: Check, flips: &[(AnyField, u64)], field: Field<T>, words: &str) {
    let capabilities = BOCHS_TIGERLAKE.capabilities();
    let mut vmcs = good(&capabilities);
    for (field, bits) in flips {
        *vmcs.entry(field.encoding()).or_default() ^= bits;
    }
    let broken = check(&vmcs, &capabilities).expect_err(words);
    assert_eq!(broken.field, field.any(), "{broken}, not {words}");
    assert!(broken.rule.contains(words), "{broken}, not {words}");
    let text = Explained::Entry { error: InstructionError::INVALID_HOST_STATE, broken: Some(broken) }.to_string();
    assert!(text.len() <= explanation::LEN, "it is cut off: {text}");
}

#[test]
fn what_partita_makes_is_accepted_by_every_cpu() {
    for cpu in GOOD {
        let capabilities = cpu.capabilities();
        let vmcs = good(&capabilities);
        assert_eq!((controls(&vmcs, &capabilities), host(&vmcs, &capabilities)), (Ok(()), Ok(())), "{}", cpu.name);
    }
}

#[test]
fn controls_are_named() {
    let expect = |field: Field<u32>, bits, words| names(controls, &[(field.any(), bits)], field, words);
    let (pin, primary) = (field::PIN_BASED_CONTROLS, field::PRIMARY_PROCESSOR_BASED_CONTROLS);
    let (secondary, exit, entry) =
        (field::SECONDARY_PROCESSOR_BASED_CONTROLS, field::PRIMARY_VM_EXIT_CONTROLS, field::VM_ENTRY_CONTROLS);
    for (field, demanded, unknown) in
        [(pin, 1 << 1, 1 << 31), (primary, 1 << 1, 1), (exit, 1, 1 << 30), (entry, 1, 1 << 31)]
    {
        expect(field, demanded, "this CPU demands");
        expect(field, unknown, "this CPU does not have");
    }
    expect(secondary, 1 << 29, "this CPU does not have");
    expect(pin, 1 << 3, "\"virtual NMIs\" (bit 5) demands");
    names(
        controls,
        &[(pin.any(), 1 << 5), (primary.any(), 1 << 22)],
        primary,
        "\"NMI-window exiting\" (bit 22) demands",
    );
    expect(secondary, 1 << 4, "\"use TPR shadow\"");
    names(controls, &[(primary.any(), 1 << 21), (secondary.any(), 1 << 4 | 1)], secondary, "exclude each other");
    names(controls, &[(primary.any(), 1 << 21), (secondary.any(), 1 << 9)], secondary, "external-interrupt exiting");
    expect(secondary, 1 << 1, "\"enable EPT\" (bit 1)");
    expect(exit, 1 << 22, "preemption timer");
    expect(entry, 1 << 10, "system-management mode");
    expect(field::CR3_TARGET_COUNT, 5, "IA32_VMX_MISC");
    names(controls, &[(field::VIRTUAL_PROCESSOR_IDENTIFIER.any(), 1)], field::VIRTUAL_PROCESSOR_IDENTIFIER, "not be 0");
}

#[test]
fn addresses_of_controls_are_named() {
    let expect = |field: Field<u64>, bits, words| names(controls, &[(field.any(), bits)], field, words);
    for field in [field::IO_BITMAP_A, field::IO_BITMAP_B, field::MSR_BITMAPS] {
        expect(field, 1 << 11, "bits 11:0");
        expect(field, 1 << 39, "physical addresses");
    }
    let pointer = field::EPT_POINTER;
    expect(pointer, 3, "memory type");
    expect(pointer, 1 << 5, "four levels");
    expect(pointer, 1 << 7, "reserved");
    expect(pointer, 1 << 39, "physical addresses");
    // Without secondary controls nothing of them counts.
    let capabilities = BOCHS_TIGERLAKE.capabilities();
    let mut vmcs = good(&capabilities);
    *vmcs.get_mut(&field::PRIMARY_PROCESSOR_BASED_CONTROLS.encoding()).unwrap() ^= 1 << 31;
    vmcs.remove(&pointer.encoding());
    assert_eq!(controls(&vmcs, &capabilities), Ok(()));
}

#[test]
fn the_hypervisors_state_is_named() {
    let expect = |field: Field<u64>, bits, words| names(host, &[(field.any(), bits)], field, words);
    expect(field::HOST_CR0, 1, "fixed to 1");
    expect(field::HOST_CR0, 1 << 32, "fixed to 0");
    expect(field::HOST_CR4, 1 << 13, "fixed to 1");
    expect(field::HOST_CR4, 1 << 63, "fixed to 0");
    expect(field::HOST_CR4, 1 << 5, "PAE");
    expect(field::HOST_CR3, 1 << 40, "physical addresses");
    expect(field::HOST_IA32_PAT, 4, "memory type");
    expect(field::HOST_IA32_EFER, 2, "reserved");
    expect(field::HOST_IA32_EFER, 1 << 10, "64-bit mode");
    for address in [
        field::HOST_IA32_SYSENTER_ESP,
        field::HOST_IA32_SYSENTER_EIP,
        field::HOST_FS_BASE,
        field::HOST_GS_BASE,
        field::HOST_GDTR_BASE,
        field::HOST_IDTR_BASE,
        field::HOST_TR_BASE,
        field::HOST_RIP,
    ] {
        expect(address, 1 << 55, "canonical");
    }
    let expect = |field: Field<u16>, bits, words| names(host, &[(field.any(), bits)], field, words);
    for selector in [field::HOST_CS_SELECTOR, field::HOST_GS_SELECTOR] {
        expect(selector, 3, "RPL");
        expect(selector, 4, "TI");
    }
    expect(field::HOST_CS_SELECTOR, 8, "not be 0");
    expect(field::HOST_TR_SELECTOR, 24, "not be 0");
    let exit = field::PRIMARY_VM_EXIT_CONTROLS;
    names(host, &[(exit.any(), 1 << 9)], exit, "host address-space size");
}

#[test]
fn a_refused_entry_is_explained_by_its_error() {
    let capabilities = BOCHS_TIGERLAKE.capabilities();
    let cpu = Cpu::new(&capabilities, ADDRESS_SIZES);
    let mut vmcs = good(&capabilities);
    let explain =
        |vmcs: &Vmcs, error| Explained::entry(InstructionError(error), &capabilities, &cpu, read(vmcs)).to_string();
    assert_eq!(
        explain(&vmcs, 7),
        "VM-instruction error 7: VM entry with invalid control fields (SDM vol. 3 section 31.4)"
    );
    // A #GP with an error code in real mode.
    vmcs.insert(field::VM_ENTRY_INTERRUPTION_INFORMATION.encoding(), 0x8000_0B0D);
    let text = explain(&vmcs, 7);
    assert!(
        text.starts_with("VM-instruction error 7: VM entry with invalid control fields: VM-entry interruption"),
        "{text}"
    );
    assert!(text.contains("error code (bit 11)"), "{text}");
    vmcs.insert(field::HOST_RIP.encoding(), 1 << 63);
    let text = explain(&vmcs, 8);
    assert!(
        text.ends_with("host RIP is 0x8000000000000000: the address has to be canonical (SDM vol. 3 section 27.2.4)"),
        "{text}"
    );
    assert!(!explain(&vmcs, 26).contains("host RIP"));
    vmcs.insert(field::PIN_BASED_CONTROLS.encoding(), 0);
    let text = explain(&vmcs, 7);
    assert!(
        text.contains(
            "pin-based VM-execution controls is 0x0: bits that this CPU demands have to be set, 0x16 are not"
        ),
        "{text}"
    );
}

proptest! {
    /// Whatever the fields hold, checking ends, and what is reported is a field as it was read.
    #[test]
    fn entry_checks_are_total_and_true(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..4),
        capability in any::<u64>(), sizes in any::<u32>(),
    ) {
        let own = BOCHS_TIGERLAKE.capabilities();
        let mut vmcs = good(&own);
        let known: Vec<u32> = vmcs.keys().copied().collect();
        for (at, bits) in flips {
            vmcs.entry(*at.get(&known)).and_modify(|value| *value ^= bits);
        }
        for capabilities in [own, VmxCapabilities::collect(|_| capability)] {
            let cpu = Cpu::new(&capabilities, sizes);
            let results = [
                ControlState::collect(read(&vmcs)).check(&capabilities, &cpu),
                HostState::collect(read(&vmcs)).check(&capabilities, &cpu),
            ];
            for broken in results.into_iter().filter_map(Result::err) {
                let value = read(&vmcs)(broken.field);
                prop_assert_eq!(broken.value & value, broken.value, "{}", broken);
                prop_assert!(broken.to_string().contains(broken.section));
            }
        }
    }
}
