//! The states in which a vCPU starts: as after power-on, as an image format asks, and as INIT and a start-up IPI leave it. The
//! vendors' backends only put them where their extension wants them.

use partita_core::system::Entry;

/// A segment register, laid out as in the VMCB: attributes are bits 55:52 and 47:40 of the descriptor (APM vol. 2 section
/// 15.5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Attributes: type, S, DPL and P in bits 7:0, AVL, L, D/B and G in bits 11:8.
    pub attributes: u16,
    /// Limit in bytes.
    pub limit: u32,
    /// Base.
    pub base: u64,
}

/// A descriptor table register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRegister {
    /// Base.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u32,
}

/// What a start sets of a CPU. Registers that are not here are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartState {
    /// CS.
    pub cs: Segment,
    /// SS.
    pub ss: Segment,
    /// DS, ES, FS and GS.
    pub data: Segment,
    /// LDTR.
    pub ldtr: Segment,
    /// TR.
    pub tr: Segment,
    /// GDTR.
    pub gdtr: TableRegister,
    /// IDTR.
    pub idtr: TableRegister,
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER as the guest sees it.
    pub efer: u64,
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RIP.
    pub rip: u64,
    /// RAX.
    pub rax: u64,
    /// RBX.
    pub rbx: u64,
    /// RDX.
    pub rdx: u64,
    /// RSI.
    pub rsi: u64,
    /// RDI.
    pub rdi: u64,
}

/// PAT after power-on (APM vol. 2 section 7.8.1).
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;

const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
/// NW and CD, which INIT leaves alone.
const CR0_CACHE: u64 = 0x6000_0000;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const RFLAGS_RESET: u64 = 2;
const DR6_RESET: u64 = 0xFFFF_0FF0;
const DR7_RESET: u64 = 0x400;
/// What a multiboot loader leaves in EAX (Multiboot Specification 0.6.96, section 3.2).
const MULTIBOOT_MAGIC: u64 = 0x2BAD_B002;
/// Limit of the task register at a PVH start (Xen, docs/misc/pvh.pandoc).
const PVH_TSS_LIMIT: u32 = 0x67;

const CODE_32: u16 = 0xC9B;
const CODE_64: u16 = 0xA9B;
const DATA_32: u16 = 0xC93;
const CODE_16: u16 = 0x09B;
const DATA_16: u16 = 0x093;
const BUSY_TSS: u16 = 0x08B;
const LDT: u16 = 0x082;
const REAL_LIMIT: u32 = 0xFFFF;

const fn flat(selector: u16, attributes: u16) -> Segment {
    Segment { selector, attributes, limit: u32::MAX, base: 0 }
}

/// A segment of real mode.
const fn real(selector: u16, attributes: u16) -> Segment {
    Segment { selector, attributes, limit: REAL_LIMIT, base: (selector as u64) << 4 }
}

impl StartState {
    /// After power-on, but for the reset vector, which no partition has (APM vol. 2 section 14.1.3, table 14-1).
    /// `signature` is CPUID 1 EAX: family, model and stepping.
    pub const fn power_on(signature: u32) -> Self {
        Self::clear(signature, CR0_CACHE)
    }

    /// After INIT and a start-up IPI with `vector`; `cr0` is what the CPU had before: its cache control stays.
    pub const fn start_up(signature: u32, cr0: u64, vector: u8) -> Self {
        let mut state = Self::clear(signature, cr0 & CR0_CACHE);
        state.cs = real((vector as u16) << 8, CODE_16);
        state
    }

    /// What power-on and INIT do alike.
    const fn clear(signature: u32, caching: u64) -> Self {
        let data = real(0, DATA_16);
        let table = TableRegister { base: 0, limit: REAL_LIMIT };
        Self {
            cs: real(0, CODE_16),
            ss: data,
            data,
            ldtr: real(0, LDT),
            tr: real(0, BUSY_TSS),
            gdtr: table,
            idtr: table,
            cr0: caching | CR0_ET,
            cr3: 0,
            cr4: 0,
            efer: 0,
            dr6: DR6_RESET,
            dr7: DR7_RESET,
            rflags: RFLAGS_RESET,
            rip: 0,
            rax: 0,
            rbx: 0,
            rdx: signature as u64,
            rsi: 0,
            rdi: 0,
        }
    }

