//! The MSR policy: default deny, the permission map, and the values of what is emulated.

use partita_x86_policy::capabilities::Backend;
use partita_x86_policy::msr::{MSRPM_LEN, MsrPolicy, MsrRead, MsrWrite, msrpm_intercepts};
use partita_x86_policy::msr_values::{
    ApicBaseWrite, EFER_FFXSR, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE, EFER_SVME, EFER_TCE, Gp, apic_base_read,
    apic_base_write, efer_from_vmcb, efer_to_vmcb, efer_writable, efer_write, lvt_timer_write, lvt_write,
};
use proptest::prelude::*;

fn map(policy: MsrPolicy) -> Box<[u8; MSRPM_LEN]> {
    let mut map = Box::new([0; MSRPM_LEN]);
    policy.fill_msrpm(&mut map);
    map
}

/// All MSRs that the map says something about.
fn mapped() -> impl Iterator<Item = u32> {
    [0, 0xC000_0000, 0xC001_0000].into_iter().flat_map(|base| base..base + 0x2000)
}

/// The open ones as ranges: what a guest touches without an exit, and nothing else.
fn open(map: &[u8; MSRPM_LEN], write: bool) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for msr in mapped().filter(|&msr| !msrpm_intercepts(map, msr, write)) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == msr => *last = msr,
            _ => ranges.push((msr, msr)),
        }
    }
    ranges
}

#[test]
fn exactly_the_listed_msrs_are_readable_without_an_exit() {
    let expected = [
        (0x10, 0x10),
        (0x48, 0x48),
        (0x174, 0x176),
        (0x277, 0x277),
        (0x6E0, 0x6E0),
        (0x802, 0x803),
        (0x808, 0x808),
        (0x80A, 0x80A),
        (0x80D, 0x80D),
        (0x80F, 0x828),
        (0x830, 0x830),
        (0x832, 0x839),
        (0x83E, 0x83E),
        (0xDA0, 0xDA0),
        (0xC000_0081, 0xC000_0084),
        (0xC000_0100, 0xC000_0103),
    ];
    assert_eq!(open(&map(MsrPolicy::new(false)), false), expected);
}

#[test]
fn exactly_the_listed_msrs_are_writable_without_an_exit() {
    let expected = [
        (0x48, 0x49),
        (0x174, 0x176),
        (0x277, 0x277),
        (0x6E0, 0x6E0),
        (0x808, 0x808),
        (0x80B, 0x80B),
        (0x80F, 0x80F),
        (0x828, 0x828),
        (0x838, 0x838),
        (0x83E, 0x83F),
        (0xC000_0081, 0xC000_0084),
        (0xC000_0100, 0xC000_0103),
    ];
    for policy in [MsrPolicy::new(false), MsrPolicy::new(true)] {
        assert_eq!(open(&map(policy), true), expected);
    }
}

#[test]
fn the_timer_count_traps_only_when_asked_for() {
    let (pass, trap) = (MsrPolicy::new(false), MsrPolicy::new(true));
    assert_eq!((pass.read(0x839), trap.read(0x839)), (MsrRead::Pass, MsrRead::TimerCount));
    assert_eq!((pass.write(0x839), trap.write(0x839)), (MsrWrite::Gp, MsrWrite::Gp));
    let differing: Vec<u32> =
        mapped().filter(|&m| pass.read(m) != trap.read(m) || pass.write(m) != trap.write(m)).collect();
    assert_eq!(differing, [0x839]);
}

#[test]
fn the_map_lies_as_the_processor_reads_it() {
    let map = map(MsrPolicy::new(false));
    // 0x830: reads pass, writes exit. 0x831 does not exist. 0x832 and 0x833 exit on writes.
    assert_eq!(map[0x830 / 4], 0b10_10_11_10);
    // STAR in the second range.
    assert_eq!(map[0x800 + 0x80 / 4], 0b00_00_00_11);
    // VM_CR in the third.
    assert_eq!(map[0x1000 + 0x114 / 4], 0xFF);
    assert!(map[0x1800..].iter().all(|&byte| byte == 0xFF), "the reserved end");
}

#[test]
fn what_must_be_trapped_is() {
    let policy = MsrPolicy::new(false);
    assert_eq!(policy.write(0x830), MsrWrite::Icr);
    assert_eq!((policy.read(0x1B), policy.write(0x1B)), (MsrRead::ApicBase, MsrWrite::ApicBase));
    assert_eq!((policy.read(0xC000_0080), policy.write(0xC000_0080)), (MsrRead::Efer, MsrWrite::Efer));
    for lvt in 0x833..=0x837 {
        assert_eq!((policy.read(lvt), policy.write(lvt)), (MsrRead::Pass, MsrWrite::Lvt));
    }
    for svm in [0xC001_0114, 0xC001_0117, 0xC001_0118] {
        assert_eq!((policy.read(svm), policy.write(svm)), (MsrRead::Gp, MsrWrite::Gp));
    }
    assert_eq!(policy.write(0x10), MsrWrite::Ignore, "the time line is everybody's");
}

