//! Every I/O port by every width, read and written, by string and repeated forms.

use core::ops::Range;

use partita_core::system::Identity;
use partita_x86_policy::ports::{IoAccess, PortDecision, PortPolicy};

use crate::Orders;
use crate::console;
use crate::gates::{GP, NOTHING, attempt, guard};
use crate::tally::Tally;

/// Bytes that the string forms could reach.
const BUFFER_LEN: usize = 64;
const UNTOUCHED: u8 = 0x5A;
const PATTERN: u64 = 0x1122_3344_5566_7788;
const SERIAL_LEN: u16 = 8;
const ALL_ONES: u64 = u64::MAX;
/// Where q35 and its firmware have their devices, but for the PCI windows: the string forms are tried at each.
const DEVICE_PORTS: [Range<u16>; 2] = [0..0x1100, 0x4000..0x4010];

/// What the policy says about an access to a port that is not the console's.
const fn decide<const SIZE: usize>(port: u16, input: bool, value: u64) -> PortDecision {
    let access = IoAccess { port, size: SIZE as u8, input, string: false, rep: false };
    PortPolicy::new(None, Identity::Partita).decide(access, value as u32)
}

macro_rules! forms {
    ($port:expr, $value:expr, $buffer:expr, $($text:literal),+) => {
        [$(attempt!([$text], in("dx") $port, inout("rax") $value => _, inout("rcx") 3u64 => _, inout("rsi") $buffer => _,
            inout("rdi") $buffer => _)),+]
    };
}

struct Ports {
    /// The partition's own, which it does not attack.
    console: Option<u16>,
    /// Tries of each kind.
    reads: u64,
    writes: u64,
    /// Writes to its own console, and those that would end the partition.
    left_out: u64,
    strings: u64,
}

impl Ports {
    /// Whether an access reaches nothing but the own console.
    fn is_own(&self, port: u16, size: usize) -> bool {
        let first = self.console.unwrap_or(0);
        self.console.is_some() && port >= first && u32::from(port) + size as u32 <= u32::from(first + SERIAL_LEN)
    }

    fn input<const SIZE: usize>(&mut self, tally: &mut Tally, port: u16) {
        let found: u64;
        let caught = match SIZE {
            1 => attempt!(["in al, dx"], in("dx") port, inout("rax") PATTERN => found),
            2 => attempt!(["in ax, dx"], in("dx") port, inout("rax") PATTERN => found),
            _ => attempt!(["in eax, dx"], in("dx") port, inout("rax") PATTERN => found),
        };
        tally.tries += 1;
        self.reads += 1;
        let decision = decide::<SIZE>(port, true, 0);
        if self.is_own(port, SIZE) || decision == PortDecision::CmosRead {
            return;
        }
        let ones = ALL_ONES >> (64 - SIZE * 8);
        let input = if decision == PortDecision::Zero { 0 } else { ones };
        let expected = if SIZE == 4 { input } else { PATTERN & !ones | input };
        tally.accesses += u64::from(decision == PortDecision::Refuse);
        tally.check(
            caught == NOTHING && found == expected,
            format_args!("IN of {SIZE} bytes at {port:#x} gave {found:#x}, exception {caught}"),
        );
    }

    fn output<const SIZE: usize>(&mut self, tally: &mut Tally, port: u16, value: u64) {
        let decision = decide::<SIZE>(port, false, value);
        // What ends the partition is left out.
        let ends = matches!(decision, PortDecision::Finish | PortDecision::PowerOff | PortDecision::Reset);
        if self.is_own(port, SIZE) || ends {
            self.left_out += 1;
            return;
        }
        let caught = match SIZE {
            1 => attempt!(["out dx, al"], in("dx") port, in("rax") value),
            2 => attempt!(["out dx, ax"], in("dx") port, in("rax") value),
            _ => attempt!(["out dx, eax"], in("dx") port, in("rax") value),
        };
        tally.tries += 1;
        self.writes += 1;
        tally.accesses += u64::from(decision == PortDecision::Refuse);
        tally.check(caught == NOTHING, format_args!("OUT of {SIZE} bytes at {port:#x}: exception {caught}"));
    }

    /// String forms are refused at every port but its own.
    fn strings(&mut self, tally: &mut Tally, port: u16, value: u64) {
        if (1..=4).any(|size| self.is_own(port, size)) {
            return;
        }
        let mut buffer = [UNTOUCHED; BUFFER_LEN];
        let place = buffer.as_mut_ptr();
        let caught = forms!(
            port,
            value,
            place,
            "insb",
            "insw",
            "insd",
            "outsb",
            "outsw",
            "outsd",
            "rep insb",
            "rep insw",
            "rep insd",
            "rep outsb",
            "rep outsw",
            "rep outsd"
        );
        let count = caught.len() as u64;
        tally.tries += count;
        self.strings += count;
        tally.faults += count;
        tally.accesses += count;
        let is_refused = caught.iter().all(|caught| *caught == GP) && guard().error_code() == 0;
        tally.check(is_refused, format_args!("string forms at {port:#x}: exceptions {caught:?}"));
        tally.check(buffer == [UNTOUCHED; BUFFER_LEN], format_args!("string forms at {port:#x} wrote to memory"));
    }
}

/// All ports; the string forms at those of devices, and at each `steps`-th other.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    let mut random = orders.random();
    let mut ports = Ports { console: console::base(), reads: 0, writes: 0, left_out: 0, strings: 0 };
    let stride = orders.steps_or(1);
    for port in 0..=u16::MAX {
        ports.input::<1>(tally, port);
        ports.input::<2>(tally, port);
        ports.input::<4>(tally, port);
        let value = random.next();
        ports.output::<1>(tally, port, value);
        ports.output::<2>(tally, port, value);
        ports.output::<4>(tally, port, value);
        let is_device = DEVICE_PORTS.iter().any(|ports| ports.contains(&port));
        if is_device || u64::from(port) % stride == orders.seed % stride {
            ports.strings(tally, port, value);
        }
    }
    let Ports { reads, writes, left_out, strings, .. } = ports;
    orders.count(format_args!("{reads} IN, {writes} OUT, {left_out} left out, {strings} string forms"));
}
