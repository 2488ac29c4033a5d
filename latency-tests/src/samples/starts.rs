//! How long the starts of a partition took, from the hypervisor's trace alone: in each life the guest tells when its first
//! instruction was, by an OUT that is refused, and orders its reboot by another.

use super::events::Events;
use partita_abi::guest::RESET_PORT;
use partita_rows::Row;
use partita_trace::event::Event;
use partita_trace::names::ExitReason;

/// The port that a guest tells its first instruction by.
const ENTERED_PORT: u16 = 0x80;

/// The samples of a row: `wanted` of them, but the one of the boot. `pcpu` is that of the guest's vCPU 0.
pub(super) fn of_row(hypervisor: &Events, pcpu: u16, row: Row, wanted: u32) -> Result<Vec<u64>, String> {
    let mut starts = outs(hypervisor, pcpu, ENTERED_PORT).map(|(tsc, value)| whole(tsc, value));
    let samples: Option<Vec<u64>> = if row == Row::BootToGuest {
        let entered = hypervisor.all.iter().find(|(.., event)| *event == Event::HypervisorEntered {});
        entered.zip(starts.next()).map(|((_, entered, _), start)| vec![start.saturating_sub(*entered)])
    } else {
        let starts: Vec<u64> = starts.collect();
        let next = |(order, _): (u64, u64)| starts.iter().find(|start| **start > order).map(|start| start - order);
        let samples: Vec<u64> = outs(hypervisor, pcpu, RESET_PORT).filter_map(next).collect();
        (samples.len() == wanted as usize).then_some(samples)
    };
    let wanted = if row == Row::BootToGuest { 1 } else { wanted };
    samples.ok_or_else(|| hypervisor.missing(row.name(), outs(hypervisor, pcpu, RESET_PORT).count(), wanted))
}

/// What a guest wrote to a port, and when.
fn outs(hypervisor: &Events, pcpu: u16, port: u16) -> impl Iterator<Item = (u64, u64)> {
    hypervisor.of_ring(pcpu).filter_map(move |(_, tsc, event)| match *event {
        Event::Exit { reason: ExitReason::IoOut, detail16, detail, .. } if detail16 == port => Some((*tsc, detail)),
        _ => None,
    })
}

/// The latest time before `now` with this low half.
fn whole(now: u64, low: u64) -> u64 {
    now.saturating_sub(now.wrapping_sub(low) & u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::events::{Entry, events};
    use super::*;

    fn out(tsc: u64, port: u16, detail: u64) -> Entry {
        (1, tsc, Event::Exit { reason: ExitReason::IoOut, detail16: port, ticks: 80, detail })
    }

    #[test]
    fn starts_are_counted_from_their_orders() {
        const BASE: u64 = 7 << 32;
        let all = vec![
            (0, BASE - 5000, Event::HypervisorEntered {}),
            // Its low half was large, and is small by the time of the OUT.
            out(BASE + 9, ENTERED_PORT, u64::from(u32::MAX) - 99),
            out(BASE + 1000, RESET_PORT, 4),
            out(BASE + 1400, ENTERED_PORT, 1350),
            out(BASE + 2000, RESET_PORT, 4),
            out(BASE + 2500, ENTERED_PORT, 2450),
        ];
        assert_eq!(of_row(&events(all.clone()), 1, Row::BootToGuest, 2), Ok(vec![4900]));
        assert_eq!(of_row(&events(all.clone()), 1, Row::PartitionRestart, 2), Ok(vec![350, 450]));
        let error = of_row(&events(all.clone()), 1, Row::PartitionRestart, 3).unwrap_err();
        assert!(error.starts_with("2 of 3 samples of partition.restart"), "{error}");
        assert!(of_row(&events(all.clone()), 2, Row::BootToGuest, 2).is_err());
        assert!(of_row(&events(all[1..].to_vec()), 1, Row::BootToGuest, 2).is_err());
    }
}
