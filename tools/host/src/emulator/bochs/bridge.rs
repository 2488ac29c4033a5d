//! A serial port of Bochs at which somebody types. Bochs has no port that prints to a file and reads from elsewhere, so that
//! this thread sits between: what the port prints goes into the log, what is in the keyboard's pipe goes to the port.

use rustix::fs::{Mode, OFlags, open};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long the thread waits for output before it looks for input. One byte of input goes to the port each time, so that what is
/// in the pipe is what the machine has not taken yet, but for a byte or two.
const TURN: Duration = Duration::from_millis(2);
/// Bytes that are taken at once.
const CHUNK: usize = 64 << 10;

/// The thread, and the listener that Bochs connects to.
#[derive(Debug)]
pub struct Bridge {
    port: u16,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Bridge {
    /// Listens for a serial port whose output goes to `log`, and which reads the named pipe `input`. The pipe has to be there
    /// when Bochs connects.
    ///
    /// # Errors
    /// There is no port of the host to be had, or the log cannot be made.
    pub(super) fn listen(log: &Path, input: PathBuf) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let log = File::create(log)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::Builder::new().name("serial port".into()).spawn(move || {
            let Some(stream) = accept(&listener, &over)? else { return Ok(()) };
            carry(stream, log, &input, &over)
        })?;
        Ok(Self { port, is_over, thread: Some(thread) })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Waits until all that was printed is in the log. For when Bochs has ended.
    ///
    /// # Errors
    /// The log could not be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        let failed = || Err(io::Error::other("the thread of a serial port panicked"));
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap_or_else(|_| failed()))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Whoever wants to know calls `finish`.
        let _ = self.join();
    }
}

/// Waits for Bochs; `None` if it ended without having come.
fn accept(listener: &TcpListener, is_over: &AtomicBool) -> io::Result<Option<TcpStream>> {
    loop {
        // Looked at first: what connected before the end is served.
        let is_last = is_over.load(Ordering::Relaxed);
        match listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock && !is_last => std::thread::sleep(TURN),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn carry(mut stream: TcpStream, mut log: File, input: &Path, is_over: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TURN))?;
    stream.set_nodelay(true)?;
    let mut input: File = open(input, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?.into();
    let mut chunk = vec![0; CHUNK];
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => log.write_all(chunk.get(..count).unwrap_or_default())?,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if is_last {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Bochs was killed.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut byte = [0];
        if matches!(input.read(&mut byte), Ok(1)) {
            // A port that is gone takes nothing; that is seen at the next read.
            let _ = stream.write_all(&byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::input_pipe::InputPipe;
    use super::*;

    #[test]
    fn both_directions_are_carried_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (log, pipe) = (dir.path().join("a.log"), dir.path().join("a.in"));
        let bridge = Bridge::listen(&log, pipe.clone()).unwrap();
        let mut keyboard = InputPipe::create(&pipe).unwrap();
        let mut bochs = TcpStream::connect((Ipv4Addr::LOCALHOST, bridge.port())).unwrap();
        keyboard.push(b"help\r");
        let mut typed = [0; 5];
        bochs.read_exact(&mut typed).unwrap();
        assert_eq!((&typed, keyboard.is_taken()), (b"help\r", true));
        let output: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        bochs.write_all(&output).unwrap();
        drop(bochs);
        bridge.finish().unwrap();
        assert!(std::fs::read(&log).unwrap() == output);
    }

    #[test]
    fn a_bochs_that_never_comes_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let bridge = Bridge::listen(&dir.path().join("a.log"), dir.path().join("a.in")).unwrap();
        bridge.finish().unwrap();
        assert!(Bridge::listen(&dir.path().join("no/a.log"), dir.path().join("a.in")).is_err());
    }
}
