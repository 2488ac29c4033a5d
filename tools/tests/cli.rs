//! The tool as a user meets it: words and exit codes.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn partita(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_partita")).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Exit code and everything that was printed.
fn result(args: &[&str]) -> (Option<i32>, String) {
    let output = partita(args);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn system(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../rt-partitions/systems").join(name).to_string_lossy().into_owned()
}

const BAD_SYSTEM: &str = "[system]\nname = 's'\n[[partition]]\nname = 'p'\npcpus = [0]\nmemory = '3 MiB'\n\
                          image = { kind = 'payload', name = 'latency' }\nexpect = 'finish'\n";

#[test]
fn the_systems_of_the_repository_are_fine() {
    for name in ["demo.toml", "linux-rt.toml"] {
        let (code, text) = result(&["check", &system(name)]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("is fine"), "{text}");
    }
}

#[test]
fn bad_input_is_exit_code_2_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_string_lossy().into_owned()
    };
    let bad = file("bad.toml", BAD_SYSTEM.as_bytes());
    let binary = file("binary.toml", b"\xFF\xFE\x00");
    let blocker = file("blocker", b"");
    let inside_file = format!("{blocker}/out");
    let demo = system("demo.toml");
    let long = file("long.txt", format!("help\n{}\n", "x".repeat(97)).as_bytes());
    let foreign = file("foreign.txt", "# fine\n\nhilfe f\u{fc}r\n".as_bytes());
    let bye = file("bye.txt", b"send bye\n");
    let empty = file("empty.txt", b"# nothing\n");
    let of_bochs = file("b.json", b"{\"machine\": \"bochs-vmx\", \"clock\": \"icount\", \"rows\": []}");
    for (args, expected) in [
        (&["check", "no/such.toml"][..], "cannot read the system file no/such.toml"),
        (&["check", &bad], "housekeeping-given-away"),
        (&["run", &bad], "memory-misaligned"),
        (&["check", &binary], "cannot read the system file"),
        (&["run", &demo, "--timeout", "0"], "0 is not in 1..=86400"),
        (&["run", &demo, "--hv", "no-such-hv"], "--hv"),
        (&["run", &demo, "--out", &inside_file], "--out"),
        (&["run", &demo, "--console"], "standard input is not a terminal; give what is to be typed in a file"),
        (&["run", &demo, "--console", "rt0"], "standard input is not a terminal"),
        (&["run", &demo, "--console", "--commands", &empty], "from a terminal or from a file; leave one out"),
        (&["run", &demo, "--show", "rt1"], "no console is called \"rt1\", there are: hypervisor, rt0, neighbour"),
        (&["run", &demo, "--type", &format!("rt0={empty}")], "there is no step in this dialogue"),
        (&["run", &demo, "--type", "rt0=no/such.txt"], "cannot read the dialogue no/such.txt"),
        (&["run", &demo, "--type", &format!("rt1={bye}")], "no partition with a console is called \"rt1\""),
        (&["run", &demo, "--type", "rt0"], "as in linux=login.txt"),
        (&["run", &demo, "--commands", "no/such.txt"], "cannot read the commands no/such.txt"),
        (&["run", &demo, "--commands", &long], "long.txt:2: the command has 97 bytes, the console takes at most 96"),
        (&["run", &demo, "--commands", &foreign], "foreign.txt:3: the command has 0xc3 at column 8"),
        (&["run", &demo, "--commands", &empty], "there is no command in this file"),
        (&["run", &demo, "--witness"], "--icount"),
        (&["bench", "--json", "no/such/b.json"], "cannot write no/such/b.json"),
        (&["bench", "--out", &inside_file], "--out"),
        (&["bench", "exit"], "unexpected argument"),
        (&["bench", "--machine", "fly"], "there is no machine \"fly\""),
        (&["bench", "--compare", "no/such/b.json"], "cannot read no/such/b.json"),
        (&["bench", "--compare", &empty], "is no file of the latency suite"),
        (&["bench", "--compare", &of_bochs], "has the figures of bochs-vmx, but these are of qemu-svm"),
        (&["bench", "--from-trace", "no/such"], "cannot read the directory no/such"),
        (&["run"], "SYSTEM.toml"),
        (&["fly"], "unrecognized subcommand 'fly'"),
    ] {
        let (code, text) = result(args);
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains(expected), "{args:?}: {text}");
        assert!(!text.contains("panicked"), "{args:?}: {text}");
    }
}

#[test]
fn help_tells_exit_codes_and_examples() {
    let (code, text) = result(&["--help"]);
    assert!(code == Some(0) && text.contains("Exit codes:"), "{text}");
    let (code, text) = result(&["run", "--help"]);
    assert!(code == Some(0) && text.contains("Examples:") && text.contains("linux-rt.toml --icount"), "{text}");
    assert!(text.contains("--commands <FILE>") && text.contains("Ctrl-A X ends the run"), "{text}");
}
