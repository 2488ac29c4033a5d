//! VMX capabilities and the negotiation of controls, with the capability sets of real CPUs and of Bochs.

mod cpus;
mod entry_checks;

use partita_x86_policy::capabilities::{self, Backend, CpuFacts, VM_CR_MSR, Vendor, Virtualization};
use partita_x86_policy::cpuid_hidden::{Feature, HiddenFeatures};
use partita_x86_policy::vmx::capability::{
    Allowed, Basic, EptVpid, FeatureControl, Invept, Invvpid, Misc, Missing, VmxCapabilities, msr,
};
use partita_x86_policy::vmx::control::{Controls, Entry, Exit, PinBased, Primary, Secondary, Word, negotiate};
use proptest::prelude::*;

use cpus::*;

#[test]
fn cpus_from_westmere_on_are_good_enough() {
    for cpu in GOOD {
        let capabilities = cpu.capabilities();
        let controls = negotiate(&capabilities).unwrap_or_else(|missing| panic!("{}: {missing}", cpu.name));
        assert!(controls.fit(&capabilities) && controls.vpid(), "{}", cpu.name);
        // The first CPU with EPT and those since store EFER.LMA, and can enter a guest in HLT.
        assert!(capabilities.misc.stores_lma() && capabilities.misc.can_enter_hlt(), "{}", cpu.name);
        assert_eq!(capabilities.ept_vpid.invept(), Some(Invept::SingleContext), "{}", cpu.name);
        assert_eq!(capabilities.ept_vpid.invvpid(), Some(Invvpid::SingleContext), "{}", cpu.name);
    }
}

#[test]
fn older_cpus_are_refused_by_name() {
    let missing = Missing::Control { msr: 0x48B, bit: 39, name: "unrestricted guest" };
    assert_eq!(negotiate(&NEHALEM.capabilities()), Err(missing));
    let text = missing.to_string();
    assert!(
        ["\"unrestricted guest\"", "MSR 0x48b bit 39", "Westmere", "model=tigerlake"].iter().all(|w| text.contains(w)),
        "{text}"
    );
    assert_eq!(negotiate(&MEROM.capabilities()), Err(Missing::Control { msr: 0x481, bit: 37, name: "virtual NMIs" }));
    // A CPU without the true MSRs forces what they would let go of.
    let old = Cpu { basic: COFFEE_LAKE.basic & !(1 << 55), exact: None, ..COFFEE_LAKE };
    let missing = Missing::Forced { msr: 0x482, bit: 15, name: "CR3-load exiting" };
    assert_eq!(negotiate(&old.capabilities()), Err(missing));
    assert!(missing.to_string().contains("cannot do without \"CR3-load exiting\" (MSR 0x482 bit 15"), "{missing}");
}

/// Each word, worked out by hand.
#[test]
fn controls_are_what_partita_wants_and_the_cpu_demands() {
    let words = |cpu: Cpu| {
        let controls = negotiate(&cpu.capabilities()).unwrap();
        let Controls { pin, primary, secondary, exit, entry } = controls;
        [pin.bits(), primary.bits(), secondary.bits(), exit.bits(), entry.bits()]
    };
    assert_eq!(words(COFFEE_LAKE), [0x3E, 0xB600_6D72, 0x0010_90EA, 0x003F_6FFF, 0xD1FF]);
    assert_eq!(words(BOCHS_TIGERLAKE), [0x3E, 0xB600_6D72, 0x0010_10EA, 0x003F_6FFF, 0xD1FF]);
    assert_eq!(words(BOCHS_HASWELL), [0x3E, 0xB600_6D72, 0x0000_10EA, 0x003F_6FFF, 0xD1FF]);
    assert_eq!(words(WESTMERE), [0x3E, 0xB600_6D72, 0x0000_00EA, 0x003F_6FFF, 0xD1FF]);
}

