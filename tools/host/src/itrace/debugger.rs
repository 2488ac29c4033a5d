//! Lets QEMU log from the first entry into a guest on: before it come a hundred million instructions of the boot. By QEMU's own
//! debugger interface (GDB's remote protocol), so that it is exact: the machine stands still while logging is switched on.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the emulator may take to open its socket.
const OPEN: Duration = Duration::from_secs(20);
/// The monitor's command that switches the log on.
const LOG_ON: &str = "log exec,nochain";

/// Lets the machine run that waits at the debugger's `socket`, and switches the log on when it comes to one of `addresses`.
///
/// # Errors
/// The socket does not open, the emulator does not answer as it should, or it ends before it comes there.
pub(crate) fn log_from(socket: &Path, addresses: &[u64], timeout: Duration) -> io::Result<()> {
    let stream = connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    let mut debugger = Debugger { reader: BufReader::new(stream.try_clone()?), stream };
    let result = debugger.log_from(addresses);
    if result.is_err() {
        // The machine stands still, and nobody else would end it.
        let _ = debugger.send("k");
    }
    result
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
    fn talk(answers: &[&str]) -> (io::Result<()>, String) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let answers: Vec<String> = answers.iter().map(|answer| format!("${answer}#00")).collect();
        let emulator = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"+").unwrap();
            for answer in answers {
                let _ = stream.write_all(answer.as_bytes());
            }
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut sent = String::new();
            let _ = io::Read::read_to_string(&mut stream, &mut sent);
            sent
        });
        let result = log_from(&socket, &[0x20_1234], Duration::from_secs(5));
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
    fn an_emulator_that_does_not_answer_so_is_an_error() {
        let words = |answers: &[&str]| talk(answers).0.unwrap_err().to_string();
        assert!(words(&["E22"]).contains("answered \"E22\" to \"Z0,201234,1\""));
        assert!(words(&["OK", "W00"]).contains("ended (W00) before it entered a guest"));
        assert!(talk(&[]).0.is_err());
    }
}
