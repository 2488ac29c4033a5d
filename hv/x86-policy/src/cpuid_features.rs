//! Which feature bits of CPUID a guest sees.
//!
//! Leaves 1 and 0x8000_0001 are full and known: what is listed is hidden. All others still grow: what is listed is
//! shown, so that a feature that the hypervisor does not know stays away from guests. No bit is shown that the
//! hardware lacks, but "x2APIC" and "hypervisor".

use crate::cpuid::{CpuidContext, Registers};
use crate::cpuid_hidden::HiddenFeatures;

pub(crate) const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;

const fn bits<const N: usize>(numbers: [u32; N]) -> u32 {
    let mut mask = 0;
    let mut at = 0;
    while at < N {
        mask |= 1 << numbers[at];
        at += 1;
    }
    mask
}

const fn range(first: u32, last: u32) -> u32 {
    (u32::MAX >> (31 - last)) & (u32::MAX << first)
}

const fn with(value: u32, bit: u32, on: bool) -> u32 {
    if on { value | 1 << bit } else { value & !(1 << bit) }
}

// Leaf 1.
const ECX_X2APIC: u32 = 21;
pub(crate) const ECX_OSXSAVE: u32 = 27;
const ECX_HYPERVISOR: u32 = 31;
const EDX_HTT: u32 = 28;
const LEAF1_ECX_HIDDEN: u32 = bits([
    2,  // DTES64: debug store
    3,  // MONITOR
    4,  // DS-CPL
    5,  // VMX
    6,  // SMX
    7,  // EIST: frequency control
    8,  // TM2: thermal monitor
    10, // CNXT-ID
    11, // SDBG
    14, // xTPR
    15, // PDCM: performance capabilities
    18, // DCA
]);
const LEAF1_EDX_HIDDEN: u32 = bits([
    7,  // MCE
    12, // MTRR
    14, // MCA
    18, // PSN: serial number
    21, // DS: debug store
    22, // ACPI: thermal monitor
    29, // TM
    31, // PBE
]);

/// Features; EBX[31:24] is the initial APIC ID, EBX[23:16] the vCPUs of the package.
pub(crate) fn leaf_1(host: Registers, cr4: u64, context: &CpuidContext) -> Registers {
    let [eax, ebx, ecx, edx] = host;
    let ebx = ebx & 0xFFFF | context.vcpus.min(0xFF) << 16 | (context.apic_id & 0xFF) << 24;
    let ecx = with(ecx & !LEAF1_ECX_HIDDEN, ECX_OSXSAVE, cr4 & CR4_OSXSAVE != 0);
    let ecx = ecx | 1 << ECX_X2APIC | 1 << ECX_HYPERVISOR;
    let edx = with(edx & !LEAF1_EDX_HIDDEN, EDX_HTT, context.vcpus > 1);
    [eax, ebx, ecx, edx]
}

// Leaf 6. Thermal and power control belong to the hypervisor.
const LEAF6_EAX_ALWAYS: u32 = bits([
    2, // ARAT, whatever the CPU says: guests idle by HLT alone, in which the local APIC's timer goes on
]);

pub(crate) const fn leaf_6() -> Registers {
    [LEAF6_EAX_ALWAYS, 0, 0, 0]
}

// Leaf 7.
const ECX_OSPKE: u32 = 4;
const LEAF7_EBX_SHOWN: u32 = bits([
    0,  // FSGSBASE
    3,  // BMI1
    5,  // AVX2
    6,  // FDP_EXCPTN_ONLY
    7,  // SMEP
    8,  // BMI2
    9,  // ERMS
    10, // INVPCID
    13, // FPU CS and DS deprecated
    16, // AVX512F
    17, // AVX512DQ
    18, // RDSEED
    19, // ADX
    20, // SMAP
    21, // AVX512_IFMA
    23, // CLFLUSHOPT
    24, // CLWB
    28, // AVX512CD
    29, // SHA
    30, // AVX512BW
    31, // AVX512VL
]);
const LEAF7_ECX_SHOWN: u32 = bits([
    0,  // PREFETCHWT1
    1,  // AVX512_VBMI
    2,  // UMIP
    3,  // PKU
    6,  // AVX512_VBMI2
    8,  // GFNI
    9,  // VAES
    10, // VPCLMULQDQ
    11, // AVX512_VNNI
    12, // AVX512_BITALG
    14, // AVX512_VPOPCNTDQ
    22, // RDPID
    25, // CLDEMOTE
    27, // MOVDIRI
    28, // MOVDIR64B
]);
const LEAF7_EDX_SHOWN: u32 = bits([
    4,  // FSRM
    8,  // AVX512_VP2INTERSECT
    10, // MD_CLEAR
    14, // SERIALIZE
    23, // AVX512_FP16
    26, // IBRS and IBPB: SPEC_CTRL and PRED_CMD pass
    27, // STIBP
    31, // SSBD
]);
const LEAF7_1_EAX_SHOWN: u32 = bits([
    4,  // AVX_VNNI
    5,  // AVX512_BF16
    10, // FZRM
    11, // FSRS
    12, // FSRC
    23, // AVX_IFMA
]);

