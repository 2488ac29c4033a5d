//! The configuration file of a machine in Bochs 2.7.

use std::fmt::Write;

/// Instructions a second of each pCPU, by which Bochs' clocks go. More make the firmware's and GRUB's waiting longer.
pub(super) const IPS: u32 = 50_000_000;
/// The date that the machine starts with, as in QEMU under icount: 2026-01-01.
const TIME: u32 = 1_767_225_600;

/// What a serial port is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Serial {
    /// Nothing.
    Mute,
    /// A file that takes what it prints.
    File(String),
    /// A listener at this port of the host itself, for both directions.
    Socket(u16),
}

/// A CPU of Bochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cpu {
    /// Its name, on the command line of the tool.
    pub name: &'static str,
    /// What Bochs calls it.
    model: &'static str,
    /// Its features, if Bochs does not know them by its name.
    features: &'static str,
    /// Whether it has AMD SVM.
    pub has_svm: bool,
}

impl Cpu {
    /// With the fullest Intel VMX that there is.
    pub const VMX: Self = Self::of_model("tigerlake");
    /// With AMD SVM. Bochs' own models of AMD's CPUs have no x2APIC, so that this one is put together.
    pub const SVM: Self = Self {
        name: "svm",
        model: "bx_generic",
        features: "cpuid: level=6, family=15, model=1, stepping=0, vendor_string=\"AuthenticAMD\", \
                   brand_string=\"AMD CPU with SVM and x2APIC\", mmx=1, sep=1, simd=avx2, apic=x2apic, aes=1, movbe=1, \
                   xsave=1, xsaveopt=1, avx_f16c=1, avx_fma=1, bmi=2, x86_64=1, 1g_pages=1, fsgsbase=0, smep=0, smap=0, \
                   mwait=0, vmx=0, svm=1\n",
        has_svm: true,
    };
    /// All that have x2APIC and a virtualisation extension.
    pub const ALL: [Self; 9] = [
        Self::VMX,
        Self::SVM,
        Self::of_model("corei7_sandy_bridge_2600k"),
        Self::of_model("corei7_ivy_bridge_3770k"),
        Self::of_model("corei7_haswell_4770"),
        Self::of_model("broadwell_ult"),
        Self::of_model("corei7_skylake_x"),
        Self::of_model("corei3_cnl"),
        Self::of_model("corei7_icelake_u"),
    ];

    const fn of_model(name: &'static str) -> Self {
        Self { name, model: name, features: "", has_svm: false }
    }
}

/// A machine.
#[derive(Clone, Debug)]
pub(super) struct Config<'a> {
    pub(super) cpu: &'a Cpu,
    pub(super) pcpus: u16,
    /// RAM in MiB.
    pub(super) mebibytes: u64,
    pub(super) iso: &'a str,
    pub(super) log: &'a str,
    pub(super) serial: Vec<Serial>,
}

impl Config<'_> {
    /// The text of the file.
    pub(super) fn text(&self) -> String {
        let Self { cpu, pcpus, mebibytes, iso, log, serial } = self;
        let Cpu { model, features, has_svm, .. } = cpu;
        let mut text = format!(
            "plugin_ctrl: unmapped=1, biosdev=1, speaker=0, extfpuirq=1, parallel=0, serial=1\n\
             config_interface: textconfig\n\
             display_library: term\n\
             romimage: file=/usr/share/bochs/BIOS-bochs-latest, options=fastboot\n\
             vgaromimage: file=/usr/share/vgabios/vgabios.bin\n\
             cpu: model={model}, count={pcpus}, ips={IPS}, reset_on_triple_fault=0, ignore_bad_msrs=0\n\
             {features}\
             memory: guest={mebibytes}, host={mebibytes}\n\
             pci: enabled=1, chipset=i440fx\n\
             ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
             ata0-master: type=cdrom, path={iso}, status=inserted\n\
             boot: cdrom\n\
             clock: sync=none, time0={TIME}, rtc_sync=0\n"
        );
        for (number, serial) in (1..).zip(serial) {
            // A String takes everything.
            let _ = match serial {
                Serial::Mute => writeln!(text, "com{number}: enabled=1, mode=null"),
                Serial::File(name) => writeln!(text, "com{number}: enabled=1, mode=file, dev={name}"),
                Serial::Socket(port) => {
                    writeln!(text, "com{number}: enabled=1, mode=socket-client, dev=127.0.0.1:{port}")
                }
            };
        }
        // With SVM, a guest's triple fault is a panic of its CPU, though the hypervisor is told of it: it is only noted.
        let noted = if *has_svm { 0..*pcpus } else { 0..0 };
        let cpus = noted.fold(String::new(), |cpus, cpu| format!("{cpus}, cpu{cpu}=report"));
        let _ = write!(
            text,
            "port_e9_hack: enabled=1\n\
             sound: driver=dummy\n\
             speaker: enabled=0\n\
             log: {log}\n\
             debugger_log: -\n\
             panic: action=fatal{cpus}\n\
             error: action=report\n\
             info: action=report\n\
             debug: action=ignore\n"
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(cpu: &Cpu) -> String {
        let serial = vec![Serial::File("hypervisor.log".into()), Serial::Mute, Serial::Socket(1234)];
        Config { cpu, pcpus: 2, mebibytes: 256, iso: "boot.iso", log: "bochs.log", serial }.text()
    }

    #[test]
    fn the_machine_is_described() {
        let text = text(&Cpu::VMX);
        for line in [
            "cpu: model=tigerlake, count=2, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=0",
            "memory: guest=256, host=256",
            "ata0-master: type=cdrom, path=boot.iso, status=inserted",
            "com1: enabled=1, mode=file, dev=hypervisor.log",
            "com2: enabled=1, mode=null",
            "com3: enabled=1, mode=socket-client, dev=127.0.0.1:1234",
            "panic: action=fatal",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("cpuid:"));
    }

    #[test]
    fn with_svm_a_guests_triple_fault_does_not_end_the_machine() {
        let text = text(&Cpu::SVM);
        assert!(text.contains("\npanic: action=fatal, cpu0=report, cpu1=report\n"), "{text}");
        assert!(text.contains("apic=x2apic") && text.contains("svm=1\nmemory:"), "{text}");
    }
}
