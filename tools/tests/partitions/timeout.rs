//! A system that never ends: the time-out ends it, and what was traced until then is shown, the guest's own frames too.

use partita_host::outcome::EXIT_RUN_FAILED;
use partita_host::trace::{Owner, Trace};
use std::process::Command;

const SYSTEM: &str = r#"
[system]
name = "endless"
[[partition]]
name = "rt0"
pcpus = [1, 2]
memory = "64 MiB"
image = { kind = "payload", name = "latency" }
cmdline = "group=kick state=hlt"
expect = "finish"
"#;

#[test]
#[ignore = "boots an emulator"]
fn a_guest_that_never_finishes_ends_at_the_time_out_with_its_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("endless.toml"), dir.path().join("run"));
    std::fs::write(&file, SYSTEM).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_partita"));
    let run = command.arg("run").arg(&file).args(["--icount", "--timeout", "10", "--out"]).arg(&out).output().unwrap();
    let text = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(EXIT_RUN_FAILED.into()), "{text}");
    assert!(text.contains("timed out after 10 s") && text.contains("last frames of the trace:"), "{text}");
    let trace = Trace::load(&out).unwrap();
    let has_guest = trace.regions.iter().any(|region| matches!(region.owner, Owner::Partition { .. }));
    assert!(has_guest, "the guest's trace window is saved\n{text}");
}