    /// As an image format asks for it, after power-on.
    pub const fn at(signature: u32, entry: &Entry) -> Self {
        let mut state = Self::power_on(signature);
        match *entry {
            Entry::Pvh { entry, start_info } => {
                state.protect(entry);
                state.rbx = start_info as u64;
            }
            Entry::Multiboot { entry, info } => {
                state.protect(entry);
                state.rax = MULTIBOOT_MAGIC;
                state.rbx = info as u64;
            }
            Entry::Linux64 { entry, boot_params, page_tables, gdt } => {
                state.lengthen(entry, page_tables, gdt);
                state.rsi = boot_params;
            }
            Entry::Long { entry, start_info, page_tables, gdt } => {
                state.lengthen(entry, page_tables, gdt);
                state.rdi = start_info;
            }
            Entry::Real { segment, offset } => {
                state.cs = real(segment, CODE_16);
                state.rip = offset as u64;
            }
            // Its partition is not started.
            Entry::Missing => {}
        }
        state
    }

    /// 32-bit protected mode without paging, with the task register as PVH asks for it.
    const fn protect(&mut self, entry: u32) {
        self.cs = flat(0x08, CODE_32);
        self.data = flat(0x10, DATA_32);
        self.ss = self.data;
        self.tr.limit = PVH_TSS_LIMIT;
        self.cr0 = CR0_PE | CR0_ET;
        self.rip = entry as u64;
    }

    /// Long mode.
    const fn lengthen(&mut self, entry: u64, page_tables: u64, gdt: u64) {
        self.cs = flat(0x10, CODE_64);
        self.data = flat(0x18, DATA_32);
        self.ss = self.data;
        self.gdtr = TableRegister { base: gdt, limit: 0x1F };
        self.cr0 = CR0_PG | CR0_PE | CR0_ET;
        self.cr4 = CR4_PAE;
        self.cr3 = page_tables;
        self.efer = EFER_LME | EFER_LMA;
        self.rip = entry;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: u32 = 0x806C1;

    #[test]
    fn power_on_is_real_mode_with_caches_off() {
        let state = StartState::power_on(SIGNATURE);
        assert_eq!((state.cr0, state.cr4, state.efer), (0x6000_0010, 0, 0));
        assert_eq!((state.cs.attributes, state.cs.limit, state.cs.base), (0x09B, 0xFFFF, 0));
        assert_eq!((state.rdx, state.rflags, state.dr7), (SIGNATURE.into(), 2, 0x400));
    }

    #[test]
    fn a_start_up_ipi_names_a_page_and_keeps_the_cache_control() {
        for (cr0, kept) in [(0x8001_0033, 0x10), (0xE001_0033, 0x6000_0010), (0x4000_0010, 0x4000_0010)] {
            let state = StartState::start_up(SIGNATURE, cr0, 0x9A);
            assert_eq!(state.cr0, kept);
            assert_eq!((state.cs.selector, state.cs.base, state.rip), (0x9A00, 0x9_A000, 0));
        }
    }

    #[test]
    fn each_format_has_its_mode_and_its_registers() {
        let pvh = StartState::at(SIGNATURE, &Entry::Pvh { entry: 0x10_0000, start_info: 0x5000 });
        assert_eq!((pvh.cr0, pvh.rip, pvh.rbx, pvh.tr.limit), (0x11, 0x10_0000, 0x5000, 0x67));
        let multiboot = StartState::at(SIGNATURE, &Entry::Multiboot { entry: 0x10_0000, info: 0x6000 });
        assert_eq!((multiboot.cr0, multiboot.rax, multiboot.rbx), (0x11, 0x2BAD_B002, 0x6000));
        let entry = Entry::Linux64 { entry: 0x100_0200, boot_params: 0x7000, page_tables: 0x8000, gdt: 0x9000 };
        let linux = StartState::at(SIGNATURE, &entry);
        assert_eq!((linux.cr0, linux.cr4, linux.efer, linux.cr3), (0x8000_0011, 0x20, 0x500, 0x8000));
        assert_eq!((linux.rsi, linux.cs.attributes, linux.cs.selector), (0x7000, 0xA9B, 0x10));
        let long = Entry::Long { entry: 0x20_0000, start_info: 0x5000, page_tables: 0x8000, gdt: 0x9000 };
        assert_eq!(StartState::at(SIGNATURE, &long).rdi, 0x5000);
        let real = StartState::at(SIGNATURE, &Entry::Real { segment: 0xF000, offset: 0xFFF0 });
        assert_eq!((real.cs.base, real.rip, real.cr0 & 1), (0xF_0000, 0xFFF0, 0));
    }
}
