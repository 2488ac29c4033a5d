//! The fields of a VMCS against the rules of their encodings (SDM vol. 3 section 25.11.2).

use partita_x86_policy::vmx::field::{self, ALL, Kind, Width};

#[test]
fn encodings_are_unique_full_and_free_of_reserved_bits() {
    for (at, any) in ALL.iter().enumerate() {
        // Bit 0 would be the upper half of a 64-bit field, bits 12 and 31:15 are reserved.
        assert_eq!(any.encoding() & !0x6FFE, 0, "{any}");
        for other in &ALL[at + 1..] {
            assert!(any.encoding() != other.encoding() && any.name() != other.name(), "{any}, {other}");
        }
        assert_eq!(field::by_encoding(any.encoding()), Some(*any));
    }
    assert_eq!(field::by_encoding(0x2001), None);
}

#[test]
fn the_name_agrees_with_what_the_encoding_says() {
    for any in ALL {
        assert_eq!(any.name().starts_with("host "), any.kind() == Kind::Host, "{any}");
        assert!(!any.name().starts_with("guest ") || matches!(any.kind(), Kind::Guest | Kind::ReadOnly), "{any}");
        if any.name().ends_with(" selector") {
            assert_eq!(any.width(), Width::Bits16, "{any}");
        }
        if any.name().ends_with(" base") || any.name().contains(" CR") {
            assert_eq!(any.width(), Width::Natural, "{any}");
        }
        if any.name().ends_with(" limit") || any.name().ends_with(" access rights") {
            assert_eq!(any.width(), Width::Bits32, "{any}");
        }
    }
}

/// A few of each table of appendix B, as bits.
#[test]
fn fields_are_where_the_manual_has_them() {
    for (any, encoding, width, kind, index) in [
        (field::VIRTUAL_PROCESSOR_IDENTIFIER.any(), 0x0000, Width::Bits16, Kind::Control, 0),
        (field::GUEST_TR_SELECTOR.any(), 0x080E, Width::Bits16, Kind::Guest, 7),
        (field::HOST_TR_SELECTOR.any(), 0x0C0C, Width::Bits16, Kind::Host, 6),
        (field::EPT_POINTER.any(), 0x201A, Width::Bits64, Kind::Control, 0xD),
        (field::GUEST_PHYSICAL_ADDRESS.any(), 0x2400, Width::Bits64, Kind::ReadOnly, 0),
        (field::GUEST_IA32_EFER.any(), 0x2806, Width::Bits64, Kind::Guest, 3),
        (field::HOST_IA32_EFER.any(), 0x2C02, Width::Bits64, Kind::Host, 1),
        (field::SECONDARY_PROCESSOR_BASED_CONTROLS.any(), 0x401E, Width::Bits32, Kind::Control, 0xF),
        (field::EXIT_REASON.any(), 0x4402, Width::Bits32, Kind::ReadOnly, 1),
        (field::VMX_PREEMPTION_TIMER_VALUE.any(), 0x482E, Width::Bits32, Kind::Guest, 0x17),
        (field::HOST_IA32_SYSENTER_CS.any(), 0x4C00, Width::Bits32, Kind::Host, 0),
        (field::CR4_READ_SHADOW.any(), 0x6006, Width::Natural, Kind::Control, 3),
        (field::EXIT_QUALIFICATION.any(), 0x6400, Width::Natural, Kind::ReadOnly, 0),
        (field::GUEST_RIP.any(), 0x681E, Width::Natural, Kind::Guest, 0xF),
        (field::HOST_RIP.any(), 0x6C16, Width::Natural, Kind::Host, 0xB),
    ] {
        assert_eq!((any.encoding(), any.width(), any.kind(), any.index()), (encoding, width, kind, index), "{any}");
    }
}

#[test]
fn a_segments_fields_are_its_own() {
    for (segment, name) in [
        (field::segment::ES, "ES"),
        (field::segment::CS, "CS"),
        (field::segment::SS, "SS"),
        (field::segment::DS, "DS"),
        (field::segment::FS, "FS"),
        (field::segment::GS, "GS"),
        (field::segment::LDTR, "LDTR"),
        (field::segment::TR, "TR"),
    ] {
        assert_eq!(segment.selector.to_string(), format!("guest {name} selector"));
        assert_eq!(segment.base.to_string(), format!("guest {name} base"));
        assert_eq!(segment.limit.to_string(), format!("guest {name} limit"));
        assert_eq!(segment.access_rights.to_string(), format!("guest {name} access rights"));
    }
}
