//! A guest that one can type to: it echoes, answers each line, and goes at `bye`.

use core::str;

use partita_rt::console::print;
use partita_rt::{Error, Machine, Place, println, rdtsc, relax};
use partita_x86_bare::uart::Uart;

use crate::checked::Claims;

/// Longest line; more is left out.
const LINE_MAX: usize = 4096;
const ENTER: u8 = b'\r';
const INTERRUPT: u8 = 3;
/// How long a slow guest does not look, in microseconds.
const SLOW_US: u64 = 20;

/// With a guest that looks for input all the time.
pub(crate) fn talk(machine: &Machine, _: u64) -> Result<(), Error> {
    hold(machine, 0)
}

/// With a guest that looks for input now and then: it must get all the same.
pub(crate) fn talk_slowly(machine: &Machine, _: u64) -> Result<(), Error> {
    hold(machine, machine.clocks.tsc_hz / 1_000_000 * SLOW_US)
}

fn hold(machine: &Machine, pause: u64) -> Result<(), Error> {
    let Place::Partition(own) = machine.place else { return Err(Error::OnlyInPartition { what: "a dialogue" }) };
    let Some(base) = own.console else { return Err(Error::OnlyInPartition { what: "a dialogue at a console" }) };
    let mut port = Uart::new(base);
    let mut line = [0; LINE_MAX];
    let mut lines = 0;
    loop {
        print(format_args!("> "));
        let len = read_line(&mut port, &mut line, pause);
        let text = str::from_utf8(line.get(..len).unwrap_or_default()).unwrap_or("(no text)");
        if text == "bye" {
            break;
        }
        let sum = text.bytes().fold(0u64, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte));
        println!("{len} bytes, checksum {sum}");
        lines += 1;
    }
    Claims::from(600).equal("the dialogue is over", lines, lines);
    Ok(())
}

/// Reads and echoes up to Enter. Gives how many bytes the line has.
fn read_line(port: &mut Uart, line: &mut [u8], pause: u64) -> usize {
    let mut len = 0;
    loop {
        let start = rdtsc();
        while rdtsc().wrapping_sub(start) < pause {
            relax();
        }
        match port.get() {
            Some(ENTER) => {
                print(format_args!("\n"));
                return len;
            }
            Some(INTERRUPT) => {
                println!("^C");
                len = 0;
                print(format_args!("> "));
            }
            Some(byte) => {
                print(format_args!("{}", char::from(byte)));
                if let Some(place) = line.get_mut(len) {
                    *place = byte;
                    len += 1;
                }
            }
            None => relax(),
        }
    }
}
