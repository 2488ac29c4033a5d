//! The rules that a failed VM entry broke, by name.

mod explained;
mod segments;
mod states;

use partita_core::system::Entry as ImageEntry;
use partita_x86_policy::vmx::capability::{Misc, VmxCapabilities, msr};
use partita_x86_policy::vmx::control::Entry;
use partita_x86_policy::vmx::event::{EntryEvent, Interruptibility, InterruptionInfo};
use partita_x86_policy::vmx::field::{self, AnyField};
use partita_x86_policy::vmx::guest_state::{AccessRights, Broken, Cpu, GuestState, Segment};
use proptest::prelude::*;

use states::*;

#[test]
fn every_start_of_a_vcpu_is_accepted() {
    let unusable = Segment { access_rights: AccessRights::UNUSABLE, ..real(0, 0) };
    for (name, state) in [
        ("power-on", reset()),
        ("start-up IPI", started_up(0x9A)),
        ("real mode at a segment", at(&ImageEntry::Real { segment: 0xFFFF, offset: 0xFFF0 })),
        ("no image", at(&ImageEntry::Missing)),
        ("multiboot", at(&ImageEntry::Multiboot { entry: u32::MAX, info: 0x6000 })),
        (
            "Linux",
            at(&ImageEntry::Linux64 { entry: 0x100_0200, boot_params: 0x7000, page_tables: 0x8000, gdt: 0x9000 }),
        ),
        ("protected mode", protected()),
        ("64-bit mode", long()),
        ("virtual-8086 mode", virtual_8086()),
        (
            "no data segments",
            GuestState { ds: unusable, es: unusable, fs: unusable, gs: unusable, ldtr: unusable, ..long() },
        ),
        ("no stack segment", GuestState { ss: unusable, ..long() }),
        ("in HLT", GuestState { activity: 1, ..long() }),
        (
            "a step in a shadow",
            GuestState {
                rflags: 2 | TF | IF,
                interruptibility: Interruptibility(Interruptibility::STI),
                pending_debug: 1 << 14,
                ..long()
            },
        ),
        (
            "an NMI to a halted guest",
            GuestState { activity: 1, event: InterruptionInfo(EntryEvent::NMI.info), ..long() },
        ),
        ("real mode by a data segment as CS", GuestState { cs: real(0, 0x093), ..reset() }),
    ] {
        assert_eq!(state.check(&CPU), Ok(()), "{name}");
        assert_eq!(state.check_event(&CPU), Ok(()), "{name}");
    }
}

/// Changes a good state, and expects the rule to be named: by its field, and some of its words.
fn names(base: GuestState, change: impl FnOnce(&mut GuestState), field: AnyField, words: &str) {
    let mut state = base;
    change(&mut state);
    let broken = state.check(&CPU).expect_err(words);
    assert_eq!(broken.field, field, "{broken}");
    assert!(broken.rule.contains(words), "{broken}, not {words}");
    assert_ne!(base.check(&CPU), Err(broken));
}

#[test]
fn control_registers_and_msrs_are_named() {
    let expect = |base, change: fn(&mut GuestState), field, words| names(base, change, field, words);
    let (cr0, cr3, cr4) = (field::GUEST_CR0.any(), field::GUEST_CR3.any(), field::GUEST_CR4.any());
    expect(reset(), |s| s.cr0 &= !0x20, cr0, "fixed to 1");
    expect(reset(), |s| s.cr0 |= 1 << 32, cr0, "fixed to 0");
    expect(reset(), |s| s.cr0 |= 1 << 31, cr0, "PG (bit 31) demands PE");
    expect(long(), |s| s.cr0 &= !(1 << 31), cr0, "demands PG");
    expect(reset(), |s| s.cr4 &= !(1 << 13), cr4, "fixed to 1");
    expect(reset(), |s| s.cr4 |= 1 << 24, cr4, "fixed to 0");
    expect(reset(), |s| s.cr4 |= 1 << 23, cr4, "CR0.WP");
    expect(long(), |s| s.cr4 &= !(1 << 5), cr4, "demands PAE");
    expect(protected(), |s| s.cr4 |= 1 << 17, cr4, "PCIDE");
    expect(long(), |s| s.cr3 |= 1 << 39, cr3, "beyond");
    expect(long(), |s| s.cr3 |= 1 << 63, cr3, "beyond");
    expect(reset(), |s| s.dr7 |= 1 << 32, field::GUEST_DR7.any(), "63:32");
    expect(reset(), |s| s.debugctl = 1 << 4, field::GUEST_IA32_DEBUGCTL.any(), "reserved");
    expect(reset(), |s| s.debugctl = 1 << 16, field::GUEST_IA32_DEBUGCTL.any(), "reserved");
    expect(long(), |s| s.sysenter_esp = 1 << 47, field::GUEST_IA32_SYSENTER_ESP.any(), "canonical");
    expect(long(), |s| s.sysenter_eip = 1 << 63, field::GUEST_IA32_SYSENTER_EIP.any(), "canonical");
    expect(reset(), |s| s.pat = 0x0200_0000, field::GUEST_IA32_PAT.any(), "memory type");
    expect(reset(), |s| s.pat |= 8 << 56, field::GUEST_IA32_PAT.any(), "memory type");
    let efer = field::GUEST_IA32_EFER.any();
    expect(reset(), |s| s.efer = 1 << 12, efer, "reserved");
    expect(reset(), |s| s.efer = 1 << 10, efer, "LMA (bit 10)");
    expect(long(), |s| s.efer = 1 << 8, efer, "LMA (bit 10)");
    expect(long(), |s| s.efer = 1 << 10, efer, "LME (bit 8)");
    expect(protected(), |s| (s.cr0, s.efer) = (0x8000_0031, 1 << 8), efer, "LME (bit 8)");
    expect(long(), |s| s.entry -= Entry::IA32E_MODE_GUEST, efer, "LMA (bit 10)");
}

