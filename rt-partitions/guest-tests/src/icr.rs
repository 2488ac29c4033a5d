//! Interrupts between the CPUs of a partition: what arrives, how often, and what must not arrive.

use partita_rt::{Error, Machine};

use crate::catch::{self, GP, NOTHING};
use crate::claims::Claims;
use crate::counters::{self, FIRST_VECTOR};
use crate::peer::{self, Pair};

const ICR: u32 = 0x830;
const SELF_IPI: u32 = 0x83F;
const ASSERT: u64 = 1 << 14;
const LOGICAL: u64 = 1 << 11;
const SELF: u64 = 1 << 18;
const ALL: u64 = 2 << 18;
const OTHERS: u64 = 3 << 18;
const BROADCAST: u64 = 0xFFFF_FFFF << 32;
const MODE_LOWEST: u64 = 1 << 8;
const MODE_SMI: u64 = 2 << 8;
const MODE_RESERVED: u64 = 3 << 8;
const MODE_NMI: u64 = 4 << 8;
const MODE_INIT: u64 = 5 << 8;
const MODE_SIPI: u64 = 6 << 8;
const MODE_EXTERNAL: u64 = 7 << 8;
const ROUNDS: u64 = 25;

fn to(id: u64) -> u64 {
    id << 32
}

/// The logical ID.
fn logical(id: u32) -> u64 {
    u64::from((id >> 4) << 16 | 1 << (id & 15))
}

/// A way to send a fixed interrupt, and whom it reaches.
struct Way {
    text: &'static str,
    msr: u32,
    value: u64,
    own: u64,
    peer: u64,
}

const fn by_icr(text: &'static str, value: u64, own: u64, peer: u64) -> Way {
    Way { text, msr: ICR, value: value | ASSERT, own, peer }
}

/// The claims.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let mut claims = Claims::from(300);
    let pair = Pair::start(machine)?;
    let (own, peer) = (u64::from(pair.own), u64::from(pair.peer));
    let both = logical(pair.own) | logical(pair.peer);
    let ways = [
        by_icr("physical, to the other", to(peer), 0, 1),
        by_icr("physical, to oneself", to(own), 1, 0),
        by_icr("logical, to the other", to(logical(pair.peer)) | LOGICAL, 0, 1),
        by_icr("logical, to both", to(both) | LOGICAL, 1, 1),
        by_icr("logical, to the whole cluster", to(0xFFFF) | LOGICAL, 1, 1),
        by_icr("shorthand self", SELF, 1, 0),
        by_icr("shorthand all", ALL, 1, 1),
        by_icr("shorthand all but self", OTHERS, 0, 1),
        by_icr("physical broadcast", BROADCAST, 1, 1),
        by_icr("logical broadcast", BROADCAST | LOGICAL, 1, 1),
        by_icr("level-triggered, to the other", to(peer) | 1 << 15, 0, 1),
        Way { text: "self-IPI register", msr: SELF_IPI, value: 0, own: 1, peer: 0 },
    ];
    for (way, index) in ways.iter().zip(0u8..) {
        send(&mut claims, &pair, way, FIRST_VECTOR + index % counters::VECTORS as u8)?;
    }
    refused(&mut claims, &pair);
    for way in ways.iter().take(2) {
        send(&mut claims, &pair, way, FIRST_VECTOR)?;
    }
    claims.equal("CPU 1 started once", peer::starts(), 1);
    Ok(())
}

fn send(claims: &mut Claims, pair: &Pair, way: &Way, vector: u8) -> Result<(), Error> {
    let now = || (counters::count(vector, pair.own), counters::count(vector, pair.peer));
    let (before, total) = (now(), counters::total());
    let mut faults = 0;
    for round in 1..=ROUNDS {
        faults += u64::from(catch::write_msr(way.msr, way.value | u64::from(vector)) != NOTHING);
        pair.wait(|| {
            let (own, peer) = now();
            own >= before.0 + way.own * round && peer >= before.1 + way.peer * round
        })?;
    }
    pair.settle();
    let (own, peer) = now();
    let reached = own - before.0 == way.own * ROUNDS && peer - before.1 == way.peer * ROUNDS;
    let all = counters::total() - total == (way.own + way.peer) * ROUNDS;
    claims.about(way.text, reached && all && faults == 0, own - before.0, peer - before.1);
    Ok(())
}

/// Nothing of this may arrive anywhere.
fn refused(claims: &mut Claims, pair: &Pair) {
    let peer = to(pair.peer.into());
    let vector = u64::from(FIRST_VECTOR);
    let before = (counters::total(), counters::all_nmis(), peer::starts());
    for (text, value) in [
        ("foreign: the hypervisor's CPU", vector),
        ("foreign: another partition's CPU", to(1) | vector),
        ("foreign: a CPU that is not there", to(0x1000) | vector),
        ("foreign: logical", to(0b0011) | LOGICAL | vector),
        ("foreign: logical, another cluster", to(0x1_FFFF) | LOGICAL | vector),
        ("foreign: NMI", MODE_NMI),
        ("foreign: INIT", to(1) | MODE_INIT),
        ("foreign: SIPI", to(1) | MODE_SIPI | 8),
        ("vector 0", peer),
        ("vector 15", peer | 15),
        ("lowest priority", peer | MODE_LOWEST | vector),
        ("SMI", peer | MODE_SMI),
        ("SMI to all but self", OTHERS | MODE_SMI),
        ("reserved mode 3", peer | MODE_RESERVED | vector),
        ("reserved mode 7", peer | MODE_EXTERNAL | vector),
        ("NMI to self", SELF | MODE_NMI),
        ("NMI to all", ALL | MODE_NMI),
        ("INIT to all", ALL | MODE_INIT),
        ("SIPI to self", SELF | MODE_SIPI | 8),
    ] {
        claims.equal(text, catch::write_msr(ICR, value | ASSERT), NOTHING);
    }
    claims.equal("INIT level de-assert", catch::write_msr(ICR, peer | MODE_INIT | 1 << 15), NOTHING);
    for bit in [12, 13, 16, 17, 20, 31] {
        claims.equal("a reserved bit", catch::write_msr(ICR, peer | ASSERT | vector | 1 << bit), GP);
        claims.equal("  its error code", catch::error_code(), 0);
    }
    pair.settle();
    let after = (counters::total(), counters::all_nmis(), peer::starts());
    claims.equal("no interrupt came of it", after.0, before.0);
    claims.equal("no NMI came of it", after.1, before.1);
    claims.equal("no start came of it", after.2, before.2);
}
