//! A PC serial port: output polled, input polled or by interrupt.

use core::fmt::{self, Write};

use x86_64::instructions::port::Port;

/// A 16550 (PC16550D data sheet, section 8).
#[derive(Debug)]
pub struct Uart {
    data: Port<u8>,
    line_status: Port<u8>,
}

/// Transmit polls before a byte is given up: a missing UART must not hang the program.
const TRANSMIT_POLLS: u32 = 100_000;

impl Uart {
    /// The port at this I/O base.
    pub const fn new(base: u16) -> Self {
        Self { data: Port::new(base), line_status: Port::new(base + 5) }
    }

    /// Sets the port up: 115,200 baud, 8N1, polled.
    pub fn init(base: u16) {
        Self::init_slow(base, 1);
    }

    /// Sets the port up: 115,200 baud divided by `divisor`, 8N1, polled.
    pub fn init_slow(base: u16, divisor: u16) {
        let [low, high] = divisor.to_le_bytes();
        // Interrupts off; divisor, 8 data bits, no parity, 1 stop bit; FIFOs on; DTR and RTS.
        for (offset, value) in [(1, 0x00), (3, 0x80), (0, low), (1, high), (3, 0x03), (2, 0xC7), (4, 0x03)] {
            let mut port: Port<u8> = Port::new(base + offset);
            // SAFETY: these are the registers of the serial port that this program owns.
            unsafe { port.write(value) };
        }
    }

    /// Has the port at this I/O base interrupt when there is input.
    pub fn interrupt_on_input(base: u16) {
        // DTR, RTS and OUT2, which lets the interrupt out; the interrupt of received data.
        for (offset, value) in [(4, 0x0B), (1, 0x01)] {
            let mut port: Port<u8> = Port::new(base + offset);
            // SAFETY: these are the registers of the serial port that this program owns.
            unsafe { port.write(value) };
        }
    }

    /// The next byte of input, if there is one.
    pub fn get(&mut self) -> Option<u8> {
        // SAFETY: reading the line status register clears error bits only.
        let status = unsafe { self.line_status.read() };
        // All ones is what a missing port reads as.
        if status == 0xFF || status & 1 == 0 {
            return None;
        }
        // SAFETY: there is a byte, and the port is this program's.
        Some(unsafe { self.data.read() })
    }

    fn put(&mut self, byte: u8) {
        for _ in 0..TRANSMIT_POLLS {
            // SAFETY: reading the line status register has no side effect that matters here.
            if unsafe { self.line_status.read() } & 0x20 != 0 {
                // SAFETY: the transmitter is empty, and the port is this program's.
                unsafe { self.data.write(byte) };
                return;
            }
        }
    }
}

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
        Ok(())
    }
}
