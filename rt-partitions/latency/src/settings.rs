//! The options of this payload.

use partita_rows::{Group, Row};
use partita_rt::{Error, Machine, trace};

/// All keys.
const KEYS: &[&str] = &["group", "samples", "state", "pause", "ticks"];
/// The values of `group`: those of [`Group::ALL`], and all of them but `kick`, which is a run of its own in a partition.
const GROUPS: &[&str] = &["exit", "ipi", "timer", "kick", "all"];
const GROUP_ALL: usize = 4;
/// The values of `state`, as in [`State::ALL`].
const STATES: &[&str] = &["spin_if1", "spin_if0", "hlt", "exit_storm"];
const SAMPLES_DEFAULT: u64 = 2000;
/// Most samples of a row.
pub(crate) const SAMPLES_MAX: u64 = 100_000;
/// Slots of the ring that are not samples': claims and logs.
const OTHER_EVENTS: usize = 64;

/// How the vCPUs sit while they are kicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Spinning, interrupts on.
    SpinEnabled,
    /// Spinning, interrupts off.
    SpinDisabled,
    /// In HLT, interrupts on.
    Halted,
    /// In a loop of CPUID.
    ExitStorm,
}

impl State {
    /// In the order of [`STATES`].
    pub(crate) const ALL: [Self; 4] = [Self::SpinEnabled, Self::SpinDisabled, Self::Halted, Self::ExitStorm];

    /// The state with this number.
    pub(crate) fn from_number(number: u64) -> Self {
        Self::ALL.into_iter().nth(number as usize).unwrap_or(Self::Halted)
    }

    /// Its number.
    pub(crate) const fn number(self) -> u64 {
        self as u64
    }
}

/// What the command line says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// The groups to measure, by their place in [`Group::ALL`].
    selected: [bool; 4],
    /// Samples of each row.
    pub(crate) samples: usize,
    /// How to sit in group `kick` of a partition.
    pub(crate) state: State,
    /// With a PAUSE in the loop.
    pub(crate) pause: bool,
    /// After how many ticks to end that, or 0 for never.
    pub(crate) ticks: u64,
}

impl Settings {
    /// Reads the command line.
    pub(crate) fn read(machine: &Machine) -> Result<Self, Error> {
        let options = machine.options(KEYS)?;
        let group = options.choice("group", GROUP_ALL, GROUPS)?;
        let selected = core::array::from_fn(|index| match group {
            // In a partition, group `kick` measures nothing itself and may never end.
            GROUP_ALL => !(machine.place.is_partition() && Group::ALL.get(index) == Some(&Group::Kick)),
            _ => index == group,
        });
        let mut settings = Self {
            selected,
            samples: 0,
            state: State::from_number(options.choice("state", 0, STATES)? as u64),
            pause: options.flag("pause", true)?,
            ticks: options.number("ticks", 0, 0..=u64::MAX)?,
        };
        // The ring keeps every sample of the run.
        let measured = |row: &&Row| row.is_measured_by_payload(machine.place.is_partition());
        let in_group = |row: &&Row| settings.groups().any(|group| group == row.group());
        let rows = Row::ALL.iter().filter(measured).filter(in_group).count().max(1);
        let most = (trace::capacity().saturating_sub(OTHER_EVENTS) / rows) as u64;
        settings.samples = options.number("samples", SAMPLES_DEFAULT, 1..=most.min(SAMPLES_MAX))? as usize;
        Ok(settings)
    }

    /// Whether this is a run of group `kick` in a partition.
    pub(crate) fn is_to_sit(&self, machine: &Machine) -> bool {
        machine.place.is_partition() && self.groups().any(|group| group == Group::Kick)
    }

    /// The groups to measure, in the order of the suite.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Group> {
        Group::ALL.into_iter().zip(self.selected).filter_map(|(group, selected)| selected.then_some(group))
    }
}
