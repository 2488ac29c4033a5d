//! The CPUID policy: what is hidden, what is synthesised, and that the leaves agree with each other.

use partita_abi::cpuid as abi;
use partita_abi::hypercall;
use partita_core::system::Identity;
use partita_x86_policy::cpuid::{Answers, CpuidContext, HypercallInstruction, Registers, cpuid};
use partita_x86_policy::cpuid_hidden::{Feature, HiddenFeatures};
use partita_x86_policy::vmware::{is_vmware_call, vmware_call};
use proptest::prelude::*;

const ONES: Registers = [u32::MAX; 4];
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;

/// vCPU 1 of the partition with CPUs 2 and 3, on a CPU with every leaf.
fn context() -> CpuidContext {
    CpuidContext {
        identity: Identity::Linux,
        hypercall: HypercallInstruction::Vmmcall,
        partition: 4,
        vcpu: 1,
        vcpus: 2,
        apic_id: 3,
        apic_id_bits: 2,
        starts: 3,
        console_port: 0x2F8,
        tsc_khz: 2_500_000,
        lapic_khz: 1_000_000,
        host_max_basic: 0x20,
        host_max_extended: 0x8000_0028,
        hidden: HiddenFeatures::default(),
    }
}

fn ones(leaf: u32, subleaf: u32) -> Registers {
    cpuid(leaf, subleaf, ONES, 0, &context())
}

fn bit(register: u32, number: u32) -> bool {
    register & (1 << number) != 0
}

fn text(registers: &[u32]) -> String {
    String::from_utf8(registers.iter().flat_map(|r| r.to_le_bytes()).collect()).unwrap()
}

#[test]
fn hidden_features_do_not_show_on_a_cpu_that_has_everything() {
    let [_, _, ecx, edx] = ones(1, 0);
    for (number, name) in [(3, "MONITOR"), (5, "VMX"), (6, "SMX"), (7, "EIST"), (15, "PDCM"), (2, "DTES64")] {
        assert!(!bit(ecx, number), "{name}");
    }
    for (number, name) in [(7, "MCE"), (12, "MTRR"), (14, "MCA"), (21, "DS"), (22, "ACPI")] {
        assert!(!bit(edx, number), "{name}");
    }
    let [_, _, ecx, edx] = ones(0x8000_0001, 0);
    for (number, name) in [(2, "SVM"), (3, "EXTAPIC"), (9, "OSVW"), (10, "IBS"), (12, "SKINIT"), (23, "PERFCORE")] {
        assert!(!bit(ecx, number), "{name}");
    }
    for number in [7, 12, 14] {
        assert!(!bit(edx, number));
    }
    let [_, ebx, ecx, edx] = ones(7, 0);
    assert!(!bit(ebx, 1) && !bit(ebx, 12) && !bit(ebx, 25), "TSC_ADJUST, QoS, trace");
    assert!(!bit(ecx, 5) && !bit(ecx, 7) && !bit(ecx, 16), "WAITPKG, CET, LA57");
    assert!(!bit(edx, 20) && !bit(edx, 24) && !bit(edx, 29), "CET, AMX, ARCH_CAPABILITIES");
    for leaf in
        [3, 5, 9, 0xA, 0xF, 0x10, 0x12, 0x14, 0x15, 0x16, 0x1A, 0x8000_000A, 0x8000_001B, 0x8000_001C, 0x8000_001F]
    {
        assert_eq!(ones(leaf, 0), [0; 4], "{leaf:#x}");
    }
    assert_eq!(ones(0x8000_0007, 0), [0, 0, 0, 1 << 8], "the invariant TSC alone");
    assert_eq!(ones(6, 0), [1 << 2, 0, 0, 0], "ARAT alone");
    assert_eq!(cpuid(6, 0, [0; 4], 0, &context()), [1 << 2, 0, 0, 0], "and that always");
    assert_eq!(ones(0xD, 1)[2..], [0, 0], "no supervisor states");
    assert_eq!(ones(0xD, 17), [0; 4], "no AMX state");
    assert_eq!(ones(0xD, 2), ONES, "AVX");
}

