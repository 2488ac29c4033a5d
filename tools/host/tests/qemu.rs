//! Runs in QEMU with a guest of a few instructions in the place of payload and hypervisor: verdicts, logs, clean-up.

mod kernels;

use kernels::{HANG, LOAD, TRIPLE_FAULT, elf};
use partita_host::emulator::{Clock, ConsoleInput, MachineKind, answers};
use partita_host::outcome::RunOutcome;
use partita_host::run::{BareRun, RunOptions, RunReport, Session, run_bare, run_system, run_system_in};
use partita_host::system_file::SystemFile;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Prints a text on COM1, writes a byte to the exit port, halts.
fn print_and_exit(text: &str, exit: u8) -> Vec<u8> {
    let mut code = vec![0x66, 0xBA, 0xF8, 0x03]; // mov dx, 0x3f8
    code.push(0xBE); // mov esi, the text
    code.extend((LOAD + 24).to_le_bytes());
    code.extend([0xAC, 0x84, 0xC0, 0x74, 0x03, 0xEE, 0xEB, 0xF8]); // lodsb; test; jz; out dx, al; jmp
    code.extend([0xB0, exit, 0xE6, 0xF4]); // mov al, exit; out 0xf4, al
    code.extend([0xF4, 0xEB, 0xFD]); // hlt; jmp
    code.extend(text.as_bytes());
    code.push(0);
    code
}

/// Has a prompt and echoes what it reads on COM1; a line is answered by `ok`, and a `!` ends it with success.
fn console() -> Vec<u8> {
    const CODE_LEN: u32 = 75;
    let texts = ["boot\r\npartita> ", "\r\nok\r\npartita> ", "!\r\npartita: end: success\r\n"];
    let mut at = LOAD + CODE_LEN;
    let addresses = texts.map(|text| {
        let address = at.to_le_bytes();
        at += text.len() as u32 + 1;
        address
    });
    let [boot, ok, end] = addresses.map(|[a, b, c, d]| [0xBE, a, b, c, d]); // mov esi, the text
    let mut code = Vec::new();
    code.extend(boot);
    code.extend([0xE8, 0x34, 0, 0, 0]); // call print
    code.extend([0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x01, 0x74, 0xF7]); // next: in al, 0x3fd; test al, 1; jz next
    code.extend([0x66, 0xBA, 0xF8, 0x03, 0xEC]); // in al, 0x3f8
    code.extend([0x3C, 0x0D, 0x74, 0x07, 0x3C, b'!', 0x74, 0x0F]); // cmp al, 13; je line; cmp al, '!'; je quit
    code.extend([0xEE, 0xEB, 0xE7]); // out dx, al; jmp next
    code.extend(ok); // line:
    code.extend([0xE8, 0x11, 0, 0, 0, 0xEB, 0xDB]); // call print; jmp next
    code.extend(end); // quit:
    code.extend([0xE8, 0x05, 0, 0, 0, 0xB0, 0x10, 0xE6, 0xF4, 0xF4]); // call print; out 0xf4, 0x10; hlt
    code.extend([0x66, 0xBA, 0xF8, 0x03, 0xAC, 0x84, 0xC0, 0x74, 0x03, 0xEE, 0xEB, 0xF8, 0xC3]); // print
    assert_eq!(code.len(), CODE_LEN as usize);
    for text in texts {
        code.extend(text.as_bytes());
        code.push(0);
    }
    code
}

struct Setup {
    dir: tempfile::TempDir,
    kernel: PathBuf,
}

fn setup(code: &[u8]) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let kernel = dir.path().join("kernel.elf");
    std::fs::write(&kernel, elf(code)).unwrap();
    Setup { dir, kernel }
}

fn options(dir: &Path) -> RunOptions {
    RunOptions {
        machine: MachineKind::Qemu,
        clock: Clock::Icount,
        timeout: Duration::from_secs(20),
        out_dir: dir.join("out"),
        hypervisor: None,
        keep_ram: false,
        quiet: true,
    }
}

fn bare(code: &[u8], change: impl FnOnce(&mut RunOptions)) -> (RunReport, Setup) {
    let setup = setup(code);
    let bare = BareRun {
        kernel: &setup.kernel,
        module: None,
        cmdline: "a=b",
        pcpus: 2,
        memory: 128 << 20,
        has_end_marker: true,
    };
    let mut options = options(setup.dir.path());
    change(&mut options);
    (run_bare(&bare, &options).unwrap(), setup)
}

#[test]
#[ignore = "needs QEMU; ci/test.sh runs it"]
fn a_bare_payload_succeeds_with_marker_and_exit_code() {
    for clock in [Clock::Icount, Clock::Host] {
        let code = print_and_exit("hello\r\npayload: end: success\r\n", 0x10);
        let (report, setup) = bare(&code, |options| options.clock = clock);
        assert_eq!(report.outcome, RunOutcome::Success);
        let log = std::fs::read_to_string(setup.dir.path().join("out/payload.log")).unwrap();
        assert_eq!(log, "hello\r\npayload: end: success\r\n");
        assert!(!setup.dir.path().join("out/ram.bin").exists());
        assert_eq!(report.trace.regions, 0);
    }
}

