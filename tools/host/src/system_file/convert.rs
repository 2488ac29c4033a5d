//! From what a system file says to what it means. What the configuration's types can hold is checked here; whether
//! it makes a system that can be run is for the rules to say ([`super::rules`]).

use super::diagnostic::{Diagnostics, SystemFileError};
use super::raw::{RawClock, RawConsole, RawFile, RawKind, RawPartition, RawReport, RawRun};
use super::size::{Size, human};
use super::{
    CMDLINE_MAX, CyclictestReport, MACHINE_PCPUS_MAX, Machine, PartitionSpans, RESERVED_NAMES, RunDefaults, Spans,
    SystemFile, devices,
};
use crate::emulator::Clock;
use partita_abi::guest;
use partita_core::system::{
    Entry, Housekeeping, Identity, NAME_MAX, Name, PARTITION_PCPUS_MAX, PARTITIONS_MAX, Partition, SerialPort,
    SystemConfig, TraceConfig,
};
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;
use toml::Spanned;

/// Longest `run.timeout`, in seconds: a day.
const TIMEOUT_MAX: i64 = 24 * 60 * 60;
/// Default of `trace.ring`.
const RING_DEFAULT: u32 = 256 << 10;
/// Default of `housekeeping.smp_call_deadline_ms`.
const DEADLINE_DEFAULT: i64 = 100;
/// Fewest pCPUs of the machine: one for the hypervisor, one for a partition.
const MACHINE_PCPUS_MIN: u16 = 2;
/// Range of `machine.memory`.
const MACHINE_MEMORY: RangeInclusive<u64> = 64 << 20..=64 << 30;

pub(super) fn convert(text: &str, path: &Path) -> Result<SystemFile, SystemFileError> {
    let mut converter = Converter { dir: path.parent().unwrap_or(Path::new("")), diagnostics: Diagnostics::new(text) };
    let raw: Option<RawFile> = match toml::from_str(text) {
        Ok(raw) => Some(raw),
        Err(error) => {
            converter.diagnostics.add_toml(&error);
            None
        }
    };
    let file = raw.and_then(|raw| converter.file(raw, text, path));
    match file {
        Some(file) if converter.diagnostics.is_empty() => Ok(file),
        _ => Err(converter.diagnostics.into_error(path.to_path_buf())),
    }
}

pub(super) struct Converter<'t> {
    pub(super) dir: &'t Path,
    diagnostics: Diagnostics<'t>,
}