#[test]
fn what_a_passthrough_core_must_not_exit_for_is_off_and_the_switched_can_be_switched() {
    for cpu in GOOD {
        let capabilities = cpu.capabilities();
        let mut controls = negotiate(&capabilities).unwrap();
        assert!(!controls.pin.intersects(PinBased::EXTERNAL_INTERRUPT_EXITING | PinBased::PROCESS_POSTED_INTERRUPTS));
        assert!(!controls.primary.intersects(
            Primary::HLT_EXITING
                | Primary::PAUSE_EXITING
                | Primary::RDTSC_EXITING
                | Primary::INVLPG_EXITING
                | Primary::CR3_LOAD_EXITING
                | Primary::CR3_STORE_EXITING
                | Primary::CR8_LOAD_EXITING
                | Primary::CR8_STORE_EXITING
                | Primary::MOV_DR_EXITING
                | Primary::USE_TPR_SHADOW
        ));
        assert!(!controls.secondary.contains(Secondary::DESCRIPTOR_TABLE_EXITING));
        for entry in [controls.entry, controls.entry | Entry::IA32E_MODE_GUEST] {
            for pin in [controls.pin, controls.pin | PinBased::ACTIVATE_PREEMPTION_TIMER] {
                for primary in [controls.primary, controls.primary | Primary::NMI_WINDOW_EXITING] {
                    controls = Controls { entry, pin, primary, ..controls };
                    assert!(controls.fit(&capabilities), "{}", cpu.name);
                }
            }
        }
    }
}

/// Breaks one bit of one word after the other of a CPU that is good, and looks at what it is refused for.
fn break_each<F: Word + Copy>(
    of: impl Fn(&mut VmxCapabilities) -> &mut Allowed,
    needed: F,
    optional: F,
    word: impl Fn(&Controls) -> u32,
) {
    let good = TIGER_LAKE.capabilities();
    for bit in 0..32 {
        let mask = 1u32 << bit;
        let mut without = good;
        of(&mut without).may_be_1 &= !mask;
        if needed.bits() & mask != 0 {
            let msr = of(&mut without).msr;
            assert_eq!(negotiate(&without), Err(Missing::Control { msr, bit: 32 + bit, name: F::name(bit) }));
        } else if of(&mut without).can_be_0(mask) {
            assert_eq!(word(&negotiate(&without).unwrap()) & mask, 0, "{}", F::name(bit));
        }
        let mut forced = good;
        of(&mut forced).may_be_1 |= mask;
        of(&mut forced).must_be_1 |= mask;
        let unwanted = F::NAMED.bits() & !optional.bits() & !word(&negotiate(&good).unwrap());
        if unwanted & mask != 0 {
            let msr = of(&mut forced).msr;
            assert_eq!(negotiate(&forced), Err(Missing::Forced { msr, bit, name: F::name(bit) }));
        } else {
            assert_ne!(word(&negotiate(&forced).unwrap()) & mask, 0, "{}", F::name(bit));
        }
    }
}

#[test]
fn every_needed_control_is_missed_and_every_unwanted_one_refused() {
    let on = negotiate(&TIGER_LAKE.capabilities()).unwrap();
    break_each(
        |c| &mut c.pin,
        PinBased::NMI_EXITING | PinBased::VIRTUAL_NMIS | PinBased::ACTIVATE_PREEMPTION_TIMER | on.pin,
        PinBased::empty(),
        |c| c.pin.bits(),
    );
    break_each(|c| &mut c.primary, Primary::NMI_WINDOW_EXITING | on.primary, Primary::empty(), |c| c.primary.bits());
    break_each(
        |c| &mut c.secondary,
        Secondary::ENABLE_EPT | Secondary::UNRESTRICTED_GUEST,
        Secondary::empty(),
        |c| c.secondary.bits(),
    );
    break_each(|c| &mut c.exit, on.exit, Exit::ACKNOWLEDGE_INTERRUPT, |c| c.exit.bits());
    break_each(|c| &mut c.entry, Entry::IA32E_MODE_GUEST | on.entry, Entry::empty(), |c| c.entry.bits());
}

#[test]
fn feature_control_is_locked_on_or_refused() {
    for (value, write) in [
        (0, Ok(Some(0b101))),
        (0b100, Ok(Some(0b101))),
        // What else the firmware has set stays.
        (0x2_0002, Ok(Some(0x2_0007))),
        (0b101, Ok(None)),
        (0x2_0005, Ok(None)),
        (0b001, Err(Missing::LockedOff { found: 1 })),
        // Inside SMX operation only.
        (0b011, Err(Missing::LockedOff { found: 3 })),
    ] {
        assert_eq!(FeatureControl(value).to_write(), write, "{value:#x}");
    }
    let off = Cpu { feature_control: 1, ..COFFEE_LAKE };
    let missing = negotiate(&off.capabilities()).unwrap_err();
    let text = missing.to_string();
    assert!(["MSR 0x3a is 0x1", "firmware", "VT-x"].iter().all(|word| text.contains(word)), "{text}");
}

