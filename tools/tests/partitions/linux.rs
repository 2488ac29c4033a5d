//! Debian's unmodified kernels as partitions: boot to a login prompt, log in, look around, reboot, power off.

use crate::system::{is_long, run_in};
use partita_host::cargo_build;
use partita_host::dialogue::Dialogue;
use partita_host::emulator::Clock;
use partita_host::initramfs;
use partita_host::outcome::RunOutcome;
use partita_host::packages::PackageCache;
use partita_host::run::Session;
use partita_host::system_file::{ImageSource, InitrdSource, KernelSource, SystemFile};
use partita_host::trace::{Item, Origin, Owner, Trace, histograms, merged};
use partita_trace::Event;
use partita_trace::names::{ExitReason, StopCause};
use partita_trace::snapshot::Body;
use ruzstd::decoding::StreamingDecoder;
use std::io::Read;
use std::path::PathBuf;

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

/// A kernel that boots, and how to tell it from the others.
struct Kernel {
    /// Its system file.
    system: &'static str,
    /// What its release begins with.
    release: &'static str,
    /// How it preempts: in `uname -v`.
    preemption: &'static str,
}

const RT: &str = "SMP PREEMPT_RT";
const STANDARD: &str = "SMP PREEMPT_DYNAMIC";
const LINUX_6_1_RT: Kernel = Kernel { system: "linux-6.1-rt.toml", release: "6.1.", preemption: RT };
const LINUX_6_1: Kernel = Kernel { system: "linux-6.1.toml", release: "6.1.", preemption: STANDARD };
const LINUX_6_12_RT: Kernel = Kernel { system: "linux-6.12-rt.toml", release: "6.12.", preemption: RT };
const LINUX_6_12: Kernel = Kernel { system: "linux-6.12.toml", release: "6.12.", preemption: STANDARD };

