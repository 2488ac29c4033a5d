//! A vCPU of VMX, behind the virtualisation contract.

use core::arch::asm;
use core::fmt;

use partita_x86_policy::capabilities::Vmx;
use partita_x86_policy::cpuid::HypercallInstruction;
use partita_x86_policy::io_breakpoint;
use partita_x86_policy::msr::{MSRPM_LEN, MsrPolicy};
use partita_x86_policy::ports::IoAccess;
use partita_x86_policy::start_state::StartState;
use partita_x86_policy::vmx::control::Entry;
use partita_x86_policy::vmx::event::pending_debug::{BREAKPOINTS, ENABLED_BREAKPOINT};
use partita_x86_policy::vmx::event::{EntryEvent, Interruptibility};
use partita_x86_policy::vmx::field::{self, SegmentFields, segment};
use partita_x86_policy::vmx::guest_state::AccessRights;

use super::entry;
use super::event::{AwaitsNmiWindow, read_dr6, write_dr6};
use super::vmcs::Vmcs;
use super::{BOOT, enable};
use crate::cpu::idt::{self, WokenBy};
use crate::cpu::{extended, read_msr};
use crate::memory::nested::NestedFormat;
use crate::memory::pool::{Pool, PoolExhausted};
use crate::vcpu::Vcpu;
use crate::vcpu::frame::{self, Quick};
use crate::vcpu::quick::{RFLAGS_RF, RFLAGS_TF};
use crate::virt::{Dumped, Exception, Exit, GuestRegisters, PermissionMaps, VirtualCpu};

const KERNEL_GS_BASE: u32 = 0xC000_0102;
const CR0_PE: u64 = 1;
/// NW and CD: an exit would not take them back, and the hypervisor would run without caches.
const CR0_CACHE: u64 = 0x6000_0000;
/// Bits of CR4 whose features guests are shown (`partita_x86_policy::cpuid_features`); all others are reserved to them: VME to
/// UMIP, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP, PKE.
const CR4_SHOWN: u64 = 0xFFF | 0b111 << 16 | 0b111 << 20;
/// L of a code segment's access rights.
const CODE_64: u32 = 1 << 13;
const DR6_SINGLE_STEP: u64 = 1 << 14;
const DEBUG: u8 = 1;
const INVALID_OPCODE: u8 = 6;
const GENERAL_PROTECTION: u8 = 13;
const ALIGNMENT: u8 = 17;

/// A vCPU of VMX.
#[derive(Debug)]
pub struct VmxVcpu {
    vmcs: Vmcs,
    boot: &'static Vmx,
    nested_root: u64,
    maps: PermissionMaps,
    /// Where its nested tables lie: first address and length of the pool.
    pub(super) pool: (u64, u64),
    pub(super) awaits: AwaitsNmiWindow,
}

impl VmxVcpu {
    pub(super) fn vmcs(&self) -> &Vmcs {
        &self.vmcs
    }

    pub(super) fn vmcs_mut(&mut self) -> &mut Vmcs {
        &mut self.vmcs
    }

    pub(super) fn boot(&self) -> &'static Vmx {
        self.boot
    }

    pub(super) fn flush(&self) {
        self.vmcs.flush(self.boot);
    }

    /// Where RAX is: in the frame of this pCPU.
    fn rax_place(&self) -> *mut u64 {
        // SAFETY: a place in the frame, which every pCPU with a vCPU has.
        unsafe { &raw mut (*frame::own::<Self>()).vendor }
    }

    pub(super) fn set_own_rax(&mut self, value: u64) {
        // SAFETY: as above; nobody else writes there, as the guest does not run.
        unsafe { self.rax_place().write(value) };
    }

    /// Bits of CR0 that the guest changes only where it reads them.
    pub(super) fn own_cr0(&self) -> u64 {
        self.boot.capabilities.guest_cr0().must_be_1 | CR0_CACHE
    }

    /// Bits of CR4 that the guest cannot change.
    pub(super) fn own_cr4(&self) -> u64 {
        self.boot.capabilities.cr4.must_be_1 | !CR4_SHOWN
    }

    /// CR0 of the CPU for what the guest sees.
    pub(super) fn guest_cr0(&self, seen: u64) -> u64 {
        self.boot.capabilities.guest_cr0().apply(seen & !CR0_CACHE)
    }

    /// CR4 of the CPU for what the guest sees.
    pub(super) fn guest_cr4(&self, seen: u64) -> u64 {
        self.boot.capabilities.cr4.apply(seen)
    }

    /// RIP behind the instruction that exited.
    pub(super) fn next_rip(&self) -> u64 {
        let length = self.vmcs.read(field::VM_EXIT_INSTRUCTION_LENGTH);
        self.rip().wrapping_add(length.into())
    }

    /// Takes back the carry of a RIP that the hypervisor has moved over 4 GiB outside of 64-bit mode, where it wraps: an entry
    /// refuses it (SDM vol. 3 section 27.3.1.4). `false` if there is none.
    pub(super) fn wrap_rip(&mut self) -> bool {
        let rip = self.rip();
        let is_long =
            Entry::from_bits_retain(self.vmcs.read(field::VM_ENTRY_CONTROLS)).contains(Entry::IA32E_MODE_GUEST);
        let is_64_bit = is_long && self.vmcs.read(segment::CS.access_rights) & CODE_64 != 0;
        if is_64_bit || rip >> 32 == 0 {
            return false;
        }
        self.vmcs.write(field::GUEST_RIP, rip & 0xFFFF_FFFF);
        true
    }

    /// Ends what the NMI handler asked for: that the next entry exits at once.
    pub(super) fn disarm(&mut self) {
        self.vmcs.write(field::PIN_BASED_CONTROLS, self.boot.controls.pin.bits());
    }
}

