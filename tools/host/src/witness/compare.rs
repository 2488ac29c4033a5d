//! The comparison: the emulator's log in its order, the trace in the order of its times.
//!
//! The two orders are not quite the same. The log has an exit when it happens, the trace when the hypervisor begins to
//! handle it: another pCPU may run between the two, as the emulator runs one at a time, and a vCPU that waits for its
//! start is handled when it is woken. But what is handled was logged before, and the vCPU is entered after: so at each
//! entry of a vCPU, its exit before that, and everything that the trace has before it, must have been found in the log.

use super::mapping::{fits, name};
use super::{Step, TracedExit, VmExit, WitnessLog};
use std::fmt;

/// How many ways to say which VMCB is which pCPU's are tried. Nearly always their counts leave one only.
const BINDINGS_MAX: usize = 256;

/// How many exits of a log are shown at a difference.
pub const SHOWN_MAX: usize = 4;

/// What a comparison found: log and trace agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Exits in the log.
    pub exits: usize,
    /// Of these, exits that are in the trace, in the same order.
    pub traced: usize,
    /// Of these, exits that the trace has later than the log, as another pCPU's were handled first.
    pub deferred: usize,
    /// Exits that were still being handled when the run ended: the last one of a vCPU each.
    pub unfinished: Vec<VmExit>,
    /// vCPUs that were in their guests when the run ended.
    pub in_guest: usize,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exits, traced, deferred, unfinished, .. } = self;
        write!(f, "witness: {} exits in the emulator's log, ", grouped(*exits))?;
        if unfinished.is_empty() {
            f.write_str("all in the trace, in the same order")?;
        } else {
            let names: Vec<String> = unfinished.iter().map(name).collect();
            let (count, names) = (unfinished.len(), names.join(", "));
            write!(
                f,
                "all in the trace, in the same order, but for {count} from which a vCPU never went on ({names})"
            )?;
        }
        if *deferred > 0 {
            write!(f, "; {} of {} waited while another pCPU's was handled", grouped(*deferred), grouped(*traced))?;
        }
        Ok(())
    }
}

/// Where log and trace part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.words())]
pub struct Difference {
    /// The exits of the log, with their numbers from 0 on, that were not found in the trace up to here and may be its next
    /// one: more than one if several vCPUs have left their guests. At most [`SHOWN_MAX`].
    pub logged: Vec<(usize, VmExit)>,
    /// The next exit of the trace, with its number from 0 on.
    pub traced: Option<(usize, TracedExit)>,
    /// The VMCB that was entered although the trace does not have its exit; `None` at the end of the log.
    pub entered: Option<u64>,
}

impl Difference {
    fn words(&self) -> String {
        let shown = |(number, exit): &(usize, VmExit)| {
            let VmExit { code, info1, info2, rip } = exit;
            let name = name(exit);
            format!("exit {number}: {name} (code {code:#x}, info1 {info1:#x}, info2 {info2:#x}, rip {rip:#x})")
        };
        let logged = match self.logged.as_slice() {
            [] => "no exit that is not in the trace".to_owned(),
            some => some.iter().map(shown).collect::<Vec<_>>().join(" and "),
        };
        let traced = self.traced.as_ref().map_or("no further exit".into(), |(number, exit)| {
            let TracedExit { tsc, pcpu, reason, detail16, detail } = exit;
            let reason = reason.name();
            format!("exit {number}: {reason} on pCPU {pcpu} at {tsc} (detail16 {detail16:#x}, detail {detail:#x})")
        });
        let place = self.entered.map_or("at the end".into(), |vmcb| format!("at an entry by VMCB {vmcb:#x}"));
        format!("log and trace differ, {place}: the emulator's log has {logged}; the trace has {traced}")
    }
}

