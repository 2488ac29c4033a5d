//! Why an instruction of VMX failed.

use core::fmt;

/// The VM-instruction error field, valid behind an instruction that failed with ZF set (SDM vol. 3 section 31.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionError(pub u32);

impl InstructionError {
    /// VMRESUME where VMLAUNCH has never succeeded.
    pub const NOT_LAUNCHED: Self = Self(5);
    /// VM entry with invalid control fields: [`ControlState::check`](crate::vmx::control_state::ControlState::check) names the
    /// rule, or [`GuestState::check_event`](crate::vmx::guest_state::GuestState::check_event) if it is about the event to deliver.
    pub const INVALID_CONTROLS: Self = Self(7);
    /// VM entry with invalid host-state fields: [`HostState::check`](crate::vmx::host_state::HostState::check) names the rule.
    pub const INVALID_HOST_STATE: Self = Self(8);

    /// The SDM's words.
    pub const fn text(self) -> &'static str {
        match self.0 {
            1 => "VMCALL in VMX root operation",
            2 => "VMCLEAR with invalid physical address",
            3 => "VMCLEAR with VMXON pointer",
            4 => "VMLAUNCH with non-clear VMCS",
            5 => "VMRESUME with non-launched VMCS",
            6 => "VMRESUME after VMXOFF",
            7 => "VM entry with invalid control fields",
            8 => "VM entry with invalid host-state fields",
            9 => "VMPTRLD with invalid physical address",
            10 => "VMPTRLD with VMXON pointer",
            11 => "VMPTRLD with incorrect VMCS revision identifier",
            12 => "VMREAD or VMWRITE of an unsupported VMCS component",
            13 => "VMWRITE to a read-only VMCS component",
            15 => "VMXON in VMX root operation",
            16 => "VM entry with invalid executive-VMCS pointer",
            17 => "VM entry with non-launched executive VMCS",
            18 => "VM entry with executive-VMCS pointer not VMXON pointer",
            19 => "VMCALL with non-clear VMCS",
            20 => "VMCALL with invalid VM-exit control fields",
            22 => "VMCALL with incorrect MSEG revision identifier",
            23 => "VMXOFF under dual-monitor treatment of SMIs and SMM",
            24 => "VMCALL with invalid SMM-monitor features",
            25 => "VM entry with invalid VM-execution control fields in executive VMCS",
            26 => "VM entry with events blocked by MOV SS",
            28 => "invalid operand to INVEPT or INVVPID",
            _ => "an error that the SDM does not list",
        }
    }
}

impl fmt::Display for InstructionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VM-instruction error {}: {} (SDM vol. 3 section 31.4)", self.0, self.text())
    }
}
