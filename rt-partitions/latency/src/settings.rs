//! The options of this payload.

use partita_rows::{Group, Row};
use partita_rt::{Error, Machine, trace};

/// All keys.
const KEYS: &[&str] = &["group", "samples", "periods", "state", "pause", "ticks", "hypercalls"];
/// The values of `group`: those of [`Group::ALL`], and all of them that are no run of their own.
const GROUPS: &[&str] = &{
    let mut names = ["all"; GROUP_ALL + 1];
    let (own, _) = names.split_at_mut(GROUP_ALL);
    own.copy_from_slice(Group::NAMES);
    names
};
const GROUP_ALL: usize = Group::ALL.len();
/// The values of `state`, as in [`State::ALL`].
const STATES: &[&str] = &["spin_if1", "spin_if0", "hlt", "exit_storm", "flood"];
const _: () = assert!(STATES.len() == State::ALL.len());
const SAMPLES_DEFAULT: u64 = 2000;
/// Most periods of the timer: some minutes.
const PERIODS_MAX: u64 = 10_000_000;
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
    /// Sending itself interrupts and NMIs.
    Flood,
}

impl State {
    /// In the order of [`STATES`].
    pub(crate) const ALL: [Self; 5] =
        [Self::SpinEnabled, Self::SpinDisabled, Self::Halted, Self::ExitStorm, Self::Flood];

    /// The state with this number.
    pub(crate) fn from_number(number: u64) -> Self {
        Self::ALL.into_iter().nth(number as usize).unwrap_or(Self::Halted)
    }

    /// Its number.
    pub(crate) const fn number(self) -> u64 {
        self as u64
    }

    /// Its word on the command line.
    pub(crate) fn name(self) -> &'static str {
        STATES.get(self as usize).copied().unwrap_or("?")
    }
}

/// What the command line says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// The groups to measure, by their place in [`Group::ALL`].
    selected: [bool; GROUP_ALL],
    /// Samples of each row.
    pub(crate) samples: usize,
    /// Periods of the row that counts them.
    pub(crate) periods: u64,
    /// How to sit in group `kick` of a partition.
    pub(crate) state: State,
    /// With a PAUSE in the loop.
    pub(crate) pause: bool,
    /// After how many ticks to end that, or 0 for never; in group `quiet` how long to poll, or 0 for a second.
    pub(crate) ticks: u64,
    /// Whether there is a hypervisor to call.
    pub(crate) hypercalls: bool,
}

impl Settings {
    /// Reads the command line.
    pub(crate) fn read(machine: &Machine) -> Result<Self, Error> {
        let options = machine.options(KEYS)?;
        let group = options.choice("group", GROUP_ALL, GROUPS)?;
        let selected = core::array::from_fn(|index| match group {
            // These are about calls that somebody else makes; in a partition, that goes for group `kick`, too.
            GROUP_ALL => match Group::ALL.get(index) {
                Some(Group::Exit | Group::Ipi | Group::Timer) => true,
                Some(Group::Kick) => !machine.place.is_partition(),
                _ => false,
            },
            _ => index == group,
        });
        let mut settings = Self {
            selected,
            samples: 0,
            periods: options.number("periods", SAMPLES_DEFAULT, 1..=PERIODS_MAX)?,
            state: State::from_number(options.choice("state", 0, STATES)? as u64),
            pause: options.flag("pause", true)?,
            ticks: options.number("ticks", 0, 0..=u64::MAX)?,
            hypercalls: options.flag("hypercalls", machine.place.is_partition())?,
        };
        // The ring keeps every sample of the run.
        let measured = |row: &&Row| row.is_measured_by_payload(machine.place.is_partition());
        let in_group = |row: &&Row| settings.groups().any(|group| group == row.group());
        let rows = Row::ALL.iter().filter(measured).filter(in_group).count().max(1);
        let most = (trace::capacity().saturating_sub(OTHER_EVENTS) / rows) as u64;
        settings.samples = options.number("samples", SAMPLES_DEFAULT, 1..=most.min(SAMPLES_MAX))? as usize;
        Ok(settings)
    }

    /// Whether this is a run that sits and is called: of group `kick` in a partition, or of group `broadcast`.
    pub(crate) fn is_to_sit(&self, machine: &Machine) -> bool {
        self.groups().any(|group| match group {
            Group::Kick => machine.place.is_partition(),
            group => group == Group::Broadcast,
        })
    }

    /// The groups to measure, in the order of the suite.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Group> {
        Group::ALL.iter().copied().zip(self.selected).filter_map(|(group, selected)| selected.then_some(group))
    }
}
