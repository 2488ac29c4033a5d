//! QEMU's log of executed blocks, of one instruction each: `-d exec,nochain` with `one-insn-per-tb=on`.

use std::io::{self, BufRead};

/// In a block's flags: it is of a guest (HF_GUEST_MASK in QEMU's target/i386/cpu.h).
const GUEST: u32 = 1 << 21;

/// An instruction that was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// The pCPU.
    pub pcpu: u16,
    /// Its address.
    pub address: u64,
}

/// All that was executed, in the order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecutionLog {
    /// The instructions.
    pub executed: Vec<Executed>,
}

impl ExecutionLog {
    /// Reads QEMU's log. Lines of another kind are left out.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(mut log: impl BufRead) -> io::Result<Self> {
        let mut executed: Vec<Executed> = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            if log.read_until(b'\n', &mut line)? == 0 {
                return Ok(Self { executed });
            }
            let text = String::from_utf8_lossy(&line);
            if let Some(instruction) = execution(&text) {
                executed.push(instruction);
            } else if let Some(address) = stopped_before(&text)
                && executed.last().is_some_and(|last| last.address == address)
            {
                // QEMU notes a block before it looks whether something is to be done first; it is noted again then.
                executed.pop();
            }
        }
    }
}

/// `Trace 0: 0x7fa30431b0c0 [00000000/000000000021eff0/0000c0b0/ff022201] name`: pCPU, CS base, address, flags.
fn execution(line: &str) -> Option<Executed> {
    let (pcpu, rest) = line.strip_prefix("Trace ")?.split_once(": ")?;
    let mut numbers = rest.split_once('[')?.1.split('/');
    let (_base, address, flags) = (numbers.next()?, numbers.next()?, numbers.next()?);
    let is_guest = u32::from_str_radix(flags, 16).ok()? & GUEST != 0;
    (!is_guest).then_some(Executed { pcpu: pcpu.parse().ok()?, address: u64::from_str_radix(address, 16).ok()? })
}

/// `Stopped execution of TB chain before 0x7fa30431b0c0 [000000000021eff0] name`.
fn stopped_before(line: &str) -> Option<u64> {
    let address = line.strip_prefix("Stopped execution of TB chain before ")?.split_once('[')?.1;
    u64::from_str_radix(address.split_once(']')?.0, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_stopped_was_not_executed() {
        let text = "Trace 0: 0x7fa30431b0c0 [00000000/000000000021eff0/0000c0b0/ff022201] a::b\n\
                    something else\n\
                    Trace 0: 0x7fa30431b0c0 [00000000/000000000021eff0/0020c0b0/ff022201] of a guest\n\
                    Trace 2: 0x7fa30431b240 [00000000/000000000021effa/0000c0b0/ff022201] \n\
                    Stopped execution of TB chain before 0x7fa30431b240 [000000000021effa] \n\
                    Trace 1: 0x7fa30431b3c0 [00000000/000000000021f003/0000c0b0/ff022201] x\n\
                    Stopped execution of TB chain before 0x1 [0000000000000001] x\n\
                    Trace 1: cut";
        let log = ExecutionLog::read(text.as_bytes()).unwrap();
        assert_eq!(log.executed, [Executed { pcpu: 0, address: 0x21_eff0 }, Executed { pcpu: 1, address: 0x21_f003 }]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(ExecutionLog::read(bytes.as_slice()).is_ok());
        }
    }
}
