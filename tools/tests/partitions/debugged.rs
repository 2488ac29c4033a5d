//! A system in Bochs, with Bochs' debugger in a test's hands.

mod debugger;
mod hypervisor;

pub(crate) use debugger::Debugger;
pub(crate) use hypervisor::Hypervisor;

use crate::system::Left;
use partita_abi::debug_port::OPTION;
use partita_abi::report::{END_MARKER, HypervisorExit};
use partita_core::system::Partition;
use partita_host::emulator::{
    Attached, Bochs, Clock, Cpu, Emulator, Ended, Keyboard, Launch, MachineSpec, Remains, ScriptStep, Supervised,
    Supervision, Typist, Unfinished, supervise_typing,
};
use partita_host::outcome::{Evidence, judge};
use partita_host::run_dir::{
    BOCHS_COMMANDS, BOCHS_CONFIG, BUNDLE_FILE, DEBUG_PORT_FILE, HYPERVISOR_LOG, RAM_FILE, SYSTEM_FILE, TRACE_FILE,
};
use partita_host::system_file::SystemFile;
use partita_host::trace::Trace;
use partita_host::{artifacts, assemble, bundle, cargo_build};
use std::io::pipe;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a machine may run, on a busy host too.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Its RAM.
const MEMORY: u64 = 192 << 20;
/// What Bochs calls the CPU that the tool takes.
pub(crate) const MODEL: &str = "tigerlake";
/// The hypervisor's ELF file.
const KERNEL_FILE: &str = "hv.elf";
/// The hypervisor's command line with somebody at its console.
const WITH_CONSOLE: &str = "console debug-port";

/// A machine in Bochs, with the tool's CPU and the debugger.
pub(crate) struct Debugged<'s> {
    pub(crate) system: &'s SystemFile,
    /// What Bochs calls the CPU.
    pub(crate) model: &'s str,
    /// Lines for the end of Bochs' configuration.
    pub(crate) config: &'s str,
    /// What is typed at the hypervisor's console.
    pub(crate) script: Vec<ScriptStep>,
}

/// What such a machine left.
pub(crate) struct Ran {
    ended: Ended,
    remains: Remains,
    unfinished: Vec<Unfinished>,
    /// The hypervisor's console.
    pub(crate) console: String,
    dir: tempfile::TempDir,
}

impl<'s> Debugged<'s> {
    /// With the CPU that the tool takes, and nobody at the console.
    pub(crate) fn new(system: &'s SystemFile) -> Self {
        Self { system, model: MODEL, config: "", script: Vec::new() }
    }

