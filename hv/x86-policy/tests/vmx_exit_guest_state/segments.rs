//! Segment registers.

use partita_x86_policy::vmx::field::segment::{CS, DS, ES, FS, GS, LDTR, SS, TR};
use partita_x86_policy::vmx::guest_state::GuestState;

use crate::names;
use crate::states::{CPU, long, protected, reset, virtual_8086};

#[test]
fn segments_are_named() {
    let expect = |base, change: fn(&mut GuestState), field, words| names(base, change, field, words);
    expect(long(), |s| s.cs.base = 1 << 32, CS.base.any(), "63:32");
    expect(long(), |s| s.ss.base = 1 << 32, SS.base.any(), "63:32");
    expect(long(), |s| s.es.base = 1 << 40, ES.base.any(), "63:32");
    expect(long(), |s| s.fs.base = 1 << 47, FS.base.any(), "canonical");
    expect(long(), |s| s.gs.base = 1 << 63, GS.base.any(), "canonical");
    expect(long(), |s| s.tr.base = 1 << 47, TR.base.any(), "canonical");
    expect(long(), |s| s.ldtr.base = 1 << 47, LDTR.base.any(), "canonical");
    expect(long(), |s| s.tr.selector = 4, TR.selector.any(), "TI");
    expect(long(), |s| s.ldtr.selector = 4, LDTR.selector.any(), "TI");
    // Types.
    expect(long(), |s| s.cs.access_rights.0 ^= 1, CS.access_rights.any(), "3, 9, 11, 13 or 15");
    expect(long(), |s| s.cs.access_rights.0 ^= 0x8 | 0x60, CS.access_rights.any(), "type 3");
    expect(long(), |s| s.cs.access_rights.0 ^= 0x20, CS.access_rights.any(), "that of SS");
    expect(long(), |s| s.cs.access_rights.0 ^= 0x24, CS.access_rights.any(), "at most that of SS");
    expect(long(), |s| s.ss.access_rights.0 ^= 2, SS.access_rights.any(), "3 or 7");
    expect(reset(), |s| (s.ss.access_rights.0, s.cs.access_rights.0) = (0xF3, 0xFB), SS.access_rights.any(), "CR0.PE");
    expect(long(), |s| s.ds.access_rights.0 ^= 1, DS.access_rights.any(), "accessed");
    expect(long(), |s| s.gs.access_rights.0 ^= 0xA, GS.access_rights.any(), "readable");
    expect(long(), |s| s.tr.access_rights.0 ^= 2, TR.access_rights.any(), "busy TSS");
    expect(long(), |s| s.tr.access_rights.0 ^= 8, TR.access_rights.any(), "busy TSS");
    expect(long(), |s| s.ldtr.access_rights.0 ^= 8, LDTR.access_rights.any(), "an LDT");
    // Bits that are alike for all.
    expect(long(), |s| s.cs.access_rights.0 ^= 0x10, CS.access_rights.any(), "code or data");
    expect(long(), |s| s.es.access_rights.0 ^= 0x10, ES.access_rights.any(), "code or data");
    expect(long(), |s| s.tr.access_rights.0 ^= 0x10, TR.access_rights.any(), "system");
    expect(long(), |s| s.ldtr.access_rights.0 ^= 0x10, LDTR.access_rights.any(), "system");
    expect(long(), |s| s.cs.access_rights.0 ^= 0x80, CS.access_rights.any(), "present");
    expect(long(), |s| s.fs.access_rights.0 ^= 0x80, FS.access_rights.any(), "present");
    expect(long(), |s| s.tr.access_rights.0 ^= 0x80, TR.access_rights.any(), "present");
    expect(long(), |s| s.ldtr.access_rights.0 ^= 0x80, LDTR.access_rights.any(), "present");
    expect(long(), |s| s.ss.access_rights.0 ^= 0x100, SS.access_rights.any(), "11:8");
    expect(long(), |s| s.cs.access_rights.0 ^= 1 << 31, CS.access_rights.any(), "31:17");
    expect(long(), |s| s.tr.access_rights.0 ^= 1 << 17, TR.access_rights.any(), "31:17");
    expect(long(), |s| s.tr.access_rights.0 ^= 1 << 16, TR.access_rights.any(), "usable");
    expect(long(), |s| s.cs.access_rights.0 ^= 1 << 14, CS.access_rights.any(), "no D");
    expect(reset(), |s| s.cs.limit = 0x10_0000, CS.limit.any(), "granularity");
    expect(long(), |s| s.ds.limit = 0xFFFF_0000, DS.limit.any(), "granularity");
    expect(long(), |s| s.tr.limit = 0x10_0FFF, TR.limit.any(), "granularity");
    expect(long(), |s| s.ldtr.limit = u32::MAX, LDTR.limit.any(), "granularity");
    // Virtual-8086 mode.
    expect(virtual_8086(), |s| s.cs.base += 1, CS.base.any(), "16 times");
    expect(virtual_8086(), |s| s.gs.limit = 0, GS.limit.any(), "0xffff");
    expect(virtual_8086(), |s| s.ss.access_rights.0 = 0x93, SS.access_rights.any(), "0xf3");
    // Outside 64-bit mode, D may stand with L, and TR may be one of 16 bits.
    let mut state = protected();
    state.cs.access_rights.0 |= 1 << 13;
    state.tr.access_rights.0 ^= 8;
    assert_eq!(state.check(&CPU), Ok(()));
}
