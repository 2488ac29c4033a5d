//! System files as people write them, good and bad.

use super::*;
use partita_core::system::{Identity, SerialPort, SmpCallMode, TraceConfig};
use proptest::prelude::*;

const GOOD: &str = r#"
[system]
name = "demo"
[housekeeping]
pcpu = 0
smp_call_hz = 1000
[[partition]]
name = "rt0"
pcpus = [2, 3]
lapic = "passthrough"
memory = "64 MiB"
memory_at = "0x10000000"
image = { kind = "elf", path = "rt.elf" }
cmdline = "group=exit"
expect = "finish"
[[partition]]
name = "linux"
pcpus = [1]
memory = "256 MiB"
console = "com2"
expect = "run"
[partition.image]
kind = "linux"
package = "linux-image-rt-amd64"
[partition.image.initramfs]
init = "init.sh"
packages = ["busybox-static"]
files = ["bin/busybox", { from = "usr/bin/x", to = "/bin/x" }]
"#;

fn parse(text: &str) -> Result<SystemFile, String> {
    SystemFile::parse(text, Path::new("dir/s.toml")).map_err(|error| error.to_string())
}

#[test]
fn an_identity_is_the_kinds_unless_it_is_chosen() {
    let identities = |first: &str, second: &str| -> Result<[Identity; 2], String> {
        let text = GOOD.replacen("expect", &format!("{first}expect"), 1);
        let text = text.replacen("expect = \"run\"", &format!("{second}expect = \"run\""), 1);
        parse(&text).map(|file| [0, 1].map(|index| file.config.partitions[index].identity))
    };
    let (linux, partita) = ("identity = \"linux\"\n", "identity = \"partita\"\n");
    assert_eq!(identities("", ""), Ok([Identity::Partita, Identity::Linux]));
    assert_eq!(identities(linux, partita), Ok([Identity::Linux, Identity::Partita]));
    assert!(identities("identity = \"vmware\"\n", "").unwrap_err().contains("vmware"));
}

#[test]
fn the_trace_of_exits_can_be_left_out() {
    let trace = |keys: &str| parse(&format!("{GOOD}\n[trace]\n{keys}")).map(|file| file.config.trace);
    assert_eq!(trace("exits = false"), Ok(TraceConfig { ring_bytes: 256 << 10, exits: false }));
    assert_eq!(trace("exits = true\nring = \"4 KiB\""), Ok(TraceConfig { ring_bytes: 4 << 10, exits: true }));
    assert!(trace("exits = 0").unwrap_err().contains("expected a boolean"));
}

#[test]
fn a_good_file_means_what_it_says() {
    let file = parse(GOOD).unwrap();
    assert_eq!(file.machine, Machine { pcpus: 4, memory: None });
    assert_eq!(file.config.housekeeping.smp_call_deadline_ms, 100);
    assert_eq!(file.config.trace, TraceConfig { ring_bytes: 256 << 10, exits: true });
    let [rt0, linux] = &file.config.partitions[..] else { panic!("two partitions") };
    assert_eq!((rt0.memory_bytes, rt0.memory_at), (64 << 20, Some(0x1000_0000)));
    assert_eq!((rt0.identity, linux.identity), (Identity::Partita, Identity::Linux));
    // COM2 is named by the second, so the first gets the next free one.
    assert_eq!((rt0.console, linux.console), (Some(SerialPort::Com3), Some(SerialPort::Com2)));
    assert_eq!(file.images[0], ImageSource::Elf { path: "dir/rt.elf".into(), boot: None, modules: Vec::new() });
    let ImageSource::Linux { initrd: Some(InitrdSource::Initramfs(initramfs)), .. } = &file.images[1] else {
        panic!("an initramfs")
    };
    assert_eq!(initramfs.init, Path::new("dir/init.sh"));
    assert_eq!(initramfs.files[0], PackageFile { from: "bin/busybox".into(), to: "/bin/busybox".into() });
    assert_eq!(initramfs.files[1].to, "/bin/x");
    assert_eq!(file.cmdlines, ["group=exit", ""]);
    assert!(!file.is_open_ended());
}