impl Converter<'_> {
    pub(super) fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.diagnostics.add(span, message);
    }

    fn file(&mut self, raw: RawFile, text: &str, path: &Path) -> Option<SystemFile> {
        let name = self.name(&raw.system.name);
        let mut spans = Spans {
            system: raw.system.name.span(),
            housekeeping_pcpu: span_of(raw.housekeeping.pcpu.as_ref()),
            smp_call_hz: span_of(raw.housekeeping.smp_call_hz.as_ref()),
            smp_call_deadline: span_of(raw.housekeeping.smp_call_deadline_ms.as_ref()),
            smp_call_rounds: span_of(raw.housekeeping.smp_call_rounds.as_ref()),
            ring: span_of(raw.trace.ring.as_ref()),
            machine_memory: span_of(raw.machine.memory.as_ref()),
            partitions: Vec::new(),
        };
        let deadline = raw.housekeeping.smp_call_deadline_ms.as_ref();
        let housekeeping = Housekeeping {
            pcpu: self.number(raw.housekeeping.pcpu.as_ref(), 0, 0..=i64::from(MACHINE_PCPUS_MAX) - 1),
            smp_call_hz: self.number(raw.housekeeping.smp_call_hz.as_ref(), 0, 0..=i64::from(u32::MAX)),
            smp_call_deadline_ms: self.number(deadline, DEADLINE_DEFAULT, 0..=60_000),
            smp_call_rounds: self.number(raw.housekeeping.smp_call_rounds.as_ref(), 0, 0..=i64::from(u32::MAX)),
            smp_call_mode: raw.housekeeping.smp_call_mode.into(),
        };
        let trace = TraceConfig { ring_bytes: self.ring(raw.trace.ring.as_ref()), exits: raw.trace.exits };
        let mut config = SystemConfig { name, housekeeping, trace, partitions: heapless::Vec::new() };
        let consoles = self.consoles(&raw.partition);
        let (mut images, mut cmdlines, mut test_devices) = (Vec::new(), Vec::new(), Vec::new());
        for (partition, console) in raw.partition.into_iter().zip(consoles) {
            let span = partition.span();
            let partition_spans = spans_of(&partition);
            let partition = partition.into_inner();
            cmdlines.push(self.cmdline(partition.cmdline.as_ref(), CMDLINE_MAX));
            test_devices.push(devices::test_devices(&partition));
            images.push(self.image(&partition.image)?);
            spans.partitions.push(partition_spans);
            let partition = self.partition(&partition, console);
            if config.partitions.push(partition).is_err() {
                self.add(span, format!("more than {PARTITIONS_MAX} partitions; leave some out"));
                return None;
            }
        }
        let report = raw.report.as_ref().and_then(|report| self.report(report, &config));
        let machine = self.machine(raw.machine.pcpus.as_ref(), raw.machine.memory, &config);
        let (path, text) = (path.to_path_buf(), text.to_owned());
        let run = self.run(&raw.run);
        Some(SystemFile { path, text, config, machine, images, cmdlines, test_devices, report, run, spans })
    }

    /// An integer in `range`, or `default` where the key is missing.
    fn number<T: TryFrom<i64> + Default>(
        &mut self,
        value: Option<&Spanned<i64>>,
        default: i64,
        range: RangeInclusive<i64>,
    ) -> T {
        let number = value.map_or(default, |value| *value.get_ref());
        if let Some(value) = value
            && !range.contains(&number)
        {
            self.add(value.span(), format!("{number} is out of range; write {} to {}", range.start(), range.end()));
            return T::default();
        }
        T::try_from(number).unwrap_or_default()
    }

    fn name(&mut self, name: &Spanned<String>) -> Name {
        let text = name.get_ref().as_str();
        if RESERVED_NAMES.contains(&text) {
            self.add(name.span(), format!("the name {text:?} is taken by Partita's own logs; choose another"));
        }
        Name::try_from(text).unwrap_or_else(|_| {
            self.add(name.span(), format!("{text:?} is longer than {NAME_MAX} bytes; shorten it"));
            Name::new()
        })
    }

    fn ring(&mut self, ring: Option<&Spanned<Size>>) -> u32 {
        let Some(ring) = ring else { return RING_DEFAULT };
        u32::try_from(ring.get_ref().0).unwrap_or_else(|_| {
            self.add(
                ring.span(),
                format!("{} does not fit into 32 bits; write at most 8 MiB", human(ring.get_ref().0)),
            );
            RING_DEFAULT
        })
    }

    fn machine(
        &mut self,
        pcpus: Option<&Spanned<i64>>,
        memory: Option<Spanned<Size>>,
        config: &SystemConfig,
    ) -> Machine {
        let used = config.partitions.iter().flat_map(|partition| partition.pcpus.iter().copied());
        let highest = used.chain([config.housekeeping.pcpu]).max().unwrap_or(0);
        let needed = highest.saturating_add(1).max(MACHINE_PCPUS_MIN);
        let range = i64::from(MACHINE_PCPUS_MIN)..=i64::from(MACHINE_PCPUS_MAX);
        let count: u16 = self.number(pcpus, i64::from(needed), range);
        let memory = memory.map(|memory| {
            let bytes = memory.get_ref().0;
            if !MACHINE_MEMORY.contains(&bytes) || !bytes.is_multiple_of(guest::MEMORY_GRANULE) {
                let (low, high) = (human(*MACHINE_MEMORY.start()), human(*MACHINE_MEMORY.end()));
                let granule = human(guest::MEMORY_GRANULE);
                self.add(
                    memory.span(),
                    format!("{} is not a multiple of {granule} from {low} to {high}", human(bytes)),
                );
            }
            bytes
        });
        Machine { pcpus: count, memory }
    }

    /// The serial port of each partition: the one it names, else the next that none names.
    fn consoles(&mut self, partitions: &[Spanned<RawPartition>]) -> Vec<Option<SerialPort>> {
        let named =
            |partition: &Spanned<RawPartition>| partition.get_ref().console.as_ref().map(|c| port(*c.get_ref()));
        let taken: Vec<SerialPort> = partitions.iter().filter_map(named).flatten().collect();
        let mut free = SerialPort::ALL.into_iter().filter(|port| !taken.contains(port));
        partitions.iter().map(|partition| named(partition).unwrap_or_else(|| free.next())).collect()
    }

    fn partition(&mut self, raw: &RawPartition, console: Option<SerialPort>) -> Partition {
        let name = self.name(&raw.name);
        let mut pcpus = heapless::Vec::new();
        for pcpu in raw.pcpus.get_ref() {
            let number = self.number(Some(pcpu), 0, 0..=i64::from(MACHINE_PCPUS_MAX) - 1);
            if pcpus.push(number).is_err() {
                self.add(
                    pcpu.span(),
                    format!("more than {PARTITION_PCPUS_MAX} pCPUs in one partition; leave some out"),
                );
                break;
            }
        }
        let memory_bytes = raw.memory.get_ref().0;
        let memory_at = raw.memory_at.as_ref().map(|at| at.get_ref().0);
        let identity = raw.identity.map_or_else(|| usual_identity(raw.image.get_ref().kind), Identity::from);
        Partition {
            name,
            pcpus,
            lapic: raw.lapic.into(),
            memory_bytes,
            memory_at,
            entry: Entry::Pvh { entry: 0, start_info: 0 },
            identity,
            console,
            io_ports: self.io_ports(raw),
            mmio: self.mmio(raw),
            expect: raw.expect.into(),
            on_reboot: raw.on_reboot.into(),
            is_required: raw.required,
        }
    }

    fn run(&mut self, raw: &RawRun) -> RunDefaults {
        let clock = match raw.clock {
            RawClock::Host => Clock::Host,
            RawClock::Icount => Clock::Icount,
        };
        let seconds = raw.timeout.is_some().then(|| self.number(raw.timeout.as_ref(), 0, 1..=TIMEOUT_MAX));
        RunDefaults { clock, timeout: seconds.map(Duration::from_secs) }
    }

    fn report(&mut self, raw: &RawReport, config: &SystemConfig) -> Option<CyclictestReport> {
        let mut number = |name: &Spanned<String>| {
            let found = config.partitions.iter().position(|partition| partition.name == name.get_ref().as_str());
            if found.is_none() {
                let names: Vec<&str> = config.partitions.iter().map(|partition| partition.name.as_str()).collect();
                let message = format!("there is no partition {:?}; name one of {}", name.get_ref(), names.join(", "));
                self.add(name.span(), message);
            }
            found
        };
        let beside = raw.beside.as_ref().and_then(&mut number);
        Some(CyclictestReport { partition: number(&raw.cyclictest)?, beside })
    }

    /// A command line of at most `max` bytes.
    pub(super) fn cmdline(&mut self, cmdline: Option<&Spanned<String>>, max: usize) -> String {
        let Some(cmdline) = cmdline else { return String::new() };
        let text = cmdline.get_ref();
        if text.len() > max {
            self.add(cmdline.span(), format!("{} bytes, at most {max}; shorten it", text.len()));
        }
        if text.contains('\0') {
            self.add(cmdline.span(), "a command line cannot contain a NUL character; remove it");
        }
        text.clone()
    }
}