#[test]
fn what_no_entry_loads_is_not_checked() {
    let mut state = reset();
    state.entry = Entry::empty();
    (state.debugctl, state.dr7, state.pat, state.efer) = (u64::MAX, u64::MAX, u64::MAX, u64::MAX);
    assert_eq!(state.check(&CPU), Ok(()));
    assert_eq!(GuestState { cr0: 0x30, ..reset() }.check(&CPU), Ok(()), "NW and CD are free");
}

#[test]
fn tables_rip_and_flags_are_named() {
    let expect = |base, change: fn(&mut GuestState), field, words| names(base, change, field, words);
    expect(long(), |s| s.gdtr.base = 1 << 47, field::GUEST_GDTR_BASE.any(), "canonical");
    expect(long(), |s| s.idtr.base = 1 << 62, field::GUEST_IDTR_BASE.any(), "canonical");
    expect(long(), |s| s.gdtr.limit = 0x1_0000, field::GUEST_GDTR_LIMIT.any(), "31:16");
    expect(long(), |s| s.idtr.limit = u32::MAX, field::GUEST_IDTR_LIMIT.any(), "31:16");
    let (rip, rflags) = (field::GUEST_RIP.any(), field::GUEST_RFLAGS.any());
    expect(protected(), |s| s.rip = 1 << 32, rip, "63:32");
    expect(long(), |s| (s.cs.access_rights.0, s.rip) = (0xC09B, 1 << 40), rip, "63:32");
    expect(long(), |s| s.rip = 1 << 48, rip, "alike");
    for bit in [3, 5, 15, 22, 63] {
        names(long(), |s| s.rflags |= 1 << bit, rflags, "reserved");
    }
    expect(long(), |s| s.rflags = 0, rflags, "bit 1");
    expect(
        reset(),
        |s| *s = with_segments(GuestState { rflags: 2 | VM, ..*s }, real(0, 0xF3), real(0, 0xF3)),
        rflags,
        "CR0.PE",
    );
    expect(
        long(),
        |s| *s = with_segments(GuestState { rflags: 2 | VM, ..*s }, real(0, 0xF3), real(0, 0xF3)),
        rflags,
        "IA-32e",
    );
    expect(long(), |s| s.event = InterruptionInfo(0x8000_0031), rflags, "IF");
    let mut state = long();
    state.rip = 1 << 47;
    assert_eq!(state.check(&CPU), Ok(()), "the fetch there faults in the guest");
}

