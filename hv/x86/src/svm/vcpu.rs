//! A vCPU of SVM, behind the virtualisation contract.

use core::arch::asm;

use partita_core::system::Entry;
use partita_x86_policy::cpuid::HypercallInstruction;
use partita_x86_policy::msr_values::{efer_from_vmcb, efer_to_vmcb};
use partita_x86_policy::ports::IoAccess;
use partita_x86_policy::svm_exit::SvmExit;

use super::entry::{self, ExitFrame};
use super::vmcb::{Intercepts, Segment, TLB_FLUSH_ALL, Vmcb, event};
use super::{clgi, enable, stgi};
use crate::cpu::idt::{self, WokenBy};
use crate::cpu::read_msr;
use crate::memory::pool::{Pool, PoolExhausted};
use crate::vcpu::Vcpu;
use crate::virt::{Dumped, Exception, Exit, GuestRegisters, PermissionMaps, VirtualCpu};

const FS_BASE: u32 = 0xC000_0100;
const GS_BASE: u32 = 0xC000_0101;
const KERNEL_GS_BASE: u32 = 0xC000_0102;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_SVME: u64 = 1 << 12;
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_RESET: u64 = 0x6000_0010;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const RFLAGS_RESET: u64 = 2;
const RFLAGS_TF: u64 = 1 << 8;
const DR6_RESET: u64 = 0xFFFF_0FF0;
const DR7_RESET: u64 = 0x400;
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// Exceptions that are always intercepted: #DB and #AC, whose delivery can fault for ever without an instruction boundary,
/// and with it without an exit for an NMI.
const ALWAYS_INTERCEPTED: u32 = 1 << DEBUG_VECTOR | 1 << ALIGNMENT_VECTOR;
const DEBUG_VECTOR: u8 = 1;
const ALIGNMENT_VECTOR: u8 = 17;
/// Exit code of RDPMC: the guest has no performance counters.
const RDPMC: u64 = 0x6F;

const CODE_32: u16 = 0xC9B;
const CODE_64: u16 = 0xA9B;
const DATA_32: u16 = 0xC93;
const CODE_16: u16 = 0x09B;
const DATA_16: u16 = 0x093;
const BUSY_TSS: u16 = 0x08B;
const LDT: u16 = 0x082;

/// One guest per pCPU and one vCPU per guest there: all of them use the first ASID that is not the host's.
const GUEST_ASID: u32 = 1;

/// A vCPU of SVM.
#[derive(Debug)]
pub struct SvmVcpu {
    vmcb: &'static mut Vmcb,
}

impl SvmVcpu {
    /// Physical address of the VMCB, which is mapped one to one.
    pub fn vmcb_address(&self) -> u64 {
        &raw const *self.vmcb as u64
    }

    /// Why the guest was left.
    #[inline(always)]
    pub fn exit(&self) -> Exit {
        let control = &self.vmcb.control;
        match SvmExit::decode(control.exit_code, control.exit_info_1) {
            SvmExit::Cpuid => Exit::Cpuid,
            SvmExit::Msr { write: false } => Exit::MsrRead,
            SvmExit::Msr { write: true } => Exit::MsrWrite,
            SvmExit::Ioio => {
                Exit::Io { access: IoAccess::from_svm(control.exit_info_1), next_rip: control.exit_info_2 }
            }
            SvmExit::Vmmcall => Exit::Hypercall,
            SvmExit::Nmi => Exit::Nmi,
            SvmExit::Iret => Exit::NmiReturn,
            SvmExit::Exception { vector: DEBUG_VECTOR } => Exit::Debug,
            SvmExit::Exception { vector: ALIGNMENT_VECTOR } => Exit::Alignment,
            SvmExit::Npf(info) => Exit::NestedPageFault { gpa: control.exit_info_2, detail: info.0 },
            SvmExit::Shutdown => Exit::Shutdown,
            SvmExit::CacheFlush => Exit::Skip(2),
            SvmExit::HiddenInstruction => Exit::Absent,
            SvmExit::Other(RDPMC) => Exit::Refused,
            SvmExit::Invalid => Exit::InvalidState,
            _ => Exit::Other(control.exit_code),
        }
    }

