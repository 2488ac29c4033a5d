//! The hypervisor's console: COM1, or the serial port of the command line. Only the boot and housekeeping pCPU prints; real-time pCPUs trace.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use partita_console::serial::Serial;
use partita_x86_bare::uart::Uart;
use spin::{Mutex, Once};

static CONSOLE: Mutex<Uart> = Mutex::new(Uart::new(Serial::DEFAULT.base));
static SERIAL: Once<Serial> = Once::new();

/// Sets the serial port up: once, first thing at boot.
pub fn init(serial: Serial) {
    SERIAL.call_once(|| serial);
    Uart::init_slow(serial.base, serial.divisor);
    *CONSOLE.lock() = Uart::new(serial.base);
}

/// The serial port.
pub fn serial() -> Serial {
    SERIAL.get().copied().unwrap_or(Serial::DEFAULT)
}

/// Has the port interrupt when there is input.
pub fn interrupt_on_input() {
    Uart::interrupt_on_input(serial().base);
}

/// The next byte that was typed, if there is one.
pub fn input() -> Option<u8> {
    CONSOLE.lock().get()
}

/// Whether a line is being typed, so that what is printed has to begin a new one.
static IS_TYPING: AtomicBool = AtomicBool::new(false);

/// Prints, for the macros.
#[doc(hidden)]
pub fn print(args: fmt::Arguments<'_>) {
    let mut console = CONSOLE.lock();
    let new_line = if IS_TYPING.swap(false, Ordering::Relaxed) { "\n" } else { "" };
    // The serial port cannot fail.
    let _ = console.write_str(new_line);
    let _ = console.write_fmt(args);
}

/// The console as the line editor writes to it.
#[derive(Debug)]
pub struct Echo;

impl Echo {
    /// Whether the line that is being typed is still the last on the console.
    pub fn is_typing(&self) -> bool {
        IS_TYPING.load(Ordering::Relaxed)
    }

    /// Says whether a line is being typed.
    pub fn set_typing(&self, is_typing: bool) {
        IS_TYPING.store(is_typing, Ordering::Relaxed);
    }
}

impl Write for Echo {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        CONSOLE.lock().write_str(text)
    }
}

/// Prints from a place that may have interrupted a print: a fatal fault. It takes the port without its lock.
pub fn print_fatal(args: fmt::Arguments<'_>) {
    let _ = Uart::new(serial().base).write_fmt(args);
}

/// Prints a line on the hypervisor's console.
#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($arg)*))) };
}
