//! Intel's virtualisation extension (SDM vol. 3 chapters 24 to 29, appendices A to C): its fields, what it can do and has to,
//! and what it says when a guest is left or is not entered.

pub mod capability;
pub mod control;
pub mod control_state;
pub mod ept;
pub mod event;
pub mod exit;
pub mod explain;
pub mod field;
pub mod guest_state;
pub mod host_state;
pub mod qualification;
mod rule;
