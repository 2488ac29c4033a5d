//! The payload as a guest of KVM, whose figures are beside Partita's in docs/peers.md.

use partita_host::cargo_build;
use partita_host::peers::KvmHost;
use partita_latency_tests::peers::{ROWS, under_kvm};
use partita_latency_tests::systems::PAYLOAD;
use partita_rows::Row;

/// Samples of each row: KVM's are all alike, but for the first ones.
const SAMPLES: u32 = 50;
/// No way into KVM and back is shorter than this, in ticks, with its decoding of instructions in software left out.
const LEAST: u64 = 500;

/// Boots Linux, runs the payload under its KVM, and reads its samples. In the long form twice: the figures are the same.
#[test]
#[ignore = "boots an emulator"]
fn the_payload_runs_under_kvm() {
    let host = KvmHost::prepare().unwrap();
    let payload = cargo_build::payload(PAYLOAD).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str| under_kvm(&host, &payload, SAMPLES, &dir.path().join(name)).unwrap();
    let first = run("first");
    assert_eq!(first.iter().map(|(row, _)| *row).collect::<Vec<Row>>(), ROWS);
    for (row, figures) in &first {
        println!("{}: {figures:?}", row.name());
        assert!(figures.min >= LEAST, "{}: {figures:?}: it did not leave the guest", row.name());
    }
    if std::env::var("PARTITA_LONG").is_ok_and(|value| value == "1") {
        assert_eq!(run("second"), first);
    }
}