    /// A state that holds for every start: segments flat or real, nothing pending.
    fn reset(&mut self, registers: &mut GuestRegisters, code: Segment, data: Segment) {
        *registers = GuestRegisters::default();
        let save = &mut self.vmcb.save;
        (save.cs, save.ds, save.es, save.ss, save.fs, save.gs) = (code, data, data, data, data, data);
        save.gdtr = Segment { limit: 0xFFFF, ..Segment::default() };
        save.idtr = save.gdtr;
        save.tr = Segment { attributes: BUSY_TSS, limit: 0xFFFF, ..Segment::default() };
        save.ldtr = Segment { attributes: LDT, limit: 0xFFFF, ..Segment::default() };
        (save.cpl, save.efer, save.cr4, save.cr3, save.cr2) = (0, EFER_SVME, 0, 0, 0);
        (save.dr6, save.dr7) = (DR6_RESET, DR7_RESET);
        (save.rflags, save.rsp, save.rax) = (RFLAGS_RESET, 0, 0);
        (save.star, save.lstar, save.cstar, save.sfmask, save.kernel_gs_base) = (0, 0, 0, 0, 0);
        (save.sysenter_cs, save.sysenter_esp, save.sysenter_eip) = (0, 0, 0);
        (save.g_pat, save.dbgctl) = (PAT_RESET, 0);
        let control = &mut self.vmcb.control;
        control.interrupt_shadow = 0;
        control.event_inj = 0;
        control.tlb_control = TLB_FLUSH_ALL;
        control.intercept_iret(false);
        control.intercept_exceptions = ALWAYS_INTERCEPTED;
    }

    fn load(&self) {
        // SAFETY: this is the guest that this pCPU will enter next.
        unsafe { entry::vmload(self.vmcb) };
    }
}

fn flat(selector: u16, attributes: u16) -> Segment {
    Segment { selector, attributes, limit: u32::MAX, base: 0 }
}

impl VirtualCpu for SvmVcpu {
    const HYPERCALL: HypercallInstruction = HypercallInstruction::Vmmcall;

    unsafe fn enable(page: u64) {
        // SAFETY: by the contract of the trait.
        unsafe { enable(page) };
    }

    fn hold_back() {
        clgi();
    }

    unsafe fn run(frame: u64, vcpu: *mut Vcpu<Self>, registers: GuestRegisters) -> ! {
        let frame = frame as *mut ExitFrame;
        // SAFETY: by the contract of the trait.
        unsafe {
            let vmcb = (*vcpu).cpu.vmcb_address();
            frame.write(ExitFrame { registers, vmcb, vcpu });
            entry::run(frame)
        }
    }

    fn new(pool: &mut Pool, nested_root: u64, maps: PermissionMaps) -> Result<Self, PoolExhausted> {
        let page = pool.page()?.cast::<Vmcb>();
        // SAFETY: a zeroed page of the pool, which nobody else has, is an empty VMCB.
        let vmcb = unsafe { &mut *page };
        let control = &mut vmcb.control;
        control.set_intercepts(
            Intercepts::all() - Intercepts::IRET, // which is intercepted only while an NMI is being handled
        );
        control.iopm_base = maps.io;
        control.msrpm_base = maps.msr;
        control.asid = GUEST_ASID;
        control.nested_paging = 1;
        control.nested_cr3 = nested_root;
        Ok(Self { vmcb })
    }

    #[inline(always)]
    fn rax(&self) -> u64 {
        self.vmcb.save.rax
    }

    #[inline(always)]
    fn set_rax(&mut self, value: u64) {
        self.vmcb.save.rax = value;
    }

    #[inline(always)]
    fn rip(&self) -> u64 {
        self.vmcb.save.rip
    }

    fn rsp(&self) -> u64 {
        self.vmcb.save.rsp
    }

    #[inline(always)]
    fn privilege(&self) -> u8 {
        self.vmcb.save.cpl
    }

    #[inline(always)]
    fn cr4(&self) -> u64 {
        self.vmcb.save.cr4
    }

    fn paging(&self) -> bool {
        self.vmcb.save.cr0 & CR0_PG != 0
    }

    fn efer(&self) -> u64 {
        efer_from_vmcb(self.vmcb.save.efer)
    }

    fn set_efer(&mut self, value: u64) {
        // VMRUN demands SVME, which the guest does not see (APM vol. 2 section 15.5.1).
        self.vmcb.save.efer = efer_to_vmcb(value);
    }

    fn registers(&self, general: &GuestRegisters) -> Dumped {
        let (save, g) = (&self.vmcb.save, general);
        let segment = |segment: &Segment| u64::from(segment.selector);
        // SAFETY: these registers exist on every CPU with long mode, and are the guest's, as no exit saves them.
        let [fs_base, gs_base, kernel_gs] = [FS_BASE, GS_BASE, KERNEL_GS_BASE].map(|msr| unsafe { read_msr(msr) });
        let (mut fs, mut gs, mut tr): (u16, u16, u16);
        // SAFETY: reads selectors.
        unsafe {
            asm!("mov {0:x}, fs", "mov {1:x}, gs", "str {2:x}", out(reg) fs, out(reg) gs, out(reg) tr,
                options(nomem, nostack, preserves_flags));
        }
        [
            save.rax,
            g.rbx,
            g.rcx,
            g.rdx,
            g.rsi,
            g.rdi,
            g.rbp,
            save.rsp,
            g.r8,
            g.r9,
            g.r10,
            g.r11,
            g.r12,
            g.r13,
            g.r14,
            g.r15,
            save.rip,
            save.rflags,
            save.cr0,
            save.cr2,
            save.cr3,
            save.cr4,
            self.efer(),
            segment(&save.cs),
            segment(&save.ss),
            segment(&save.ds),
            segment(&save.es),
            fs.into(),
            gs.into(),
            tr.into(),
            fs_base,
            gs_base,
            kernel_gs,
            save.gdtr.base,
            save.idtr.base,
            save.dr6,
            save.dr7,
            save.cpl.into(),
            save.g_pat,
        ]
    }