#[test]
#[ignore = "needs QEMU; ci/test.sh runs it"]
fn a_bare_payload_fails_for_its_reason() {
    let (report, _setup) = bare(&print_and_exit("payload: end: claim 7\n", 0x11), |_| {});
    assert_eq!(report.outcome, RunOutcome::PartitionFailed { reason: "claim 7".into() });
    let (report, _setup) = bare(&print_and_exit("hello\n", 0x10), |_| {});
    assert!(matches!(report.outcome, RunOutcome::EmulatorFailed { .. }), "{}", report.outcome);
    let (report, _setup) = bare(&TRIPLE_FAULT, |_| {});
    assert!(report.outcome.to_string().contains("triple fault"), "{}", report.outcome);
}

#[test]
#[ignore = "needs QEMU; ci/test.sh runs it"]
fn a_payload_that_hangs_is_ended_and_its_ram_kept_if_asked_for() {
    let (report, setup) = bare(&HANG, |options| {
        options.timeout = Duration::from_secs(2);
        options.keep_ram = true;
    });
    assert_eq!(report.outcome, RunOutcome::TimedOut { after: Duration::from_secs(2) });
    let ram = std::fs::metadata(setup.dir.path().join("out/ram.bin")).unwrap();
    assert_eq!(ram.len(), 128 << 20);
    // The file is sparse: what the guest never touched takes no space.
    assert!(std::os::unix::fs::MetadataExt::blocks(&ram) * 512 < 64 << 20);
}

#[test]
#[ignore = "needs QEMU; ci/test.sh runs it"]
fn a_system_leaves_what_decoding_needs() {
    let setup = setup(&print_and_exit("partita: end: success\n", 0x10));
    let path = setup.dir.path().join("s.toml");
    let text = "[system]\nname = 's'\n[[partition]]\nname = 'p'\npcpus = [1]\nmemory = '2 MiB'\n\
                image = { kind = 'elf', path = 'kernel.elf' }\nexpect = 'finish'\n";
    std::fs::write(&path, text).unwrap();
    let mut options = options(setup.dir.path());
    options.hypervisor = Some(setup.kernel.clone());
    let report = run_system(&SystemFile::load(&path).unwrap(), &options).unwrap();
    assert_eq!(report.outcome, RunOutcome::Success);
    let read = |name: &str| std::fs::read(report.dir.join(name)).unwrap();
    assert_eq!(read("hypervisor.log"), b"partita: end: success\n");
    assert_eq!(read("system.toml"), text.as_bytes());
    assert!(partita_abi::bundle::Bundle::parse(&read("bundle.bin")).is_ok());
    // COM2 is the partition's, so that its log is there, if only empty.
    assert_eq!(read("p.log"), b"");
}

#[test]
#[ignore = "needs QEMU; ci/test.sh runs it"]
fn a_system_in_which_nothing_finishes_runs_until_the_time_is_up() {
    let setup = setup(&HANG);
    let path = setup.dir.path().join("s.toml");
    let text = "[system]\nname = 's'\n[[partition]]\nname = 'p'\npcpus = [1]\nmemory = '2 MiB'\n\
                image = { kind = 'elf', path = 'kernel.elf' }\nexpect = 'run'\n";
    let system = SystemFile::parse(text, &path).unwrap();
    let mut options = options(setup.dir.path());
    options.hypervisor = Some(setup.kernel.clone());
    options.timeout = Duration::from_secs(1);
    assert_eq!(run_system(&system, &options).unwrap().outcome, RunOutcome::RanUntilTimeout);
}

/// Runs a hypervisor that is nothing but a console, with a script. Gives the output directory, too.
fn scripted(clock: Clock, commands: &[&str], timeout: u64) -> (RunReport, Setup) {
    let setup = setup(&console());
    let path = setup.dir.path().join("s.toml");
    let text = "[system]\nname = 's'\n[[partition]]\nname = 'p'\npcpus = [1]\nmemory = '2 MiB'\n\
                image = { kind = 'elf', path = 'kernel.elf' }\nexpect = 'finish'\n";
    let system = SystemFile::parse(text, &path).unwrap();
    let mut options = options(setup.dir.path());
    options.hypervisor = Some(setup.kernel.clone());
    (options.clock, options.timeout) = (clock, Duration::from_secs(timeout));
    let input = ConsoleInput::Script(commands.iter().map(|command| (*command).to_owned()).collect());
    let report = run_system_in(&system, &options, &Session { input, ..Session::default() }).unwrap();
    (report, setup)
}

#[test]
#[ignore = "needs QEMU; ci/test.sh runs it"]
fn the_console_takes_a_script() {
    for clock in [Clock::Icount, Clock::Host] {
        let (report, _setup) = scripted(clock, &["help", "exits 2", "end!"], 20);
        assert_eq!(report.outcome, RunOutcome::Success, "{clock:?}");
        let log = std::fs::read(report.dir.join("hypervisor.log")).unwrap();
        let expected =
            "boot\r\npartita> help\r\nok\r\npartita> exits 2\r\nok\r\npartita> end!\r\npartita: end: success\r\n";
        assert_eq!(String::from_utf8_lossy(&log), expected);
        assert_eq!(answers(&log, "exits 2", 0), Some(vec!["ok".to_owned()]));
        assert_eq!(
            std::fs::read(report.dir.join("qemu.log")).unwrap(),
            b"",
            "the console is not in the emulator's log"
        );
    }
}

#[test]
#[ignore = "needs QEMU; ci/test.sh runs it"]
fn a_command_that_the_console_does_not_take_fails_the_run() {
    let (report, _setup) = scripted(Clock::Icount, &["end!", "more", "most"], 20);
    let words = "failed: the console did not take the command \"more\" (2 of 3): it showed no prompt for it; the run itself: \
                 success";
    assert_eq!((report.outcome.to_string().as_str(), report.exit_code()), (words, 1));
}