/// Compares a log with the exits of a trace, which are in the order of time.
///
/// # Errors
/// The first difference.
pub fn compare(log: &WitnessLog, traced: &[TracedExit]) -> Result<Agreement, Box<Difference>> {
    let vcpus = Vcpus::of(log, traced);
    let mut furthest: Option<(usize, Box<Difference>)> = None;
    for binding in vcpus.bindings() {
        match Comparison::new(traced, &vcpus, &binding).run(log) {
            Ok(agreement) => return Ok(agreement),
            Err((found, difference)) => {
                if furthest.as_ref().is_none_or(|(other, _)| found > *other) {
                    furthest = Some((found, difference));
                }
            }
        }
    }
    // There is at least one binding.
    let nothing = || Box::new(Difference { logged: Vec::new(), traced: None, entered: None });
    Err(furthest.map_or_else(nothing, |(_, difference)| difference))
}

/// VMCBs and pCPUs, each with the number of its entries or exits, in the order in which they appear.
struct Vcpus {
    vmcbs: Vec<(u64, usize)>,
    pcpus: Vec<(u16, usize)>,
}

impl Vcpus {
    fn of(log: &WitnessLog, traced: &[TracedExit]) -> Self {
        let runs = log.steps.iter().filter_map(|step| if let Step::Run { vmcb } = step { Some(*vmcb) } else { None });
        Self { vmcbs: counted(runs), pcpus: counted(traced.iter().map(|exit| exit.pcpu)) }
    }

    /// Which VMCB may be which pCPU's: for each pCPU the index of one. A vCPU is entered once, and once after each exit
    /// that is traced, but for the last one if the run ended there.
    fn bindings(&self) -> Vec<Vec<usize>> {
        let mut found = Vec::new();
        self.bind(&mut Vec::new(), &mut found);
        if found.is_empty() {
            // Something is missing, and the comparison will tell where: those with the most exits go with the most entries.
            let mut vmcbs: Vec<usize> = (0..self.vmcbs.len()).collect();
            let mut pcpus: Vec<usize> = (0..self.pcpus.len()).collect();
            vmcbs.sort_by_key(|index| self.vmcbs.get(*index).map(|(_, runs)| std::cmp::Reverse(*runs)));
            pcpus.sort_by_key(|index| self.pcpus.get(*index).map(|(_, exits)| std::cmp::Reverse(*exits)));
            let mut binding = vec![usize::MAX; self.pcpus.len()];
            for (vmcb, pcpu) in vmcbs.into_iter().zip(pcpus) {
                if let Some(place) = binding.get_mut(pcpu) {
                    *place = vmcb;
                }
            }
            found.push(binding);
        }
        found
    }

    fn bind(&self, bound: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
        if found.len() >= BINDINGS_MAX {
            return;
        }
        let Some((_, exits)) = self.pcpus.get(bound.len()) else {
            found.push(bound.clone());
            return;
        };
        for (index, (_, runs)) in self.vmcbs.iter().enumerate() {
            if (*runs == *exits || *runs == exits + 1) && !bound.contains(&index) {
                bound.push(index);
                self.bind(bound, found);
                bound.pop();
            }
        }
    }
}

fn counted<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<(T, usize)> {
    let mut counts: Vec<(T, usize)> = Vec::new();
    for item in items {
        match counts.iter_mut().find(|(known, _)| *known == item) {
            Some((_, count)) => *count += 1,
            None => counts.push((item, 1)),
        }
    }
    counts
}

/// Where a vCPU is, as far as the exits go that were found on both sides.
struct VcpuState {
    vmcb: u64,
    /// Number of the log's step that entered it, while it is in its guest.
    entered: Option<usize>,
}

/// An exit of the log that was not found in the trace yet.
#[derive(Clone, Copy)]
struct Logged {
    step: usize,
    number: usize,
    exit: VmExit,
}

struct Comparison<'a> {
    traced: &'a [TracedExit],
    /// For each pCPU the index of its vCPU.
    vcpu_of: Vec<(u16, usize)>,
    vcpus: Vec<VcpuState>,
    /// Exits of the trace that were found.
    found: usize,
    deferred: usize,
    pending: Vec<Logged>,
    exits: usize,
}

