//! All commands: name, arguments, help and reader of each.

use super::error::Problem;
use super::words::Words;
use super::{Command, HOLD_MILLISECONDS_MAX, RESTARTS_MAX, STORM_ROUNDS_MAX, unknown};

/// One command.
pub(super) struct Entry {
    pub(super) name: &'static str,
    /// Name and arguments.
    pub(super) usage: &'static str,
    /// What it does, in a line.
    pub(super) summary: &'static str,
    /// What else there is to say, in lines.
    pub(super) more: &'static [&'static str],
    /// Reads the arguments.
    pub(super) read: for<'a> fn(&mut Words<'a>) -> Result<Command<'a>, Problem<'a>>,
}

/// The command of this name.
pub(super) fn find(name: &str) -> Option<&'static Entry> {
    COMMANDS.iter().find(|entry| entry.name == name)
}

/// The names of all commands.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|entry| entry.name)
}

/// In the order of the help.
pub(super) static COMMANDS: [Entry; 15] = [
    Entry {
        name: "help",
        usage: "help [COMMAND]",
        summary: "list the commands, or explain one",
        more: &["Example: help restart"],
        read: |words| {
            let Some(word) = words.optional() else { return Ok(Command::Help(None)) };
            find(word).map(|entry| Command::Help(Some(entry.name))).ok_or_else(|| unknown(word))
        },
    },
    Entry {
        name: "partitions",
        usage: "partitions",
        summary: "show the partitions: state, vCPUs, memory, starts",
        more: &[
            "One line for each partition, with the number and the name by which other commands take it.",
            "Example: partitions",
        ],
        read: |_| Ok(Command::Partitions),
    },
    Entry {
        name: "vcpus",
        usage: "vcpus",
        summary: "show the vCPUs: pCPU, state, exits, kicks",
        more: &["One line for each vCPU, by the name that regs takes.", "Example: vcpus"],
        read: |_| Ok(Command::Vcpus),
    },
    Entry {
        name: "exits",
        usage: "exits [PCPU]",
        summary: "show the exits: counts, and how long they took",
        more: &[
            "A line for each pCPU and reason, with the time from exit to entry in ticks of the TSC.",
            "With PCPU, that pCPU's histograms too.",
            "Example: exits 1",
        ],
        read: |words| Ok(Command::Exits(words.optional_pcpu()?)),
    },
    Entry {
        name: "regs",
        usage: "regs VCPU",
        summary: "show the registers of a running vCPU",
        more: &[
            "VCPU is PARTITION.NUMBER. It is asked by an SMP call, which its guest sees as stolen time; the",
            "registers are those at that exit.",
            "Example: regs rt0.1",
        ],
        read: |words| Ok(Command::Regs(words.vcpu()?)),
    },
    Entry {
        name: "rdmsr",
        usage: "rdmsr PCPU MSR",
        summary: "read an MSR on a pCPU",
        more: &[
            "It is read on that pCPU by an SMP call, with what its guest has loaded there; a fault is reported.",
            "Example: rdmsr 1 0xc000_0080",
        ],
        read: |words| Ok(Command::Rdmsr { pcpu: words.pcpu()?, msr: words.msr()? }),
    },
    Entry {
        name: "wrmsr",
        usage: "wrmsr PCPU MSR VALUE",
        summary: "write an MSR on a pCPU",
        more: &[
            "It is written on that pCPU by an SMP call; a fault is reported. MSRs that the hypervisor itself",
            "lives by are refused; what is written elsewhere can harm the guest that runs there.",
            "Example: wrmsr 1 0xc000_0103 7",
        ],
        read: |words| Ok(Command::Wrmsr { pcpu: words.pcpu()?, msr: words.msr()?, value: words.value()? }),
    },
    Entry {
        name: "stop",
        usage: "stop PARTITION",
        summary: "stop a partition",
        more: &[
            "Its vCPUs leave their guest and its pCPUs wait in the hypervisor, until it is started again.",
            "PARTITION is a name or a number.",
            "Example: stop rt0",
        ],
        read: |words| Ok(Command::Stop(words.partition()?)),
    },
    Entry {
        name: "start",
        usage: "start PARTITION",
        summary: "start a stopped partition afresh",
        more: &[
            "Its memory is cleared and loaded again, and its vCPUs start as at boot.",
            "PARTITION is a name or a number.",
            "Example: start 0",
        ],
        read: |words| Ok(Command::Start(words.partition()?)),
    },
    Entry {
        name: "restart",
        usage: "restart PARTITION [TIMES]",
        summary: "stop a partition and start it afresh",
        more: &[
            "Its pCPUs are taken back, its local APICs and its memory are cleaned, and it starts as at boot.",
            "PARTITION is a name or a number; TIMES is from 1 to 100000, and 1 if it is not given.",
            "Example: restart rt0 1000",
        ],
        read: |words| {
            Ok(Command::Restart { partition: words.partition()?, times: words.optional_count("TIMES", RESTARTS_MAX)? })
        },
    },
    Entry {
        name: "trace",
        usage: "trace",
        summary: "show the trace: fill levels and drops",
        more: &[
            "One line for each pCPU's ring: its size, how full it is, what was overwritten, what was dropped.",
            "Example: trace",
        ],
        read: |_| Ok(Command::Trace),
    },
    Entry {
        name: "smp",
        usage: "smp",
        summary: "show the pCPUs in the SMP calls: state, late answers",
        more: &[
            "One line for each pCPU: its state, what kicks it, how often it was late, how fast it answers now.",
            "Example: smp",
        ],
        read: |_| Ok(Command::Smp),
    },
    Entry {
        name: "storm",
        usage: "storm ROUNDS [PARTITION]",
        summary: "let all pCPUs call all others: a soak test",
        more: &[
            "In each round each pCPU that serves calls calls all others; every call and answer is counted.",
            "ROUNDS is from 1 to 1000000. Partitions see it as stolen time. With PARTITION, that partition is",
            "restarted again and again meanwhile: its pCPUs, and this core, are called but do not call.",
            "Example: storm 10000",
        ],
        read: |words| {
            let rounds = words.count("ROUNDS", STORM_ROUNDS_MAX)?;
            Ok(Command::Storm { rounds, restarted: words.optional_partition()? })
        },
    },
    Entry {
        name: "hold",
        usage: "hold PCPU MILLISECONDS",
        summary: "keep a pCPU busy, to see lateness: injects a fault",
        more: &[
            "For MILLISECONDS, from 1 to 60000, the pCPU holds everything back, kicks too: whoever calls it",
            "finds it late. The guest on it stands still.",
            "Example: hold 2 100",
        ],
        read: |words| {
            let pcpu = words.pcpu()?;
            Ok(Command::Hold { pcpu, milliseconds: words.count("MILLISECONDS", HOLD_MILLISECONDS_MAX)? })
        },
    },
    Entry {
        name: "quit",
        usage: "quit",
        summary: "end the run",
        more: &["The machine ends at once, after a line on what each partition came to.", "Example: quit"],
        read: |_| Ok(Command::Quit),
    },
];
