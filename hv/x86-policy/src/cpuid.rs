//! The CPUID policy: what a guest sees of its CPU and of its hypervisor.
//!
//! This file decides leaf by leaf; `cpuid_features.rs` says which feature bits show.

use partita_abi::cpuid as abi;
use partita_core::system::Identity;

use crate::cpuid_features as features;
use crate::cpuid_hidden::HiddenFeatures;
use crate::vmware;

/// The registers EAX, EBX, ECX, EDX.
pub type Registers = [u32; 4];

const ZERO: Registers = [0; 4];

/// The instruction that a guest calls its hypervisor with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HypercallInstruction {
    /// AMD's.
    Vmmcall,
    /// Intel's.
    Vmcall,
}

/// What CPUID depends on besides the hardware's answer: fixed when a vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuidContext {
    /// What the guest is told about its hypervisor.
    pub identity: Identity,
    /// How it calls it.
    pub hypercall: HypercallInstruction,
    /// Number of the partition.
    pub partition: u32,
    /// Number of this vCPU in it.
    pub vcpu: u32,
    /// The partition's vCPUs, at least 1.
    pub vcpus: u32,
    /// x2APIC ID of this vCPU.
    pub apic_id: u32,
    /// Bits of the partition's largest x2APIC ID: [`crate::apic_view::ApicView::id_bits`].
    pub apic_id_bits: u32,
    /// How often the partition was started, this time included.
    pub starts: u32,
    /// I/O base of its console, 0 for none: [`crate::ports::serial_base`].
    pub console_port: u16,
    /// TSC frequency in kHz.
    pub tsc_khz: u32,
    /// Local APIC timer frequency in kHz, at divide-by-1.
    pub lapic_khz: u32,
    /// EAX of the hardware's leaf 0: its highest basic leaf.
    pub host_max_basic: u32,
    /// EAX of the hardware's leaf 0x8000_0000: its highest extended leaf.
    pub host_max_extended: u32,
    /// Features that the virtualisation extension keeps from guests.
    pub hidden: HiddenFeatures,
}

impl CpuidContext {
    /// The highest basic leaf that the guest sees: at least the topology leaf 0xB, which needs no hardware.
    #[inline]
    pub const fn max_basic(&self) -> u32 {
        match self.host_max_basic {
            ..LEAF_TOPOLOGY => LEAF_TOPOLOGY,
            max @ LEAF_TOPOLOGY..=LEAF_TOPOLOGY_V2 => max,
            _ => LEAF_TOPOLOGY_V2,
        }
    }

    /// The highest extended leaf that the guest sees.
    #[inline]
    pub const fn max_extended(&self) -> u32 {
        if self.host_max_extended > EXTENDED_MAX { EXTENDED_MAX } else { self.host_max_extended }
    }
}

const LEAF_TOPOLOGY: u32 = 0xB;
const LEAF_TOPOLOGY_V2: u32 = 0x1F;
/// Extended features 2, the last leaf that the policy knows.
const EXTENDED_MAX: u32 = 0x8000_0021;

/// What the guest gets. `host` is what the hardware answers to the same leaf and subleaf on this pCPU, `cr4` the
/// guest's CR4. Leaves past the maximum, or that mean nothing to a guest, are zero.
#[inline]
pub fn cpuid(leaf: u32, subleaf: u32, host: Registers, cr4: u64, context: &CpuidContext) -> Registers {
    match leaf {
        0 => {
            let [_, ebx, ecx, edx] = host;
            [context.max_basic(), ebx, ecx, edx]
        }
        1..=LEAF_TOPOLOGY_V2 => basic(leaf, subleaf, host, cr4, context),
        0x4000_0000..=0x4FFF_FFFF => hypervisor(leaf, context),
        0x8000_0000..=EXTENDED_MAX => extended(leaf, host, context),
        _ => ZERO,
    }
}

/// The answers that do not change while a partition runs, to be looked up instead of asked the hardware for, which serialises: to
/// leaves 0 to 0x1F and 0x8000_0000 to 0x8000_001F. Valid on the pCPU on which they were collected.
#[derive(Clone, Debug)]
pub struct Answers {
    registers: [Registers; ANSWERS],
    /// A bit for each that is there.
    known: u64,
}

const ANSWERS: usize = 64;
const LEAF_FEATURES: u32 = 1;

impl Answers {
    /// None: all are to be asked for.
    pub const fn none() -> Self {
        Self { registers: [ZERO; ANSWERS], known: 0 }
    }

    /// Collects them. `host` is the hardware's CPUID, subleaf 0, of this pCPU.
    pub fn collect(&mut self, host: impl Fn(u32) -> Registers, context: &CpuidContext) {
        self.known = 0;
        for (at, registers) in (0..).zip(&mut self.registers) {
            let leaf = at & 0x1F | (at & 0x20) << 26;
            if is_fixed(leaf) && (leaf != LEAF_FEATURES || context.host_max_basic >= LEAF_FEATURES) {
                *registers = cpuid(leaf, 0, host(leaf), 0, context);
                self.known |= 1 << at;
            }
        }
    }

    /// What [`cpuid`] gives, if it is here. `cr4` reads the guest's CR4.
    #[inline(always)]
    pub fn get(&self, leaf: u32, cr4: impl FnOnce() -> u64) -> Option<Registers> {
        if leaf & 0x7FFF_FFE0 != 0 {
            return None;
        }
        let at = leaf & 0x1F | leaf >> 26;
        if self.known >> at & 1 == 0 {
            return None;
        }
        let [eax, ebx, ecx, edx] = *self.registers.get(at as usize)?;
        let is_on = leaf == LEAF_FEATURES && cr4() & features::CR4_OSXSAVE != 0;
        Some([eax, ebx, if is_on { ecx | 1 << features::ECX_OSXSAVE } else { ecx }, edx])
    }
}