impl VirtualCpu for VmxVcpu {
    const HYPERCALL: HypercallInstruction = HypercallInstruction::Vmcall;
    const HOLDS_NMIS: bool = true;
    const NESTED: NestedFormat = NestedFormat::EPT;

    fn fill_msr_map(policy: MsrPolicy, map: &mut [u8; MSRPM_LEN]) {
        policy.fill_msr_bitmap(map);
    }

    unsafe fn enable(page: u64) -> bool {
        // SAFETY: by the contract of the trait.
        unsafe { enable(page) }
    }

    unsafe fn take_over(&mut self) {
        idt::arm_guest_at_nmi();
        // SAFETY: by the contract of the trait.
        if !unsafe { self.vmcs.adopt() } {
            panic!("the CPU refuses the VMCS that was made for it");
        }
        self.vmcs.prepare(self.boot, self.nested_root, self.maps);
    }

    unsafe fn run(vcpu: *mut Vcpu<Self>) -> ! {
        let frame = frame::own();
        // SAFETY: by the contract of the trait. RAX is in its place already.
        unsafe {
            let owned = &mut *vcpu;
            (*frame).registers = owned.begin();
            owned.cpu.vmcs.write(field::HOST_RIP, entry::host_rip(owned.traces_exits));
            (*frame).quick = Quick::of(owned, &raw const (*vcpu).inbox);
            (*frame).vcpu = vcpu;
            entry::launch(frame)
        }
    }

    fn new(pool: &mut Pool, nested_root: u64, maps: PermissionMaps) -> Result<Self, PoolExhausted> {
        let region = pool.page()?;
        let Some(boot) = BOOT.get() else { panic!("a vCPU of VMX before VMX was set up") };
        // SAFETY: a page of the pool, which nobody else has. The vCPU is used by its own pCPU, when that has taken it over.
        let vmcs = unsafe {
            region.cast::<u32>().write(boot.capabilities.basic.revision());
            Vmcs::new(region as u64)
        };
        Ok(Self { vmcs, boot, nested_root, maps, pool: pool.range(), awaits: AwaitsNmiWindow::default() })
    }

    fn exit(&mut self, registers: &GuestRegisters) -> Exit {
        self.why(registers)
    }

    fn rax(&self) -> u64 {
        // SAFETY: the guest does not run.
        unsafe { self.rax_place().read() }
    }

    fn set_rax(&mut self, value: u64) {
        self.set_own_rax(value);
    }

    fn rip(&self) -> u64 {
        self.vmcs.read(field::GUEST_RIP)
    }

    fn rsp(&self) -> u64 {
        self.vmcs.read(field::GUEST_RSP)
    }

    fn privilege(&self) -> u8 {
        // The privilege level is that of SS (SDM vol. 3 section 25.4.1).
        AccessRights(self.vmcs.read(segment::SS.access_rights)).dpl()
    }

    fn cr0(&self) -> u64 {
        let own = self.own_cr0();
        self.vmcs.read(field::GUEST_CR0) & !own | self.vmcs.read(field::CR0_READ_SHADOW) & own
    }

    fn cr4(&self) -> u64 {
        self.vmcs.read(field::GUEST_CR4) & !self.own_cr4()
    }

    fn efer(&self) -> u64 {
        self.vmcs.read(field::GUEST_IA32_EFER)
    }

    fn set_efer(&mut self, value: u64) {
        self.vmcs.write(field::GUEST_IA32_EFER, value);
    }

