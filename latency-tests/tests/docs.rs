//! `docs/latency.md` is true to the code.

use partita_host::cargo_build;
use partita_host::emulator::{Clock, MachineKind};
use partita_rows::Row;

#[test]
fn every_row_is_explained_and_in_the_sample() {
    let text = std::fs::read_to_string(cargo_build::repository().unwrap().join("docs/latency.md")).unwrap();
    for row in Row::ALL {
        assert!(text.contains(&format!("| `{}` |", row.name())), "docs/latency.md does not explain {}", row.name());
        assert!(text.contains(&format!("\n{} ", row.name())), "the sample of docs/latency.md lacks {}", row.name());
    }
    assert!(text.contains(MachineKind::Qemu.tick(Clock::Icount)));
}