#[test]
fn what_is_in_no_register_is_named() {
    let expect = |base, change: fn(&mut GuestState), field, words| names(base, change, field, words);
    let activity = field::GUEST_ACTIVITY_STATE.any();
    expect(long(), |s| s.activity = 4, activity, "0 to 3");
    expect(long(), |s| s.activity = 2, activity, "IA32_VMX_MISC");
    expect(long(), |s| s.activity = 3, activity, "IA32_VMX_MISC");
    let user = |s: &mut GuestState| {
        for segment in [&mut s.cs, &mut s.ss] {
            segment.access_rights.0 |= 0x60;
        }
    };
    names(long(), |s| (s.activity = 1, user(s)).1, activity, "DPL");
    expect(long(), |s| (s.activity, s.interruptibility.0, s.rflags) = (1, 1, 2 | IF), activity, "blocking by STI");
    expect(long(), |s| (s.activity, s.event.0) = (1, 0x8000_0B0D), activity, "event");
    let state = field::GUEST_INTERRUPTIBILITY_STATE.any();
    expect(long(), |s| s.interruptibility.0 = 1 << 5, state, "31:5");
    expect(long(), |s| (s.interruptibility.0, s.rflags) = (3, 2 | IF), state, "exclude");
    expect(long(), |s| s.interruptibility.0 = 1, state, "RFLAGS.IF");
    expect(long(), |s| s.interruptibility.0 = 4, state, "SMI");
    expect(long(), |s| (s.interruptibility.0, s.event.0) = (8, 0x8000_0202), state, "blocking by NMI");
    expect(long(), |s| (s.interruptibility.0, s.event.0) = (2, 0x8000_0202), state, "an NMI to deliver");
    expect(
        long(),
        |s| (s.interruptibility.0, s.event.0, s.rflags) = (1, 0x8000_0202, 2 | IF),
        state,
        "an NMI to deliver",
    );
    expect(long(), |s| (s.interruptibility.0, s.event.0, s.rflags) = (2, 0x8000_0031, 2 | IF), state, "an interrupt");
    expect(long(), |s| (s.interruptibility.0, s.event.0, s.rflags) = (1, 0x8000_0031, 2 | IF), state, "an interrupt");
    expect(long(), |s| s.interruptibility.0 = 0x12, state, "enclave");
    let pending = field::GUEST_PENDING_DEBUG_EXCEPTIONS.any();
    for bit in [4, 10, 13, 15, 17, 63] {
        names(long(), |s| s.pending_debug = 1 << bit, pending, "reserved");
    }
    expect(long(), |s| (s.interruptibility.0, s.rflags) = (1, 2 | IF | TF), pending, "RFLAGS.TF");
    expect(long(), |s| (s.interruptibility.0, s.rflags) = (2, 2 | TF), pending, "RFLAGS.TF");
    expect(long(), |s| (s.activity, s.rflags) = (1, 2 | TF), pending, "RFLAGS.TF");
    expect(long(), |s| (s.activity, s.pending_debug) = (1, 1 << 14), pending, "RFLAGS.TF");
    expect(long(), |s| s.pending_debug = 1 << 16, pending, "bit 12");
    expect(long(), |s| (s.pending_debug, s.interruptibility.0) = (0x1_1000, 2), pending, "MOV SS");
    expect(long(), |s| s.link_pointer = 0, field::VMCS_LINK_POINTER.any(), "all ones");
    let pae = GuestState { cr0: 0x8000_0031, cr4: 0x2020, ..protected() };
    expect(pae, |s| s.pdptes[3] = 0x3, field::GUEST_PDPTE_3.any(), "reserved");
    expect(pae, |s| s.pdptes[0] = 1 << 39 | 1, field::GUEST_PDPTE_0.any(), "reserved");
    assert_eq!(GuestState { pdptes: [0x1001, 0x1E6, 0, !1], ..pae }.check(&CPU), Ok(()), "the others are absent");
}

#[test]
fn events_are_named() {
    let event = |cr0: u64, info: u32, error_code, length| {
        let state = GuestState {
            cr0,
            event: InterruptionInfo(info),
            event_error_code: error_code,
            event_instruction_length: length,
            ..protected()
        };
        state.check_event(&CPU)
    };
    let (real, protected) = (0x30, 0x31);
    for info in [0, 0x7FFF_FFFF, 0x8000_0202, 0x8000_0031, 0x8000_0301, 0x8000_0700] {
        assert_eq!(event(protected, info, 0, 0), Ok(()), "{info:#x}");
        assert_eq!(event(real, info, 0, 0), Ok(()), "{info:#x}");
    }
    assert_eq!(event(protected, 0x8000_0B0D, 0xFFFF, 0), Ok(()));
    assert_eq!(event(real, 0x8000_030D, 0, 0), Ok(()));
    for len in 1..=15 {
        assert_eq!(event(protected, 0x8000_0480, 0, len), Ok(()));
    }
    let info = field::VM_ENTRY_INTERRUPTION_INFORMATION.any();
    let len = field::VM_ENTRY_INSTRUCTION_LENGTH.any();
    for (cr0, value, error_code, length, field, words) in [
        (protected, 0x8000_0102, 0, 0, info, "must not be 1"),
        (protected, 0x8000_0203, 0, 0, info, "an NMI"),
        (protected, 0x8000_0320, 0, 0, info, "at most 31"),
        (protected, 0x8000_0701, 0, 0, info, "type 7"),
        (protected, 0x8000_030D, 0, 0, info, "has an error code"),
        (protected, 0x8000_0B06, 0, 0, info, "has no error code"),
        (protected, 0x8000_0A02, 0, 0, info, "only an exception"),
        (real, 0x8000_0B0D, 0, 0, info, "without CR0.PE"),
        (protected, 0x8000_1202, 0, 0, info, "30:12"),
        (protected, 0x8000_0B0D, 0x1_0000, 0, field::VM_ENTRY_EXCEPTION_ERROR_CODE.any(), "31:16"),
        (protected, 0x8000_0480, 0, 0, len, "1 to 15"),
        (protected, 0x8000_0603, 0, 16, len, "1 to 15"),
    ] {
        let broken = event(cr0, value, error_code, length).expect_err(words);
        assert_eq!(broken.field, field, "{broken}");
        assert!(broken.rule.contains(words) && broken.section == "27.2.1.3", "{broken}, not {words}");
    }
    let lenient = Cpu { any_error_code: true, misc: Misc(1 << 30), ..CPU };
    for value in [0x8000_030D, 0x8000_0B06, 0x8000_0480] {
        let state = GuestState { event: InterruptionInfo(value), ..self::protected() };
        assert_eq!(state.check_event(&lenient), Ok(()), "{value:#x}");
    }
}

