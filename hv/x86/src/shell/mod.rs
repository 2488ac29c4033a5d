//! The console's commands, on the housekeeping core: what is typed becomes lines, and lines are obeyed, while the partitions
//! run. Lines, commands and tables are `partita-console`'s.

mod lifecycle;
mod msr;
mod registers;
mod show;
mod soak;
pub mod state;

use heapless::String;
use partita_console::command::{Command, PartitionName, parse, write_help};
use partita_console::line::{Edited, LINE_MAX};
use partita_core::arch::PcpuId;
use partita_core::smp_call::{CallError, Reply};

use crate::apic;
use crate::console::{self, Echo};
use crate::cpu::idt::SERIAL_VECTOR;
use crate::io_apic;
use crate::memory::paging::Access;
use crate::partition::Partition;
use crate::println;
use crate::set_up::Hypervisor;

/// Most bytes that are taken before the housekeeping core looks at its other work.
const BYTES_MAX: usize = 64;

impl Hypervisor {
    /// Has the serial port wake this core when something is typed.
    pub fn listen(&mut self) {
        let Some(line) = self.machine.platform.console_line else {
            println!(
                "partita: console: {} has no interrupt line; input is looked at when this core wakes",
                console::serial()
            );
            return;
        };
        let mapped = self.space.map(line.io_apic, io_apic::LEN, Access::Device, &mut self.pool);
        // SAFETY: the registers have just been mapped, and only this core uses the I/O APIC; the vector has its handler.
        if mapped.is_err() || !unsafe { io_apic::route(line, SERIAL_VECTOR, apic::id()) } {
            println!(
                "partita: console: the interrupt of {} cannot be routed; input is looked at when this core wakes",
                console::serial()
            );
            return;
        }
        console::interrupt_on_input();
    }

    /// Takes what was typed, and obeys each line. Shows the prompt again if something else was printed.
    pub fn take_input(&mut self) {
        for _ in 0..BYTES_MAX {
            let Some(byte) = console::input() else { break };
            self.shell.is_attended = true;
            self.shell.prompt();
            self.take_byte(byte);
        }
        self.shell.prompt();
    }

    fn take_byte(&mut self, byte: u8) {
        let shell = &mut self.shell;
        let mut echo = Echo;
        let mut line: String<LINE_MAX> = String::new();
        match shell.editor.push(byte, &mut echo) {
            Edited::Pending => {
                shell.has_text = true;
                return;
            }
            Edited::Cancelled => {}
            Edited::Line(text) => {
                // A line is not longer than this place for it.
                let _ = line.push_str(text);
            }
        }
        shell.has_text = false;
        echo.set_typing(false);
        match parse(&line) {
            Ok(Some(command)) => self.obey(command),
            Ok(None) => {}
            Err(error) => println!("{error}"),
        }
    }

    fn obey(&mut self, command: Command<'_>) {
        match command {
            Command::Help(topic) => {
                let _ = write_help(&mut Echo, topic);
            }
            Command::Partitions => self.show_partitions(),
            Command::Vcpus => self.show_vcpus(),
            Command::Exits(pcpu) => {
                if let Some(pcpu) = self.checked_pcpu(pcpu) {
                    self.show_exits(pcpu);
                }
            }
            Command::Regs(vcpu) => {
                if let Some(partition) = self.named(vcpu.partition) {
                    registers::show(partition, vcpu.vcpu.into());
                }
            }
            Command::Rdmsr { pcpu, msr } => msr::read(PcpuId(pcpu), msr),
            Command::Wrmsr { pcpu, msr, value } => msr::write(PcpuId(pcpu), msr, value),
            Command::Stop(name) => self.obey_stop(name),
            Command::Start(name) => self.obey_start(name),
            Command::Restart { partition, times } => self.obey_restart(partition, times),
            Command::Trace => self.show_trace(),
            Command::Smp => self.show_smp(),
            Command::Storm { rounds, restarted: None } => self.storm(rounds),
            Command::Storm { rounds, restarted: Some(name) } => self.storm_beside_restarts(rounds, name),
            Command::Hold { pcpu, milliseconds } => soak::hold(PcpuId(pcpu), milliseconds),
            Command::Quit => self.shell.quits = true,
        }
    }

    /// The partition of this name or number; says so if there is none.
    fn named(&self, name: PartitionName<'_>) -> Option<&'static Partition> {
        let names = self.partitions.iter().map(|partition| partition.config.name.as_str());
        let found = name.resolve(names).and_then(|number| self.partitions.get(number).copied());
        if found.is_none() {
            println!("no partition {name}; `partitions` lists them");
        }
        found
    }

    /// A pCPU that is there, or none for all; says so if there is no such pCPU.
    fn checked_pcpu(&self, pcpu: Option<u16>) -> Option<Option<PcpuId>> {
        let count = self.machine.pcpus();
        match pcpu {
            Some(number) if usize::from(number) >= count => {
                println!("no pCPU {number}; the machine has {count}, from 0 on");
                None
            }
            other => Some(other.map(PcpuId)),
        }
    }
}

/// Says why a call to a pCPU brought no answer.
fn report_reply(pcpu: PcpuId, reply: Result<Reply, CallError>) {
    match reply {
        Ok(Reply::Answered(_)) => {}
        Ok(Reply::Late) => println!("{pcpu} did not answer within its deadline; the call is withdrawn"),
        Ok(Reply::LateRunning) => println!("{pcpu} began, but did not end within the deadline; its result is lost"),
        Ok(Reply::Busy) => println!("{pcpu} is busy with an earlier call from here; try again"),
        Ok(Reply::Unreachable) => println!("{pcpu} serves no calls; `smp` shows its state"),
        Err(error) => println!("{error}"),
    }
}
