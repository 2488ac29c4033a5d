//! Lets QEMU log from the first entry into a guest on: before it come a hundred million instructions of the boot. By QEMU's own
//! debugger interface (GDB's remote protocol), so that it is exact: the machine stands still while logging is switched on.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the emulator may take to open its socket.
const OPEN: Duration = Duration::from_secs(20);
/// How often the log's length is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long the emulator may take to end when it is told to.
const KILL: Duration = Duration::from_secs(5);
/// Sent alone it stops the machine.
const INTERRUPT: u8 = 3;
/// The monitor's command that switches the log on.
const LOG_ON: &str = "log exec,nochain";

/// Why there is no log of instructions.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// QEMU did not do as it was told.
    #[error(transparent)]
    Talk(#[from] io::Error),
    /// The log became too long; the machine was ended.
    #[error(
        "the log of instructions {} is longer than {} MiB, and the run was ended; log a shorter one, with fewer samples or rounds",
        path.display(), max >> 20
    )]
    TooLong {
        /// The log.
        path: PathBuf,
        /// How many bytes it may have.
        max: u64,
    },
}

/// A log, and how many bytes it may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log<'a> {
    pub(crate) path: &'a Path,
    pub(crate) max: u64,
}

/// Lets the machine run that waits at the debugger's `socket`, switches the log on when it comes to one of `addresses`, and ends
/// the machine if the log becomes too long. Returns when the machine has ended.
///
/// # Errors
/// The socket does not open, the emulator does not answer as it should, it ends before it comes there, or the log is too long.
pub(crate) fn log_from(socket: &Path, addresses: &[u64], log: Log<'_>, timeout: Duration) -> Result<(), LogError> {
    let stream = connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    let mut debugger = Debugger { reader: BufReader::new(stream.try_clone()?), stream };
    if let Err(error) = debugger.log_from(addresses) {
        // The machine stands still, and nobody else would end it.
        let _ = debugger.send("k");
        return Err(error.into());
    }
    debugger.watch(log)
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
                    && start.elapsed() < OPEN =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

struct Debugger {
    reader: BufReader<UnixStream>,
    stream: UnixStream,
}

impl Debugger {
    fn log_from(&mut self, addresses: &[u64]) -> io::Result<()> {
        for address in addresses {
            self.command(&format!("Z0,{address:x},1"))?;
        }
        self.send("c")?;
        let stopped = self.answer()?;
        if !stopped.starts_with('T') && !stopped.starts_with('S') {
            return Err(io::Error::other(format!("the machine ended ({stopped}) before it entered a guest")));
        }
        let hex: String = LOG_ON.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.command(&format!("qRcmd,{hex}"))?;
        for address in addresses {
            self.command(&format!("z0,{address:x},1"))?;
        }
        self.send("c")
    }

    /// Looks at the log until the emulator ends.
    fn watch(&mut self, log: Log<'_>) -> Result<(), LogError> {
        self.stream.set_read_timeout(Some(LOOK))?;
        loop {
            match self.reader.fill_buf() {
                Ok(bytes) if !bytes.is_empty() => {
                    let said = bytes.len();
                    self.reader.consume(said);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It has ended.
                Ok(_) | Err(_) => return Ok(()),
            }
            let Log { path, max } = log;
            if path.metadata().is_ok_and(|file| file.len() > max) {
                // If it does not obey, its time runs out.
                let _ = self.kill();
                return Err(LogError::TooLong { path: path.to_path_buf(), max });
            }
        }
    }

    /// Ends a machine that runs.
    fn kill(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(KILL))?;
        self.stream.write_all(&[INTERRUPT])?;
        self.answer()?;
        self.send("k")
    }

    /// A packet: `$`, the text, `#` and the sum of its bytes.
    fn send(&mut self, text: &str) -> io::Result<()> {
        let sum = text.bytes().fold(0u8, u8::wrapping_add);
        self.stream.write_all(format!("${text}#{sum:02x}").as_bytes())
    }

    /// The text of the next packet. Acknowledgements before it are skipped.
    fn answer(&mut self) -> io::Result<String> {
        let mut packet = Vec::new();
        self.reader.read_until(b'#', &mut packet)?;
        let mut sum = [0; 2];
        io::Read::read_exact(&mut self.reader, &mut sum)?;
        self.stream.write_all(b"+")?;
        let text = String::from_utf8_lossy(&packet);
        let text = text.trim_start_matches('+').strip_prefix('$').and_then(|text| text.strip_suffix('#'));
        text.map(str::to_owned).ok_or_else(|| io::Error::other("the emulator's debugger interface sent no packet"))
    }

    /// Sends a command that is answered by `OK`, perhaps behind some output.
    fn command(&mut self, text: &str) -> io::Result<()> {
        self.send(text)?;
        loop {
            let answer = self.answer()?;
            match answer.as_str() {
                "OK" => return Ok(()),
                output if output.starts_with('O') => {}
                other => {
                    let problem = format!("the emulator's debugger interface answered {other:?} to {text:?}");
                    return Err(io::Error::other(problem));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// An emulator that answers these, one after the other, after the first acknowledgement; returns what it was sent.
    fn talk(answers: &[&str]) -> (Result<(), LogError>, String) {
        talk_with_log(answers, "", true)
    }

    /// The same with a log of this text, which may have ten bytes. An emulator that `ends` does so after its last answer, else when
    /// it is killed.
    fn talk_with_log(answers: &[&str], log: &str, ends: bool) -> (Result<(), LogError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let (socket, path) = (dir.path().join("s"), dir.path().join("log"));
        std::fs::write(&path, log).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let answers: Vec<String> = answers.iter().map(|answer| format!("${answer}#00")).collect();
        let emulator = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"+").unwrap();
            for answer in answers {
                let _ = stream.write_all(answer.as_bytes());
            }
            if ends {
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            }
            let mut sent = Vec::new();
            let mut byte = [0];
            while !sent.ends_with(b"$k#6b") && io::Read::read(&mut stream, &mut byte).is_ok_and(|read| read > 0) {
                sent.extend(byte);
                if byte == [INTERRUPT] {
                    stream.write_all(b"$T02thread:01;#00").unwrap();
                }
            }
            String::from_utf8(sent).unwrap()
        });
        let log = Log { path: &path, max: 10 };
        let result = log_from(&socket, &[0x20_1234], log, Duration::from_secs(5));
        (result, emulator.join().unwrap())
    }

    #[test]
    fn the_log_is_switched_on_where_a_guest_is_entered() {
        let (result, sent) = talk(&["OK", "T05thread:01;", "O41", "OK", "OK"]);
        result.unwrap();
        let expected = ["$Z0,201234,1#", "$c#63", "$qRcmd,6c6f6720657865632c6e6f636861696e#", "$z0,"];
        let mut rest = sent.as_str();
        for part in expected {
            rest = &rest[rest.find(part).unwrap_or_else(|| panic!("{part} in {sent}"))..];
        }
        assert!(sent.ends_with("$c#63"), "{sent}");
    }

    #[test]
    fn a_log_that_becomes_too_long_ends_the_machine() {
        let answers = ["OK", "T05thread:01;", "OK", "OK"];
        assert!(talk_with_log(&answers, "0123456789", true).0.is_ok());
        let (result, sent) = talk_with_log(&answers, "0123456789a", false);
        let error = result.unwrap_err();
        assert!(matches!(error, LogError::TooLong { max: 10, .. }), "{error}");
        assert!(error.to_string().contains("log is longer than 0 MiB") && error.to_string().contains("fewer samples"));
        assert!(sent.ends_with("$c#63\u{3}+$k#6b"), "{sent:?}");
    }

    #[test]
    fn an_emulator_that_does_not_answer_so_is_an_error() {
        let words = |answers: &[&str]| talk(answers).0.unwrap_err().to_string();
        assert!(words(&["E22"]).contains("answered \"E22\" to \"Z0,201234,1\""));
        assert!(words(&["OK", "W00"]).contains("ended (W00) before it entered a guest"));
        assert!(talk(&[]).0.is_err());
    }
}
