//! The memory that belongs to one pCPU, and what other pCPUs may see of it.
//!
//! Each pCPU has one 64 KiB block: a guard page, its stack, and its private page. The block is found from the
//! stack pointer, because while a guest's FS, GS and TR are loaded, nothing else tells the pCPUs apart. What is
//! public to others is a type of its own, with atomics only.

use core::arch::asm;
use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use partita_core::arch::PcpuId;
use partita_core::gate::Gate;
use partita_trace::names::KickKind;
use partita_x86_bare::BootBlock;
use partita_x86_bare::entry::{BOOT_BLOCK_LEN, BOOT_STACK_TOP};
use partita_x86_policy::apic_view::logical_destination;

use crate::requests::RequestWord;
use crate::tracer::Tracer;

/// Bytes of a pCPU's block, and its alignment.
pub const BLOCK_LEN: usize = BOOT_BLOCK_LEN;
/// Bytes of the unmapped page at the bottom of each block.
pub const GUARD_LEN: usize = 4096;
/// Bytes of the private page at the top of each block.
pub const PRIVATE_LEN: usize = 4096;

/// Bytes kept for the exit frame, between the stack and the private page.
pub const EXIT_FRAME_LEN: usize = 256;
/// Offset of the top of the stack in a block.
pub const STACK_TOP: usize = BOOT_STACK_TOP;
const _: () = assert!(STACK_TOP == BLOCK_LEN - PRIVATE_LEN - EXIT_FRAME_LEN);

/// What only its own pCPU touches.
#[derive(Debug)]
#[repr(C)]
pub struct Private {
    /// Set by the NMI handler, which finds it at the start of the private page.
    pub nmi_seen: AtomicU32,
    /// Its number.
    pub id: PcpuId,
    /// Address of the vCPU that it was given; 0 before.
    pub vcpu: Cell<u64>,
    /// What it was told to do once the SMP call that told it is over.
    pub order: Cell<Order>,
    /// Physical address of the page that its virtualisation extension keeps for itself.
    pub host_save: Cell<u64>,
    /// Whether an NMI ends the next entry into its guest at once: [`crate::cpu::idt::arm_guest_at_nmi`].
    pub arms_guest: Cell<bool>,
    /// How it has to be kicked, for its own trace.
    pub kick_kind: Cell<KickKind>,
    /// Whether `tracer` is filled.
    pub has_tracer: Cell<bool>,
    /// Its trace ring and histograms.
    pub tracer: UnsafeCell<MaybeUninit<Tracer>>,
}

/// What a pCPU is told to do: left by a function of an SMP call, which is short, and done when the call is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing.
    None,
    /// Clear its partition's memory and load it anew.
    Load,
    /// Hand its local APIC over and start its vCPU anew.
    Start,
    /// Sleep for good: it belongs to no partition.
    Park,
    /// Note the registers of its guest, for [`crate::dump`].
    Dump,
    /// Take part in a storm of SMP calls.
    Storm,
    /// Do nothing for some time, and serve nobody.
    Hold,
}

const _: () = assert!(size_of::<Private>() <= PRIVATE_LEN);
const _: () = assert!(core::mem::offset_of!(Private, nmi_seen) == 0);

/// Most pCPUs that this build can use.
pub const PCPUS_MAX: usize = partita_core::pcpu_set::PCPUS_MAX;

/// The block of the boot pCPU: part of the image, so that there is one from the first instruction on. It lies where `hv.ld` has
/// room for it, and is all zeros there.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".boot_block")]
static boot_block: BootBlock = BootBlock::new();

static OTHER_BLOCKS: AtomicU64 = AtomicU64::new(0);

/// Says where the blocks of pCPUs 1 and up lie: once, before any of them is in use.
pub fn set_other_blocks(start: u64) {
    OTHER_BLOCKS.store(start, Ordering::Release);
}

/// Address of the block of one pCPU.
pub fn block_of(pcpu: PcpuId) -> u64 {
    match pcpu.index() {
        0 => boot_block.address(),
        n => OTHER_BLOCKS.load(Ordering::Acquire) + ((n - 1) * BLOCK_LEN) as u64,
    }
}

/// Top of the stack of one pCPU, below the place of its exit frame.
pub fn stack_top(pcpu: PcpuId) -> u64 {
    block_of(pcpu) + STACK_TOP as u64
}

/// Where the exit frame of the pCPU that executes this lies, [`EXIT_FRAME_LEN`] bytes: right above its stack.
#[inline(always)]
pub fn own_exit_frame() -> u64 {
    (&raw const *private()) as u64 - EXIT_FRAME_LEN as u64
}

