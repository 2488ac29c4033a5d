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

/// What the policy says about an access of so many bytes to a port that is not the console's.
const fn decide(size: u8, port: u16, input: bool, value: u64) -> PortDecision {
    let access = IoAccess { port, size, input, string: false, rep: false };
    PortPolicy::new(None, Identity::Partita).decide(access, value as u32)
}

/// Whether an access of so many bytes reaches nothing but the own console.
pub(super) fn is_own(console: Option<u16>, port: u16, size: u8) -> bool {
    let first = console.unwrap_or(0);
    console.is_some() && port >= first && u32::from(port) + u32::from(size) <= u32::from(first + SERIAL_LEN)
}

/// RAX behind an IN of so many bytes, and whether that is counted as refused; `None` for the clock's.
pub(super) const fn input_gives(size: u8, port: u16, before: u64) -> Option<(u64, bool)> {
    let decision = decide(size, port, true, 0);
    if matches!(decision, PortDecision::CmosRead) {
        return None;
    }
    let ones = ALL_ONES >> (64 - size as u32 * 8);
    let input = if matches!(decision, PortDecision::Zero) { 0 } else { ones };
    let rax = if size == 4 { input } else { before & !ones | input };
    Some((rax, matches!(decision, PortDecision::Refuse)))
}

/// Whether an OUT is counted as refused; `None` if it would end the partition.
pub(super) const fn output_gives(size: u8, port: u16, value: u64) -> Option<bool> {
    match decide(size, port, false, value) {
        PortDecision::Finish | PortDecision::PowerOff | PortDecision::Reset => None,
        decision => Some(matches!(decision, PortDecision::Refuse)),
    }
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
    fn input<const SIZE: u8>(&mut self, tally: &mut Tally, port: u16) {
        let found: u64;
        let caught = match SIZE {
            1 => attempt!(["in al, dx"], in("dx") port, inout("rax") PATTERN => found),
            2 => attempt!(["in ax, dx"], in("dx") port, inout("rax") PATTERN => found),
            _ => attempt!(["in eax, dx"], in("dx") port, inout("rax") PATTERN => found),
        };
        tally.tries += 1;
        self.reads += 1;
        if is_own(self.console, port, SIZE) {
            return;
        }
        let Some((expected, is_refused)) = input_gives(SIZE, port, PATTERN) else { return };
        tally.accesses += u64::from(is_refused);
        tally.check(
            caught == NOTHING && found == expected,
            format_args!("IN of {SIZE} bytes at {port:#x} gave {found:#x}, exception {caught}"),
        );
    }

    fn output<const SIZE: u8>(&mut self, tally: &mut Tally, port: u16, value: u64) {
        // What ends the partition is left out.
        let gives = output_gives(SIZE, port, value).filter(|_| !is_own(self.console, port, SIZE));
        let Some(is_refused) = gives else {
            self.left_out += 1;
            return;
        };
        let caught = match SIZE {
            1 => attempt!(["out dx, al"], in("dx") port, in("rax") value),
            2 => attempt!(["out dx, ax"], in("dx") port, in("rax") value),
            _ => attempt!(["out dx, eax"], in("dx") port, in("rax") value),
        };
        tally.tries += 1;
        self.writes += 1;
        tally.accesses += u64::from(is_refused);
        tally.check(caught == NOTHING, format_args!("OUT of {SIZE} bytes at {port:#x}: exception {caught}"));
    }

    /// String forms are refused at every port but its own.
    fn strings(&mut self, tally: &mut Tally, port: u16, value: u64) {
        if (1..=4).any(|size| is_own(self.console, port, size)) {
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
