//! Every class of value for the interrupt command register, while the other vCPU changes its state. What becomes of each is
//! the filter's decision; whom it reaches beside this partition, the neighbour would notice.

use core::arch::asm;

use partita_x86_bare::application::STARTUP_PAGE;
use partita_x86_bare::{apic, relax, write_msr};
use partita_x86_policy::apic_view::{ApicView, logical_id};
use partita_x86_policy::icr::{ICR_MSR, IcrAction, filter};

use crate::Orders;
use crate::console::fail;
use crate::cpus::{start_other, wait_until};
use crate::gates::{self, GP, NOTHING, guard, open};
use crate::random::Random;
use crate::tally::Tally;

const SELF_IPI: u32 = 0x83F;
const LOGICAL: u64 = 1 << 11;
/// The real-time guest's own among them, 0x50 and 0x51: the second it counts exactly.
const VECTORS: [u64; 8] = [0, 2, 15, 16, 0x41, 0x50, 0x51, 0xFF];
/// A command that is right but for the bits below, to which the upper half gives a destination.
const FIXED: u64 = 1 << 14 | 0x51;
/// Bits of a command's lower half that have no meaning (SDM vol. 3, "x2APIC mode ICR").
const RESERVED_BITS: [u32; 16] = [12, 13, 16, 17, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31];
const STEPS_DEFAULT: u64 = 5000;
/// The vCPU that was broken stays so for some of the next values, which then meet it as it is.
const REVIVE_ONE_IN: u64 = 32;
const TIMER_VECTOR: u8 = 0x60;
const TIMER_TICKS: u32 = 50_000;

/// Real-mode memory: an interrupt table, and pages that a start-up IPI may name. Partita's own tables and reset vector are
/// among them, which nobody needs any more.
const REAL_MODE_PAGES: core::ops::Range<u64> = 1..0x100;
const PAGE: u64 = 4096;
const IRET_AT: u64 = 0x400;
/// Real-mode code in which a vCPU stays: `cli; hlt`, `hlt`, a tight loop, an invalid instruction again and again.
const PLACES: [[u8; 4]; 4] =
    [[0xFA, 0xF4, 0xEB, 0xFC], [0xF4, 0xEB, 0xFD, 0x90], [0xEB, 0xFE, 0x90, 0x90], [0x0F, 0x0B, 0xEB, 0xFC]];

/// What vCPU 1 does: it is awake, asleep, deaf, or in its NMI handler.
fn change_states() -> ! {
    let mut random = Random::new(1);
    loop {
        // SAFETY: every vector has its handler, and the timer wakes this vCPU.
        unsafe {
            apic::timer_one_shot(TIMER_VECTOR, TIMER_TICKS);
            match random.below(4) {
                0 => asm!("sti", "hlt", "cli", options(nostack)),
                1 => apic::send_nmi(apic::id()),
                2 => write_msr(SELF_IPI, 0x50),
                _ => (0..100).for_each(|_| relax()),
            }
        }
        open();
    }
}

fn fill_real_mode() {
    let write = |address: u64, bytes: &[u8]| {
        for (byte, place) in bytes.iter().zip(address..) {
            // SAFETY: RAM below this image that nothing uses any more, mapped one to one.
            unsafe { (place as *mut u8).write_volatile(*byte) };
        }
    };
    for entry in 1..256 {
        write(entry * 4, &(IRET_AT as u32).to_le_bytes());
    }
    write(IRET_AT, &[0xCF]);
    for page in REAL_MODE_PAGES.filter(|page| page * PAGE != STARTUP_PAGE) {
        if let Some(code) = PLACES.get((page % PLACES.len() as u64) as usize) {
            write(page * PAGE, code);
        }
    }
}

struct Sender<'a> {
    view: ApicView,
    tally: &'a mut Tally,
    random: Random,
    other: u32,
    is_broken: bool,
    /// INITs to itself, which are left out: they would be the end of the attack, which the shutdowns show.
    left_out: u64,
}

impl Sender<'_> {
    fn send(&mut self, value: u64) {
        let action = filter(&self.view, 0, value);
        let expected = match action {
            IcrAction::Init { targets } if targets.contains(0) => {
                self.left_out += 1;
                return;
            }
            IcrAction::Init { .. } | IcrAction::Sipi { .. } => {
                self.is_broken = true;
                NOTHING
            }
            IcrAction::Refuse(cause) => {
                self.tally.ipis += 1;
                if cause.is_gp() { GP } else { NOTHING }
            }
            _ => NOTHING,
        };
        let caught = gates::write_msr(ICR_MSR, value);
        self.tally.tries += 1;
        self.tally.faults += u64::from(caught != NOTHING);
        self.tally
            .check(caught == expected, format_args!("ICR {value:#x}: exception {caught}, by the policy {action:?}"));
        open();
        if self.is_broken && self.random.below(REVIVE_ONE_IN) == 0 {
            self.revive();
        }
    }

    fn revive(&mut self) {
        start_other(self.other, change_states);
        self.is_broken = false;
    }

    /// Destinations: own and foreign ones, physical and logical.
    fn destinations(&self) -> [u64; 20] {
        let own = apic::id();
        [
            0,
            1,
            2,
            3,
            4,
            5,
            0x10,
            0xFF,
            0x100,
            0xFFFF,
            0x1_0000,
            0x1_FFFF,
            0xFFFF_0001,
            0x7FFF_FFFF,
            0xFFFF_FFFE,
            0xFFFF_FFFF,
            own.into(),
            self.other.into(),
            (logical_id(own) | logical_id(self.other)).into(),
            logical_id(self.other).into(),
        ]
    }
}

/// Every class, to the first `count` destinations if that is said, and then any value.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    let [_, other] = orders.ids[..] else { fail(format_args!("the attack needs two vCPUs")) };
    let view = ApicView::new(&orders.ids).unwrap_or_else(|error| fail(format_args!("{error}")));
    fill_real_mode();
    let mut sender = Sender { view, tally, random: orders.random(), other, is_broken: false, left_out: 0 };
    sender.revive();
    let destinations = if orders.count == 0 { usize::MAX } else { orders.count as usize };
    for destination in sender.destinations().into_iter().take(destinations) {
        for mode in [0, LOGICAL] {
            // Delivery mode, level, trigger, and shorthand.
            for class in 0..8 * 4 * 4 {
                let bits = (class % 8) << 8 | (class / 8 % 4) << 14 | (class / 32) << 18;
                let vector = sender.random.one_of(&VECTORS);
                sender.send(destination << 32 | bits | mode | vector);
            }
            for bit in RESERVED_BITS {
                sender.send(destination << 32 | FIXED | mode | 1 << bit);
            }
        }
    }
    let classes = (sender.tally.tries, sender.left_out);
    for _ in 0..orders.steps_or(STEPS_DEFAULT) {
        let destination = sender.destinations();
        let value = match sender.random.below(4) {
            0 => sender.random.next(),
            1 => sender.random.any(),
            _ => sender.random.one_of(&destination) << 32 | sender.random.next() & 0xC_CFFF,
        };
        sender.send(value);
    }
    let ((tries, left_out), all) = (classes, sender.tally.tries);
    orders.count(format_args!(
        "{tries} of classes, {left_out} left out, {} of any values, {} left out",
        all - tries,
        sender.left_out - left_out
    ));
    // Both are themselves again.
    sender.revive();
    let before = guard().interrupts();
    // SAFETY: the vector has its handler.
    unsafe { apic::send_fixed(apic::id(), TIMER_VECTOR) };
    wait_until("an interrupt to itself does not come", || {
        open();
        guard().interrupts() > before
    });
}