fn private_page(pcpu: PcpuId) -> u64 {
    block_of(pcpu) + (BLOCK_LEN - PRIVATE_LEN) as u64
}

/// Fills the private page of one pCPU, as yet without a tracer.
///
/// # Safety
/// The block must be mapped, and nobody may be using its private page.
pub unsafe fn init_private(pcpu: PcpuId) {
    let private = private_page(pcpu) as *mut Private;
    let empty = Private {
        nmi_seen: AtomicU32::new(0),
        id: pcpu,
        vcpu: Cell::new(0),
        order: Cell::new(Order::None),
        host_save: Cell::new(0),
        arms_guest: Cell::new(false),
        kick_kind: Cell::new(KickKind::Vector),
        has_tracer: Cell::new(false),
        tracer: UnsafeCell::new(MaybeUninit::uninit()),
    };
    // SAFETY: by the contract above; the page is large and aligned enough.
    unsafe { private.write(empty) };
}

/// Fills the private page of the boot pCPU.
///
/// # Safety
/// Once, first thing on the boot pCPU.
pub unsafe fn init_boot() {
    // SAFETY: the boot block is part of the image, and nobody uses its private page yet.
    unsafe { init_private(PcpuId(0)) };
}

/// Gives a pCPU the page for its host state, by physical address.
///
/// # Safety
/// Its private page must be filled and the pCPU not be running yet.
pub unsafe fn set_host_save(pcpu: PcpuId, page: u64) {
    // SAFETY: by the contract above.
    let private = unsafe { &*(private_page(pcpu) as *const Private) };
    private.host_save.set(page);
}

/// Gives a pCPU its tracer.
///
/// # Safety
/// Its private page must be filled, and the pCPU either not be running yet or be the one that executes this, outside
/// of any use of a tracer.
pub unsafe fn set_tracer(pcpu: PcpuId, tracer: Tracer) {
    // SAFETY: by the contract above.
    let private = unsafe { &*(private_page(pcpu) as *const Private) };
    // SAFETY: nobody else refers to the tracer, by the contract above.
    unsafe { (*private.tracer.get()).write(tracer) };
    private.has_tracer.set(true);
}

/// The private page of the pCPU that executes this, found from its stack.
#[inline(always)]
pub fn private() -> &'static Private {
    let block: u64;
    // SAFETY: computes with a copy of a register. The result is the same wherever it is asked, as a pCPU never leaves the
    // stack in its block, so that the compiler may ask once.
    unsafe {
        asm!("mov {0}, rsp", "and {0}, {1}", out(reg) block, const -(BLOCK_LEN as i64), options(pure, nomem, nostack));
    }
    // SAFETY: every stack in use lies in a block, whose private page is filled before the stack comes into use,
    // on the boot pCPU first thing. The page is only shared within its own pCPU, and what changes in it is behind
    // `UnsafeCell` or atomic.
    unsafe { &*((block + (BLOCK_LEN - PRIVATE_LEN) as u64) as *const Private) }
}

/// How a pCPU has to be kicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KickMode {
    /// Its local APIC is the hypervisor's: an ordinary interrupt.
    Vector,
    /// Its local APIC is its guest's: an NMI.
    Nmi,
}

/// Changes how this pCPU has to be kicked, when it has made sure that the new kind reaches it.
pub fn set_kick_mode(mode: KickMode) {
    private().kick_kind.set(mode.into());
    let public = public(private().id);
    match mode {
        KickMode::Vector => {
            public.nmi_destination.store(NO_NMI_DESTINATION, Ordering::Relaxed);
            public.vector_gate.open();
        }
        KickMode::Nmi => {
            public.vector_gate.close();
            let destination = logical_destination(public.apic_id()).map_or(NO_NMI_DESTINATION, |id| id ^ OTHER_CLUSTER);
            public.nmi_destination.store(destination, Ordering::Relaxed);
        }
    }
}

impl From<KickMode> for KickKind {
    fn from(mode: KickMode) -> Self {
        match mode {
            KickMode::Nmi => Self::Nmi,
            KickMode::Vector => Self::Vector,
        }
    }
}