    #[inline(always)]
    fn skip(&mut self, len: u64) {
        self.skip_to(self.vmcb.save.rip.wrapping_add(len));
    }

    #[inline(always)]
    fn skip_to(&mut self, rip: u64) {
        self.vmcb.save.rip = rip;
        self.vmcb.control.interrupt_shadow = 0;
    }

    fn inject_exception(&mut self, exception: Exception) {
        self.vmcb.control.event_inj = match exception {
            Exception::InvalidOpcode => event::EXCEPTION | 6,
            Exception::GeneralProtection => event::EXCEPTION | event::ERROR_CODE | 13,
            Exception::Debug => event::EXCEPTION | u64::from(DEBUG_VECTOR),
            Exception::AlignmentCheck => event::EXCEPTION | event::ERROR_CODE | u64::from(ALIGNMENT_VECTOR),
        };
    }

    #[inline]
    fn delivers(&self) -> bool {
        self.vmcb.control.event_inj & event::VALID != 0
    }

    fn inject_nmi(&mut self) {
        self.vmcb.control.event_inj = event::NMI;
        self.vmcb.control.intercept_iret(true);
    }

    fn watch_nmi_return(&mut self, on: bool) {
        self.vmcb.control.intercept_iret(on);
    }

    fn step_nmi_return(&mut self) {
        self.vmcb.control.intercept_iret(false);
        self.vmcb.save.rflags |= RFLAGS_TF;
    }

    fn in_shadow(&self) -> bool {
        self.vmcb.control.interrupt_shadow & 1 != 0
    }

    fn enter_shadow(&mut self) {
        self.vmcb.control.interrupt_shadow = 1;
    }

    fn discard_events(&mut self) {
        let control = &mut self.vmcb.control;
        (control.event_inj, control.exit_int_info) = (0, 0);
    }

    fn start_at(&mut self, entry: &Entry, registers: &mut GuestRegisters) {
        match *entry {
            Entry::Pvh { entry, start_info } => {
                self.reset(registers, flat(0x08, CODE_32), flat(0x10, DATA_32));
                self.vmcb.save.cr0 = CR0_PE | CR0_ET;
                self.vmcb.save.rip = entry.into();
                registers.rbx = start_info.into();
            }
            Entry::Linux64 { entry, boot_params, page_tables, gdt } => {
                self.reset(registers, flat(0x10, CODE_64), flat(0x18, DATA_32));
                let save = &mut self.vmcb.save;
                save.gdtr = Segment { limit: 0x1F, base: gdt, ..Segment::default() };
                save.cr0 = CR0_PG | CR0_PE | CR0_ET;
                save.cr4 = CR4_PAE;
                save.cr3 = page_tables;
                save.efer = EFER_SVME | EFER_LME | EFER_LMA;
                save.rip = entry;
                registers.rsi = boot_params;
            }
        }
        self.load();
    }

    fn start_up(&mut self, vector: u8, registers: &mut GuestRegisters) {
        let code = Segment {
            selector: u16::from(vector) << 8,
            attributes: CODE_16,
            limit: 0xFFFF,
            base: u64::from(vector) << 12,
        };
        self.reset(registers, code, Segment { attributes: DATA_16, limit: 0xFFFF, ..Segment::default() });
        self.vmcb.save.cr0 = CR0_RESET;
        self.vmcb.save.rip = 0;
        self.load();
    }

    fn started(&mut self) {
        self.vmcb.control.tlb_control = 0;
    }

    #[inline(always)]
    fn take_nmi(&mut self) {
        stgi();
        clgi();
        // An event whose delivery the exit cut short (APM vol. 2 section 15.7.2).
        let cut_short = self.vmcb.control.exit_int_info;
        if cut_short & event::VALID != 0 {
            self.vmcb.control.event_inj = cut_short;
        }
    }

    fn let_in(act: impl FnOnce()) {
        stgi();
        act();
        clgi();
    }

    fn park_while(by: WokenBy, idle: impl Fn() -> bool) {
        stgi();
        idt::park_while(by, idle);
        clgi();
    }
}