pub(crate) fn leaf_7(subleaf: u32, [eax, ebx, ecx, edx]: Registers, cr4: u64, hidden: HiddenFeatures) -> Registers {
    match subleaf {
        0 => {
            let pku_on = ecx & (1 << 3) != 0 && cr4 & CR4_PKE != 0;
            let ecx = with(ecx & LEAF7_ECX_SHOWN & !hidden.leaf_7_ecx, ECX_OSPKE, pku_on);
            [eax.min(1), ebx & LEAF7_EBX_SHOWN & !hidden.leaf_7_ebx, ecx, edx & LEAF7_EDX_SHOWN]
        }
        1 => [eax & LEAF7_1_EAX_SHOWN, 0, 0, 0],
        _ => [0; 4],
    }
}

// Leaf 0xD. The guest owns XCR0 on its pCPU, so that the sizes the hardware answers with are the guest's.
const XCR0_SHOWN: u32 = bits([
    0, // x87
    1, // SSE
    2, // AVX
    5, // AVX-512 opmask
    6, // AVX-512 ZMM0 to 15, upper halves
    7, // AVX-512 ZMM16 to 31
    9, // PKRU
]);
const LEAFD_1_EAX_SHOWN: u32 = bits([
    0, // XSAVEOPT
    1, // XSAVEC
    2, // XGETBV with ECX = 1
    3, // XSAVES
]);

pub(crate) fn leaf_d(subleaf: u32, [eax, ebx, ecx, edx]: Registers, hidden: HiddenFeatures) -> Registers {
    match subleaf {
        0 => [eax & XCR0_SHOWN, ebx, ecx, 0],
        // ECX, EDX: no supervisor component.
        1 => [eax & LEAFD_1_EAX_SHOWN & !hidden.leaf_d_1_eax, ebx, 0, 0],
        2..=31 if XCR0_SHOWN & (1 << subleaf) != 0 => [eax, ebx, ecx, edx],
        _ => [0; 4],
    }
}

// Leaf 0x8000_0001.
const ECX_CMP_LEGACY: u32 = 1;
const EXT1_ECX_HIDDEN: u32 = bits([
    2,  // SVM
    3,  // extended APIC space: MSRs from 0x840
    9,  // OSVW
    10, // IBS
    12, // SKINIT
    13, // watchdog timer
    15, // LWP
    19, // node ID MSR
    23, // core performance counters
    24, // northbridge performance counters
    26, // breakpoint address masks
    27, // performance TSC
    28, // L2 or L3 performance counters
    29, // MONITORX
    30, // address mask extension
]);
const EXT1_EDX_HIDDEN: u32 = bits([
    7,  // MCE
    12, // MTRR
    14, // MCA
]);

pub(crate) fn leaf_8000_0001([eax, ebx, ecx, edx]: Registers, context: &CpuidContext) -> Registers {
    let ecx = ecx & !EXT1_ECX_HIDDEN;
    // The bit is AMD's own: "cores are counted as threads".
    let several = context.vcpus > 1 && ecx & (1 << ECX_CMP_LEGACY) != 0;
    let edx = edx & !(EXT1_EDX_HIDDEN | context.hidden.leaf_8000_0001_edx);
    [eax, ebx, with(ecx, ECX_CMP_LEGACY, several), edx]
}

// Leaf 0x8000_0007.
const EXT7_EDX_SHOWN: u32 = bits([8]); // invariant TSC

pub(crate) fn leaf_8000_0007([.., edx]: Registers) -> Registers {
    [0, 0, 0, edx & EXT7_EDX_SHOWN]
}

// Leaf 0x8000_0008.
const EXT8_EBX_SHOWN: u32 = bits([
    0, // CLZERO
    2, // XSAVE error pointers
    12, // IBPB
    14, // IBRS
    15, // STIBP
]) | range(16, 19) // IBRS always, STIBP always, IBRS preferred, IBRS same mode
    | bits([
        20, // EFER.LMSLE unsupported
        24, // SSBD
        26, // SSBD not needed
        28, // PSFD
        29, // BTC_NO
        30, // IBPB clears the return predictor
    ]);

/// EAX: address sizes. ECX: the package's vCPUs less one in bits 7:0, the bits of their APIC IDs in 15:12.
pub(crate) fn leaf_8000_0008([eax, ebx, _, _]: Registers, context: &CpuidContext) -> Registers {
    let cores = context.vcpus.saturating_sub(1).min(0xFF);
    [eax & 0xFFFF, ebx & EXT8_EBX_SHOWN, cores | context.apic_id_bits.min(0xF) << 12, 0]
}

// Leaf 0x8000_0021.
const EXT21_EAX_SHOWN: u32 = bits([
    0,  // no nested data breakpoints
    1,  // FS and GS base writes not serialising
    2,  // LFENCE always serialising
    6,  // a null selector clears the base
    27, // SBPB
    28, // IBPB clears branch types
    29, // SRSO_NO
]);

pub(crate) fn leaf_8000_0021([eax, ..]: Registers) -> Registers {
    [eax & EXT21_EAX_SHOWN, 0, 0, 0]
}