#[test]
fn nothing_is_shown_that_hardware_lacks() {
    let none = |leaf| cpuid(leaf, 0, [0; 4], u64::MAX, &CpuidContext { vcpus: 1, ..context() });
    let [_, _, ecx, edx] = none(1);
    assert_eq!((ecx, edx), (1 << 21 | 1 << 27 | 1 << 31, 0), "x2APIC, OSXSAVE by CR4, hypervisor");
    assert_eq!(none(7), [0; 4]);
    assert_eq!(none(0x8000_0001), [0; 4]);
    assert_eq!(none(0x8000_0021), [0; 4]);
}

#[test]
fn features_that_guests_cannot_have_do_not_show_and_nothing_else_changes() {
    let hidden_from = |feature, leaf, subleaf| {
        let context = CpuidContext { hidden: HiddenFeatures::default().with(feature, true), ..context() };
        let (all, rest) = (ones(leaf, subleaf), cpuid(leaf, subleaf, ONES, 0, &context));
        core::array::from_fn(|register| all[register] & !rest[register])
    };
    let leaves = [(1, 0), (7, 0), (7, 1), (0xD, 0), (0xD, 1), (0x8000_0001, 0), (0x8000_0008, 0)];
    for (feature, hidden) in [
        (Feature::Rdtscp, vec![((7, 0), [0, 0, 1 << 22, 0]), ((0x8000_0001, 0), [0, 0, 0, 1 << 27])]),
        (Feature::Invpcid, vec![((7, 0), [0, 1 << 10, 0, 0])]),
        (Feature::Xsaves, vec![((0xD, 1), [1 << 3, 0, 0, 0])]),
    ] {
        for (leaf, subleaf) in leaves {
            let wanted = hidden.iter().find(|(at, _)| *at == (leaf, subleaf)).map_or([0; 4], |(_, bits)| *bits);
            assert_eq!(hidden_from(feature, leaf, subleaf), wanted, "{feature:?} in {leaf:#x}.{subleaf}");
        }
    }
    let none = HiddenFeatures::default();
    assert_eq!(none.with(Feature::Rdtscp, false), none);
}

#[test]
fn control_registers_show_where_they_must() {
    let with = |leaf, cr4| cpuid(leaf, 0, ONES, cr4, &context())[2];
    assert!(!bit(with(1, 0), 27) && bit(with(1, CR4_OSXSAVE), 27));
    assert!(!bit(with(7, 0), 4) && bit(with(7, CR4_PKE), 4));
}

#[test]
fn the_apic_id_and_the_topology_agree() {
    let [_, ebx, _, edx] = ones(1, 0);
    assert_eq!((ebx >> 24, ebx >> 16 & 0xFF, bit(edx, 28)), (3, 2, true));
    for leaf in [0xB, 0x1F] {
        assert_eq!(ones(leaf, 0), [0, 1, 0x100, 3]);
        assert_eq!(ones(leaf, 1), [2, 2, 0x201, 3]);
        assert_eq!(ones(leaf, 2), [0, 0, 2, 3]);
    }
    assert_eq!(ones(0x8000_0008, 0)[2], 0x2001);
    assert_eq!(ones(0x8000_001E, 0), [3, 3, 0, 0]);
    let single = CpuidContext { vcpus: 1, ..context() };
    assert!(!bit(cpuid(1, 0, ONES, 0, &single)[3], 28));
    assert!(!bit(cpuid(0x8000_0001, 0, ONES, 0, &single)[2], 1));
}

#[test]
fn large_apic_ids_survive() {
    let large = CpuidContext { apic_id: 0x1234, apic_id_bits: 13, ..context() };
    assert_eq!(cpuid(1, 0, ONES, 0, &large)[1] >> 24, 0x34);
    assert_eq!(cpuid(0xB, 0, ONES, 0, &large)[3], 0x1234);
    assert_eq!(cpuid(0x8000_001E, 0, ONES, 0, &large)[0], 0x1234);
}