/// Logs in, looks around, reboots, and powers off.
fn dialogue(kernel: &Kernel, vcpus: usize) -> Dialogue {
    Dialogue::new()
        .expect("login: ")
        .send("root")
        .expect(PROMPT)
        .send("echo vcpus=$(nproc)")
        .expect(&format!("vcpus={vcpus}\r"))
        .expect(PROMPT)
        .send("uname -v")
        .expect(kernel.preemption)
        .expect(PROMPT)
        .send("uname -r")
        .expect(&format!("\n{}", kernel.release))
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

/// The text of a kernel's system file, for these pCPUs, and where it lies.
fn system_text(kernel: &Kernel, pcpus: &[u16]) -> (String, PathBuf) {
    let path = cargo_build::repository().unwrap().join("rt-partitions/systems").join(kernel.system);
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("pcpus = [1]", &format!("pcpus = {pcpus:?}\n"));
    // The ring has every exit of two boots.
    (text.replace("[[partition]]", "[trace]\nring = \"8 MiB\"\n\n[[partition]]"), path)
}

/// Boots a kernel on these pCPUs, and holds the dialogue.
fn boots(kernel: &Kernel, pcpus: &[u16]) {
    let (text, path) = system_text(kernel, pcpus);
    boots_system(&SystemFile::parse(&text, &path).unwrap(), kernel, pcpus);
}

/// Boots a system with the kernel on these pCPUs, and holds the dialogue.
fn boots_system(system: &SystemFile, kernel: &Kernel, pcpus: &[u16]) {
    let session = Session { dialogues: vec![("linux".into(), dialogue(kernel, pcpus.len()))], ..Session::default() };
    println!("{} on pCPUs {pcpus:?}", kernel.system);
    let left = run_in(system, Clock::Icount, 240, &session);
    let console = left.console("linux");
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    check_log(&console, kernel);
    check_life(&left.trace);
    for pcpu in pcpus {
        check_exits(&left.trace, *pcpu, pcpus.len() > 1);
    }
}

/// Both frequencies were told, not measured, and the kernel has nothing to complain of.
fn check_log(console: &str, kernel: &Kernel) {
    let versions: Vec<&str> = console.lines().filter_map(|line| line.split("Linux version ").nth(1)).collect();
    assert_eq!(versions.len(), 2, "{console}");
    for version in versions {
        assert!(version.starts_with(kernel.release) && version.contains(kernel.preemption), "{version}");
    }
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

/// No exit for interrupts, timer, HLT, page faults; and a second without any exit but for IPIs to `others`, if there are any.
fn check_exits(trace: &Trace, pcpu: u16, others: bool) {
    let (hist, _) = histograms(trace);
    let of_pcpu = hist.sources.iter().filter(|source| source.kind == "exit" && source.pcpu == pcpu);
    let exits: Vec<(&str, u64)> =
        of_pcpu.filter(|source| source.source == Origin::AlwaysOn).map(|source| (source.name, source.count)).collect();
    assert!(exits.iter().any(|(name, count)| *name == "cpuid" && *count > 0), "{exits:?}");
    for reason in ["halt", "interrupt", "nested_page_fault", "exception"] {
        assert!(exits.iter().all(|(name, count)| *name != reason || *count == 0), "{reason} in {exits:?}");
    }
    let is_ipi = |reason| others && reason == ExitReason::IcrWrite;
    let times: Vec<u64> = trace
        .regions
        .iter()
        .filter(|region| region.owner == Owner::Hypervisor)
        .flat_map(|region| region.dump.rings.iter())
        .filter(|ring| ring.ring == pcpu)
        .flat_map(|ring| ring.frames())
        .filter(|frame| matches!(frame.body, Body::Event(Event::Exit { reason, .. }) if !is_ipi(reason)))
        .map(|frame| frame.tsc)
        .collect();
    let longest = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0);
    assert!(longest >= STEADY, "pCPU {pcpu}: the longest time without an exit is {longest} ticks");
}

/// The pCPUs of one, two and three vCPUs.
const PCPUS: [&[u16]; 3] = [&[1], &[1, 2], &[1, 2, 3]];

/// Boots a kernel with so many vCPUs; in the long form with one, two and three.
fn boots_with(kernel: &Kernel, vcpus: usize) {
    for pcpus in PCPUS.into_iter().filter(|pcpus| is_long() || pcpus.len() == vcpus) {
        boots(kernel, pcpus);
    }
}

#[test]
#[ignore = "boots an emulator"]
fn linux_6_1_rt_boots_reboots_and_powers_off() {
    boots_with(&LINUX_6_1_RT, 3);
}

#[test]
#[ignore = "boots an emulator"]
fn linux_6_1_boots_reboots_and_powers_off() {
    boots_with(&LINUX_6_1, 2);
}

#[test]
#[ignore = "boots an emulator"]
fn linux_6_12_rt_boots_reboots_and_powers_off() {
    boots_with(&LINUX_6_12_RT, 2);
}

#[test]
#[ignore = "boots an emulator"]
fn linux_6_12_boots_reboots_and_powers_off() {
    boots_with(&LINUX_6_12, 1);
}

/// The kernel in a bzImage: an ELF file, compressed by zstd, with its length behind it
/// (Documentation/arch/x86/boot.rst, `payload_offset`).
fn vmlinux(bzimage: &[u8]) -> Vec<u8> {
    const SETUP_SECTS: usize = 0x1F1;
    const PAYLOAD_OFFSET: usize = 0x248;
    const PAYLOAD_LENGTH: usize = 0x24C;
    let u32_at = |at: usize| u32::from_le_bytes(bzimage[at..at + 4].try_into().unwrap());
    let begin = (usize::from(bzimage[SETUP_SECTS]) + 1) * 512 + u32_at(PAYLOAD_OFFSET) as usize;
    let end = begin + u32_at(PAYLOAD_LENGTH) as usize;
    let mut elf = Vec::new();
    StreamingDecoder::new(&bzimage[begin..end]).unwrap().read_to_end(&mut elf).unwrap();
    assert_eq!(elf.len(), u32_at(end - 4) as usize, "the length behind the payload");
    elf
}

/// What is in the bzImage of 6.12, as it is, boots by its PVH note, with the same initial RAM disk as a module.
#[test]
#[ignore = "boots an emulator"]
fn the_same_kernel_boots_by_pvh() {
    let (kernel, pcpus) = (&LINUX_6_12, PCPUS[1]);
    let (text, path) = system_text(kernel, pcpus);
    let by_bzimage = SystemFile::parse(&text, &path).unwrap();
    let ImageSource::Linux { kernel: KernelSource::Package(package), initrd: Some(InitrdSource::Initramfs(initramfs)) } =
        &by_bzimage.images[0]
    else {
        panic!("{:?}", by_bzimage.images)
    };
    let cache = PackageCache::open().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let bzimage = std::fs::read(cache.kernel(package).unwrap()).unwrap();
    std::fs::write(dir.path().join("vmlinux"), vmlinux(&bzimage)).unwrap();
    std::fs::write(dir.path().join("initrd"), initramfs::build(initramfs, &cache).unwrap()).unwrap();
    let (partition, _) = text.split_once("image.kind").unwrap();
    let text = format!(
        "{partition}identity = 'linux'\n\
         image = {{ kind = 'elf', boot = 'pvh', path = 'vmlinux', modules = [{{ path = 'initrd' }}] }}\n"
    );
    boots_system(&SystemFile::parse(&text, &dir.path().join("s.toml")).unwrap(), kernel, pcpus);
}
