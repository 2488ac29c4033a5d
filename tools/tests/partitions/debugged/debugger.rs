//! Bochs' debugger: it stops pCPUs at addresses, and reads and changes their registers and the memory.

use std::fs::File;
use std::io::{BufReader, PipeReader, PipeWriter, Read, Write};
use std::path::Path;

/// The debugger, while the machine stands still.
pub(crate) struct Debugger {
    commands: PipeWriter,
    output: BufReader<PipeReader>,
    /// Where the tool looks for what the machine wrote to its debug port.
    copy: File,
    /// Prompts that were shown.
    prompts: u32,
    /// Breakpoints that were set; their numbers begin at 1.
    breakpoints: u32,
}

impl Debugger {
    /// The one with these standard streams, in front of the machine's first instruction. The output is copied to this file.
    pub(super) fn of(commands: PipeWriter, output: PipeReader, copy: &Path) -> Self {
        let copy = File::create(copy).unwrap();
        let mut debugger = Self { commands, output: BufReader::new(output), copy, prompts: 0, breakpoints: 0 };
        debugger.answer();
        debugger
    }

    /// Reads up to the next prompt.
    fn answer(&mut self) -> String {
        self.prompts += 1;
        let prompt = format!("<bochs:{}> ", self.prompts);
        let mut text = Vec::new();
        while !text.ends_with(prompt.as_bytes()) {
            let mut byte = [0];
            let read = self.output.read_exact(&mut byte);
            read.unwrap_or_else(|_| panic!("Bochs has ended: {}", String::from_utf8_lossy(&text)));
            text.push(byte[0]);
        }
        self.copy.write_all(&text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn command(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        let answer = self.answer();
        assert!(!answer.contains("Error") && !answer.contains("syntax error"), "{command}: {answer}");
        answer
    }

    /// Has pCPUs stop before the instruction at this linear address.
    pub(crate) fn break_at(&mut self, address: u64) {
        self.command(&format!("lb {address:#x}"));
        self.breakpoints += 1;
    }

    /// Lets the machine go on until pCPUs come to a breakpoint; gives their numbers.
    pub(crate) fn go(&mut self) -> Vec<u16> {
        let answer = self.command("c");
        let stopped = |line: &str| line.strip_prefix('(')?.split_once(") Breakpoint ")?.0.parse().ok();
        let pcpus: Vec<u16> = answer.lines().filter_map(stopped).collect();
        assert!(!pcpus.is_empty(), "{answer}");
        pcpus
    }

    /// Lets the machine go on until this pCPU comes to a breakpoint, and selects it.
    pub(crate) fn go_until(&mut self, pcpu: u16) {
        while !self.go().contains(&pcpu) {}
        self.select(pcpu);
    }

    /// Says whose registers the others are about.
    pub(crate) fn select(&mut self, pcpu: u16) {
        self.command(&format!("set $cpu = {pcpu}"));
    }

    /// A register, by its name of 64 bits.
    pub(crate) fn register(&mut self, name: &str) -> u64 {
        let answer = self.command("r");
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
        let digits = line.unwrap_or_else(|| panic!("no {name}: {answer}")).trim().replace('_', "");
        u64::from_str_radix(&digits, 16).unwrap()
    }

    /// Changes a register.
    pub(crate) fn set_register(&mut self, name: &str, value: u64) {
        let name = if name == "rip" { "$rip" } else { name };
        self.command(&format!("set {name} = {value:#x}"));
    }

    /// A word of physical memory.
    fn word(&mut self, address: u64) -> u64 {
        let answer = self.command(&format!("xp /1wx {address:#x}"));
        let digits = answer.lines().find_map(|line| line.split_once(">:")?.1.trim().strip_prefix("0x"));
        u64::from_str_radix(digits.unwrap_or_else(|| panic!("{answer}")), 16).unwrap()
    }

    /// Eight bytes of physical memory.
    pub(crate) fn read(&mut self, address: u64) -> u64 {
        self.word(address) | self.word(address + 4) << 32
    }

    /// Writes to physical memory.
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        for (address, byte) in (address..).zip(bytes) {
            self.command(&format!("setpmem {address:#x} 1 {byte:#x}"));
        }
    }

    /// Lets the machine run to its end.
    pub(super) fn leave(mut self) {
        for number in 1..=self.breakpoints {
            self.command(&format!("del {number}"));
        }
        writeln!(self.commands, "c").unwrap();
        drop(self.commands);
        std::io::copy(&mut self.output, &mut self.copy).unwrap();
    }
}
