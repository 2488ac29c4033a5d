//! The machine that the hypervisor finds itself on: discovered, and refused if it lacks something.

use partita_core::arch::PcpuId;
use partita_x86_policy::capabilities::Virtualization;

use crate::clock::{self, Clocks};
use crate::cpu::{features, idt, percpu};
use crate::error::Refusal;
use crate::{apic, console, memory};
use partita_x86_bare::boot_info::BootInfo;
use partita_x86_bare::discover::{self, Platform};

/// What was discovered.
#[derive(Debug)]
pub struct Machine {
    /// What the CPUs virtualise by.
    pub virtualization: Virtualization,
    /// CPUs and devices.
    pub platform: Platform,
    /// Frequencies.
    pub clocks: Clocks,
}

impl Machine {
    /// Discovers the machine, on the boot pCPU, with the boot page tables in use. Afterwards this pCPU takes
    /// interrupts through the hypervisor's descriptor table, and its local APIC is in x2APIC mode.
    ///
    /// # Errors
    /// Why the machine cannot be used.
    pub fn discover(boot: &BootInfo) -> Result<Self, Refusal> {
        idt::build_tables();
        idt::load();
        partita_x86_bare::mask_legacy_controllers();
        let virtualization = features::virtualization()?;
        apic::enable();
        // SAFETY: the RSDP is the loader's, and the boot page tables map the low 4 GiB one to one.
        let platform = unsafe { discover::discover(boot.rsdp, apic::id(), console::serial().irq()) }?;
        for (number, id) in (0..).zip(&platform.apic_ids) {
            percpu::public(PcpuId(number)).set_apic_id(*id);
        }
        let clocks = clock::measure(platform.pm_timer_port)?;
        let machine = Self { virtualization, platform, clocks };
        defmt::info!(
            "{=usize} pCPUs, TSC {=u64} Hz, LAPIC timer {=u64} Hz",
            machine.pcpus(),
            clocks.tsc_hz,
            clocks.lapic_hz
        );
        Ok(machine)
    }

    /// One line for the boot report.
    pub fn summary(&self) -> impl core::fmt::Display + '_ {
        Summary(self)
    }

    /// Number of pCPUs.
    pub fn pcpus(&self) -> usize {
        self.platform.apic_ids.len()
    }
}

/// The hypervisor's image, as a range of host-physical memory.
pub fn image() -> partita_core::memory::Range {
    let (start, len) = memory::paging::image_range();
    partita_core::memory::Range::at(start, len)
}

struct Summary<'a>(&'a Machine);

impl core::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Machine { virtualization, clocks, .. } = self.0;
        write!(
            f,
            "{} pCPUs, x2APIC, {virtualization}, TSC {} kHz, LAPIC timer {} kHz",
            self.0.pcpus(),
            clocks.tsc_hz / 1000,
            clocks.lapic_hz / 1000,
        )
    }
}
