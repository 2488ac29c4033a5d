//! `partita image`: a system as an image that boots on machines.

use super::say;
use clap::Args;
use partita_host::iso::{IsoTarget, SystemImage, build_system};
use partita_host::outcome::EXIT_OK;
use partita_host::system_file::{self, SystemFile};
use std::io::Write;
use std::path::PathBuf;

/// Write a system to an ISO image that boots on PCs, by BIOS or UEFI, from a CD or a stick
///
/// Builds the hypervisor, the payloads and the boot bundle, and puts them into one image with GRUB, which shows a menu for
/// three seconds, on the screen and on COM1, and boots them by multiboot2. Two images of the same contents are the same.
/// docs/boot.md says what the machine has to have.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo partita image rt-partitions/systems/demo.toml -o demo.iso
  cargo partita image my.toml -o my.iso --cmdline \"console serial=com2,9600\"

The hypervisor's command line:
  console             someone is at the console: it prompts at once
  serial=PORT[,BAUD]  the console's port: com1 to com4, or an I/O port such as 0x3f8
                      [default: com1,115200]
  trap-timer-count    guests do not read their timers' counts themselves")]
pub(crate) struct Image {
    /// The system file
    #[arg(value_name = "SYSTEM.toml")]
    system: PathBuf,
    /// The image
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// The hypervisor's command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    cmdline: String,
    /// The hypervisor's ELF file, instead of building it
    #[arg(long, value_name = "PATH")]
    hv: Option<PathBuf>,
}

impl Image {
    pub(crate) fn execute(&self) -> anyhow::Result<u8> {
        let system = SystemFile::load(&self.system)?;
        let image = SystemImage { hypervisor: self.hv.as_deref(), cmdline: &self.cmdline, target: IsoTarget::Machine };
        let built = build_system(&system, &image, &self.out)?;
        for warning in &built.warnings {
            // Nobody is left to tell where standard error is closed.
            let _ = writeln!(std::io::stderr(), "warning: {warning}");
        }
        let (iso, pcpus) = (self.out.display(), system.machine.pcpus);
        let kib = std::fs::metadata(&self.out)?.len().div_ceil(1024);
        let memory = system_file::human(built.memory);
        say(format_args!("{iso}: system {}, {kib} KiB, for {pcpus} pCPUs and {memory} of RAM", system.config.name));
        let mib = built.memory >> 20;
        say(format_args!(
            "QEMU:     qemu-system-x86_64 -M q35 -cpu max -smp {pcpus} -m {mib} -display none -serial stdio \\\n          \
             -device isa-debug-exit,iobase=0xf4,iosize=0x04 -cdrom {iso}"
        ));
        say(format_args!("by UEFI:  the same with -bios /usr/share/ovmf/OVMF.fd"));
        say(format_args!("a stick:  dd if={iso} of=/dev/sdX bs=1M conv=fsync   (all that is on /dev/sdX is lost)"));
        Ok(EXIT_OK)
    }
}
