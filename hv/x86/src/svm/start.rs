//! The states in which a vCPU starts: as after power-on, as an image format asks, and as INIT and a start-up IPI leave it.

use core::arch::asm;

use partita_core::system::Entry;

use super::entry;
use super::vcpu::{ALWAYS_INTERCEPTED, SvmVcpu};
use super::vmcb::{Segment, TLB_FLUSH_ALL};
use crate::cpu::features::cpuid;
use crate::virt::GuestRegisters;

const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_SVME: u64 = 1 << 12;
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
/// NW and CD, which INIT leaves alone.
const CR0_CACHE: u64 = 0x6000_0000;
const CR0_RESET: u64 = CR0_CACHE | CR0_ET;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const RFLAGS_RESET: u64 = 2;
const DR6_RESET: u64 = 0xFFFF_0FF0;
const DR7_RESET: u64 = 0x400;
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
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

fn flat(selector: u16, attributes: u16) -> Segment {
    Segment { selector, attributes, limit: u32::MAX, base: 0 }
}

/// A segment of real mode.
fn real(selector: u16, attributes: u16) -> Segment {
    Segment { selector, attributes, limit: 0xFFFF, base: u64::from(selector) << 4 }
}

impl SvmVcpu {
    /// What power-on and INIT do alike (APM vol. 2 section 14.1.3): registers, segments, nothing pending.
    fn clear(&mut self, registers: &mut GuestRegisters) {
        // EDX has family, model and stepping.
        *registers = GuestRegisters { rdx: cpuid(1, 0)[0].into(), ..GuestRegisters::default() };
        self.before_step = None;
        let save = &mut self.vmcb.save;
        let data = real(0, DATA_16);
        (save.cs, save.ds, save.es, save.ss, save.fs, save.gs) = (real(0, CODE_16), data, data, data, data, data);
        save.gdtr = Segment { limit: 0xFFFF, ..Segment::default() };
        save.idtr = save.gdtr;
        save.tr = Segment { attributes: BUSY_TSS, limit: 0xFFFF, ..Segment::default() };
        save.ldtr = Segment { attributes: LDT, limit: 0xFFFF, ..Segment::default() };
        (save.cpl, save.efer, save.cr4, save.cr3, save.cr2) = (0, EFER_SVME, 0, 0, 0);
        (save.dr6, save.dr7) = (DR6_RESET, DR7_RESET);
        (save.rflags, save.rsp, save.rax, save.rip) = (RFLAGS_RESET, 0, 0, 0);
        let control = &mut self.vmcb.control;
        control.interrupt_shadow = 0;
        (control.event_inj, control.exit_int_info) = (0, 0);
        control.tlb_control = TLB_FLUSH_ALL;
        control.intercept_iret(false);
        control.intercept_exceptions = ALWAYS_INTERCEPTED;
    }

    /// The state after power-on, model-specific registers included.
    pub(super) fn reset(&mut self, registers: &mut GuestRegisters) {
        self.clear(registers);
        let save = &mut self.vmcb.save;
        (save.star, save.lstar, save.cstar, save.sfmask, save.kernel_gs_base) = (0, 0, 0, 0, 0);
        (save.sysenter_cs, save.sysenter_esp, save.sysenter_eip) = (0, 0, 0);
        (save.g_pat, save.dbgctl) = (PAT_RESET, 0);
        save.cr0 = CR0_RESET;
        self.load();
    }

    /// The state that INIT and a start-up IPI with `vector` leave: model-specific registers, PAT among them, and the
    /// cache control of CR0 stay (APM vol. 2 section 14.1.3, table 14-2).
    pub(super) fn init(&mut self, registers: &mut GuestRegisters, vector: u8) {
        // SAFETY: the VMCB is the guest's whose state this pCPU has.
        unsafe { entry::vmsave(self.vmcb) };
        let caching = self.vmcb.save.cr0 & CR0_CACHE;
        self.clear(registers);
        let save = &mut self.vmcb.save;
        save.cr0 = caching | CR0_ET;
        save.cs = real(u16::from(vector) << 8, CODE_16);
        self.load();
        // SAFETY: the hypervisor sets no breakpoints, so that their addresses are without meaning to it.
        unsafe {
            asm!("mov dr0, {zero}", "mov dr1, {zero}", "mov dr2, {zero}", "mov dr3, {zero}", zero = in(reg) 0_u64,
                options(nomem, nostack, preserves_flags));
        }
    }

    /// The state that an image format asks for, after [`Self::reset`].
    pub(super) fn enter_at(&mut self, entry: &Entry, registers: &mut GuestRegisters) {
        match *entry {
            Entry::Pvh { entry, start_info } => {
                self.protect(entry);
                registers.rbx = start_info.into();
            }
            Entry::Multiboot { entry, info } => {
                self.protect(entry);
                self.vmcb.save.rax = MULTIBOOT_MAGIC;
                registers.rbx = info.into();
            }
            Entry::Linux64 { entry, boot_params, page_tables, gdt } => {
                self.lengthen(entry, page_tables, gdt);
                registers.rsi = boot_params;
            }
            Entry::Long { entry, start_info, page_tables, gdt } => {
                self.lengthen(entry, page_tables, gdt);
                registers.rdi = start_info;
            }
            Entry::Real { segment, offset } => {
                self.vmcb.save.cs = real(segment, CODE_16);
                self.vmcb.save.rip = offset.into();
            }
            // Its partition is not started.
            Entry::Missing => {}
        }
        self.load();
    }

    fn segments(&mut self, code: Segment, data: Segment) {
        let save = &mut self.vmcb.save;
        (save.cs, save.ds, save.es, save.ss, save.fs, save.gs) = (code, data, data, data, data, data);
    }

    /// 32-bit protected mode without paging, with the task register as PVH asks for it.
    fn protect(&mut self, entry: u32) {
        self.segments(flat(0x08, CODE_32), flat(0x10, DATA_32));
        self.vmcb.save.tr.limit = PVH_TSS_LIMIT;
        self.vmcb.save.cr0 = CR0_PE | CR0_ET;
        self.vmcb.save.rip = entry.into();
    }

    /// Long mode.
    fn lengthen(&mut self, entry: u64, page_tables: u64, gdt: u64) {
        self.segments(flat(0x10, CODE_64), flat(0x18, DATA_32));
        let save = &mut self.vmcb.save;
        save.gdtr = Segment { limit: 0x1F, base: gdt, ..Segment::default() };
        save.cr0 = CR0_PG | CR0_PE | CR0_ET;
        save.cr4 = CR4_PAE;
        save.cr3 = page_tables;
        save.efer = EFER_SVME | EFER_LME | EFER_LMA;
        save.rip = entry;
    }

    fn load(&self) {
        // SAFETY: this is the guest that this pCPU will enter next.
        unsafe { entry::vmload(self.vmcb) };
    }
}