#[test]
fn each_partition_has_the_next_serial_port_that_is_free() {
    let partition = |(number, console): (usize, &str)| {
        format!(
            "[[partition]]\nname = \"p{number}\"\npcpus = [{}]\nmemory = \"2 MiB\"\n{console}\
             image = {{ kind = \"elf\", path = \"rt.elf\" }}\nexpect = \"run\"\n",
            number + 1
        )
    };
    let consoles = ["", "", "console = \"none\"\n", "", "console = \"com8\"\n", "", "", "", ""];
    let partitions: String = consoles.into_iter().enumerate().map(partition).collect();
    let file = parse(&format!("[system]\nname = \"many\"\n{partitions}")).unwrap();
    let numbers: Vec<_> = file.config.partitions.iter().map(|p| p.console.map(SerialPort::number)).collect();
    assert_eq!(numbers, [Some(2), Some(3), None, Some(4), Some(8), Some(5), Some(6), Some(7), None]);
}

#[test]
fn smp_calls_go_to_each_target_by_itself_unless_told_otherwise() {
    let mode = |line: &str| {
        parse(&GOOD.replace("pcpu = 0", &format!("pcpu = 0\n{line}"))).unwrap().config.housekeeping.smp_call_mode
    };
    assert_eq!(mode(""), SmpCallMode::Each);
    assert_eq!(mode("smp_call_mode = \"each\""), SmpCallMode::Each);
    assert_eq!(mode("smp_call_mode = \"broadcast\""), SmpCallMode::Broadcast);
}

