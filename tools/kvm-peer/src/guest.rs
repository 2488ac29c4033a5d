//! The guest's machine: its memory, what lies in it, and its vCPUs.

use crate::settings::Settings;
use anyhow::Context;
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2, kvm_regs, kvm_segment, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use memmap2::MmapMut;
use partita_trace::layout::{HEADER_LEN, RegionHeader};
use std::path::Path;

/// Where the pieces of its memory are.
const PIECES: &str = "/guest";
/// Three pages below 4 GiB that KVM needs on some CPUs.
const TSS_ADDRESS: usize = 0xFFFB_D000;
/// CPUID leaf 1: initial APIC ID in bits 31:24 of EBX; there is a hypervisor in bit 31 of ECX.
const LEAF_FEATURES: u32 = 1;
const APIC_ID_SHIFT: u32 = 24;
const HYPERVISOR: u32 = 1 << 31;
/// CPUID leaves whose EDX is the x2APIC ID.
const LEAVES_TOPOLOGY: [u32; 2] = [0xB, 0x1F];
/// EAX = the highest leaf of a hypervisor; and the frequencies of TSC and local APIC timer in kHz, as VMware has it.
const LEAF_HYPERVISOR: u32 = 0x4000_0000;
const LEAF_FREQUENCIES: u32 = 0x4000_0010;
/// KVM's local APIC timers count nanoseconds.
const LAPIC_KHZ: u32 = 1_000_000;
/// CR0.PE and ET.
const PROTECTED_MODE: u64 = 0x11;

/// The guest.
pub(crate) struct Guest {
    /// Its vCPUs; the first is ready to run, the others wait for INIT and SIPI.
    pub(crate) vcpus: Vec<VcpuFd>,
    /// Its memory.
    pub(crate) memory: Memory,
    _vm: VmFd,
}

/// The memory, from guest-physical 0 on.
pub(crate) struct Memory(&'static mut MmapMut);

impl Guest {
    /// Makes it.
    pub(crate) fn new(settings: &Settings) -> anyhow::Result<Self> {
        let kvm = Kvm::new().context("cannot open /dev/kvm; has the CPU SVM or VMX?")?;
        let vm = kvm.create_vm().context("KVM makes no virtual machine")?;
        vm.set_tss_address(TSS_ADDRESS).context("KVM takes no TSS address")?;
        vm.create_irq_chip().context("KVM makes no interrupt controllers")?;
        let map = MmapMut::map_anon(settings.memory as usize).context("no memory for the guest")?;
        // For ever: vCPUs run until the machine ends.
        let mut memory = Memory(Box::leak(Box::new(map)));
        memory.load(Path::new(PIECES))?;
        let slot = kvm_userspace_memory_region {
            memory_size: settings.memory,
            userspace_addr: memory.0.as_mut_ptr() as u64,
            ..Default::default()
        };
        // SAFETY: the memory stays mapped for ever. `Memory::region` looks at it when one vCPU has ended the guest; others may still run
        // then, but the payload writes its trace no more, and a torn byte would be a damaged trace, which the host's reader tells.
        unsafe { vm.set_user_memory_region(slot) }.context("KVM does not take the guest's memory")?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("KVM tells no CPUID")?;
        let mut vcpus = Vec::new();
        for id in 0..settings.vcpus {
            let vcpu = vm.create_vcpu(id).with_context(|| format!("KVM makes no vCPU {id}"))?;
            let tsc_khz = vcpu.get_tsc_khz().context("KVM tells no TSC frequency")?;
            let cpuid = cpuid_of(&cpuid, id as u32, tsc_khz).context("CPUID has too many leaves")?;
            vcpu.set_cpuid2(&cpuid).with_context(|| format!("KVM does not take CPUID of vCPU {id}"))?;
            vcpus.push(vcpu);
        }
        let first = vcpus.first().context("the guest has no vCPU")?;
        enter_at(first, settings).context("KVM does not take the first vCPU's registers")?;
        Ok(Self { vcpus, memory, _vm: vm })
    }
}

impl Memory {
    /// Copies all files of `dir` to the addresses that are their names, in hexadecimal.
    fn load(&mut self, dir: &Path) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let address = usize::from_str_radix(&name, 16).with_context(|| format!("{name} is no address"))?;
            let bytes = std::fs::read(&path)?;
            let place = address.checked_add(bytes.len()).and_then(|end| self.0.get_mut(address..end));
            place.with_context(|| format!("{name} lies outside of the guest's memory"))?.copy_from_slice(&bytes);
        }
        Ok(())
    }

    /// The trace region at an address, if `room` bytes have room for it. To be asked when the guest does not run any more.
    pub(crate) fn region(&self, address: u64, room: u64) -> anyhow::Result<&[u8]> {
        let memory = self.0.len();
        let all = self.0.get(address as usize..).with_context(|| {
            format!("the guest says that its trace is at {address:#x}, but it has {memory:#x} bytes of memory")
        })?;
        let header = RegionHeader::parse(all.get(..HEADER_LEN).unwrap_or_default())
            .map_err(|error| anyhow::anyhow!("no trace at {address:#x}: {error}"))?;
        let len = header.region_len();
        anyhow::ensure!(
            len as u64 <= room,
            "the trace of {len:#x} bytes is longer than the {room:#x} bytes that are left for it; give it smaller rings"
        );
        all.get(..len).with_context(|| {
            format!(
                "the trace of {len:#x} bytes at {address:#x} reaches beyond the guest's {memory:#x} bytes of memory"
            )
        })
    }
}

