//! QEMU's log of SVM: a line for each VMRUN, with the address of the VMCB, and one for each #VMEXIT.

use std::io::{self, BufRead, Read};

const RUN: &str = "vmrun! ";
const EXIT: &str = "vmexit(";
/// Longest line that is looked at; those of entries and exits are far shorter, and what precedes them in their line too.
const LINE_MAX: u64 = 1024;

/// An exit, as the emulator logged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmExit {
    /// EXITCODE.
    pub code: u64,
    /// EXITINFO1.
    pub info1: u64,
    /// EXITINFO2; what an earlier exit left there, where this one has none.
    pub info2: u64,
    /// RIP of the guest.
    pub rip: u64,
}

/// An entry or an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A guest is entered.
    Run {
        /// Physical address of its vCPU's VMCB.
        vmcb: u64,
    },
    /// A guest was left. The log does not tell which.
    Exit(VmExit),
}

/// All entries and exits, in the order of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WitnessLog {
    /// Entries and exits.
    pub steps: Vec<Step>,
}

impl WitnessLog {
    /// Reads a log line by line; of each only what is needed is kept.
    ///
    /// # Errors
    /// It cannot be read, or one of the lines that matter is not as QEMU writes them.
    pub fn read(mut log: impl BufRead) -> io::Result<Self> {
        let mut steps = Vec::new();
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            if (&mut log).take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            // What was being written when the emulator was ended.
            if !line.ends_with(b"\n") && (line.len() as u64) < LINE_MAX {
                break;
            }
            let text = String::from_utf8_lossy(&line);
            match step(&text) {
                Ok(found) => steps.extend(found),
                Err(()) => {
                    let message = format!("line {number} is not one that is known: {:?}", text.trim_end());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
            }
        }
        Ok(Self { steps })
    }

    /// How many exits it has.
    pub fn exits(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Exit(_))).count()
    }
}

/// What a line tells, if it is about an entry or an exit. A line can begin with another message, which has no end.
fn step(line: &str) -> Result<Option<Step>, ()> {
    if let Some((_, after)) = line.split_once(RUN) {
        let vmcb = u64::from_str_radix(after.trim_end(), 16).map_err(drop)?;
        return Ok(Some(Step::Run { vmcb }));
    }
    let Some((_, after)) = line.split_once(EXIT) else { return Ok(None) };
    let fields = after.trim_end().strip_suffix(")!").ok_or(())?;
    let mut numbers = fields.split(", ").map(|field| u64::from_str_radix(field, 16).map_err(drop));
    let mut next = || numbers.next().unwrap_or(Err(()));
    let (code, info1, info2, rip) = (next()?, next()?, next()?, next()?);
    // QEMU prints the lower half only; the codes for a refused VMCB are negative.
    let code = if code >= 0x8000_0000 { code | 0xFFFF_FFFF_0000_0000 } else { code };
    Ok(Some(Step::Exit(VmExit { code, info1, info2, rip })))
}
