//! Segment registers (SDM vol. 3 section 27.3.1.2).

use super::registers::CANONICAL;
use super::{CR0_PE, Checked, Cpu, GuestState, Section, Segment};
use crate::vmx::field::SegmentFields;
use crate::vmx::field::segment::{CS, DS, ES, FS, GS, LDTR, SS, TR};

const SEGMENTS: Section = Section("27.3.1.2");

/// Access rights of a segment (SDM vol. 3 table 25-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRights(pub u32);

impl AccessRights {
    /// The register holds no segment.
    pub const UNUSABLE: Self = Self(1 << 16);

    /// From twelve bits as a VMCB has them: those of a descriptor, without the limit's between them.
    #[inline]
    pub const fn from_attributes(attributes: u16) -> Self {
        let attributes = attributes as u32;
        Self(attributes & 0xFF | (attributes & 0xF00) << 4)
    }

    /// Whether the register holds no segment.
    #[inline]
    pub const fn unusable(self) -> bool {
        self.0 & Self::UNUSABLE.0 != 0
    }

    /// The type: bits 3:0.
    const fn kind(self) -> u32 {
        self.0 & 0xF
    }

    /// Whether it is for code or data.
    const fn code_or_data(self) -> bool {
        self.0 & (1 << 4) != 0
    }

    /// Descriptor privilege level. In SS, the guest's.
    #[inline]
    pub const fn dpl(self) -> u8 {
        (self.0 >> 5 & 3) as u8
    }

    const fn present(self) -> bool {
        self.0 & (1 << 7) != 0
    }

    /// Whether it is a code segment of 64-bit mode.
    #[inline]
    pub const fn long(self) -> bool {
        self.0 & (1 << 13) != 0
    }

    const fn default_32(self) -> bool {
        self.0 & (1 << 14) != 0
    }

    const fn granularity(self) -> bool {
        self.0 & (1 << 15) != 0
    }

    const fn reserved(self) -> u64 {
        (self.0 & !0x1_F0FF) as u64
    }
}

impl Segment {
    /// Whether the granularity bit and the limit can come from one descriptor.
    const fn limit_fits(&self) -> bool {
        let (g, limit) = (self.access_rights.granularity(), self.limit);
        (limit & 0xFFF == 0xFFF || !g) && (limit >> 20 == 0 || g)
    }

    const fn in_ldt(&self) -> bool {
        self.selector & 4 != 0
    }
}

const KIND_ACCESSED: u32 = 1 << 0;
const KIND_READABLE: u32 = 1 << 1;
const KIND_CODE: u32 = 1 << 3;
/// Data, writable, accessed: as CS, the code segment of an unrestricted guest in real mode.
const KIND_DATA: u32 = 3;
const KIND_LDT: u32 = 2;
const KIND_BUSY_TSS_16: u32 = 3;
const KIND_BUSY_TSS: u32 = 11;
/// Access rights of every segment in virtual-8086 mode.
const RIGHTS_8086: u32 = 0xF3;
const LIMIT_8086: u32 = 0xFFFF;

pub(super) fn check(state: &GuestState, cpu: &Cpu) -> Checked {
    let data = [(SS, &state.ss), (DS, &state.ds), (ES, &state.es), (FS, &state.fs), (GS, &state.gs)];
    if state.virtual_8086() {
        check_8086(CS, &state.cs)?;
        for (fields, segment) in data {
            check_8086(fields, segment)?;
        }
    } else {
        check_code(state)?;
        check_stack(state)?;
        for (fields, segment) in data {
            check_data(fields, segment)?;
        }
        for (fields, segment) in [(DS, &state.ds), (ES, &state.es)] {
            if !segment.access_rights.unusable() {
                check_low_base(fields, segment)?;
            }
        }
    }
    check_base(FS, &state.fs, cpu)?;
    check_base(GS, &state.gs, cpu)?;
    check_task(state)?;
    check_base(TR, &state.tr, cpu)?;
    if state.ldtr.access_rights.unusable() {
        return Ok(());
    }
    check_base(LDTR, &state.ldtr, cpu)?;
    check_system(LDTR, &state.ldtr)?;
    let is_ldt = state.ldtr.access_rights.kind() == KIND_LDT;
    SEGMENTS.demand(is_ldt, LDTR.access_rights, state.ldtr.access_rights.0, "the type (bits 3:0) has to be 2, an LDT")
}

fn check_base(fields: SegmentFields, segment: &Segment, cpu: &Cpu) -> Checked {
    SEGMENTS.demand(cpu.canonical(segment.base), fields.base, segment.base, CANONICAL)
}

fn check_8086(fields: SegmentFields, segment: &Segment) -> Checked {
    let base = u64::from(segment.selector) << 4;
    let rule = "in virtual-8086 mode the base has to be 16 times the selector";
    SEGMENTS.demand(segment.base == base, fields.base, segment.base, rule)?;
    let rule = "in virtual-8086 mode the limit has to be 0xffff";
    SEGMENTS.demand(segment.limit == LIMIT_8086, fields.limit, segment.limit, rule)?;
    let rule = "in virtual-8086 mode the access rights have to be 0xf3";
    SEGMENTS.demand(segment.access_rights.0 == RIGHTS_8086, fields.access_rights, segment.access_rights.0, rule)
}

