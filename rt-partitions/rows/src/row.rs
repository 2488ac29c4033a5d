//! The rows of the latency suite. Their numbers are part of the trace (`Event::Sample`): they never change.

macro_rules! groups {
    ($($(#[$meta:meta])* $variant:ident $name:literal;)+) => {
        /// A group of rows: each is measured in a boot of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Group {
            $($(#[$meta])* $variant,)+
        }

        impl Group {
            /// All groups, in the order of the suite.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Their words on the command line, in the same order.
            pub const NAMES: &'static [&'static str] = &[$($name,)+];

            /// Its word on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

groups! {
    /// Instructions that leave a guest.
    Exit "exit";
    /// Interrupts from a CPU to itself and to another.
    Ipi "ipi";
    /// The local APIC's timer.
    Timer "timer";
    /// What moves another CPU out of its guest.
    Kick "kick";
    /// What a guest that polls the time sees of it.
    Gap "gap";
    /// What moves three CPUs out of their guest at once.
    Broadcast "broadcast";
    /// What a guest that polls the time sees when nobody calls it.
    Quiet "quiet";
    /// A partition that reboots.
    Restart "restart";
    /// Exits that are not traced.
    Untraced "untraced";
    /// The timer beside a vCPU that spins.
    BesideSpin "beside_spin";
    /// The timer beside a vCPU that halts, and is woken by its own timer all the time.
    BesideHalt "beside_halt";
    /// The timer beside a vCPU that does nothing but leave its guest.
    BesideExits "beside_exits";
    /// The timer beside a vCPU that writes to memory, and leaves its guest now and then.
    BesideNoise "beside_noise";
    /// The timer beside a vCPU that writes to its console all the time.
    BesideConsole "beside_console";
    /// The timer beside a guest that does what it may not, as fast as it can.
    BesideHostile "beside_hostile";
    /// The timer beside vCPUs that send each other INIT and start-up IPIs.
    BesideResets "beside_resets";
    /// The timer beside a partition that reboots over and over: stopped, cleared, loaded and started each time.
    BesideReboots "beside_reboots";
}

impl Group {
    /// Whether it is about the timer beside a neighbour: this is of use only where all CPUs go on side by side.
    pub const fn is_beside(self) -> bool {
        matches!(
            self,
            Self::BesideSpin
                | Self::BesideHalt
                | Self::BesideExits
                | Self::BesideNoise
                | Self::BesideConsole
                | Self::BesideHostile
                | Self::BesideResets
                | Self::BesideReboots
        )
    }
}

/// Who takes the samples of a row when the payload is a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The payload: `Event::Sample` in its own trace.
    Payload,
    /// The payload, which counts how often it saw each value: marks in its own trace, see [`crate::distribution`].
    Counted,
    /// The hypervisor, in its own trace.
    Hypervisor,
    /// Both: each sample needs stamps of the hypervisor and of the payload.
    Both,
    /// Nobody: it is told from two other rows.
    Derived,
}

macro_rules! rows {
    ($($(#[$meta:meta])* $id:literal $variant:ident $name:literal $group:ident $source:ident bare: $bare:literal;)+) => {
        /// A row of the latency suite.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Row {
            $($(#[$meta])* $variant,)+
        }

        impl Row {
            /// All rows, in the order of the suite.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its number in a trace.
            pub const fn id(self) -> u32 {
                match self { $(Self::$variant => $id,)+ }
            }

            /// Its name in tables and files.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The boot that measures it.
            pub const fn group(self) -> Group {
                match self { $(Self::$variant => Group::$group,)+ }
            }

            /// Who takes its samples under the hypervisor.
            pub const fn source(self) -> Source {
                match self { $(Self::$variant => Source::$source,)+ }
            }

            /// Whether there is such a thing on the bare machine, where the payload takes every sample.
            pub const fn has_bare(self) -> bool {
                match self { $(Self::$variant => $bare,)+ }
            }
        }
    };
}

rows! {
    /// CPUID, leaf 0.
    1 ExitCpuid "exit.cpuid" Exit Payload bare: true;
    /// The hypercall that does nothing.
    2 ExitHypercall "exit.hypercall" Exit Payload bare: false;
    /// RDMSR of APIC_BASE.
    3 ExitRdmsr "exit.rdmsr" Exit Payload bare: true;
    /// OUT to a port that the partition does not own.
    4 ExitIo "exit.io" Exit Payload bare: true;
    /// CPUID, leaf 1: features, of which one follows the guest's CR4.
    40 ExitCpuidLeaf1 "exit.cpuid_leaf_1" Exit Payload bare: true;
    /// RDMSR of a register that the policy has a value for: MTRRcap.
    41 ExitRdmsrValue "exit.rdmsr_value" Exit Payload bare: true;
    /// WRMSR of the LVT's timer entry, which is checked and then written.
    42 ExitWrmsrLvt "exit.wrmsr_lvt" Exit Payload bare: true;
    /// IN from a port that is refused, and that counted and traced.
    43 ExitIn "exit.in_refused" Exit Payload bare: true;
    /// An IPI to oneself, from before the ICR write to the handler.
    5 IpiSelf "ipi.self" Ipi Payload bare: true;
    /// An IPI to a CPU that spins, from before the ICR write to the handler there.
    6 IpiOnewaySpin "ipi.oneway_spin" Ipi Payload bare: true;
    /// An IPI to a CPU in HLT, from before the ICR write to the handler there.
    7 IpiOnewayHlt "ipi.oneway_hlt" Ipi Payload bare: true;
    /// An IPI to a CPU in HLT and its answer to one in HLT, from before the ICR write to the handler of the answer.
    8 IpiRoundtripHlt "ipi.roundtrip_hlt" Ipi Payload bare: true;
    /// A one-shot of 50 us, waited for spinning: how late its handler is.
    9 TimerOneshot50usSpin "timer.oneshot_50us_spin" Timer Payload bare: true;
    /// A one-shot of 1 ms, waited for in HLT: how late its handler is.
    10 TimerOneshot1msHlt "timer.oneshot_1ms_hlt" Timer Payload bare: true;
    /// From before an NMI's ICR write to the handler on the other CPU, or to the hypervisor's first stamp there.
    11 KickNmiToExit "kick.nmi_to_exit" Kick Hypervisor bare: true;
    /// An SMP call, from its posting to its answer.
    12 SmpCallRoundtrip "smp_call.roundtrip" Kick Hypervisor bare: false;
    /// A leg of an SMP call: from its posting to its kick, on the caller.
    13 SmpCallPostKick "smp_call.leg.post_kick" Kick Hypervisor bare: false;
    /// The next leg: to the first stamp after the target left its guest.
    14 SmpCallKickExit "smp_call.leg.kick_exit" Kick Hypervisor bare: false;
    /// The next leg: until the target runs what it was asked to.
    15 SmpCallExitRun "smp_call.leg.exit_run" Kick Hypervisor bare: false;
    /// The last leg: until the target has run it, and acknowledges.
    16 SmpCallRunAck "smp_call.leg.run_ack" Kick Hypervisor bare: false;
    /// What an SMP call takes from the target's guest: from the first stamp after #VMEXIT to the guest's next look at the time.
    17 SmpCallStolen "smp_call.stolen" Gap Both bare: false;
    /// The gap that a guest that polls the time sees when its CPU is called.
    18 SmpCallGapSeen "smp_call.gap_seen" Gap Payload bare: false;
    /// An SMP call to three CPUs at once, from its posting to the last answer.
    19 SmpCallBroadcast3 "smp_call.broadcast_3" Broadcast Hypervisor bare: false;
    /// Wake-ups every 200 us by an absolute schedule, waited for in HLT: how late the handler is.
    20 TimerPeriodic200us "timer.periodic_200us" Timer Counted bare: true;
    /// What a guest that polls the time sees of the hypervisor when nobody calls it: each gap with an exit in it.
    21 QuietGaps "quiet.gaps" Quiet Both bare: false;
    /// The other gaps, with no exit in them: the machine's.
    22 QuietGapsOutside "quiet.gaps_outside" Quiet Both bare: false;
    /// What the hypervisor takes from a guest that only computes, in a second.
    23 HousekeepingStolenPerS "housekeeping.stolen_per_s" Quiet Both bare: false;
    /// From the hypervisor's first instruction to that of its first guest.
    24 BootToGuest "boot.to_guest" Restart Hypervisor bare: false;
    /// From a guest's order to reboot to the first instruction of its next life.
    25 PartitionRestart "partition.restart" Restart Hypervisor bare: false;
    /// As [`Row::ExitCpuid`], with exits left out of the trace.
    26 UntracedExitCpuid "untraced.exit.cpuid" Untraced Payload bare: false;
    /// As [`Row::ExitHypercall`], with exits left out of the trace.
    27 UntracedExitHypercall "untraced.exit.hypercall" Untraced Payload bare: false;
    /// As [`Row::IpiSelf`], with exits left out of the trace.
    28 UntracedIpiSelf "untraced.ipi.self" Untraced Payload bare: false;
    /// What the trace adds to a CPUID: the medians' difference.
    29 TraceCostCpuid "trace.cost.cpuid" Untraced Derived bare: false;
    /// What the trace adds to a hypercall.
    30 TraceCostHypercall "trace.cost.hypercall" Untraced Derived bare: false;
    /// What the trace adds to an IPI to oneself.
    31 TraceCostIpiSelf "trace.cost.ipi_self" Untraced Derived bare: false;
    /// How late one-shots of 200 us are beside a vCPU that spins.
    32 TimerBesideSpin "timer.beside_spin" BesideSpin Payload bare: false;
    /// The same beside one that halts and is woken.
    33 TimerBesideHalt "timer.beside_halt" BesideHalt Payload bare: false;
    /// The same beside a storm of exits.
    34 TimerBesideExits "timer.beside_exits" BesideExits Payload bare: false;
    /// The same beside a busy neighbour.
    35 TimerBesideNoise "timer.beside_noise" BesideNoise Payload bare: false;
    /// The same beside a flood of console output.
    36 TimerBesideConsole "timer.beside_console" BesideConsole Payload bare: false;
    /// The same beside a hostile guest.
    37 TimerBesideHostile "timer.beside_hostile" BesideHostile Payload bare: false;
    /// The same beside a storm of INIT and start-up IPIs.
    38 TimerBesideResets "timer.beside_resets" BesideResets Payload bare: false;
    /// The same beside a partition that reboots.
    39 TimerBesideReboots "timer.beside_reboots" BesideReboots Payload bare: false;
}

/// Rows that are the difference of two others' medians: the row, the minuend, the subtrahend.
pub const DERIVED: &[(Row, Row, Row)] = &[
    (Row::TraceCostCpuid, Row::ExitCpuid, Row::UntracedExitCpuid),
    (Row::TraceCostHypercall, Row::ExitHypercall, Row::UntracedExitHypercall),
    (Row::TraceCostIpiSelf, Row::IpiSelf, Row::UntracedIpiSelf),
];

impl Row {
    /// The row with this number.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|row| row.id() == id)
    }

    /// The row with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|row| row.name() == name)
    }

    /// Whether the payload takes the samples of this row: on the bare machine, or in a partition.
    pub const fn is_measured_by_payload(self, in_partition: bool) -> bool {
        match (in_partition, self.source()) {
            (true, Source::Payload | Source::Counted) => true,
            (true, Source::Hypervisor | Source::Both | Source::Derived) => false,
            (false, _) => self.has_bare(),
        }
    }

    /// The row of a group that has only one.
    pub fn only_of(group: Group) -> Option<Self> {
        let mut rows = Self::ALL.iter().copied().filter(|row| row.group() == group);
        rows.next().filter(|_| rows.next().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back_to_their_rows() {
        for &row in Row::ALL {
            assert_eq!(Row::from_id(row.id()), Some(row));
            assert_eq!(Row::from_name(row.name()), Some(row));
        }
        assert_eq!((Row::from_id(0), Row::from_name("exit")), (None, None));
    }

    #[test]
    fn names_tell_what_they_are_about() {
        let subjects = [
            "exit",
            "ipi",
            "timer",
            "kick",
            "smp_call",
            "quiet",
            "housekeeping",
            "boot",
            "partition",
            "untraced",
            "trace",
        ];
        for &row in Row::ALL {
            let subject = row.name().split('.').next().unwrap();
            assert!(subjects.contains(&subject) && row.name().len() <= 26, "{}", row.name());
            let is_beside = row.name().strip_prefix("timer.").is_some_and(|rest| rest == row.group().name());
            assert_eq!(is_beside, row.group().is_beside(), "{}", row.name());
            assert_eq!(is_beside, row.group().is_beside() && Row::only_of(row.group()) == Some(row));
        }
        assert_eq!(Row::only_of(Group::Exit), None);
        assert_eq!(Group::ALL.iter().map(|group| group.name()).collect::<Vec<_>>(), Group::NAMES);
    }

    #[test]
    fn derived_rows_have_what_they_are_derived_from() {
        for &row in Row::ALL {
            let found = DERIVED.iter().find(|(derived, ..)| *derived == row);
            assert_eq!(found.is_some(), row.source() == Source::Derived, "{}", row.name());
            if let Some((_, minuend, subtrahend)) = found {
                assert_eq!(subtrahend.name(), format!("untraced.{}", minuend.name()));
            }
        }
    }

    #[test]
    fn the_payload_measures_what_it_can_see() {
        let measured = |in_partition| {
            Row::ALL
                .iter()
                .filter(|row| row.is_measured_by_payload(in_partition))
                .map(|row| row.id())
                .collect::<Vec<_>>()
        };
        assert_eq!(measured(false), [1, 3, 4, 40, 41, 42, 43, 5, 6, 7, 8, 9, 10, 11, 20]);
        let own: Vec<u32> =
            (1..=4).chain(40..=43).chain(5..=10).chain([18, 20]).chain(26..=28).chain(32..=39).collect();
        assert_eq!(measured(true), own);
    }
}