#[test]
fn odd_vmcs_regions_are_refused() {
    for (basic, missing) in [
        (COFFEE_LAKE.basic | 1 << 48, Missing::PhysicalWidth),
        (COFFEE_LAKE.basic & !(0x1FFF << 32), Missing::RegionLen { found: 0 }),
        (COFFEE_LAKE.basic | 0x1FFF << 32, Missing::RegionLen { found: 0x1FFF }),
        (COFFEE_LAKE.basic & !(0xF << 50), Missing::MemoryType { found: 0 }),
    ] {
        assert_eq!(negotiate(&Cpu { basic, ..COFFEE_LAKE }.capabilities()), Err(missing));
        assert!(missing.to_string().contains("MSR 0x480"), "{missing}");
    }
}

#[test]
fn ept_without_what_nested_tables_need_is_refused() {
    for (gone, bit) in [(1 << 6, 6), (1 << 14, 14), (1 << 16, 16), (1 << 20, 20), (3 << 25, 26)] {
        let ept_vpid = COFFEE_LAKE.ept_vpid.map(|value| value & !gone);
        let missing = negotiate(&Cpu { ept_vpid, ..COFFEE_LAKE }.capabilities()).unwrap_err();
        assert!(matches!(missing, Missing::Ept { msr: 0x48C, bit: found, .. } if found == bit), "{missing}");
        assert!(missing.to_string().contains(&format!("MSR 0x48c bit {bit}")), "{missing}");
    }
    // INVEPT of all contexts does, too; pages of 1 GiB and A/D flags are for those who have them.
    let ept_vpid = COFFEE_LAKE.ept_vpid.map(|value| value & !(1 << 17 | 1 << 21 | 1 << 25));
    let capabilities = Cpu { ept_vpid, ..COFFEE_LAKE }.capabilities();
    assert!(negotiate(&capabilities).is_ok());
    assert_eq!(capabilities.ept_vpid.invept(), Some(Invept::AllContexts));
    assert!(!capabilities.ept_vpid.page_1gib() && !capabilities.ept_vpid.accessed_dirty());
}

#[test]
fn vpid_is_used_only_where_it_can_be_flushed() {
    for (gone, how) in [
        (0, Some(Invvpid::SingleContext)),
        (1 << 41, Some(Invvpid::AllContexts)),
        (1 << 41 | 1 << 42, None),
        (1 << 32, None),
    ] {
        let ept_vpid = COFFEE_LAKE.ept_vpid.map(|value| value & !gone);
        let capabilities = Cpu { ept_vpid, ..COFFEE_LAKE }.capabilities();
        assert_eq!(capabilities.ept_vpid.invvpid(), how);
        assert_eq!(negotiate(&capabilities).unwrap().vpid(), how.is_some());
    }
}

#[test]
fn features_without_their_control_are_hidden() {
    let hidden = |cpu: Cpu| negotiate(&cpu.capabilities()).unwrap().hidden_features();
    let none = HiddenFeatures::default();
    assert_eq!(hidden(COFFEE_LAKE), none);
    let xsaves = none.with(Feature::Xsaves, true);
    assert_eq!(hidden(BOCHS_HASWELL), xsaves);
    assert_eq!(hidden(IVY_BRIDGE), xsaves.with(Feature::Invpcid, true));
    let secondary = COFFEE_LAKE.secondary.map(|value| value & !(1 << 35));
    assert_eq!(hidden(Cpu { secondary, ..COFFEE_LAKE }), none.with(Feature::Rdtscp, true));
}

