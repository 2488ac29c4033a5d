//! Debian's unmodified kernels as partitions: boot to a login prompt, log in, look around, reboot, power off.

use crate::system::is_long;
use partita_host::cargo_build;
use partita_host::dialogue::Dialogue;
use partita_host::emulator::Clock;
use partita_host::outcome::RunOutcome;
use partita_host::run::{RunOptions, Session, run_system_in};
use partita_host::system_file::SystemFile;
use partita_host::trace::{Item, Origin, Owner, Trace, histograms, merged};
use partita_trace::Event;
use partita_trace::names::{ExitReason, StopCause};
use partita_trace::snapshot::Body;
use std::time::{Duration, Instant};

/// Ticks (nanoseconds under icount) of a second in which nothing happens, less what its start and end take.
const STEADY: u64 = 950_000_000;
/// The prompt of the shell that a login starts.
const PROMPT: &str = "partita:/root# ";
/// What the kernels say at warning level or above, and why that is right. Anything else fails a test.
const KNOWN_WARNINGS: &[&str] = &[
    // There is none, and none is needed: a partition has local APICs only.
    "ACPI: No IOAPIC entries present",
    "ACPI: setting ELCR to 0001 (from ffff)",
    // There is no PCI.
    "PCI: Fatal: No config space access function found",
    "PCI: System does not support PCI",
    // The clock is read-only, and has no interrupt.
    "rtc_cmos",
    // Machine checks are the hypervisor's.
    "mce: Unable to init MCE device (rc: -5)",
    // Frequencies are nobody's to change.
    "amd_pstate: the _CPC object is not present in SBIOS or ACPI disabled",
];
/// What no kernel may say.
const BAD: &[&str] = &[
    "unstable",
    "IRQ remapping doesn't support X2APIC",
    "Call Trace",
    "WARNING:",
    "BUG:",
    "Kernel panic",
    "rcu_sched self-detected",
    "INFO: task",
];

/// Logs in, looks around, reboots, and powers off.
fn dialogue(vcpus: usize) -> Dialogue {
    Dialogue::new()
        .expect("login: ")
        .send("root")
        .expect(PROMPT)
        .send("echo vcpus=$(nproc)")
        .expect(&format!("vcpus={vcpus}\r"))
        .expect(PROMPT)
        .send("dmesg -r | grep '^<[0-4]>' | sed 's/^/warned: /'")
        .expect(PROMPT)
        .send("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")
        .expect("tsc\r")
        .expect(PROMPT)
        .send("sleep 1; echo slept=$?")
        .expect("slept=0")
        .expect(PROMPT)
        .send("reboot")
        .expect("Linux version")
        .expect("login: ")
        .send("root")
        .expect(PROMPT)
        .send("poweroff")
}