/// Whether the guest gets the same at any time, for every subleaf: but for OSXSAVE in leaf 1.
const fn is_fixed(leaf: u32) -> bool {
    match leaf {
        // What the policy passes on, or makes up, of leaves that have no subleaves; and what is zero for every guest.
        0x0..=0x3 | 0x5 | 0x6 | 0x8 | 0x9 | 0xA | 0x15 | 0x16 => true,
        0x8000_0000..=0x8000_0008 | 0x8000_0019 | 0x8000_001A | 0x8000_001E => true,
        _ => false,
    }
}

fn basic(leaf: u32, subleaf: u32, host: Registers, cr4: u64, context: &CpuidContext) -> Registers {
    let past_host = leaf > context.host_max_basic;
    match leaf {
        LEAF_TOPOLOGY => topology(subleaf, context),
        _ if past_host => ZERO,
        0x1 => features::leaf_1(host, cr4, context),
        0x4 => cache(host, context),
        0x6 => features::leaf_6(),
        0x7 => features::leaf_7(subleaf, host, cr4, context.hidden),
        0xD => features::leaf_d(subleaf, host, context.hidden),
        LEAF_TOPOLOGY_V2 => topology(subleaf, context),
        // Cache descriptors, address translation.
        0x2 | 0x18 => host,
        // Frequencies: some CPUs tell wrong ones, and the guest has those that were measured in the hypervisor's leaves.
        0x15 | 0x16 => ZERO,
        // Serial number, MONITOR, PMU, QoS, SGX, trace, key locker and what is still unknown.
        _ => ZERO,
    }
}

fn extended(leaf: u32, host: Registers, context: &CpuidContext) -> Registers {
    if leaf > context.max_extended() {
        return ZERO;
    }
    match leaf {
        0x8000_0000 => [context.max_extended(), host[1], host[2], host[3]],
        0x8000_0001 => features::leaf_8000_0001(host, context),
        0x8000_0007 => features::leaf_8000_0007(host),
        0x8000_0008 => features::leaf_8000_0008(host, context),
        0x8000_001D => cache(host, context),
        // x2APIC ID; core ID with one thread in each core; one node.
        0x8000_001E => [context.apic_id, context.apic_id & 0xFF, 0, 0],
        0x8000_0021 => features::leaf_8000_0021(host),
        // Brand string, caches and TLBs, large-page TLBs, instruction hints.
        0x8000_0002..=0x8000_0006 | 0x8000_0019 | 0x8000_001A => host,
        // SVM, IBS, LWP, memory encryption, QoS and what is still unknown.
        _ => ZERO,
    }
}

/// Leaves 4 and 0x8000_001D: EAX[31:26] is the package's cores less one, EAX[25:14] the vCPUs that share this cache
/// less one. The last level is shared by all, the others by nobody.
fn cache(host: Registers, context: &CpuidContext) -> Registers {
    let [eax, ebx, ecx, edx] = host;
    if eax & 0x1F == 0 {
        return host;
    }
    let others = context.vcpus.saturating_sub(1);
    let sharing = if (eax >> 5) & 7 >= 3 { others } else { 0 };
    let cores = if context.hypercall == HypercallInstruction::Vmcall { others.min(0x3F) << 26 } else { 0 };
    [eax & 0x3FFF | sharing.min(0xFFF) << 14 | cores, ebx, ecx, edx]
}

/// Leaves 0xB and 0x1F: one thread in each core, all of them in one package.
fn topology(subleaf: u32, context: &CpuidContext) -> Registers {
    const SMT: u32 = 1 << 8;
    const CORE: u32 = 2 << 8;
    let [shift, count, kind] = match subleaf {
        0 => [0, 1, SMT],
        1 => [context.apic_id_bits, context.vcpus, CORE],
        _ => [0, 0, 0],
    };
    [shift, count, kind | subleaf & 0xFF, context.apic_id]
}

/// The hypervisor's leaves. Partita's own have fixed numbers in the second slot. The first slot is VMware's for a
/// Linux guest; for any other it has no signature, only the maximum, so that a guest that scans in steps of 0x100
/// finds Partita's signature where its leaves begin.
fn hypervisor(leaf: u32, context: &CpuidContext) -> Registers {
    let signed = |max, [ebx, ecx, edx]: [u32; 3]| [max, ebx, ecx, edx];
    match (leaf, context.identity) {
        (vmware::LEAF_SIGNATURE, Identity::Linux) => signed(vmware::LEAF_TIMING, vmware::SIGNATURE),
        (vmware::LEAF_SIGNATURE, Identity::Partita) => [abi::LEAF_MAX, 0, 0, 0],
        (vmware::LEAF_TIMING, Identity::Linux) => {
            [context.tsc_khz, context.lapic_khz, vmware::hypercall_flag(context.hypercall), 0]
        }
        (abi::LEAF_SIGNATURE, _) => signed(abi::LEAF_MAX, abi::signature_registers()),
        (abi::LEAF_TIMING, _) => [abi::INTERFACE_VERSION, context.tsc_khz, context.lapic_khz, 0],
        (abi::LEAF_PARTITION, _) => [context.partition, context.vcpu, context.vcpus, context.console_port as u32],
        (abi::LEAF_LIFE, _) => [context.starts, 0, 0, 0],
        _ => ZERO,
    }
}