    /// Runs the machine from its first instruction to its end. `play` has the debugger first, while the machine stands still.
    pub(crate) fn run(self, play: impl FnOnce(&mut Debugger, &Hypervisor) + Send) -> Ran {
        let bochs = Bochs { cpu: Cpu::VMX };
        bochs.probe().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let at = |name: &str| out.join(name);
        let hypervisor = self.write_images(&out);
        let console = at(HYPERVISOR_LOG);
        let spec = MachineSpec {
            pcpus: self.system.machine.pcpus,
            memory: MEMORY,
            clock: Clock::Icount,
            kernel: &at(KERNEL_FILE),
            module: Some(&at(BUNDLE_FILE)),
            cmdline: if self.script.is_empty() { OPTION } else { WITH_CONSOLE },
            serial: std::array::from_fn(|port| Some(at(&self.log_name(port)?))),
            ram_file: Some(&at(RAM_FILE)),
        };
        let typist = Typist::Script(self.script.clone());
        let keyboard = Keyboard { port: 0, pipe: at("console.in"), log: console.clone(), typist };
        let keyboards = if self.script.is_empty() { Vec::new() } else { vec![keyboard] };
        let attached = Attached { keyboards: &keyboards, ..Attached::default() };
        let Launch { mut command, bridges } = bochs.prepare(&spec, &attached, &out).unwrap();
        self.change_config(&out);
        let ((input, commands), (output, shown)) = (pipe().unwrap(), pipe().unwrap());
        command.stdin(input).stdout(shown);
        let supervision = Supervision {
            label: "a machine with a debugger".into(),
            timeout: TIMEOUT,
            consoles: Vec::new(),
            quiet: true,
            ignores_sigterm: bochs.ignores_sigterm(),
        };
        let started = Instant::now();
        let Supervised { ended, unfinished } = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut debugger = Debugger::of(commands, output, &at(DEBUG_PORT_FILE));
                play(&mut debugger, &hypervisor);
                debugger.leave();
            });
            supervise_typing(command, supervision, &keyboards).unwrap()
        });
        bridges.into_iter().for_each(|bridge| bridge.finish().unwrap());
        println!("{}: {:.1} s", self.model, started.elapsed().as_secs_f64());
        let code = if let Ended::Exited(status) = ended { status.code() } else { None };
        let remains = bochs.remains(&spec, &out, code).unwrap();
        let console = String::from_utf8_lossy(&std::fs::read(console).unwrap()).into_owned();
        Ran { ended, remains, unfinished, console, dir }
    }

    /// Makes what boots.
    fn write_images(&self, out: &Path) -> Hypervisor {
        std::fs::create_dir(out).unwrap();
        // A copy, so that the symbols are those of what runs.
        let hypervisor = Hypervisor { bytes: std::fs::read(cargo_build::hypervisor().unwrap()).unwrap() };
        std::fs::write(out.join(KERNEL_FILE), &hypervisor.bytes).unwrap();
        let images = assemble::assemble(self.system).unwrap().images;
        std::fs::write(out.join(BUNDLE_FILE), bundle::build(&self.system.config, &images).unwrap()).unwrap();
        std::fs::write(out.join(SYSTEM_FILE), self.system.text()).unwrap();
        hypervisor
    }

    /// The name of the log of a serial port, if somebody prints there.
    fn log_name(&self, port: usize) -> Option<String> {
        if port == 0 {
            return Some(HYPERVISOR_LOG.to_owned());
        }
        let prints =
            |partition: &&Partition| partition.console.is_some_and(|com| usize::from(com.number()) == port + 1);
        let partition = self.system.config.partitions.iter().find(prints)?;
        Some(format!("{}.log", partition.name))
    }

    /// Gives Bochs the CPU, and its debugger to whoever holds its standard streams.
    fn change_config(&self, out: &Path) {
        let path = out.join(BOCHS_CONFIG);
        let config = std::fs::read_to_string(&path).unwrap();
        let own = format!("model={MODEL},");
        assert!(config.contains(&own), "{config}");
        std::fs::write(path, config.replace(&own, &format!("model={},", self.model)) + self.config).unwrap();
        // Behind this file it reads standard input.
        std::fs::write(out.join(BOCHS_COMMANDS), "").unwrap();
    }
}

impl Ran {
    /// Whether the hypervisor ended the machine like this.
    pub(crate) fn ended_by(&self, exit: HypervisorExit) -> bool {
        self.remains.exit_byte == Some(exit as u8)
    }

    /// The same with its trace.
    pub(crate) fn left(self) -> Left {
        let Self { ended, remains, unfinished, console, dir } = self;
        let log = &remains.log;
        let is_whole = unfinished.is_empty() && remains.damage.is_empty() && remains.exit_byte.is_some();
        assert!(is_whole, "{ended:?} {unfinished:?}\n{console}\n{log}");
        let out = dir.path().join("out");
        let at = |name: &str| out.join(name);
        let offset = |address| (address < MEMORY).then_some(address);
        artifacts::save_trace(&at(RAM_FILE), &offset, &console, &at(TRACE_FILE)).unwrap();
        let outcome = judge(&Evidence {
            ended,
            exit_byte: remains.exit_byte,
            guest_exit: None,
            end_marker: Some(END_MARKER),
            console: &console,
            emulator_log: &remains.log,
            open_ended: false,
            timeout: TIMEOUT,
        });
        let trace = Trace::load(&out).unwrap();
        Left { outcome, trace, witness: None, dir }
    }
}
