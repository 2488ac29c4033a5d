//! No attack, to compare with: all vCPUs compute until the console stops them.

use core::hint::black_box;

use crate::Orders;
use crate::cpus::start_other;
use crate::tally::Tally;

fn compute() -> ! {
    let mut sum: u64 = 1;
    loop {
        sum = black_box(sum.rotate_left(5) ^ 1);
    }
}

/// On both vCPUs, if there are two.
pub(crate) fn attack(orders: &Orders, _: &mut Tally) {
    if let [_, other] = orders.ids[..] {
        start_other(other, compute);
    }
    compute()
}
