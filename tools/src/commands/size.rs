//! `partita size`: how much the hypervisor takes.

use super::say;
use anyhow::Context;
use clap::Args;
use partita_host::cargo_build;
use partita_host::outcome::EXIT_OK;
use partita_host::size::{Memory, Sections, UnsafeLines, measure_memory, unsafe_lines};
use serde::Serialize;

/// Print how much the hypervisor takes: code, data, memory, and lines of `unsafe`
///
/// Code (text) is told apart by when it is mapped: what stays while partitions run, on AMD's CPUs and on Intel's, and what is
/// unmapped before the first one starts. Both vendors' have what all CPUs need, so they do not add up to the image's. Memory is that of two
/// systems that are booted for it in QEMU, without the trace region; of a partition it is what the hypervisor keeps for it, not
/// the partition's own. Lines of unsafe are those of unsafe blocks, functions and impls, without comments and tests.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo partita size
  cargo partita size --pcpus 8 --json")]
pub(crate) struct Size {
    /// pCPUs of the machine whose memory is measured, 4 at least
    #[arg(long, value_name = "N", default_value_t = 4)]
    pcpus: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    sections: Sections,
    memory: Memory,
    r#unsafe: Vec<UnsafeLines>,
}

impl Size {
    pub(crate) fn execute(&self) -> anyhow::Result<u8> {
        let elf = cargo_build::hypervisor()?;
        let elf = std::fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))?;
        let dir = tempfile::tempdir().context("cannot make a directory for the runs")?;
        let report = Report {
            sections: Sections::read(&elf)?,
            memory: measure_memory(self.pcpus, dir.path())?,
            r#unsafe: unsafe_lines(&cargo_build::repository()?)?,
        };
        if self.json {
            say(format_args!("{}", serde_json::to_string_pretty(&report)?));
        } else {
            print(&report);
        }
        Ok(EXIT_OK)
    }
}

fn print(report: &Report) {
    let Sections { text_svm, text_vmx, text_boot, text_all, rodata, data, bss, image } = report.sections;
    let Memory { pcpus, ram, per_partition } = report.memory;
    let rows = [
        ("text that stays, SVM".to_owned(), text_svm),
        ("text that stays, VMX".to_owned(), text_vmx),
        ("text for boot only, unmapped before partitions run".to_owned(), text_boot),
        ("text in the image: both vendors', and boot's".to_owned(), text_all),
        ("rodata".to_owned(), rodata),
        ("data".to_owned(), data),
        ("bss".to_owned(), bss),
        ("image in memory".to_owned(), image),
        (format!("RAM with {pcpus} pCPUs and a partition, without rings"), ram),
        ("of it for the partition".to_owned(), per_partition),
    ];
    for (what, bytes) in rows {
        say(format_args!("{what:<52} {bytes:>10} bytes {:>8.1} KiB", bytes as f64 / 1024.0));
    }
    say(format_args!(
        "\n{:<16} {:>8} {:>9} {:>8} {:>13} {:>13}",
        "unsafe", "blocks", "functions", "others", "lines of them", "of all lines"
    ));
    report.r#unsafe.iter().for_each(print_lines);
    print_lines(&UnsafeLines::sum("all", &report.r#unsafe));
}

fn print_lines(lines: &UnsafeLines) {
    let UnsafeLines { folder, lines, unsafe_lines, blocks, functions, others } = lines;
    say(format_args!("{folder:<16} {blocks:>8} {functions:>9} {others:>8} {unsafe_lines:>13} {lines:>13}"));
}