/// The identity of a partition whose system file does not choose one.
const fn usual_identity(kind: RawKind) -> Identity {
    match kind {
        RawKind::Linux => Identity::Linux,
        RawKind::Elf | RawKind::Multiboot | RawKind::Flat | RawKind::Payload => Identity::Partita,
    }
}

const fn port(console: RawConsole) -> Option<SerialPort> {
    match console {
        RawConsole::None => None,
        RawConsole::Com2 => Some(SerialPort::Com2),
        RawConsole::Com3 => Some(SerialPort::Com3),
        RawConsole::Com4 => Some(SerialPort::Com4),
        RawConsole::Com5 => Some(SerialPort::Com5),
        RawConsole::Com6 => Some(SerialPort::Com6),
        RawConsole::Com7 => Some(SerialPort::Com7),
        RawConsole::Com8 => Some(SerialPort::Com8),
    }
}

fn span_of<T>(value: Option<&Spanned<T>>) -> Option<Range<usize>> {
    value.map(Spanned::span)
}

fn spans_of(partition: &Spanned<RawPartition>) -> PartitionSpans {
    let inner = partition.get_ref();
    PartitionSpans {
        whole: partition.span(),
        name: inner.name.span(),
        pcpus: inner.pcpus.span(),
        memory: inner.memory.span(),
        memory_at: span_of(inner.memory_at.as_ref()),
        image: inner.image.span(),
        console: span_of(inner.console.as_ref()),
        io_ports: inner.io_ports.first().map(Spanned::span).or(inner.devices.first().map(Spanned::span)),
        mmio: inner.mmio.first().map(Spanned::span).or(inner.devices.first().map(Spanned::span)),
    }
}
