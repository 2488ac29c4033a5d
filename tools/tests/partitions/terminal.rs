//! `partita run --console` with a person at a terminal, who is played by this test.

use crate::system::file;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long something may take to appear on the terminal; the hypervisor may have to be built before.
const PATIENCE: Duration = Duration::from_secs(300);

/// A terminal with `partita run` in it.
struct Session {
    child: Child,
    /// The person's side.
    keys: File,
    /// The program's side, kept to see what becomes of it.
    terminal: File,
    shown: Receiver<Vec<u8>>,
    /// What was shown since the last match.
    unread: String,
    _dir: tempfile::TempDir,
}

impl Session {
    fn start(arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let terminal = OpenOptions::new().read(true).write(true).open(name).unwrap();
        let keys = File::from(master);
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_partita"));
        command
            .arg("run")
            .arg(file("talk.toml"))
            .args(["--icount", "--out"])
            .arg(dir.path().join("out"))
            .args(arguments);
        command.stdin(terminal.try_clone().unwrap()).stdout(terminal.try_clone().unwrap());
        let child = command.stderr(terminal.try_clone().unwrap()).spawn().unwrap();
        let (sender, shown) = channel();
        let mut reader = keys.try_clone().unwrap();
        // Ends when nobody has the terminal open any more, or with the test.
        std::thread::spawn(move || {
            let mut bytes = vec![0; 4096];
            while let Ok(count) = reader.read(&mut bytes)
                && count > 0
                && sender.send(bytes[..count].to_vec()).is_ok()
            {}
        });
        Self { child, keys, terminal, shown, unread: String::new(), _dir: dir }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal)
            .unwrap()
            .local_modes
            .intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    fn types(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until `text` is shown; gives what was shown before it.
    fn sees(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(start) = self.unread.find(text) {
                let before = self.unread[..start].to_owned();
                self.unread.drain(..start + text.len());
                return before;
            }
            match self.shown.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.unread.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{text:?} is not shown, but {:?}", self.unread)
                }
            }
        }
    }

    /// The program's exit code.
    fn end(mut self) -> Option<i32> {
        let code = self.child.wait().unwrap().code();
        assert!(!self.is_raw(), "the terminal is as it was");
        code
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It has ended, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "boots an emulator"]
fn a_person_types_at_a_partitions_console_and_leaves() {
    let mut session = Session::start(&["--console", "second"]);
    session.sees("This terminal is the console of second: Ctrl-A X ends QEMU");
    session.sees("The console of first goes to ");
    session.sees("> ");
    assert!(session.is_raw());
    session.types("hello\r");
    assert_eq!(session.sees("5 bytes, checksum 162025").trim(), "hello");
    // Ctrl-C is the guest's, not the tool's.
    session.types("abc\x03");
    session.sees("^C");
    session.types("\x01");
    session.types("x");
    session.sees("talk: interrupted");
    assert_eq!(session.end(), Some(1));
}

#[test]
#[ignore = "boots an emulator"]
fn a_person_types_at_the_hypervisors_console() {
    let mut session = Session::start(&["--console"]);
    session.sees("This terminal is the console of hypervisor: `help` lists its commands");
    session.sees("partita> ");
    session.types("partitions\r");
    session.sees("second");
    session.sees("partita> ");
    session.types("quit\r");
    session.sees("partita: end: ");
    session.sees("logs and trace: ");
    assert!(session.end().is_some());
}