#[test]
fn registers_are_taken_apart_as_the_manual_says() {
    let basic = Basic(COFFEE_LAKE.basic);
    assert_eq!((basic.revision(), basic.region_len(), basic.memory_type()), (4, 1024, 6));
    assert!(basic.true_controls() && basic.tells_string_io() && basic.dual_monitor());
    assert!(!basic.physical_32_bits() && !basic.any_error_code() && Basic(TIGER_LAKE.basic).any_error_code());
    // Bit 31 is not part of the revision.
    assert_eq!(Basic(0xFFFF_FFFF).revision(), 0x7FFF_FFFF);

    let misc = Misc(COFFEE_LAKE.misc);
    assert_eq!((misc.preemption_timer_shift(), misc.cr3_targets(), misc.max_msr_list()), (7, 4, 512));
    assert!(misc.stores_lma() && misc.writes_any_field() && misc.injects_length_0());
    assert!(misc.can_enter_hlt() && misc.can_enter_shutdown() && misc.can_enter_wait_for_sipi());
    assert_eq!(Misc(BOCHS_TIGERLAKE.misc).preemption_timer_shift(), 0);

    let ept = EptVpid(COFFEE_LAKE.ept_vpid.unwrap());
    assert!(ept.execute_only() && ept.walk_4_levels() && !ept.walk_5_levels() && ept.tables_uncached());
    assert!(ept.page_2mib() && ept.page_1gib() && ept.accessed_dirty() && ept.advanced_violations());
    assert!(!EptVpid(WESTMERE.ept_vpid.unwrap()).page_1gib() && EptVpid(SANDY_BRIDGE.ept_vpid.unwrap()).page_1gib());

    let capabilities = COFFEE_LAKE.capabilities();
    assert!(capabilities.cr0.accepts(0x8000_0031) && !capabilities.cr0.accepts(0x31));
    assert!(capabilities.guest_cr0().accepts(0x20) && !capabilities.guest_cr0().accepts(0x10));
    assert_eq!(capabilities.guest_cr0().apply(0x6000_0010), 0x6000_0030);
    assert_eq!(capabilities.cr4.apply(0xFFFF_FFFF), 0x0037_27FF);
    assert_eq!(capabilities.cr4.fixed(), !0x0037_07FF);
}

/// A CPU of this vendor with everything that CPUID has to show.
fn facts(vendor: Vendor) -> CpuFacts {
    let (svm, vmx) = (vendor == Vendor::Amd, vendor == Vendor::Intel);
    CpuFacts { vendor, svm, vmx, x2apic: true, nx: true, nested_paging: true, asids: 16, ..CpuFacts::default() }
}

#[test]
fn the_backend_is_chosen_by_cpuid() {
    let intel = facts(Vendor::Intel);
    assert_eq!(intel.backend(), Ok(Backend::Vmx));
    let vmx = intel.virtualization(|number| BOCHS_TIGERLAKE.read(number)).unwrap();
    assert_eq!(vmx.backend(), Backend::Vmx);
    assert!(vmx.page_1gib());
    assert_eq!(vmx.to_string(), "VMX with EPT, unrestricted guests, VPID");

    // No MSR of VMX is read on a CPU with SVM.
    let vm_cr = |value| move |number| if number == VM_CR_MSR { value } else { panic!("{number:#x}") };
    let svm = facts(Vendor::Amd).virtualization(vm_cr(0)).unwrap();
    assert_eq!((svm.backend(), svm.to_string()), (Backend::Svm, "SVM with nested paging, 16 ASIDs".to_owned()));
    assert_eq!(facts(Vendor::Amd).virtualization(vm_cr(1 << 4)), Err(capabilities::Missing::SvmDisabled));
    assert!(capabilities::Missing::SvmDisabled.to_string().contains("firmware"));

    let neither = facts(Vendor::Other).virtualization(|number| panic!("{number:#x}"));
    assert_eq!(neither, Err(capabilities::Missing::Virtualization));
    let common = CpuFacts { x2apic: false, ..intel };
    assert_eq!(common.virtualization(|number| panic!("{number:#x}")), Err(capabilities::Missing::X2apic));
    let missing = intel.virtualization(|number| NEHALEM.read(number)).unwrap_err();
    assert!(missing.to_string().contains("\"unrestricted guest\""), "{missing}");
}

#[test]
fn a_pcpu_covers_its_like_and_lesser_ones() {
    let of = |cpu: Cpu| facts(Vendor::Intel).virtualization(|number| cpu.read(number)).unwrap();
    let svm = facts(Vendor::Amd).virtualization(|_| 0).unwrap();
    let lesser = Cpu { secondary: COFFEE_LAKE.secondary.map(|value| value & !(1 << 52)), ..COFFEE_LAKE };
    let small_pages = Cpu { ept_vpid: COFFEE_LAKE.ept_vpid.map(|value| value & !(1 << 17)), ..COFFEE_LAKE };
    let other_vmcs = Cpu { basic: COFFEE_LAKE.basic + 1, ..COFFEE_LAKE };
    let covers = |this: &Virtualization, other: &Virtualization| this.covers(other);
    let good = of(COFFEE_LAKE);
    assert!(covers(&good, &good) && covers(&svm, &svm));
    assert!(covers(&good, &of(lesser)) && !covers(&of(lesser), &good));
    assert!(covers(&good, &of(small_pages)) && !covers(&of(small_pages), &good));
    assert!(!covers(&good, &of(other_vmcs)));
    assert!(!covers(&good, &svm) && !covers(&svm, &good));
}

