use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn any(bytes: u64) -> Wanted {
    Wanted { bytes, at: None }
}

fn fixed(at: u64, bytes: u64) -> Wanted {
    Wanted { bytes, at: Some(at) }
}

/// A PC of 512 MiB with the hypervisor at 1 MiB and a bundle of 5 MiB at 100 MiB.
const USABLE: [Range; 2] = [Range { start: 0, end: 0x9_FC00 }, Range { start: MIB, end: 512 * MIB }];
const RESERVED: [(Owner, Range); 3] = [
    (Owner::Firmware, Range { start: 0, end: MIB }),
    (Owner::Hypervisor, Range { start: MIB, end: MIB + 0x5_0000 }),
    (Owner::Bundle, Range { start: 100 * MIB, end: 105 * MIB }),
];

fn divide_pc(partitions: &[Wanted]) -> Result<Division, DivideError> {
    divide(&Request { usable: &USABLE, reserved: &RESERVED, pool_bytes: 3 * MIB, pool_end: u64::MAX, partitions })
}

#[test]
fn a_pc_is_divided_among_all() {
    let division = divide_pc(&[any(64 * MIB), fixed(256 * MIB, 32 * MIB), any(128 * MIB)]).unwrap();
    assert_eq!(division.pool, Range::at(2 * MIB, 3 * MIB));
    // The largest comes first and does not fit below the bundle.
    let expected = [Range::at(6 * MIB, 64 * MIB), Range::at(256 * MIB, 32 * MIB), Range::at(106 * MIB, 128 * MIB)];
    assert_eq!(division.partitions, expected);
    let totals = division.totals;
    assert_eq!((totals.partitions, totals.bundle), (224 * MIB, 5 * MIB));
    assert_eq!((totals.hypervisor, totals.firmware), (3 * MIB + 0x5_0000, 0x9_FC00));
}

#[test]
fn what_is_missing_is_said() {
    let largest = 512 - 106;
    let error = divide_pc(&[any((largest + 10) * MIB)]).unwrap_err();
    let expected = DivideError::NoRoom { partition: 0, bytes: (largest + 10) * MIB, missing: 10 * MIB };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("10 MiB are missing"), "{error}");

    let pool_bytes = 600 * MIB;
    let error =
        divide(&Request { usable: &USABLE, reserved: &RESERVED, pool_bytes, pool_end: u64::MAX, partitions: &[] })
            .unwrap_err();
    assert_eq!(error, DivideError::NoRoomForHypervisor { bytes: pool_bytes, missing: (600 - largest) * MIB });
}

#[test]
fn a_fixed_range_must_be_free_ram() {
    let over_the_bundle = divide_pc(&[fixed(104 * MIB, 4 * MIB)]).unwrap_err();
    let range = Range::at(104 * MIB, 4 * MIB);
    assert_eq!(over_the_bundle, DivideError::NotFree { partition: 0, range, missing: MIB });
    let twice = divide_pc(&[fixed(200 * MIB, 4 * MIB), fixed(202 * MIB, 4 * MIB)]).unwrap_err();
    assert!(matches!(twice, DivideError::NotFree { partition: 1, missing, .. } if missing == 2 * MIB));
    let beyond = divide_pc(&[fixed(u64::MAX - 2 * MIB + 1, 4 * MIB)]).unwrap_err();
    assert!(matches!(beyond, DivideError::NotFree { missing, .. } if missing == 4 * MIB));
}

#[test]
fn odd_sizes_and_addresses_are_refused() {
    for (wanted, value) in [(any(3 * MIB), 3 * MIB), (any(0), 0), (fixed(9 * MIB, 2 * MIB), 9 * MIB)] {
        assert_eq!(divide_pc(&[wanted]).unwrap_err(), DivideError::Misaligned { partition: 0, value });
    }
    let too_many = [any(2 * MIB); PARTITIONS_MAX + 1];
    assert_eq!(divide_pc(&too_many).unwrap_err(), DivideError::TooManyPartitions { count: PARTITIONS_MAX + 1 });
}

#[test]
fn a_map_with_too_many_holes_is_refused() {
    let holes: Vec<Range, 200> = (0..200).map(|n| Range::at(n * 4 * MIB, MIB)).collect();
    let request = Request { usable: &holes, reserved: &[], pool_bytes: 0, pool_end: u64::MAX, partitions: &[] };
    assert_eq!(divide(&request).unwrap_err(), DivideError::TooManyRanges);
}

fn ranges() -> impl Strategy<Value = std::vec::Vec<Range>> {
    // Quarters of a granule, so that alignment matters.
    let range = (0u64..400, 0u64..120).prop_map(|(start, len)| Range::at(start * MIB / 2, len * MIB / 2));
    proptest::collection::vec(range, 0..6)
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (1u64..12, proptest::option::weighted(0.2, 0u64..100))
        .prop_map(|(granules, at)| Wanted { bytes: granules * MEMORY_GRANULE, at: at.map(|at| at * MEMORY_GRANULE) })
}