    fn registers(&self, general: &GuestRegisters) -> Dumped {
        let (vmcs, g) = (&self.vmcs, general);
        let selector = |segment: &SegmentFields| u64::from(vmcs.read(segment.selector));
        let cr2: u64;
        // SAFETY: reads the guest's register, which no exit saves.
        unsafe { asm!("mov {}, cr2", out(reg) cr2, options(nomem, nostack, preserves_flags)) };
        // SAFETY: a register that exists on every CPU with long mode.
        let kernel_gs = unsafe { read_msr(KERNEL_GS_BASE) };
        [
            self.rax(),
            g.rbx,
            g.rcx,
            g.rdx,
            g.rsi,
            g.rdi,
            g.rbp,
            self.rsp(),
            g.r8,
            g.r9,
            g.r10,
            g.r11,
            g.r12,
            g.r13,
            g.r14,
            g.r15,
            self.rip(),
            vmcs.read(field::GUEST_RFLAGS),
            self.cr0(),
            cr2,
            vmcs.read(field::GUEST_CR3),
            self.cr4(),
            self.efer(),
            selector(&segment::CS),
            selector(&segment::SS),
            selector(&segment::DS),
            selector(&segment::ES),
            selector(&segment::FS),
            selector(&segment::GS),
            selector(&segment::TR),
            vmcs.read(segment::FS.base),
            vmcs.read(segment::GS.base),
            kernel_gs,
            vmcs.read(field::GUEST_GDTR_BASE),
            vmcs.read(field::GUEST_IDTR_BASE),
            read_dr6(),
            vmcs.read(field::GUEST_DR7),
            self.privilege().into(),
            vmcs.read(field::GUEST_IA32_PAT),
        ]
    }

    fn go_behind_io(&mut self) -> bool {
        self.go_on(0)
    }

    /// The CPU tells the length, prefixes included.
    fn go_on(&mut self, _len: u64) -> bool {
        self.vmcs.write(field::GUEST_RIP, self.next_rip());
        // One branch for all that is seldom.
        let rflags = self.vmcs.read(field::GUEST_RFLAGS) & (RFLAGS_TF | RFLAGS_RF);
        let state = Interruptibility(self.vmcs.read(field::GUEST_INTERRUPTIBILITY_STATE));
        rflags != 0 || state.in_shadow()
    }

    /// RF and TF: SDM vol. 3 section 18.3.1.4.
    #[cold]
    fn end_step(&mut self) {
        self.end_shadow();
        let rflags = self.vmcs.read(field::GUEST_RFLAGS);
        self.vmcs.write(field::GUEST_RFLAGS, rflags & !RFLAGS_RF);
        if rflags & RFLAGS_TF != 0 {
            // Breakpoints on data that were met behind MOV SS wait with the step: an event that is delivered drops them.
            let pending = self.vmcs.read(field::GUEST_PENDING_DEBUG_EXCEPTIONS);
            let met = if pending & ENABLED_BREAKPOINT != 0 { pending & BREAKPOINTS } else { 0 };
            write_dr6(read_dr6() | DR6_SINGLE_STEP | met);
            self.inject_exception(Exception::Debug);
        }
    }

    fn io_access(&self) -> IoAccess {
        IoAccess::from_vmx(self.vmcs.read(field::EXIT_QUALIFICATION))
    }

    fn may_trap_on_io(&self) -> bool {
        io_breakpoint::may_hit(self.vmcs.read(field::GUEST_DR7))
    }

    #[cold]
    fn trap_on_io(&mut self) {
        let access = self.io_access();
        let dr7 = self.vmcs.read(field::GUEST_DR7);
        let hits = io_breakpoint::hits(access, dr7, self.cr4(), extended::breakpoints());
        if hits != 0 {
            write_dr6(read_dr6() | hits);
            self.inject_exception(Exception::Debug);
        }
    }

    fn inject_exception(&mut self, exception: Exception) {
        let vector = match exception {
            Exception::InvalidOpcode => INVALID_OPCODE,
            Exception::GeneralProtection => GENERAL_PROTECTION,
            Exception::Debug => DEBUG,
            Exception::AlignmentCheck => ALIGNMENT,
        };
        let is_protected = self.vmcs.read(field::GUEST_CR0) & CR0_PE != 0;
        self.deliver(EntryEvent::exception(vector, 0, is_protected));
    }

    /// As it came, as INT1 is told from a #DB by its kind and length.
    fn reflect_exception(&mut self, _exception: Exception) {
        self.deliver_exit_exception();
    }

    #[inline]
    fn delivers(&self) -> bool {
        self.has_event()
    }

    fn inject_nmi(&mut self) {
        self.bring_nmi();
    }

    fn open_nmi_window(&mut self) {
        self.open_window();
    }

    fn discard_events(&mut self) {
        self.vmcs.write(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0);
        self.forget_nmis();
    }

    fn power_on(&mut self, state: &StartState, registers: &mut GuestRegisters) {
        self.clear_registers();
        self.set(state, registers);
    }

    fn start_up(&mut self, state: &StartState, registers: &mut GuestRegisters) {
        self.set(state, registers);
    }

    fn explain(&self, exit: Exit, out: &mut impl fmt::Write) -> fmt::Result {
        self.explain_exit(exit, out)
    }

    fn started(&mut self) {}

    fn let_in(act: impl FnOnce()) {
        act();
    }

    fn park_while(by: WokenBy, idle: impl Fn() -> bool) {
        idt::park_while(by, idle);
    }
}
