//! State `flood`: a vCPU sends itself interrupts and NMIs by its ICR, one after the other, and counts what comes. Each has
//! to come exactly once, whatever kicks the vCPU meanwhile.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use partita_rt::{apic, cpu, end, interrupts, println, rdtsc, relax, trace};
use partita_trace::Event;

/// The vector of the interrupts.
const VECTOR: u8 = 0x50;
/// The non-maskable interrupt.
const NMI_VECTOR: u8 = 2;
/// Number of the mark that counts what came; the numbers below are claims'.
const MARK: u32 = 200;
/// Turns from mark to mark.
const TURNS_PER_MARK: u64 = 256;
/// Looks after which one is lost: it comes from this CPU itself, so that it is here after a few, however slow the host.
const LOOKS_MAX: u32 = 1_000_000;

/// What a CPU's handlers have counted, alone in its cache line. The handlers know this layout.
#[derive(Debug)]
#[repr(C, align(64))]
struct Counts {
    interrupts: AtomicU64,
    nmis: AtomicU64,
}

static COUNTS: [Counts; cpu::CPUS_MAX] =
    [const { Counts { interrupts: AtomicU64::new(0), nmis: AtomicU64::new(0) } }; cpu::CPUS_MAX];

global_asm!(
    r#"
    .section .text.flood, "ax", @progbits
    .align 16
flood_interrupt:
    push rax
    push rdx
    push rcx
    mov rax, gs:[{index}]
    shl rax, 6
    lea rdx, [rip + {counts}]
    inc qword ptr [rdx + rax + {interrupts}]
    xor eax, eax
    xor edx, edx
    mov ecx, 0x80B          // x2APIC EOI
    wrmsr
    pop rcx
    pop rdx
    pop rax
    iretq

    .align 16
flood_nmi:
    push rax
    push rdx
    mov rax, gs:[{index}]
    shl rax, 6
    lea rdx, [rip + {counts}]
    inc qword ptr [rdx + rax + {nmis}]
    pop rdx
    pop rax
    iretq
    .previous
    "#,
    index = const cpu::INDEX_AT_GS,
    counts = sym COUNTS,
    interrupts = const core::mem::offset_of!(Counts, interrupts),
    nmis = const core::mem::offset_of!(Counts, nmis),
);

const _: () = assert!(size_of::<Counts>() == 1 << 6);

unsafe extern "C" {
    static flood_interrupt: u8;
    static flood_nmi: u8;
}

/// Installs the handlers. Before another CPU is started.
pub(crate) fn install() {
    // SAFETY: they save what they use and end the interrupt where it is one; no CPU takes these vectors yet.
    unsafe {
        interrupts::set_handler(VECTOR, &raw const flood_interrupt);
        interrupts::set_handler(NMI_VECTOR, &raw const flood_nmi);
    }
}

/// What a CPU sends itself.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Interrupt,
    Nmi,
}

/// A CPU that floods itself.
#[derive(Debug)]
pub(crate) struct Flood {
    apic_id: u32,
    counts: &'static Counts,
    /// Interrupts that were sent, and as many NMIs.
    sent: u64,
    pause: bool,
}

impl Flood {
    /// This CPU, with a PAUSE in its waiting loops or without.
    pub(crate) fn new(pause: bool) -> Self {
        static NONE: Counts = Counts { interrupts: AtomicU64::new(0), nmis: AtomicU64::new(0) };
        Self { apic_id: apic::id(), counts: COUNTS.get(cpu::index()).unwrap_or(&NONE), sent: 0, pause }
    }

    /// Interrupts, and NMIs, that came.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.count(Kind::Interrupt), self.count(Kind::Nmi))
    }

    /// Sends one of each, the second when the first has come. Ends the payload with a failure if one does not come, or
    /// comes again.
    pub(crate) fn turn(&mut self) {
        self.sent += 1;
        // SAFETY: the handler of this vector is installed.
        self.send(Kind::Interrupt, || unsafe { apic::send_fixed(self.apic_id, VECTOR) });
        // SAFETY: the handler of NMIs is installed.
        self.send(Kind::Nmi, || unsafe { apic::send_nmi(self.apic_id) });
        let (interrupts, nmis) = self.counts();
        if (interrupts, nmis) != (self.sent, self.sent) {
            self.fail("one came twice");
        }
        if self.sent.is_multiple_of(TURNS_PER_MARK) {
            trace::record(rdtsc(), Event::Mark { id: MARK, first: interrupts, second: nmis });
        }
    }

    fn send(&self, kind: Kind, send: impl Fn()) {
        if self.count(kind) >= self.sent {
            self.fail("one came that was not sent yet: an earlier one came twice");
        }
        send();
        for _ in 0..LOOKS_MAX {
            if self.count(kind) >= self.sent {
                return;
            }
            // SAFETY: what may come has handlers that save what they use.
            unsafe { asm!("sti", "nop", "cli", options(nostack)) };
            if self.pause {
                relax();
            }
        }
        self.fail(match kind {
            Kind::Interrupt => "an interrupt was lost",
            Kind::Nmi => "an NMI was lost",
        });
    }

    fn count(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Interrupt => &self.counts.interrupts,
            Kind::Nmi => &self.counts.nmis,
        }
        .load(Ordering::Relaxed)
    }

    fn fail(&self, why: &str) -> ! {
        let (interrupts, nmis) = self.counts();
        println!(
            "payload: flood: CPU {}: {why}; sent {} of each, {interrupts} interrupt(s) and {nmis} NMI(s) came",
            cpu::index(),
            self.sent
        );
        end(false)
    }
}
