//! The event to deliver (SDM vol. 3 section 27.2.1.3).

use super::{CR0_PE, Checked, Cpu, GuestState, Section};
use crate::vmx::event::{EventKind, has_error_code};
use crate::vmx::field;

const EVENT: Section = Section("27.2.1.3");

const RESERVED: u32 = 0x7FFF_F000;
const NMI_VECTOR: u8 = 2;
const LAST_EXCEPTION: u8 = 31;
const MAX_INSTRUCTION: u32 = 15;

pub(super) fn check(state: &GuestState, cpu: &Cpu) -> Checked {
    let (field, event) = (field::VM_ENTRY_INTERRUPTION_INFORMATION, state.event);
    if !event.valid() {
        return Ok(());
    }
    let demand = |holds, rule| EVENT.demand(holds, field, event.0, rule);
    let (kind, vector) = (event.kind(), event.vector());
    demand(kind != EventKind::Reserved, "the type (bits 10:8) must not be 1")?;
    demand(kind != EventKind::Nmi || vector == NMI_VECTOR, "the vector of an NMI has to be 2")?;
    let is_exception = kind == EventKind::HardwareException;
    demand(!is_exception || vector <= LAST_EXCEPTION, "the vector of an exception has to be at most 31")?;
    demand(kind != EventKind::Other || vector == 0, "the vector of type 7 has to be 0")?;
    let demanded = is_exception && has_error_code(vector) && state.cr0 & CR0_PE != 0;
    if event.has_error_code() {
        demand(state.cr0 & CR0_PE != 0, "there is no error code (bit 11) without CR0.PE")?;
        demand(is_exception, "only an exception of the hardware has an error code (bit 11)")?;
        demand(demanded || cpu.any_error_code, "this vector has no error code (bit 11)")?;
        let (field, code) = (field::VM_ENTRY_EXCEPTION_ERROR_CODE, state.event_error_code);
        EVENT.none(u64::from(code & 0xFFFF_0000), field, code, "bits 31:16 have to be clear")?;
    } else {
        demand(!demanded || cpu.any_error_code, "this vector has an error code (bit 11)")?;
    }
    EVENT.none(u64::from(event.0 & RESERVED), field, event.0, "bits 30:12 have to be clear")?;
    let (field, len) = (field::VM_ENTRY_INSTRUCTION_LENGTH, state.event_instruction_length);
    let first = if cpu.misc.injects_length_0() { 0 } else { 1 };
    let fits = (first..=MAX_INSTRUCTION).contains(&len);
    EVENT.demand(!kind.by_instruction() || fits, field, len, "the length of an instruction has to be 1 to 15")
}