/// What is replaced in [`GOOD`], by what, and all that the error must say.
const BAD: &[(&str, &str, &[&str])] = &[
    ("lapic =", "lapics =", &["dir/s.toml:10:1:", "partition[0].lapics:", "unknown field `lapics`", "`lapic`"]),
    ("[housekeeping]", "[housekeeper]", &["dir/s.toml:4:2:", "unknown field `housekeeper`", "`housekeeping`"]),
    (
        "\"passthrough\"",
        "\"emulated\"",
        &["10:9:", "partition[0].lapic", "unknown variant `emulated`", "`passthrough`"],
    ),
    ("[2, 3]", "\"2\"", &["9:9:", "partition[0].pcpus", "expected a sequence"]),
    ("[2, 3]", "[2, 999]", &["9:13:", "partition[0].pcpus[1]", "999 is out of range; write 0 to 254"]),
    ("[2, 3]", "[]", &["9:9:", "partition-without-pcpu: ", "give it at least one"]),
    ("\"64 MiB\"", "\"64 MB\"", &["11:10:", "partition[0].memory", "ambiguous unit; write KiB, MiB or GiB"]),
    ("\"64 MiB\"", "\"lots\"", &["11:10:", "\"lots\" is not a size", "\"64 MiB\""]),
    ("\"64 MiB\"", "-1", &["11:10:", "-1 is negative"]),
    ("\"64 MiB\"", "\"3 MiB\"", &["11:10:", "memory-misaligned: ", "no multiple of 2 MiB"]),
    ("\"64 MiB\"", "\"4 GiB\"", &["11:10:", "memory-too-large: ", "at most 3072 MiB"]),
    ("\"64 MiB\"", "true", &["11:10:", "expected a size in bytes"]),
    ("0x10000000", "0x10001000", &["12:13:", "memory_at", "memory-misaligned: ", "0x10001000"]),
    ("path = \"rt.elf\"", "name = \"x\"", &["13:", "has no key \"name\"; it takes path", "add path = "]),
    ("kind = \"elf\"", "kind = \"raw\"", &["13:", "unknown variant `raw`", "`elf`", "`payload`", "`linux`"]),
    ("kind = \"elf\", path", "kind = \"payload\", path", &["add name = "]),
    ("name = \"rt0\"", "name = \"r t\"", &["8:8:", "name-characters: ", "\"r t\"", "choose another"]),
    ("name = \"rt0\"", "name = \"hypervisor\"", &["8:8:", "taken by Partita's own logs"]),
    ("name = \"rt0\"", "name = \"abcdefghijklmnopqrstuvwxyz0123456789\"", &["8:8:", "longer than 32 bytes"]),
    ("\"group=exit\"", "\"a\\u0000b\"", &["14:", "partition[0].cmdline", "NUL"]),
    ("expect = \"finish\"", "", &["missing field `expect`", "partition[0]"]),
    ("expect = \"finish\"", "expect = \"end\"", &["unknown variant `end`", "`finish`", "`run`"]),
    ("smp_call_hz = 1000", "smp_call_hz = 2000000", &["6:15:", "smp-call-rate: "]),
    ("smp_call_hz = 1000", "smp_call_deadline_ms = 0", &["6:24:", "deadline-zero: "]),
    (
        "smp_call_hz = 1000",
        "smp_call_mode = \"all\"",
        &["6:17:", "housekeeping.smp_call_mode", "unknown variant `all`", "`each`", "`broadcast`"],
    ),
    ("smp_call_hz = 1000", "smp_call_rounds = 9", &["6:19:", "smp-call-rounds: "]),
    ("[2, 3]", "[2, 0]", &["9:9:", "partition[0].pcpus", "housekeeping-given-away: "]),
    ("[2, 3]", "[2, 2]", &["9:9:", "pcpu-owned-twice: "]),
    ("pcpus = [1]", "pcpus = [3]", &["18:9:", "partition[1].pcpus", "pcpu-owned-twice: ", "\"rt0\"", "\"linux\""]),
    ("pcpus = [1]", "pcpus = [1]\nmemory_at = 0x12000000", &["19:13:", "memory-overlap: "]),
    ("name = \"linux\"", "name = \"rt0\"", &["17:8:", "name-duplicate: "]),
    ("cmdline =", "console = \"com2\"\ncmdline =", &["partition[1].console", "console-owned-twice: "]),
    (
        "smp_call_hz = 1000",
        "smp_call_hz = -5",
        &["6:15:", "housekeeping.smp_call_hz", "-5 is out of range; write 0 to 4294967295"],
    ),
    ("console = \"com2\"", "console = \"com1\"", &["unknown variant `com1`", "`com2`"]),
    ("package = \"linux", "kernel = \"k\"\npackage = \"linux", &["both \"package\" and \"kernel\""]),
    ("package = \"linux-image-rt-amd64\"", "", &["needs a kernel", "linux-image-rt-amd64"]),
    ("\"linux-image-rt-amd64\"", "\"--help\"", &["\"--help\" is not a package's name"]),
    ("\"bin/busybox\"", "\"../etc\"", &["is not a path in a package"]),
    ("to = \"/bin/x\"", "to = \"bin/x\"", &["is not an absolute path"]),
    ("to = \"/bin/x\"", "too = \"/bin/x\"", &["a path in one of the packages"]),
    ("packages = [\"busybox-static\"]", "", &["no package to take them from"]),
    ("pcpu = 0", "pcpu = 0\npcpu = 1", &["6:1:", "duplicate key"]),
    ("[system]", "[system", &["2:8:", "unclosed table"]),
    (
        "[housekeeping]",
        "[trace]\nring = \"5 KiB\"\n[housekeeping]",
        &["5:8:", "trace.ring", "ring-size: ", "power of two"],
    ),
    ("[housekeeping]", "[machine]\npcpus = 3\n[housekeeping]", &["partition[0].pcpus", "pcpu-missing: ", "pCPU 3"]),
    ("[housekeeping]", "[machine]\nmemory = \"1 MiB\"\n[housekeeping]", &["5:10:", "from 64 MiB to 64 GiB"]),
];