/// A CPU like this one with some bits of its controls let go of, and some demanded.
fn mutated() -> impl Strategy<Value = VmxCapabilities> {
    let sparse = || prop_oneof![3 => Just(0), 1 => (0u32..32).prop_map(|bit| 1 << bit), 1 => any::<u32>()];
    (prop::sample::select(&GOOD[..]), prop::array::uniform5((sparse(), sparse())), any::<u64>()).prop_map(
        |(cpu, changes, ept_vpid)| {
            let mut all = cpu.capabilities();
            let words = [&mut all.pin, &mut all.primary, &mut all.secondary, &mut all.exit, &mut all.entry];
            for (word, (gone, forced)) in words.into_iter().zip(changes) {
                word.may_be_1 &= !gone | word.must_be_1;
                // Half of the time with bits that nobody has a name for, which are to be taken as they are.
                word.must_be_1 |= forced & word.may_be_1;
            }
            all.ept_vpid = EptVpid(all.ept_vpid.0 | ept_vpid);
            all
        },
    )
}

fn holds(capabilities: &VmxCapabilities) -> Result<(), TestCaseError> {
    match negotiate(capabilities) {
        Ok(controls) => {
            prop_assert!(controls.fit(capabilities));
            prop_assert!(controls.secondary.contains(Secondary::ENABLE_EPT | Secondary::UNRESTRICTED_GUEST));
            prop_assert!(!controls.primary.intersects(Primary::HLT_EXITING | Primary::CR3_LOAD_EXITING));
            prop_assert!(!controls.pin.contains(PinBased::EXTERNAL_INTERRUPT_EXITING));
            prop_assert!(controls.exit.contains(Exit::HOST_ADDRESS_SPACE_SIZE));
        }
        Err(missing) => {
            let text = missing.to_string();
            prop_assert!(text.contains("MSR 0x") && text.contains("; "), "{}", text);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_capabilities_are_obeyed_or_refused(values in prop::collection::vec(any::<u64>(), 32)) {
        let read = |number: u32| values[number as usize % values.len()];
        holds(&VmxCapabilities::collect(read))?;
    }

    #[test]
    fn capabilities_near_to_real_ones_are_obeyed_or_refused(capabilities in mutated()) {
        holds(&capabilities)?;
    }

    /// Only MSRs that the others show are read.
    #[test]
    fn msrs_that_are_not_there_are_not_read(basic: u64, primary: u64, secondary: u64) {
        let exact = basic & 1 << 55 != 0;
        let has_secondary = primary & 1 << 63 != 0;
        let has_ept_or_vpid = has_secondary && secondary & (1 << 33 | 1 << 37) != 0;
        let mut seen = Vec::new();
        let all = VmxCapabilities::collect(|number| {
            seen.push(number);
            match number {
                msr::BASIC => basic,
                msr::PROCBASED | msr::TRUE_PROCBASED => primary,
                msr::PROCBASED2 => secondary,
                _ => u64::MAX,
            }
        });
        prop_assert_eq!(seen.iter().any(|number| (msr::TRUE_PINBASED..=msr::TRUE_ENTRY).contains(number)), exact);
        prop_assert_eq!(seen.iter().any(|number| (msr::PINBASED..=msr::ENTRY).contains(number)), !exact);
        prop_assert_eq!(seen.contains(&msr::PROCBASED2), has_secondary);
        prop_assert_eq!(seen.contains(&msr::EPT_VPID_CAP), has_ept_or_vpid);
        prop_assert!(seen.iter().all(|number| *number == msr::FEATURE_CONTROL || (msr::BASIC..=msr::TRUE_ENTRY).contains(number)));
        prop_assert!(has_ept_or_vpid || all.ept_vpid == EptVpid(0));
    }
}
