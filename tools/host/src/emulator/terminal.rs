//! A person's terminal at a serial port of the machine.

use super::input_pipe::InputPipe;
use super::log_tail::LogTail;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::io::{self, Write};
use std::path::Path;

/// Bytes of the log that are shown in one go.
const LOOK_MAX: usize = 64 << 10;
/// Bytes that are read from the terminal in one go.
const KEYS_MAX: usize = 1024;
/// Ctrl-A, the tool's own key.
const OWN_KEY: u8 = 1;

/// What a person typed: bytes for the console, and the tool's own key taken out.
#[derive(Debug, Default)]
struct Keys {
    /// The last key was the tool's own.
    after_own: bool,
}

impl Keys {
    /// What of `typed` is for the console, and whether the person wants to leave. The tool's own key is followed by x to
    /// leave, or by itself for the console to get it.
    fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        for &key in typed {
            match (std::mem::take(&mut self.after_own), key) {
                (false, OWN_KEY) => self.after_own = true,
                (true, b'x' | b'X') => return (bytes, true),
                (true, OWN_KEY) | (false, _) => bytes.push(key),
                (true, _) => {}
            }
        }
        (bytes, false)
    }
}

/// Passes bytes between terminal and console as they are, and restores the terminal when it is dropped.
#[derive(Debug)]
pub(super) struct Terminal {
    log: LogTail,
    keys: Keys,
    modes: Option<Termios>,
    flags: Option<OFlags>,
}

impl Terminal {
    /// Connects standard input and output with the console whose log is at `log`.
    pub(super) fn connect(log: &Path) -> Self {
        let stdin = io::stdin();
        let (modes, flags) = (tcgetattr(&stdin).ok(), fcntl_getfl(&stdin).ok());
        if let Some(modes) = &modes {
            let mut raw = modes.clone();
            raw.make_raw();
            // Lines of the tool itself still begin at the left, and a read does not wait.
            raw.output_modes |= OutputModes::OPOST & modes.output_modes;
            raw.special_codes[SpecialCodeIndex::VMIN] = 0;
            raw.special_codes[SpecialCodeIndex::VTIME] = 0;
            // It fails only where the terminal is gone, and then a read does, too.
            let _ = tcsetattr(&stdin, OptionalActions::Now, &raw);
        }
        Self { log: LogTail::new(log), keys: Keys::default(), modes, flags }
    }

    /// Shows what is new on the console, and types what the person did. Gives true if the person has left.
    pub(super) fn poll(&mut self, pipe: &mut InputPipe) -> bool {
        self.show();
        if pipe.is_full() {
            return false;
        }
        let mut typed = [0; KEYS_MAX];
        match rustix::io::read(io::stdin(), &mut typed) {
            Ok(count) => {
                let (bytes, left) = self.keys.filter(typed.get(..count).unwrap_or_default());
                pipe.push(&bytes);
                left
            }
            Err(Errno::INTR | Errno::AGAIN) => false,
            // The terminal is gone.
            Err(_) => true,
        }
    }

    /// Shows what is left.
    pub(super) fn finish(mut self) {
        while self.show() {}
    }

    /// Whether there was anything.
    fn show(&mut self) -> bool {
        let bytes = self.log.read(LOOK_MAX);
        let mut out = io::stdout();
        // Whoever does not see the console any more can still end the run.
        let _ = out.write_all(&bytes).and_then(|()| out.flush());
        !bytes.is_empty()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let stdin = io::stdin();
        // Both fail only where the terminal is gone.
        if let Some(flags) = self.flags {
            let _ = fcntl_setfl(&stdin, flags);
        }
        if let Some(modes) = &self.modes {
            let _ = tcsetattr(&stdin, OptionalActions::Flush, modes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_key_leaves_or_is_doubled() {
        let mut keys = Keys::default();
        assert_eq!(keys.filter(b"ls\r\x03"), (b"ls\r\x03".to_vec(), false));
        assert_eq!(keys.filter(b"a\x01\x01b\x01?c"), (b"a\x01bc".to_vec(), false));
        // The two keys may come one by one, and what is behind them is nobody's.
        assert_eq!(keys.filter(b"q\x01"), (b"q".to_vec(), false));
        assert_eq!(keys.filter(b"xyz"), (Vec::new(), true));
        assert_eq!(Keys::default().filter(b"x"), (b"x".to_vec(), false));
    }
}
