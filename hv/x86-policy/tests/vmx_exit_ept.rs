//! Entries of extended page tables.

use std::collections::HashMap;

use partita_x86_policy::vmx::ept::{
    ADDRESS, DEVICE, EXECUTE, IGNORE_PAT, Illegal, LARGE, Level, RAM, READ, TABLE, WRITE, WRITE_BACK, explain,
    misconfiguration, pointer, present,
};
use proptest::prelude::*;

const PHYSICAL_BITS: u8 = 39;

#[test]
fn entries_are_those_of_the_manual() {
    assert_eq!((TABLE, RAM, RAM | LARGE, DEVICE), (0x7, 0x37, 0xB7, 0x3));
    assert_eq!(pointer(0x1234_5000, false), 0x1234_501E);
    assert_eq!(pointer(0x1234_5000, true), 0x1234_505E);
    assert_eq!(Level::ALL.map(Level::shift), [39, 30, 21, 12]);
}

#[test]
fn what_is_built_is_legal() {
    for (entry, level) in [
        (0x1000 | TABLE, Level::Pml4),
        (0x2000 | TABLE, Level::Pdpt),
        (0x3000 | TABLE, Level::Pd),
        (0x4000_0000 | RAM | LARGE, Level::Pdpt),
        (0x0060_0000 | RAM | LARGE, Level::Pd),
        (0x7F_FEA0_1000 | DEVICE, Level::Pt),
        (0x0060_1000 | RAM | IGNORE_PAT, Level::Pt),
        (0, Level::Pml4),
        (ADDRESS, Level::Pt),
    ] {
        assert_eq!(misconfiguration(entry, level, PHYSICAL_BITS), None, "{entry:#x}");
    }
    assert!(present(EXECUTE) && !present(ADDRESS | LARGE));
}

#[test]
fn what_is_not_legal_is_named() {
    let reserved = |bits| Some(Illegal::Reserved { bits });
    for (entry, level, illegal) in [
        (WRITE, Level::Pt, Some(Illegal::WriteOnly)),
        (WRITE | EXECUTE, Level::Pml4, Some(Illegal::WriteOnly)),
        (EXECUTE | WRITE_BACK, Level::Pt, Some(Illegal::ExecuteOnly)),
        (TABLE | 1 << 39, Level::Pd, reserved(1 << 39)),
        (TABLE | 3 << 50, Level::Pt, reserved(3 << 50)),
        (TABLE | LARGE, Level::Pml4, reserved(LARGE)),
        (RAM, Level::Pml4, reserved(WRITE_BACK)),
        (RAM, Level::Pd, reserved(WRITE_BACK)),
        (TABLE | IGNORE_PAT, Level::Pdpt, reserved(IGNORE_PAT)),
        (RAM | LARGE | 0x1000, Level::Pd, reserved(0x1000)),
        (RAM | LARGE | 0x20_0000, Level::Pdpt, reserved(0x20_0000)),
        (TABLE | 2 << 3, Level::Pt, Some(Illegal::Type { memory_type: 2 })),
        (TABLE | LARGE | 7 << 3, Level::Pd, Some(Illegal::Type { memory_type: 7 })),
    ] {
        assert_eq!(misconfiguration(entry, level, PHYSICAL_BITS), illegal, "{entry:#x}");
    }
    assert_eq!(misconfiguration(TABLE | 1 << 51, Level::Pt, 52), None);
}

#[test]
fn the_entry_on_the_way_is_found() {
    let (gpa, root) = (0xFEA0_1000_u64, 0x1000_u64);
    let good = HashMap::from([
        (root, 0x2000 | TABLE),
        (0x2000 + 3 * 8, 0x3000 | TABLE),
        (0x3000 + 0x1F5 * 8, 0x4000 | TABLE),
        (0x4000 + 8, 0xFEA0_1000 | DEVICE),
    ]);
    let walk = |tables: &HashMap<u64, u64>| {
        explain(pointer(root, true), gpa, PHYSICAL_BITS, |address| Some(tables.get(&address).copied().unwrap_or(0)))
    };
    assert_eq!(walk(&good), None);
    for (address, level) in [(root, Level::Pml4), (0x2018, Level::Pdpt), (0x3FA8, Level::Pd), (0x4008, Level::Pt)] {
        let mut bad = good.clone();
        bad.insert(address, 0x5000 | WRITE);
        let found = walk(&bad).unwrap();
        assert_eq!((found.level, found.address, found.entry), (level, address, 0x5002));
        bad.insert(address, 0);
        assert_eq!(walk(&bad), None, "absent is no misconfiguration");
    }
    let mut bad = good.clone();
    bad.insert(0x4008, 0xFEA0_1000 | READ | 3 << 3);
    assert_eq!(
        walk(&bad).unwrap().to_string(),
        "EPT PTE 0xfea01019 at 0x4008: bits 5:3 are 3: no such memory type (SDM vol. 3 section 29.3.3.1)"
    );
    assert_eq!(explain(pointer(root, false), gpa, PHYSICAL_BITS, |_| None), None, "unreadable");
}

proptest! {
    /// Decoding is total; what an absent entry holds beside its permissions is free; and a walk reads four entries at most.
    #[test]
    fn checks_are_total(entry in any::<u64>(), gpa in any::<u64>(), bits in any::<u8>()) {
        for level in Level::ALL {
            let illegal = misconfiguration(entry, level, bits);
            if entry & 7 == 0 {
                prop_assert_eq!(illegal, None);
            }
            if let Some(Illegal::Reserved { bits }) = illegal {
                prop_assert_eq!(bits & !entry, 0);
            }
        }
        let mut reads = 0;
        let _ = explain(entry, gpa, bits, |address| {
            reads += 1;
            assert!(address % 8 == 0 && address & !(ADDRESS | 0xFF8) == 0);
            Some(entry)
        });
        prop_assert!((1..=4).contains(&reads));
    }
}
