//! Events that exits cut short and entries deliver, and what holds them back.

use partita_x86_policy::vmx::event::{
    Activity, EntryEvent, EventKind, Interruptibility, InterruptionInfo, has_error_code,
};
use proptest::prelude::*;

#[test]
fn interruption_information_is_decoded() {
    let nmi = InterruptionInfo(0x8000_0202);
    assert!(nmi.valid() && nmi.nmi() && !nmi.has_error_code() && !nmi.nmi_unblocked_by_iret());
    assert_eq!((nmi.kind(), nmi.vector()), (EventKind::Nmi, 2));
    let page_fault = InterruptionInfo(0x8000_1B0E);
    assert!(page_fault.has_error_code() && page_fault.nmi_unblocked_by_iret() && !page_fault.nmi());
    assert_eq!((page_fault.kind(), page_fault.vector()), (EventKind::HardwareException, 14));
    assert!(!InterruptionInfo(0x202).nmi(), "not valid");
}

#[test]
fn what_was_cut_short_is_delivered_again() {
    let redeliver = |info: u32| InterruptionInfo(info).redeliver(|| 0x18, || 2);
    assert_eq!(redeliver(0x0000_0202), None);
    assert_eq!(redeliver(0x8000_0202), Some(EntryEvent::NMI));
    assert_eq!(redeliver(0x8000_1202), Some(EntryEvent::NMI), "undefined bit 12");
    assert!(redeliver(0x8000_0202).unwrap().is_nmi());
    let event = |info, error_code, instruction_length| Some(EntryEvent { info, error_code, instruction_length });
    assert_eq!(redeliver(0x8000_0031), event(0x8000_0031, None, None), "an interrupt");
    assert_eq!(redeliver(0x8000_0B0D), event(0x8000_0B0D, Some(0x18), None), "#GP");
    assert_eq!(redeliver(0x8000_0480), event(0x8000_0480, None, Some(2)), "INT 0x80");
    assert_eq!(redeliver(0x8000_0501), event(0x8000_0501, None, Some(2)), "INT1");
    assert_eq!(redeliver(0x8000_0603), event(0x8000_0603, None, Some(2)), "INT3");
}

#[test]
fn an_exception_has_the_error_code_that_an_entry_demands() {
    let event = |info, error_code| EntryEvent { info, error_code, instruction_length: None };
    assert_eq!(EntryEvent::exception(6, 0, true), event(0x8000_0306, None));
    assert_eq!(EntryEvent::exception(13, 0, true), event(0x8000_0B0D, Some(0)));
    assert_eq!(EntryEvent::exception(13, 0, false), event(0x8000_030D, None), "real mode");
    assert_eq!(EntryEvent::exception(17, 0, true), event(0x8000_0B11, Some(0)));
    assert_eq!(EntryEvent::exception(1, 0, true), event(0x8000_0301, None));
    let with: Vec<u8> = (0..=255).filter(|&vector| has_error_code(vector)).collect();
    assert_eq!(with, [8, 10, 11, 12, 13, 14, 17]);
}

#[test]
fn a_shadow_ends_and_begins_without_nmis() {
    let blocked = Interruptibility(Interruptibility::MOV_SS | Interruptibility::NMI);
    assert!(blocked.in_shadow() && blocked.blocks_nmi());
    assert_eq!(blocked.without_shadow(), Interruptibility(Interruptibility::NMI));
    assert_eq!(blocked.with_sti(), Interruptibility(Interruptibility::NMI | Interruptibility::STI));
    assert_eq!(blocked.with_nmi_blocking(false), Interruptibility(Interruptibility::MOV_SS));
    assert_eq!(Interruptibility::default().with_nmi_blocking(true), Interruptibility(8));
    assert!(!Interruptibility(Interruptibility::NMI).in_shadow());
}

#[test]
fn activity_states_are_decoded() {
    for activity in [Activity::Active, Activity::Hlt, Activity::Shutdown, Activity::WaitForSipi] {
        assert_eq!(Activity::from_field(activity as u32), Some(activity));
    }
    assert_eq!(Activity::from_field(4), None);
    assert_eq!(Activity::default() as u32, 0);
}

proptest! {
    /// Nothing undefined reaches an entry, nothing that is defined is lost.
    #[test]
    fn redelivery_keeps_what_is_defined(info in any::<u32>(), error_code in any::<u32>(), len in any::<u32>()) {
        match InterruptionInfo(info).redeliver(|| error_code, || len) {
            None => prop_assert_eq!(info >> 31, 0),
            Some(event) => {
                prop_assert_eq!(event.info, info & 0x8000_0FFF);
                prop_assert_eq!(event.error_code, (info & 0x800 != 0).then_some(error_code));
                prop_assert_eq!(event.instruction_length, matches!(info >> 8 & 7, 4..=6).then_some(len));
                prop_assert_eq!(event.is_nmi(), info >> 8 & 7 == 2);
            }
        }
    }
}
