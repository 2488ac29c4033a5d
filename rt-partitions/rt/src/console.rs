//! The console: COM1 of the bare machine, or the partition's own serial port, if it has one.

use core::fmt::{self, Write};

use partita_x86_bare::uart::Uart;
use spin::Mutex;

use crate::place::Place;

const COM1: u16 = 0x3F8;

static UART: Mutex<Option<Uart>> = Mutex::new(None);

/// Sets the console up.
pub(crate) fn init(place: &Place) {
    let base = match place {
        Place::Bare => Some(COM1),
        Place::Partition(partition) => partition.console,
    };
    *UART.lock() = base.map(|base| {
        Uart::init(base);
        Uart::new(base)
    });
}

/// Prints, if there is a console.
pub fn print(text: fmt::Arguments<'_>) {
    if let Some(uart) = UART.lock().as_mut() {
        // The serial port takes everything.
        let _ = uart.write_fmt(text);
    }
}

/// [`print`] for a CPU that may have been printing when it failed: without waiting for that to end.
pub(crate) fn print_fatal(text: fmt::Arguments<'_>) {
    if UART.is_locked() {
        // SAFETY: the payload is about to end: whoever holds the lock does not get to see a difference.
        unsafe { UART.force_unlock() };
    }
    print(text);
}

/// Prints a line.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {
        $crate::console::print(format_args!("{}\n", format_args!($($argument)*)))
    };
}