/// What holds for each segment that is usable, of code, data or the system.
fn check_usable(fields: SegmentFields, segment: &Segment) -> Checked {
    let (field, rights) = (fields.access_rights, segment.access_rights);
    SEGMENTS.demand(rights.present(), field, rights.0, "the present bit (7) has to be set")?;
    SEGMENTS.none(rights.reserved(), field, rights.0, "bits 11:8 and 31:17 have to be clear")?;
    let rule = "granularity (bit 15 of the access rights) demands bits 11:0 all set, and is demanded by bits 31:20";
    SEGMENTS.demand(segment.limit_fits(), fields.limit, segment.limit, rule)
}

fn check_memory(fields: SegmentFields, segment: &Segment) -> Checked {
    let (field, rights) = (fields.access_rights, segment.access_rights);
    SEGMENTS.demand(rights.code_or_data(), field, rights.0, "bit 4 has to be set: code or data")?;
    check_usable(fields, segment)
}

fn check_code(state: &GuestState) -> Checked {
    let (segment, rights) = (&state.cs, state.cs.access_rights);
    let (field, stack_dpl) = (CS.access_rights, state.ss.access_rights.dpl());
    check_low_base(CS, segment)?;
    check_memory(CS, segment)?;
    match rights.kind() {
        KIND_DATA => SEGMENTS.demand(rights.dpl() == 0, field, rights.0, "the DPL of type 3 has to be 0"),
        9 | 11 => SEGMENTS.demand(rights.dpl() == stack_dpl, field, rights.0, "the DPL has to be that of SS"),
        13 | 15 => SEGMENTS.demand(rights.dpl() <= stack_dpl, field, rights.0, "the DPL has to be at most that of SS"),
        _ => SEGMENTS.demand(false, field, rights.0, "the type (bits 3:0) has to be 3, 9, 11, 13 or 15"),
    }?;
    let rule = "in IA-32e mode, L (bit 13) demands no D (bit 14)";
    SEGMENTS.demand(!(state.ia32e() && rights.long() && rights.default_32()), field, rights.0, rule)
}

fn check_stack(state: &GuestState) -> Checked {
    let (field, rights) = (SS.access_rights, state.ss.access_rights);
    let is_real = state.cr0 & CR0_PE == 0 || state.cs.access_rights.kind() == KIND_DATA;
    let rule = "the DPL has to be 0 without CR0.PE, or with CS of type 3";
    SEGMENTS.demand(rights.dpl() == 0 || !is_real, field, rights.0, rule)?;
    if rights.unusable() {
        return Ok(());
    }
    check_low_base(SS, &state.ss)?;
    let rule = "the type (bits 3:0) has to be 3 or 7, writable data";
    SEGMENTS.demand(matches!(rights.kind(), 3 | 7), field, rights.0, rule)
}

/// SS, DS, ES, FS or GS.
fn check_data(fields: SegmentFields, segment: &Segment) -> Checked {
    let (field, rights) = (fields.access_rights, segment.access_rights);
    if rights.unusable() {
        return Ok(());
    }
    let kind = rights.kind();
    SEGMENTS.demand(kind & KIND_ACCESSED != 0, field, rights.0, "bit 0 of the type has to be set: accessed")?;
    let is_readable = kind & (KIND_CODE | KIND_READABLE) != KIND_CODE;
    SEGMENTS.demand(is_readable, field, rights.0, "code (bit 3 of the type) has to be readable (bit 1)")?;
    check_memory(fields, segment)
}

/// CS, SS, DS or ES; FS and GS can lie above.
fn check_low_base(fields: SegmentFields, segment: &Segment) -> Checked {
    SEGMENTS.none(segment.base & !0xFFFF_FFFF, fields.base, segment.base, "bits 63:32 have to be clear")
}

/// TR or LDTR.
fn check_system(fields: SegmentFields, segment: &Segment) -> Checked {
    let (field, rights) = (fields.access_rights, segment.access_rights);
    SEGMENTS.demand(!segment.in_ldt(), fields.selector, segment.selector, "TI (bit 2) has to be clear")?;
    SEGMENTS.demand(!rights.code_or_data(), field, rights.0, "bit 4 has to be clear: a system segment")?;
    check_usable(fields, segment)
}

fn check_task(state: &GuestState) -> Checked {
    let (field, rights) = (TR.access_rights, state.tr.access_rights);
    SEGMENTS.demand(!rights.unusable(), field, rights.0, "TR has to be usable (bit 16 clear)")?;
    check_system(TR, &state.tr)?;
    let is_busy = rights.kind() == KIND_BUSY_TSS || rights.kind() == KIND_BUSY_TSS_16 && !state.ia32e();
    let rule = "the type (bits 3:0) has to be 11, a busy TSS, or outside IA-32e mode 3";
    SEGMENTS.demand(is_busy, field, rights.0, rule)
}