/// Boots a kernel on these pCPUs, and holds the dialogue.
fn boots(name: &str, pcpus: &[u16]) {
    let path = cargo_build::repository().unwrap().join("rt-partitions/systems").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("pcpus = [1]", &format!("pcpus = {pcpus:?}\n"));
    // The ring has every exit of two boots.
    let text = text.replace("[[partition]]", "[trace]\nring = \"8 MiB\"\n\n[[partition]]");
    let system = SystemFile::parse(&text, &path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = RunOptions {
        clock: Clock::Icount,
        timeout: Duration::from_secs(240),
        out_dir: dir.path().join("out"),
        hypervisor: None,
        keep_ram: false,
        quiet: true,
    };
    let session = Session { dialogues: vec![("linux".into(), dialogue(pcpus.len()))], ..Session::default() };
    let started = Instant::now();
    let report = run_system_in(&system, &options, &session).unwrap();
    println!("{name} on pCPUs {pcpus:?}: {:.1} s", started.elapsed().as_secs_f64());
    let read = |name: &str| {
        String::from_utf8_lossy(&std::fs::read(options.out_dir.join(name)).unwrap_or_default()).into_owned()
    };
    let (console, hypervisor) = (read("linux.log"), read("hypervisor.log"));
    assert_eq!(report.outcome, RunOutcome::Success, "{hypervisor}\n{console}");
    check_log(&console);
    let trace = Trace::load(&options.out_dir).unwrap();
    check_life(&trace);
    for pcpu in pcpus {
        check_exits(&trace, *pcpu);
    }
}

/// Both frequencies were told, not measured, and the kernel has nothing to complain of.
fn check_log(console: &str) {
    assert_eq!(console.matches("Linux version").count(), 2, "{console}");
    for told in ["TSC freq read from hypervisor : 1000.000 MHz", "tsc: Detected 1000.000 MHz processor"] {
        assert_eq!(console.matches(told).count(), 2, "{told}\n{console}");
    }
    assert!(console.contains("Host bus clock speed read from hypervisor : 1000000000 Hz"), "{console}");
    for line in console.lines() {
        let measured = line.to_ascii_lowercase().contains("calibrat") && !line.contains("(skipped)");
        assert!(!measured, "{line}");
        assert!(BAD.iter().all(|bad| !line.contains(bad)), "{line}\n{console}");
    }
    let warned: Vec<&str> = console.lines().filter_map(|line| line.split("warned: ").nth(1)).collect();
    // The command is echoed, and at least the missing I/O APIC is a warning.
    assert!(warned.iter().any(|line| line.contains("No IOAPIC")), "{console}");
    for line in warned.iter().filter(|line| line.starts_with('<')) {
        assert!(KNOWN_WARNINGS.iter().any(|known| line.contains(known)), "{line}");
    }
}

/// It was started twice: rebooted once, then powered off.
fn check_life(trace: &Trace) {
    let (mut starts, mut stops) = (0, Vec::new());
    for item in merged(trace) {
        let Item::Frame { frame, .. } = item else { continue };
        match frame.body {
            Body::Event(Event::PartitionStart { .. }) => starts += 1,
            Body::Event(Event::PartitionStop { cause, .. }) => stops.push(cause),
            _ => {}
        }
    }
    stops.retain(|cause| *cause != StopCause::SiblingEnded);
    assert_eq!(starts, 2);
    assert_eq!(stops, [StopCause::Reboot, StopCause::PowerOff]);
}

/// No exit for interrupts, timer, HLT, page faults; and a second without any exit but for IPIs between the vCPUs.
fn check_exits(trace: &Trace, pcpu: u16) {
    let (hist, _) = histograms(trace);
    let of_pcpu = hist.sources.iter().filter(|source| source.kind == "exit" && source.pcpu == pcpu);
    let exits: Vec<(&str, u64)> =
        of_pcpu.filter(|source| source.source == Origin::AlwaysOn).map(|source| (source.name, source.count)).collect();
    assert!(exits.iter().any(|(name, count)| *name == "cpuid" && *count > 0), "{exits:?}");
    for reason in ["halt", "interrupt", "nested_page_fault", "exception"] {
        assert!(exits.iter().all(|(name, count)| *name != reason || *count == 0), "{reason} in {exits:?}");
    }
    let times: Vec<u64> = trace
        .regions
        .iter()
        .filter(|region| region.owner == Owner::Hypervisor)
        .flat_map(|region| region.dump.rings.iter())
        .filter(|ring| ring.ring == pcpu)
        .flat_map(|ring| ring.frames())
        .filter(|frame| matches!(frame.body, Body::Event(Event::Exit { reason, .. }) if reason != ExitReason::IcrWrite))
        .map(|frame| frame.tsc)
        .collect();
    let longest = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0);
    assert!(longest >= STEADY, "pCPU {pcpu}: the longest time without an exit is {longest} ticks");
}

/// The pCPUs of one, two and three vCPUs.
const PCPUS: [&[u16]; 3] = [&[1], &[1, 2], &[1, 2, 3]];

/// Boots a kernel with so many vCPUs; in the long form with one, two and three.
fn boots_with(name: &str, vcpus: usize) {
    for pcpus in PCPUS.into_iter().filter(|pcpus| is_long() || pcpus.len() == vcpus) {
        boots(name, pcpus);
    }
}

#[test]
#[ignore = "boots an emulator"]
fn linux_6_1_rt_boots_reboots_and_powers_off() {
    boots_with("linux-6.1-rt.toml", 3);
}

#[test]
#[ignore = "boots an emulator"]
fn linux_6_1_boots_reboots_and_powers_off() {
    boots_with("linux-6.1.toml", 2);
}

#[test]
#[ignore = "boots an emulator"]
fn linux_6_12_rt_boots_reboots_and_powers_off() {
    boots_with("linux-6.12-rt.toml", 2);
}

#[test]
#[ignore = "boots an emulator"]
fn linux_6_12_boots_reboots_and_powers_off() {
    boots_with("linux-6.12.toml", 1);
}