#[test]
fn caches_are_shared_within_the_partition() {
    let sharing = |eax| cpuid(0x8000_001D, 0, [eax, 1, 2, 3], 0, &context())[0] >> 14 & 0xFFF;
    assert_eq!(sharing(0x3FF_C000 | 1 << 5 | 1), 0, "first level");
    assert_eq!(sharing(0x3FF_C000 | 3 << 5 | 3), 1, "last level");
    assert_eq!(cpuid(4, 5, [0; 4], 0, &context()), [0; 4], "the end of the list");
}

#[test]
fn maxima_fit_host_and_policy() {
    let max = |basic, extended| {
        let context = CpuidContext { host_max_basic: basic, host_max_extended: extended, ..context() };
        let host = |leaf| [leaf, 0x11, 0x22, 0x33];
        let [low, rest @ ..] = cpuid(0, 0, host(basic), 0, &context);
        assert_eq!(rest, [0x11, 0x22, 0x33], "the vendor");
        (low, cpuid(0x8000_0000, 0, host(extended), 0, &context)[0])
    };
    assert_eq!(max(0xD, 0x8000_000A), (0xD, 0x8000_000A));
    assert_eq!(max(0x7, 0x8000_0008), (0xB, 0x8000_0008));
    assert_eq!(max(0x24, 0x8000_0028), (0x1F, 0x8000_0021));
}

/// QEMU answers a leaf past the maximum with leaf 0xD.
#[test]
fn leaves_past_the_maximum_are_zero() {
    let context = CpuidContext { host_max_basic: 0xD, host_max_extended: 0x8000_000A, ..context() };
    for leaf in [0xE, 0x15, 0x16, 0x1F, 0x20, 0x2000_0000, 0x8000_001D, 0x8000_001E, 0x8000_0021, 0x8000_0022, u32::MAX]
    {
        assert_eq!(cpuid(leaf, 0, ONES, 0, &context), [0; 4], "{leaf:#x}");
    }
    let old = CpuidContext { host_max_basic: 0x5, ..context };
    assert_eq!(cpuid(7, 0, ONES, 0, &old), [0; 4]);
    assert_eq!(cpuid(0xB, 0, ONES, 0, &old)[3], 3, "the topology needs no hardware");
}

#[test]
fn linux_meets_vmware() {
    let [max, name @ ..] = ones(0x4000_0000, 0);
    assert_eq!((max, text(&name).as_str()), (0x4000_0010, "VMwareVMware"));
    assert_eq!(ones(0x4000_0010, 0), [2_500_000, 1_000_000, 1, 0]);
    let intel = CpuidContext { hypercall: HypercallInstruction::Vmcall, ..context() };
    assert_eq!(cpuid(0x4000_0010, 0, ONES, 0, &intel)[2], 2);
}

#[test]
fn other_guests_find_partita_by_scanning() {
    let context = CpuidContext { identity: Identity::Partita, ..context() };
    let read = |leaf| cpuid(leaf, 0, ONES, 0, &context);
    assert_eq!(read(0x4000_0000), [abi::LEAF_MAX, 0, 0, 0]);
    assert_eq!(read(0x4000_0010), [0; 4]);
    let found = (0x4000_0000..0x4001_0000).step_by(0x100).find(|&base| read(base)[1..] == abi::signature_registers());
    assert_eq!(found, Some(abi::LEAF_SIGNATURE));
}

#[test]
fn partitas_leaves_are_everybodys() {
    for identity in [Identity::Partita, Identity::Linux] {
        let context = CpuidContext { identity, ..context() };
        let read = |leaf| cpuid(leaf, 0, ONES, 0, &context);
        assert_eq!(text(&read(abi::LEAF_SIGNATURE)[1..]).as_bytes(), abi::SIGNATURE);
        assert_eq!(read(abi::LEAF_TIMING), [abi::INTERFACE_VERSION, 2_500_000, 1_000_000, 0]);
        assert_eq!(read(abi::LEAF_PARTITION), [4, 1, 2, 0x2F8]);
        assert_eq!(read(abi::LEAF_MAX + 1), [0; 4]);
    }
}