#[test]
fn each_vendor_has_its_own_and_shares_the_rest() {
    let (amd, intel) = (MsrPolicy::new(false), MsrPolicy::new(false).on(Backend::Vmx));
    assert_eq!(amd.on(Backend::Svm), amd);
    let misc_enable = (MsrRead::Value(0x1801), MsrWrite::Ignore);
    assert_eq!((intel.read(0x1A0), intel.write(0x1A0)), misc_enable);
    assert_eq!((amd.read(0x1A0), amd.write(0x1A0)), (MsrRead::Gp, MsrWrite::Gp));
    assert_eq!((amd.write(0x8B), intel.write(0x8B)), (MsrWrite::Gp, MsrWrite::Ignore));
    for msr in 0xC001_0000..=0xC001_1FFF {
        assert_eq!((intel.read(msr), intel.write(msr)), (MsrRead::Gp, MsrWrite::Gp), "{msr:#x}");
    }
    for msr in (0..=0x1FFF).chain(0xC000_0000..=0xC000_1FFF).filter(|msr| ![0x8B, 0x1A0].contains(msr)) {
        assert_eq!((amd.read(msr), amd.write(msr)), (intel.read(msr), intel.write(msr)), "{msr:#x}");
    }
}

#[test]
fn kernels_find_what_they_read_without_asking() {
    let policy = MsrPolicy::new(false);
    for (msr, value) in [
        (0x8B, 0),
        (0xFE, 0),
        (0x179, 0),
        (0x400, 0),
        (0x1D9, 0),
        (0xC001_0004, 0),
        (0xC001_0010, 0),
        (0xC001_0015, 1 << 24),
        (0xC001_001F, 0),
        (0xC001_0055, 0),
        (0xC001_0058, 0),
        (0xC001_1020, 0),
        (0xC001_1029, 2),
    ] {
        assert_eq!(policy.read(msr), MsrRead::Value(value), "{msr:#x}");
    }
    for write in [0x1D9, 0xC001_0000, 0xC001_0015, 0xC001_001F, 0xC001_1029] {
        assert_eq!(policy.write(write), MsrWrite::Ignore, "{write:#x}");
    }
}

#[test]
fn unknown_and_hidden_msrs_fault() {
    let policy = MsrPolicy::new(false);
    for msr in
        [0x3A, 0x3B, 0x1A0, 0x200, 0x480, 0x801, 0x804, 0x82F, 0x831, 0x840, 0xC000_0104, 0xC001_0200, 0x4000_0000]
    {
        assert_eq!((policy.read(msr), policy.write(msr)), (MsrRead::Gp, MsrWrite::Gp), "{msr:#x}");
    }
}

#[test]
fn apic_base_stays_what_it_is() {
    assert_eq!(apic_base_read(0), 0xFEE0_0D00);
    assert_eq!(apic_base_read(1), 0xFEE0_0C00);
    assert_eq!(apic_base_write(0xFEE0_0D00), ApicBaseWrite::Same);
    assert_eq!(apic_base_write(0xFEE0_0C00), ApicBaseWrite::Same);
    assert_eq!(apic_base_write(0xFEE0_0900), ApicBaseWrite::LeavesX2apic);
    assert_eq!(apic_base_write(0xFEE0_0000), ApicBaseWrite::LeavesX2apic);
    assert_eq!(apic_base_write(0xFED0_0C00), ApicBaseWrite::MovesPage);
    assert_eq!(apic_base_write(0x1_FEE0_0C00), ApicBaseWrite::MovesPage);
    assert_eq!(apic_base_write(0xFEE0_0C01), ApicBaseWrite::Gp);
    assert_eq!(apic_base_write(1 << 60 | 0xFEE0_0C00), ApicBaseWrite::Gp);
}

#[test]
fn efer_keeps_svm_to_the_hypervisor() {
    let writable = efer_writable(0, 0);
    let long = EFER_SCE | EFER_LME | EFER_NXE;
    assert_eq!(efer_write(0, long, false, writable), Ok(long));
    assert_eq!(efer_write(0, long | EFER_SVME, false, writable), Err(Gp));
    assert_eq!(efer_write(0, 1 << 13, false, writable), Err(Gp), "LMSLE");
    assert_eq!(efer_write(0, EFER_FFXSR, false, writable), Err(Gp));
    assert_eq!(efer_write(0, EFER_TCE, false, writable), Err(Gp));
    let all = efer_writable(1 << 17, 1 << 25);
    assert_eq!(efer_write(0, EFER_FFXSR | EFER_TCE, false, all), Ok(EFER_FFXSR | EFER_TCE));
}