/// What CPUID tells the vCPU `id`: its x2APIC ID, that there is a hypervisor, and the frequencies of its clocks, as KVM's
/// users say. `None` if there is no room for that.
fn cpuid_of(supported: &CpuId, id: u32, tsc_khz: u32) -> Option<CpuId> {
    let mut cpuid = supported.clone();
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            LEAF_FEATURES => {
                entry.ebx = entry.ebx & !(0xFF << APIC_ID_SHIFT) | id << APIC_ID_SHIFT;
                entry.ecx |= HYPERVISOR;
            }
            LEAF_HYPERVISOR => entry.eax = LEAF_FREQUENCIES,
            function if LEAVES_TOPOLOGY.contains(&function) => entry.edx = id,
            _ => {}
        }
    }
    let frequencies =
        kvm_cpuid_entry2 { function: LEAF_FREQUENCIES, eax: tsc_khz, ebx: LAPIC_KHZ, ..Default::default() };
    cpuid.push(frequencies).ok()?;
    Some(cpuid)
}

/// Sets a vCPU to where a PVH loader would enter (Xen, docs/misc/pvh.pandoc).
fn enter_at(vcpu: &VcpuFd, settings: &Settings) -> Result<(), kvm_ioctls::Error> {
    let flat = |selector, type_| kvm_segment {
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let (code, data) = (flat(0x10, 0xB), flat(0x18, 0x3));
    let mut special = vcpu.get_sregs()?;
    special.cs = code;
    [special.ds, special.es, special.fs, special.gs, special.ss] = [data; 5];
    special.tr = kvm_segment { limit: 0x67, type_: 0xB, present: 1, ..Default::default() };
    special.cr0 = PROTECTED_MODE;
    vcpu.set_sregs(&special)?;
    vcpu.set_regs(&kvm_regs { rip: settings.entry, rbx: settings.start_info, rflags: 2, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use partita_trace::layout::{REGION_ALIGN, Region, RegionSpec, WriterKind};

    const MEMORY: usize = 1 << 20;

    /// The bytes of an empty trace.
    fn trace() -> Vec<u8> {
        let spec = RegionSpec {
            writer: WriterKind::Bare,
            pcpus: 2,
            ring_slots: 64,
            histograms: false,
            tsc_hz: 0,
            build_id: [0; 20],
        };
        let mut map = MmapMut::map_anon(2 * REGION_ALIGN).unwrap();
        let offset = map.as_ptr().align_offset(REGION_ALIGN);
        let place = map.get_mut(offset..offset + spec.len()).unwrap();
        // SAFETY: the bytes are this function's alone, and outlive the region, which is dropped at once.
        unsafe { Region::init(place.as_mut_ptr(), place.len(), &spec) }.unwrap();
        place.to_vec()
    }

    fn memory_with(trace: &[u8], at: usize) -> Memory {
        let map = Box::leak(Box::new(MmapMut::map_anon(MEMORY).unwrap()));
        let len = trace.len().min(MEMORY - at);
        map.get_mut(at..at + len).unwrap().copy_from_slice(&trace[..len]);
        Memory(map)
    }

    #[test]
    fn a_trace_must_fit() {
        let (trace, at) = (trace(), 0x8_0000);
        let memory = memory_with(&trace, at);
        let len = trace.len() as u64;
        assert_eq!(memory.region(at as u64, len).unwrap(), trace);
        let error = |address: usize, room| memory.region(address as u64, room).unwrap_err().to_string();
        let short = error(at, len - 1);
        assert!(short.contains(&format!("longer than the {:#x} bytes that are left for it", len - 1)), "{short}");
        assert!(error(MEMORY + 1, len).contains("its trace is at 0x100001, but it has 0x100000 bytes of memory"));
        assert!(error(at + 64, len).contains("no trace at 0x80040"));
        // The header is whole, but the rings are not.
        let at = MEMORY - HEADER_LEN;
        let cut = memory_with(&trace, at).region(at as u64, len).unwrap_err().to_string();
        assert!(cut.contains("reaches beyond the guest's 0x100000 bytes of memory"), "{cut}");
    }
}