proptest! {
    #[test]
    fn what_is_given_is_ram_aligned_and_given_once(
        usable in ranges(),
        reserved in ranges(),
        pool_bytes in 0u64..20_000_000,
        partitions in proptest::collection::vec(wanted(), 0..8),
    ) {
        let owners = [Owner::Hypervisor, Owner::Bundle, Owner::Firmware];
        let reserved: std::vec::Vec<_> = owners.into_iter().cycle().zip(reserved).collect();
        let request = Request { usable: &usable, reserved: &reserved, pool_bytes, pool_end: u64::MAX, partitions: &partitions };
        let result = divide(&request);
        prop_assert_eq!(&result, &divide(&request));
        let Ok(division) = result else { return Ok(()) };

        prop_assert_eq!(division.partitions.len(), partitions.len());
        prop_assert_eq!(division.pool.len(), pool_bytes);
        for (place, wanted) in division.partitions.iter().zip(&partitions) {
            prop_assert_eq!(place.len(), wanted.bytes);
            prop_assert!(wanted.at.is_none_or(|at| at == place.start));
        }
        let given: std::vec::Vec<_> = division.partitions.iter().copied().chain([division.pool]).collect();
        for (index, range) in given.iter().enumerate() {
            prop_assert!(range.start.is_multiple_of(MEMORY_GRANULE));
            prop_assert!(!reserved.iter().any(|(_, taken)| taken.overlaps(range)));
            prop_assert!(!given[..index].iter().any(|other| other.overlaps(range)));
            // Byte for byte would take long: half MiBs are the grain of this test's ranges.
            let mut at = range.start;
            while at < range.end {
                prop_assert!(usable.iter().any(|ram| ram.start <= at && at < ram.end), "{at:#x} is no RAM");
                at += MIB / 2;
            }
        }
        let t = division.totals;
        prop_assert_eq!(t.usable, t.partitions + t.bundle + t.hypervisor + t.firmware + t.unassigned);
    }

    #[test]
    fn a_partition_that_is_refused_does_fit_nowhere(usable in ranges(), granules in 1u64..60) {
        let bytes = granules * MEMORY_GRANULE;
        let request = Request { usable: &usable, reserved: &[], pool_bytes: 0, pool_end: u64::MAX, partitions: &[any(bytes)] };
        let is_ram = |at: u64| usable.iter().any(|ram| ram.start <= at && at < ram.end);
        let fits = (0..300).any(|first| {
            (0..granules * 4).all(|half| is_ram(first * MEMORY_GRANULE + half * MIB / 2))
        });
        // Without any RAM, not even an empty pool has a place.
        prop_assert_eq!(divide(&request).is_ok(), fits);
    }
}

#[test]
fn the_hypervisors_memory_stays_below_its_end() {
    let usable = [Range::at(0, 4 * MIB), Range::at(8 * MIB, 64 * MIB)];
    let request = |pool_end| Request { usable: &usable, reserved: &[], pool_bytes: 6 * MIB, pool_end, partitions: &[] };
    assert_eq!(divide(&request(14 * MIB)).unwrap().pool, Range::at(8 * MIB, 6 * MIB));
    let error = divide(&request(14 * MIB - 1)).unwrap_err();
    assert_eq!(error, DivideError::NoLowRoomForHypervisor { bytes: 6 * MIB, end: 14 * MIB - 1 });
    assert!(error.to_string().contains("memory_at"), "{error}");
}

#[test]
fn the_highest_room_is_free_aligned_and_below_the_end() {
    let taken = RESERVED.map(|(_, range)| range);
    let room = |bytes, end| highest_room(&USABLE, &taken, bytes, 0x1000, end);
    assert_eq!(room(MIB, u64::MAX), Some(Range::at(511 * MIB, MIB)));
    assert_eq!(room(MIB - 1, u64::MAX), Some(Range::at(511 * MIB, MIB - 1)));
    assert_eq!(room(MIB, 105 * MIB + 0x1234), Some(Range::at(99 * MIB, MIB)), "below the bundle");
    assert_eq!(room(2 * MIB, 2 * MIB), None);
    assert_eq!(room(600 * MIB, u64::MAX), None);
    assert_eq!(room(0x1000, 0), None);
}

proptest! {
    /// The room does not overlap what is taken, and there is none above it.
    #[test]
    fn a_room_is_nobody_elses(
        starts in prop::collection::vec((0u64..256, 1u64..64), 0..8), bytes in 1u64..0x8000, end in 0u64..300
    ) {
        // Small, so that all places can be looked at.
        const UNIT: u64 = 0x4000;
        let taken: Vec<Range, 8> = starts.iter().map(|&(start, len)| Range::at(start * UNIT, len * UNIT)).collect();
        let usable = [Range::at(0, 256 * UNIT)];
        let is_free = |range: Range| range.end <= (end * UNIT).min(256 * UNIT) && !taken.iter().any(|t| t.overlaps(&range));
        match highest_room(&usable, &taken, bytes, 0x1000, end * UNIT) {
            Some(room) => {
                prop_assert!(is_free(room) && room.len() == bytes && room.start % 0x1000 == 0);
                let above = (room.start + 0x1000..256 * UNIT).step_by(0x1000);
                prop_assert!(!above.into_iter().any(|start| is_free(Range::at(start, bytes))));
            }
            None => prop_assert!(!(0..256 * UNIT).step_by(0x1000).any(|start| is_free(Range::at(start, bytes)))),
        }
    }
}