/// How far a pCPU has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Progress {
    /// Not started, or not there yet.
    Offline = 0,
    /// Serves calls.
    Online = 1,
    /// Has handed its local APIC over, and its vCPU runs or waits for its start-up IPI.
    RunsVcpu = 2,
    /// Lacks what the boot pCPU has.
    Unfit = 3,
    /// Has a vCPU whose guest does not run; its local APIC is the hypervisor's.
    VcpuDown = 4,
    /// As before, and its partition's memory is being cleared and loaded, by itself.
    Loads = 5,
}

/// The cluster of a logical x2APIC ID, turned over in [`Public::nmi_destination`], so that no cluster is 0 there.
pub const OTHER_CLUSTER: u32 = 0xFFFF_0000;
/// For a pCPU that is not kicked by NMI, or has no logical ID.
const NO_NMI_DESTINATION: u32 = 0;

/// What other pCPUs may see and change of a pCPU.
#[derive(Debug)]
pub struct Public {
    apic_id: AtomicU32,
    /// See [`Self::nmi_destination`].
    nmi_destination: AtomicU32,
    /// Before kicks by vector: closed while its local APIC is its guest's.
    vector_gate: Gate,
    progress: AtomicU8,
    /// Requests to its vCPU.
    pub requests: RequestWord,
    /// How often its vCPU was started.
    pub starts: AtomicU32,
    /// Whether it is to start its vCPU: an order that comes late finds it taken back.
    pub is_start_wanted: AtomicBool,
    /// Whether its vCPU waits for its start-up IPI.
    pub waits_for_sipi: AtomicBool,
}

static PUBLIC: [Public; PCPUS_MAX] = [const {
    Public {
        apic_id: AtomicU32::new(0),
        nmi_destination: AtomicU32::new(NO_NMI_DESTINATION),
        vector_gate: Gate::new(),
        progress: AtomicU8::new(Progress::Offline as u8),
        requests: RequestWord::new(),
        starts: AtomicU32::new(0),
        is_start_wanted: AtomicBool::new(false),
        waits_for_sipi: AtomicBool::new(false),
    }
}; PCPUS_MAX];

/// What is public of one pCPU. No pCPU has a number past the largest, as that is checked at discovery: it is taken modulo the entries,
/// which is an instruction.
#[inline(always)]
pub fn public(pcpu: PcpuId) -> &'static Public {
    const { assert!(PCPUS_MAX.is_power_of_two()) };
    &PUBLIC[pcpu.index() % PCPUS_MAX]
}

impl Public {
    /// Its physical x2APIC ID.
    #[inline(always)]
    pub fn apic_id(&self) -> u32 {
        self.apic_id.load(Ordering::Relaxed)
    }

    /// Sets its physical x2APIC ID, at discovery.
    pub fn set_apic_id(&self, id: u32) {
        self.apic_id.store(id, Ordering::Relaxed);
    }

    /// Its logical x2APIC ID with [`OTHER_CLUSTER`] turned over, if it has to be kicked by NMI and has such an ID; else 0. Those
    /// of one cluster can be kicked together.
    #[inline(always)]
    pub fn nmi_destination(&self) -> u32 {
        self.nmi_destination.load(Ordering::Relaxed)
    }

    /// How it has to be kicked now.
    #[inline(always)]
    pub fn kick_mode(&self) -> KickMode {
        if self.vector_gate.is_open() { KickMode::Vector } else { KickMode::Nmi }
    }

    /// Runs `send` if the pCPU is still to be kicked by vector, and says so; it does not get its local APIC handed over
    /// meanwhile.
    pub fn kick_by_vector(&self, kicker: PcpuId, send: impl FnOnce()) -> bool {
        self.vector_gate.pass(kicker, || {
            send();
            // The write of the ICR does not serialise: the fences have it done before this kicker is past the gate. How
            // long the interrupt is under way then, nobody knows; but a guest starts with its local APIC
            // software-disabled, which drops it.
            // SAFETY: fences.
            unsafe { asm!("mfence", "lfence", options(nostack, preserves_flags)) };
        })
    }

    /// Who is about to kick this pCPU by vector, if anyone: asked by itself after it has changed over to NMIs.
    pub fn vector_kicker(&self) -> Option<PcpuId> {
        self.vector_gate.straggler()
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        match self.progress.load(Ordering::Acquire) {
            1 => Progress::Online,
            2 => Progress::RunsVcpu,
            3 => Progress::Unfit,
            4 => Progress::VcpuDown,
            5 => Progress::Loads,
            _ => Progress::Offline,
        }
    }

    /// Says how far it has come: by itself.
    pub fn set_progress(&self, progress: Progress) {
        self.progress.store(progress as u8, Ordering::Release);
    }
}