impl<'a> Comparison<'a> {
    fn new(traced: &'a [TracedExit], vcpus: &Vcpus, binding: &[usize]) -> Self {
        Self {
            traced,
            vcpu_of: vcpus.pcpus.iter().map(|(pcpu, _)| *pcpu).zip(binding.iter().copied()).collect(),
            vcpus: vcpus.vmcbs.iter().map(|(vmcb, _)| VcpuState { vmcb: *vmcb, entered: None }).collect(),
            found: 0,
            deferred: 0,
            pending: Vec::new(),
            exits: 0,
        }
    }

    /// The agreement, or how many exits were found before the difference.
    fn run(mut self, log: &WitnessLog) -> Result<Agreement, (usize, Box<Difference>)> {
        for (step, entry) in log.steps.iter().enumerate() {
            match *entry {
                Step::Run { vmcb } => self.enter(step, vmcb).map_err(|difference| (self.found, difference))?,
                Step::Exit(exit) => {
                    self.pending.push(Logged { step, number: self.exits, exit });
                    self.exits += 1;
                    self.settle(step);
                }
            }
        }
        self.finish().map_err(|difference| (self.found, difference))
    }

    fn enter(&mut self, step: usize, vmcb: u64) -> Result<(), Box<Difference>> {
        match self.vcpus.iter_mut().find(|vcpu| vcpu.vmcb == vmcb) {
            Some(VcpuState { entered: entered @ None, .. }) => {
                *entered = Some(step);
                Ok(())
            }
            // Its exit since then is among those that were not found.
            vcpu => {
                let since = vcpu.and_then(|vcpu| vcpu.entered).unwrap_or(0);
                Err(self.difference(Some(vmcb), since))
            }
        }
    }

    /// Finds what the trace has next among the exits of the log.
    fn settle(&mut self, now: usize) {
        while let Some(traced) = self.traced.get(self.found) {
            let index = self.vcpu_of.iter().find(|(pcpu, _)| *pcpu == traced.pcpu).map(|(_, index)| *index);
            let Some(vcpu) = index.and_then(|index| self.vcpus.get_mut(index)) else { break };
            let Some(entered) = vcpu.entered else { break };
            let is_it = |logged: &Logged| logged.step > entered && fits(&logged.exit, traced);
            let Some(place) = self.pending.iter().position(is_it) else { break };
            let logged = self.pending.remove(place);
            self.deferred += usize::from(logged.step != now);
            vcpu.entered = None;
            self.found += 1;
        }
    }

    fn finish(&mut self) -> Result<Agreement, Box<Difference>> {
        // The exits that are left are those of vCPUs that did not go on: one of each at most.
        let mut entered: Vec<usize> = self.vcpus.iter().filter_map(|vcpu| vcpu.entered).collect();
        entered.sort_unstable();
        let is_last = |(index, logged): (usize, &Logged)| entered.get(index).is_some_and(|step| *step < logged.step);
        if self.found < self.traced.len() || !self.pending.iter().enumerate().all(is_last) {
            return Err(self.difference(None, 0));
        }
        Ok(Agreement {
            exits: self.exits,
            traced: self.found,
            deferred: self.deferred,
            unfinished: self.pending.iter().map(|logged| logged.exit).collect(),
            in_guest: entered.len() - self.pending.len(),
        })
    }

    fn difference(&self, entered: Option<u64>, since: usize) -> Box<Difference> {
        let logged = self.pending.iter().filter(|logged| logged.step >= since).take(SHOWN_MAX);
        Box::new(Difference {
            logged: logged.map(|logged| (logged.number, logged.exit)).collect(),
            traced: self.traced.get(self.found).map(|exit| (self.found, *exit)),
            entered,
        })
    }
}

/// A number with its thousands set off.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
