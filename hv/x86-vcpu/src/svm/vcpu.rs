//! A vCPU of SVM, behind the virtualisation contract.

use core::arch::asm;
use core::fmt;

use partita_x86_policy::cpuid::HypercallInstruction;
use partita_x86_policy::io_breakpoint;
use partita_x86_policy::msr::{MSRPM_LEN, MsrPolicy};
use partita_x86_policy::msr_values::{efer_from_vmcb, efer_to_vmcb};
use partita_x86_policy::ports::IoAccess;
use partita_x86_policy::start_state::StartState;
use partita_x86_policy::svm_exit::SvmExit;

use super::entry;
use super::vmcb::{Intercepts, Segment, Vmcb, event};
use super::{clgi, enable, stgi};
use crate::cpu::idt::{self, WokenBy};
use crate::cpu::{extended, features, read_msr};
use crate::memory::nested::NestedFormat;
use crate::memory::pool::{Pool, PoolExhausted};
use crate::vcpu::Vcpu;
use crate::vcpu::frame::{self, ExitFrame, Quick};
use crate::vcpu::quick::{RFLAGS_RF, RFLAGS_TF};
use crate::virt::{Dumped, Exception, Exit, GuestRegisters, PermissionMaps, VirtualCpu};

const FS_BASE: u32 = 0xC000_0100;
const GS_BASE: u32 = 0xC000_0101;
const KERNEL_GS_BASE: u32 = 0xC000_0102;
const CR0_PE: u64 = 1;
const DR6_BREAKPOINTS: u64 = 0xF;
const DR6_SINGLE_STEP: u64 = 1 << 14;
/// Exceptions that are always intercepted: #DB and #AC, whose delivery can fault for ever without an instruction boundary,
/// and with it without an exit for an NMI.
pub(super) const ALWAYS_INTERCEPTED: u32 = 1 << DEBUG_VECTOR | 1 << ALIGNMENT_VECTOR;
const DEBUG_VECTOR: u8 = 1;
const ALIGNMENT_VECTOR: u8 = 17;
/// Exit code of RDPMC: the guest has no performance counters.
const RDPMC: u64 = 0x6F;
/// ECX of CPUID leaf 0x80000001: SVM.
const EXT_ECX_SVM: u32 = 1 << 2;

/// One guest per pCPU and one vCPU per guest there: all of them use the first ASID that is not the host's.
const GUEST_ASID: u32 = 1;

/// A vCPU of SVM.
#[derive(Debug)]
pub struct SvmVcpu {
    pub(super) vmcb: &'static mut Vmcb,
    /// DR6 and the guest's own TF before the hypervisor's step over an IRET, while that is under way.
    pub(super) before_step: Option<(u64, bool)>,
    /// Whether this is Bochs' generic CPU, which exits for a #DB before it writes the reason into DR6. On any other CPU an INT1 has no
    /// reason, and is the guest's.
    loses_debug_reasons: bool,
}

impl SvmVcpu {
    /// After an exit for an NMI: lets it in. What the exit kept from the guest is delivered at the next entry.
    fn take_nmi(&mut self) {
        stgi();
        clgi();
        // An event whose delivery the exit cut short (APM vol. 2 section 15.7.2).
        let cut_short = self.vmcb.control.exit_int_info;
        if cut_short & event::VALID != 0 {
            self.vmcb.control.event_inj = cut_short;
        }
    }

    fn go_to(&mut self, rip: u64) -> bool {
        self.vmcb.save.rip = rip;
        self.vmcb.control.interrupt_shadow = 0;
        self.vmcb.save.rflags & (RFLAGS_TF | RFLAGS_RF) != 0
    }

    /// Physical address of the VMCB, which is mapped one to one.
    pub fn vmcb_address(&self) -> u64 {
        &raw const *self.vmcb as u64
    }
}

impl VirtualCpu for SvmVcpu {
    const HYPERCALL: HypercallInstruction = HypercallInstruction::Vmmcall;
    const HOLDS_NMIS: bool = false;
    const NESTED: NestedFormat = NestedFormat::NPT;

