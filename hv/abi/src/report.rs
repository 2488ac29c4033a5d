//! How a guest, and the hypervisor itself, report the end of a run.

/// The I/O port whose write ends a run: QEMU's `isa-debug-exit` on the bare machine, trapped in a partition.
/// A byte is enough, so that a Linux guest can write it through `/dev/port`.
pub const EXIT_PORT: u16 = 0xF4;

/// What a guest writes to [`EXIT_PORT`] when all it had to show succeeded. Any other byte reports a failure.
pub const EXIT_SUCCESS: u8 = 0x10;
/// What a bare-metal payload writes to [`EXIT_PORT`] when one of its claims failed.
pub const EXIT_FAILURE: u8 = 0x11;

/// How the hypervisor ends a run on [`EXIT_PORT`] of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HypervisorExit {
    /// Every partition that is expected to finish reported success.
    Success = EXIT_SUCCESS,
    /// A partition reported a failure or was stopped by the hypervisor.
    PartitionFailed = 0x11,
    /// The machine or the bundle was refused before any partition ran; the console says why.
    Refused = 0x12,
    /// The hypervisor met a condition that it cannot survive; the console says which.
    Fatal = 0x13,
}

impl HypervisorExit {
    /// The process exit code of QEMU after this value was written to its `isa-debug-exit` device.
    pub const fn qemu_exit_code(self) -> i32 {
        ((self as i32) << 1) | 1
    }

    /// The reverse of [`Self::qemu_exit_code`].
    pub const fn from_qemu_exit_code(code: i32) -> Option<Self> {
        match code {
            33 => Some(Self::Success),
            35 => Some(Self::PartitionFailed),
            37 => Some(Self::Refused),
            39 => Some(Self::Fatal),
            _ => None,
        }
    }
}

/// Start of the last line that the hypervisor prints on its console. A run counts only with it *and* the exit code.
pub const END_MARKER: &str = "partita: end: ";
/// Start of the last line that a bare-metal payload prints on its console.
pub const PAYLOAD_END_MARKER: &str = "payload: end: ";
/// What the hypervisor, and a payload on the bare machine, print before the address of their trace region.
pub const TRACE_REGION_AT: &str = "trace region at";
/// What follows an end marker after a success.
pub const END_SUCCESS: &str = "success";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_what_qemu_makes_of_the_byte() {
        for exit in
            [HypervisorExit::Success, HypervisorExit::PartitionFailed, HypervisorExit::Refused, HypervisorExit::Fatal]
        {
            assert_eq!(HypervisorExit::from_qemu_exit_code(exit.qemu_exit_code()), Some(exit));
        }
        assert_eq!(HypervisorExit::Success.qemu_exit_code(), 33);
        assert_eq!(HypervisorExit::from_qemu_exit_code(0), None);
    }
}
