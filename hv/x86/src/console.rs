//! The hypervisor's console: COM1, polled. Only the boot and housekeeping pCPU prints; real-time pCPUs trace.

use core::fmt::{self, Write};

use partita_x86_bare::uart::Uart;
use spin::Mutex;

const COM1: u16 = 0x3F8;

static CONSOLE: Mutex<Uart> = Mutex::new(Uart::new(COM1));

/// Sets the serial port up: once, first thing at boot.
pub fn init() {
    Uart::init(COM1);
}

/// Prints, for the macros.
#[doc(hidden)]
pub fn print(args: fmt::Arguments<'_>) {
    // The serial port cannot fail.
    let _ = CONSOLE.lock().write_fmt(args);
}

/// Prints from a place that may have interrupted a print: a fatal fault. It takes the port without its lock.
pub fn print_fatal(args: fmt::Arguments<'_>) {
    let _ = Uart::new(COM1).write_fmt(args);
}

/// Prints a line on the hypervisor's console.
#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($arg)*))) };
}