#[test]
fn a_report_has_field_value_bits_and_source() {
    let broken = GuestState { cr0: 0x6000_0010, ..reset() }.check(&CPU).unwrap_err();
    assert_eq!(
        broken.to_string(),
        "guest CR0 is 0x60000010: bits that are fixed to 1 in VMX operation have to be set, 0x20 are not \
         (SDM vol. 3 section 27.3.1.1)"
    );
    let broken = GuestState { activity: 7, ..reset() }.check(&CPU).unwrap_err();
    assert_eq!(broken.to_string(), "guest activity state is 0x7: it has to be 0 to 3 (SDM vol. 3 section 27.3.1.5)");
}

/// CPUID 0x8000_0008 EAX has 39 bits of physical, 48 of linear addresses.
#[test]
fn a_cpu_is_known_by_its_capabilities() {
    let capabilities = VmxCapabilities::collect(|number| match number {
        msr::CR0_FIXED0 => 0x8000_0021,
        msr::CR0_FIXED1 => 0xFFFF_FFFF,
        msr::CR4_FIXED0 => 0x2000,
        msr::CR4_FIXED1 => 0xFF_FFFF,
        msr::MISC => 1 << 6,
        _ => 0,
    });
    assert_eq!(Cpu::new(&capabilities, 0x3027), CPU);
}

/// A report is about the value that the field has, and names bits of it, set or clear.
fn is_true(broken: &Broken, state: &GuestState) -> bool {
    let clear = broken.rule.contains("to be set");
    broken.value == fields(state, broken.field)
        && (if clear { !broken.value } else { broken.value }) & broken.bits == broken.bits
}

proptest! {
    /// All that is checked is read, from the field that it is in.
    #[test]
    fn collecting_reads_each_field(base in 0..5usize) {
        let state = [reset(), started_up(7), protected(), long(), virtual_8086()][base];
        prop_assert_eq!(GuestState::collect(|field| fields(&state, field)), state);
    }

    /// One bit flipped anywhere: either the state is legal still, or the report is about that field or one that depends on it,
    /// and true.
    #[test]
    fn one_flipped_bit_is_reported_truly(base in 0..5usize, at in any::<prop::sample::Index>(), bit in 0..64u32) {
        let good = [reset(), started_up(7), protected(), long(), virtual_8086()][base];
        let mut asked = Vec::new();
        let _ = GuestState::collect(|field| { asked.push(field); 0 });
        let flipped = *at.get(&asked);
        let state = GuestState::collect(|field| fields(&good, field) ^ if field == flipped { 1 << bit } else { 0 });
        for result in [state.check(&CPU), state.check_event(&CPU)] {
            if let Err(broken) = result {
                prop_assert!(is_true(&broken, &state), "{broken}");
            }
        }
    }

    /// Whatever the fields and the CPU hold, checking ends, and tells the truth.
    #[test]
    fn checks_are_total(values in prop::collection::vec(any::<u64>(), 80), base in 0..5usize, keep in any::<u64>(),
        physical_bits in any::<u8>(), linear_bits in any::<u8>(), misc in any::<u64>()) {
        let good = [reset(), started_up(7), protected(), long(), virtual_8086()][base];
        let mut number = 0;
        let state = GuestState::collect(|field| {
            number += 1;
            if keep >> (number % 64) & 1 == 0 { fields(&good, field) } else { values[number] }
        });
        let cpu = Cpu { physical_bits, linear_bits, misc: Misc(misc), ..CPU };
        for cpu in [CPU, cpu] {
            for result in [state.check(&cpu), state.check_event(&cpu)] {
                if let Err(broken) = result {
                    prop_assert!(is_true(&broken, &state), "{broken}");
                }
            }
        }
    }
}
