//! The devices of the guest's machine that KVM does not have itself: a serial port and the exit port.

use crate::console::Console;
use partita_abi::report::EXIT_PORT;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

/// The first serial port (PC16550D data sheet, section 8).
const COM1: u16 = 0x3F8;
const COM1_END: u16 = COM1 + 7;
const LINE_CONTROL: u16 = COM1 + 3;
const LINE_STATUS: u16 = COM1 + 5;
/// Line control: the data register is the divisor's.
const DIVISOR_LATCH: u8 = 0x80;
/// Line status: nothing is left to be sent.
const EMPTY: u8 = 0x60;

/// The devices.
#[derive(Debug)]
pub(crate) struct Devices {
    trace_at: u64,
    line_control: AtomicU16,
    console: Mutex<Console>,
}

impl Devices {
    /// Devices of a guest whose trace will be at `trace_at`.
    pub(crate) fn new(trace_at: u64) -> Self {
        Self { trace_at, line_control: AtomicU16::new(0), console: Mutex::default() }
    }

    /// The guest writes to a port. Returns the byte by which it ends itself, if that is what it does.
    pub(crate) fn write(&self, port: u16, bytes: &[u8]) -> Option<u8> {
        let &byte = bytes.first()?;
        match port {
            EXIT_PORT => return Some(byte),
            LINE_CONTROL => self.line_control.store(byte.into(), Ordering::Relaxed),
            COM1 if self.line_control.load(Ordering::Relaxed) as u8 & DIVISOR_LATCH == 0 => {
                let line = self.console.lock().unwrap_or_else(PoisonError::into_inner).put(byte, self.trace_at);
                if let Some(line) = line {
                    println!("{line}");
                }
            }
            _ => {}
        }
        None
    }

    /// The guest reads from a port.
    pub(crate) fn read(&self, port: u16, bytes: &mut [u8]) {
        bytes.fill(match port {
            LINE_STATUS => EMPTY,
            COM1..=COM1_END => 0,
            _ => 0xFF,
        });
    }

    /// Where the guest says that its trace lies.
    pub(crate) fn trace_region(&self) -> Option<u64> {
        self.console.lock().unwrap_or_else(PoisonError::into_inner).trace_region
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serial_port_is_always_ready() {
        let devices = Devices::new(0);
        let mut byte = [0];
        devices.read(LINE_STATUS, &mut byte);
        assert_eq!(byte, [EMPTY]);
        // The divisor is no output.
        for (port, byte) in [(LINE_CONTROL, DIVISOR_LATCH), (COM1, b'x'), (LINE_CONTROL, 3)] {
            assert_eq!(devices.write(port, &[byte]), None);
        }
        assert_eq!(devices.write(EXIT_PORT, &[0x10]), Some(0x10));
        let mut long = [0; 4];
        devices.read(0x999, &mut long);
        assert_eq!(long, [0xFF; 4]);
    }
}