#[test]
fn long_mode_changes_only_without_paging() {
    let writable = efer_writable(0, 0);
    let active = EFER_LME | EFER_LMA;
    assert_eq!(efer_write(active, active | EFER_SCE, true, writable), Ok(active | EFER_SCE));
    assert_eq!(efer_write(active, EFER_LME, true, writable), Ok(active), "LMA is the processor's");
    assert_eq!(efer_write(0, EFER_LMA, false, writable), Ok(0));
    assert_eq!(efer_write(active, EFER_LMA, true, writable), Err(Gp));
    assert_eq!(efer_write(0, EFER_LME, true, writable), Err(Gp));
}

#[test]
fn lvt_entries_deliver_fixed_or_nothing() {
    let write = |value| lvt_write(value).map(|write| (write.value, write.refused));
    const MASKED: u64 = 1 << 16;
    assert_eq!(write(0xFE), Ok((0xFE, false)));
    assert_eq!(write(0xFE | MASKED), Ok((0xFE | MASKED, false)));
    // As Linux sets LINT0 and LINT1 on its first CPU, and on the others.
    assert_eq!(write(0x700), Ok((MASKED, true)));
    assert_eq!(write(0x400), Ok((MASKED, true)));
    assert_eq!(write(0x700 | MASKED), Ok((MASKED, false)));
    assert_eq!(write(0x400 | MASKED), Ok((MASKED, false)));
    assert_eq!(write(0x200), Ok((MASKED, true)), "SMI");
    assert_eq!(write(0x500), Ok((MASKED, true)), "INIT");
    // Read-only bits of a value read before are no fault; trigger and polarity stay.
    assert_eq!(write(0xF0FE), Ok((0xA0FE, false)));
    assert_eq!(write(1 << 17), Err(Gp));
    assert_eq!(write(1 << 11), Err(Gp));
    assert_eq!(write(1 << 32), Err(Gp));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_map_opens_what_the_policy_passes(trap in any::<bool>(), msrs in prop::collection::vec(any::<u32>(), 64)) {
        let policy = MsrPolicy::new(trap);
        let map = map(policy);
        let near = msrs.iter().flat_map(|&m| [m, m & 0x1FFF, 0xC000_0000 | m & 0x1FFF, 0xC001_0000 | m & 0x1FFF]);
        for msr in near {
            prop_assert_eq!(msrpm_intercepts(&map, msr, false), policy.read(msr) != MsrRead::Pass);
            prop_assert_eq!(msrpm_intercepts(&map, msr, true), policy.write(msr) != MsrWrite::Pass);
        }
    }

    #[test]
    fn no_efer_write_sets_a_bit_that_is_not_the_guests(
        old in any::<u64>(), value in any::<u64>(), known in any::<bool>(), paging in any::<bool>(),
        ecx in any::<u32>(), edx in any::<u32>(),
    ) {
        let writable = efer_writable(ecx, edx);
        let value = if known { value & (writable | EFER_LMA) } else { value };
        let old = efer_from_vmcb(old);
        if let Ok(new) = efer_write(old, value, paging, writable) {
            prop_assert_eq!(new & EFER_LMA, old & EFER_LMA);
            prop_assert_eq!(new & !(writable | EFER_LMA), 0);
            prop_assert_eq!(efer_from_vmcb(efer_to_vmcb(new)), new);
            prop_assert!(!paging || (new ^ old) & EFER_LME == 0);
        }
    }

    #[test]
    fn no_lvt_write_reaches_hardware_with_a_delivery_mode(value in any::<u64>(), known in any::<bool>()) {
        let value = if known { value & 0x1_F7FF } else { value };
        if let Ok(write) = lvt_write(value) {
            prop_assert_eq!(write.value & !0x1_A0FF, 0);
            prop_assert!(value & 0x700 == 0 || write.value & 1 << 16 != 0);
            prop_assert!(value & 1 << 16 == 0 || write.value & 1 << 16 != 0);
        } else {
            prop_assert!(!known);
        }
    }
}

#[test]
fn the_timer_entry_has_no_delivery_mode() {
    assert_eq!(lvt_timer_write(0x2_0040), Ok(0x2_0040));
    assert_eq!(lvt_timer_write(0x1_10EC), Ok(0x1_00EC));
    for mode in 1..8 {
        assert_eq!(lvt_timer_write(0x40 | mode << 8), Err(Gp), "delivery mode {mode}");
    }
    assert_eq!(lvt_timer_write(0x6_0040), Err(Gp));
    assert_eq!(lvt_timer_write(1 << 32), Err(Gp));
}