#[test]
fn vmware_calls_tell_frequencies_and_x2apic() {
    let context = CpuidContext { tsc_khz: 5_000_000, ..context() };
    assert_eq!(vmware_call(45, &context), [0x2A05_F200, 1, 1_000_000_000]);
    assert_eq!(vmware_call(0xABCD_0000 | 68, &context)[0], 8);
    assert_eq!(vmware_call(10, &context), [u32::MAX; 3]);
    assert_eq!(vmware_call(91, &context), [u32::MAX; 3]);
    let fast = CpuidContext { lapic_khz: 5_000_000, ..context };
    assert_eq!(vmware_call(45, &fast)[2], u32::MAX, "too fast for the register");
    assert!(is_vmware_call(hypercall::VMWARE_MAGIC) && !is_vmware_call(hypercall::NOP));
}

proptest! {
    #[test]
    fn growing_leaves_never_show_more_than_the_host(
        leaf in prop_oneof![Just(7u32), Just(0xD), Just(0x8000_0007), Just(0x8000_0021), any::<u32>()],
        subleaf in 0u32..70,
        host in any::<Registers>(),
    ) {
        let guest = cpuid(leaf, subleaf, host, 0, &context());
        if matches!(leaf, 0xD | 0x8000_0007 | 0x8000_0021) {
            for (guest, host) in guest.into_iter().zip(host) {
                prop_assert_eq!(guest & !host, 0);
            }
        }
    }
}

proptest! {
    #[test]
    fn collected_answers_are_those_that_are_given_otherwise(
        low in 0u32..0x28,
        extended: bool,
        subleaf: u32,
        cr4: u64,
        seed: u32,
        osxsave_behind: bool,
        max in (0u32..0x30, 0x8000_0000u32..0x8000_0030),
        intel: bool,
    ) {
        let hypercall = if intel { HypercallInstruction::Vmcall } else { HypercallInstruction::Vmmcall };
        let context = CpuidContext { host_max_basic: max.0, host_max_extended: max.1, hypercall, ..context() };
        let mixed = |leaf: u32| [1, 3, 5, 7].map(|n: u32| (leaf ^ seed).wrapping_mul(0x9E37_79B1).rotate_left(n * 4));
        // Leaves without subleaves (SDM vol. 2, APM vol. 3); what else there is has them.
        let is_plain = |leaf| matches!(leaf, 0..=3 | 6 | 0x8000_0000..=0x8000_001A | 0x8000_001E);
        let host_at = |leaf: u32, subleaf: u32| mixed(if is_plain(leaf) { leaf } else { leaf ^ subleaf << 8 });
        let host = |leaf: u32| host_at(leaf, 0);
        let mut answers = Answers::none();
        let leaf = low | u32::from(extended) << 31;
        prop_assert_eq!(answers.get(leaf, || cr4), None);
        answers.collect(host, &context);
        // The hypervisor's own OSXSAVE, which the hardware shows, is not the guest's.
        let mut behind = host_at(leaf, subleaf);
        behind[2] ^= u32::from(osxsave_behind && leaf == 1) << 27;
        if let Some(answer) = answers.get(leaf, || cr4) {
            prop_assert_eq!(answer, cpuid(leaf, subleaf, behind, cr4, &context));
        }
    }
}

#[test]
fn leaves_with_subleaves_are_not_collected() {
    let mut answers = Answers::none();
    answers.collect(|_| ONES, &context());
    for leaf in [4, 7, 0xB, 0xD, 0x18, 0x1F, 0x8000_001D, 0x20, 0x4000_0000, 0x8000_0020, 0xFFFF_FFFF] {
        assert_eq!(answers.get(leaf, || 0), None, "{leaf:#x}");
    }
    for leaf in [0, 1, 2, 6, 0x15, 0x8000_0000, 0x8000_0001, 0x8000_0008, 0x8000_001E] {
        assert!(answers.get(leaf, || 0).is_some(), "{leaf:#x}");
    }
}
