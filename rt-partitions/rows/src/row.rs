//! The rows of the latency suite. Their numbers are part of the trace (`Event::Sample`): they never change.

/// A group of rows: each is measured in a boot of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// Instructions that leave a guest.
    Exit,
    /// Interrupts from a CPU to itself and to another.
    Ipi,
    /// The local APIC's timer.
    Timer,
    /// What moves another CPU out of its guest.
    Kick,
    /// What a guest that polls the time sees of it.
    Gap,
    /// What moves three CPUs out of their guest at once.
    Broadcast,
}

impl Group {
    /// All groups, in the order of the suite.
    pub const ALL: [Self; 6] = [Self::Exit, Self::Ipi, Self::Timer, Self::Kick, Self::Gap, Self::Broadcast];

    /// Its word on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Ipi => "ipi",
            Self::Timer => "timer",
            Self::Kick => "kick",
            Self::Gap => "gap",
            Self::Broadcast => "broadcast",
        }
    }
}

/// Who takes the samples of a row when the payload is a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The payload: `Event::Sample` in its own trace.
    Payload,
    /// The hypervisor: `Event::SmpCall` or `Event::SmpCallServed` in its trace.
    Hypervisor,
    /// Both: each sample lies between a stamp of the hypervisor and one of the payload, which takes them for another row.
    Both,
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
}

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
            (true, Source::Payload) => true,
            (true, Source::Hypervisor | Source::Both) => false,
            (false, _) => self.has_bare(),
        }
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
    fn names_begin_with_their_group() {
        for &row in Row::ALL {
            let is_call = row.id() >= Row::SmpCallRoundtrip.id();
            let group = if is_call { "smp_call" } else { row.group().name() };
            let rest = row.name().strip_prefix(group);
            assert!(rest.is_some_and(|rest| rest.starts_with('.')), "{}", row.name());
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
        assert_eq!(measured(false), [1, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(measured(true), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18]);
    }
}
