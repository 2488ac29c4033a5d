//! The partition's own serial port. Its use costs no exit.

use core::arch::x86_64::__cpuid;
use core::fmt::{Arguments, Write};

use partita_abi::cpuid::LEAF_PARTITION;
use partita_abi::report::EXIT_FAILURE;
use partita_x86_bare::end_run;
use partita_x86_bare::exceptions::ExceptionFrame;
use partita_x86_bare::uart::Uart;

/// I/O base of the console, if there is one.
pub(crate) fn base() -> Option<u16> {
    u16::try_from(__cpuid(LEAF_PARTITION).edx).ok().filter(|base| *base != 0)
}

/// Sets the console up.
pub(crate) fn init() {
    if let Some(base) = base() {
        Uart::init(base);
    }
}

/// Prints, if there is a console.
pub(crate) fn print(text: Arguments<'_>) {
    if let Some(base) = base() {
        // The serial port takes everything.
        let _ = Uart::new(base).write_fmt(text);
    }
}

/// Ends the partition with a failure.
pub(crate) fn fail(why: Arguments<'_>) -> ! {
    print(format_args!("hostile: error: {why}\n"));
    end_run(EXIT_FAILURE)
}

/// The stubs of the bare runtime, which this payload does not load, would come here.
#[unsafe(no_mangle)]
extern "C" fn bare_exception(frame: &ExceptionFrame) -> ! {
    fail(format_args!("exception {} at {:#x}, error code {:#x}", frame.vector, frame.rip, frame.error_code))
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    fail(format_args!("{info}"))
}