#[test]
fn bad_files_are_refused_with_place_key_and_cure() {
    for (from, to, expected) in BAD {
        assert!(GOOD.contains(from), "{from:?} is not in the good file");
        let error = parse(&GOOD.replacen(from, to, 1)).expect_err(to);
        for fragment in *expected {
            assert!(error.contains(fragment), "{from:?} -> {to:?}: no {fragment:?} in:\n{error}");
        }
    }
}

#[test]
fn all_problems_are_reported_in_order() {
    let error = parse(&GOOD.replace("[2, 3]", "[]").replace("\"256 MiB\"", "\"1 MiB\"")).unwrap_err();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), 2, "{error}");
    assert!(lines[0].starts_with("dir/s.toml:9:") && lines[1].contains("partition[1].memory"), "{error}");
}

#[test]
fn a_system_without_partitions_is_refused() {
    assert!(parse("[system]\nname = \"x\"\n").unwrap_err().contains("no-partition: "));
    assert!(parse("").unwrap_err().contains("missing field `system`"));
}

#[test]
fn a_missing_file_names_the_path() {
    let error = SystemFile::load(Path::new("no/such.toml")).unwrap_err().to_string();
    assert!(error.contains("no/such.toml") && error.contains("existing .toml file"), "{error}");
}

#[test]
fn later_problems_have_places_too() {
    let file = parse(GOOD).unwrap();
    let error = file.problem(0, Part::Image, "no such file").to_string();
    assert_eq!(error, "dir/s.toml:13:9: partition[0].image: no such file");
}

#[test]
fn linked_images_are_checked_by_the_rules() {
    use crate::image::{LinkedImage, Segment};
    use partita_core::system::Entry;
    let file = parse(GOOD).unwrap();
    let image = |gpa, entry| LinkedImage {
        segments: vec![Segment { gpa, mem_len: 0x1000, data: vec![1] }],
        entry: Entry::Pvh { entry, start_info: 0xE_4000 },
    };
    assert_eq!(file.image_problems(&[image(0x10_0000, 0x10_0000), image(0x10_0000, 0x10_0FFF)]), []);
    let found = file.image_problems(&[image(0x10_0000, 0x10_0000), image(0xE_0000, 0x10_0000)]);
    let error = file.problems(found).to_string();
    assert!(
        error.contains("partition[1].image: entry-not-loaded: ") && error.contains("segment-over-acpi: "),
        "{error}"
    );
}

#[test]
fn a_system_without_an_end_is_known_as_such() {
    let text = GOOD.replace("\"finish\"", "\"run\"");
    assert!(parse(&text).unwrap().is_open_ended());
    assert!(!parse(&text.replace("pcpu = 0", "pcpu = 0\nsmp_call_rounds = 5")).unwrap().is_open_ended());
}

proptest! {
    #[test]
    fn damaged_files_never_panic(at in 0usize..900, len in 0usize..20, with in "[\\[\\]\"a0=,. \n-]{0,6}") {
        let mut text = GOOD.to_owned();
        let at = at.min(text.len());
        let end = (at + len).min(text.len());
        text.replace_range(at..end, &with);
        if let Err(error) = parse(&text) {
            prop_assert!(error.starts_with("dir/s.toml:"));
        }
    }
}

#[test]
fn a_system_says_how_it_is_run() {
    let run = |table: &str| parse(&format!("{GOOD}{table}")).map(|file| (file.run.clock, file.run.timeout));
    assert_eq!(run(""), Ok((Clock::Host, None)));
    assert_eq!(run("[run]\nclock = 'host'\n"), Ok((Clock::Host, None)));
    assert_eq!(run("[run]\nclock = 'icount'\ntimeout = 300\n"), Ok((Clock::Icount, Some(Duration::from_secs(300)))));
    for (table, expected) in [
        ("[run]\ntimeout = 0\n", "0 is out of range; write 1 to 86400"),
        ("[run]\ntimeout = 86401\n", "86401 is out of range"),
        ("[run]\nclock = 'sun'\n", "unknown variant `sun`, expected `host` or `icount`"),
    ] {
        let error = run(table).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