    fn exit(&mut self, _registers: &GuestRegisters) -> Exit {
        let control = &self.vmcb.control;
        match SvmExit::decode(control.exit_code, control.exit_info_1) {
            SvmExit::Cpuid => Exit::Cpuid,
            SvmExit::Msr { write: false } => Exit::MsrRead,
            SvmExit::Msr { write: true } => Exit::MsrWrite,
            SvmExit::Ioio => Exit::Io,
            SvmExit::Vmmcall => Exit::Hypercall,
            SvmExit::Nmi => {
                self.take_nmi();
                Exit::Nmi
            }
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

    fn fill_msr_map(policy: MsrPolicy, map: &mut [u8; MSRPM_LEN]) {
        policy.fill_msrpm(map);
    }

    unsafe fn enable(page: u64) -> bool {
        // SAFETY: by the contract of the trait.
        unsafe { enable(page) };
        true
    }

    unsafe fn take_over(&mut self) {
        clgi();
    }

    unsafe fn run(vcpu: *mut Vcpu<Self>) -> ! {
        // SAFETY: by the contract of the trait.
        unsafe {
            let registers = (*vcpu).begin();
            let (vendor, quick) = ((*vcpu).cpu.vmcb_address(), Quick::of(&*vcpu, &raw const (*vcpu).inbox));
            let frame = frame::own();
            frame.write(ExitFrame { registers, vendor, vcpu, quick });
            entry::run(&mut *frame)
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
        // Only there is SVM not shown by this bit.
        let loses_debug_reasons = features::cpuid(0x8000_0001, 0)[2] & EXT_ECX_SVM == 0;
        Ok(Self { vmcb, before_step: None, loses_debug_reasons })
    }

    fn rax(&self) -> u64 {
        self.vmcb.save.rax
    }

    fn set_rax(&mut self, value: u64) {
        self.vmcb.save.rax = value;
    }

    fn rip(&self) -> u64 {
        self.vmcb.save.rip
    }

    fn rsp(&self) -> u64 {
        self.vmcb.save.rsp
    }

    fn privilege(&self) -> u8 {
        self.vmcb.save.cpl
    }

    fn cr4(&self) -> u64 {
        self.vmcb.save.cr4
    }

    fn cr0(&self) -> u64 {
        self.vmcb.save.cr0
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

    fn go_on(&mut self, len: u64) -> bool {
        self.go_to(self.vmcb.save.rip.wrapping_add(len))
    }

    fn go_behind_io(&mut self) -> bool {
        self.go_to(self.vmcb.control.exit_info_2)
    }

    /// RF and TF: APM vol. 2 section 13.1.4. If TF is the hypervisor's, the IRET that it was for has faulted, and the guest has
    /// got here from its handler: the step is over.
    #[cold]
    fn end_step(&mut self) {
        let own = self.before_step.take();
        let save = &mut self.vmcb.save;
        save.rflags &= !RFLAGS_RF;
        if own.is_some_and(|(_, is_guests)| !is_guests) {
            save.rflags &= !RFLAGS_TF;
        } else if save.rflags & RFLAGS_TF != 0 {
            save.dr6 |= DR6_SINGLE_STEP;
            self.inject_exception(Exception::Debug);
        }
    }

    fn io_access(&self) -> IoAccess {
        IoAccess::from_svm(self.vmcb.control.exit_info_1)
    }

    fn may_trap_on_io(&self) -> bool {
        io_breakpoint::may_hit(self.vmcb.save.dr7)
    }

    #[cold]
    fn trap_on_io(&mut self) {
        let access = self.io_access();
        let save = &mut self.vmcb.save;
        let hits = io_breakpoint::hits(access, save.dr7, save.cr4, extended::breakpoints());
        if hits != 0 {
            save.dr6 |= hits;
            self.inject_exception(Exception::Debug);
        }
    }

    fn inject_exception(&mut self, exception: Exception) {
        // Real mode has no error codes (APM vol. 2 section 15.20).
        let with_code = if self.vmcb.save.cr0 & CR0_PE != 0 { event::ERROR_CODE } else { 0 };
        self.vmcb.control.event_inj = match exception {
            Exception::InvalidOpcode => event::EXCEPTION | 6,
            Exception::GeneralProtection => event::EXCEPTION | with_code | 13,
            Exception::Debug => event::EXCEPTION | u64::from(DEBUG_VECTOR),
            Exception::AlignmentCheck => event::EXCEPTION | with_code | u64::from(ALIGNMENT_VECTOR),
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
        let save = &mut self.vmcb.save;
        self.before_step.get_or_insert((save.dr6, save.rflags & RFLAGS_TF != 0));
        save.rflags |= RFLAGS_TF;
    }

    fn steps_nmi_return(&self) -> bool {
        self.before_step.is_some()
    }

    fn has_stepped(&self) -> bool {
        let dr6 = self.vmcb.save.dr6;
        self.before_step
            .is_some_and(|(before, _)| dr6 & DR6_SINGLE_STEP != 0 || self.loses_debug_reasons && dr6 == before)
    }

    fn end_nmi_return(&mut self) -> bool {
        let Some((before, is_guests)) = self.before_step.take() else { return false };
        let dr6 = &mut self.vmcb.save.dr6;
        let hits = *dr6 & !before & DR6_BREAKPOINTS;
        if !is_guests {
            *dr6 = *dr6 & !DR6_SINGLE_STEP | before & DR6_SINGLE_STEP;
        }
        is_guests || hits != 0
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

    fn power_on(&mut self, state: &StartState, registers: &mut GuestRegisters) {
        self.clear_registers();
        self.set(state, registers);
    }

    fn start_up(&mut self, state: &StartState, registers: &mut GuestRegisters) {
        self.save_registers();
        self.set(state, registers);
    }

    fn explain(&self, exit: Exit, out: &mut impl fmt::Write) -> fmt::Result {
        self.explain_exit(exit, out)
    }

    fn started(&mut self) {
        self.vmcb.control.tlb_control = 0;
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
