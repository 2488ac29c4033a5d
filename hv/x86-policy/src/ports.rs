//! The I/O port policy: which ports a partition owns, which are emulated, and what the rest give; with SVM's I/O
//! permission map and the decoding of its I/O exits.

use partita_abi::guest::{
    RESET_NOW, RESET_PORT, SLEEP_CONTROL_PORT, SLEEP_ENABLE, SLEEP_STATUS_PORT, SLEEP_TYPE_OFF, SLEEP_TYPE_SHIFT,
};
use partita_abi::report::EXIT_PORT;
use partita_core::system::{Identity, PortRange, SerialPort};

use crate::vmware::BACKDOOR_PORT;

/// An IN or OUT that exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoAccess {
    /// The first port.
    pub port: u16,
    /// Bytes: 1, 2 or 4.
    pub size: u8,
    /// Whether it is an IN.
    pub input: bool,
    /// Whether it is INS or OUTS.
    pub string: bool,
    /// Whether it has a REP prefix.
    pub rep: bool,
}

impl IoAccess {
    /// Decodes EXITINFO1 of an IOIO exit (APM vol. 2 section 15.10.2).
    #[inline]
    pub const fn from_svm(exit_info_1: u64) -> Self {
        let size = match (exit_info_1 >> 4) & 7 {
            1 => 1,
            2 => 2,
            _ => 4,
        };
        Self {
            port: (exit_info_1 >> 16) as u16,
            size,
            input: exit_info_1 & 1 != 0,
            string: exit_info_1 & (1 << 2) != 0,
            rep: exit_info_1 & (1 << 3) != 0,
        }
    }

    /// Decodes the exit qualification of an I/O instruction (SDM vol. 3 table 28-5).
    #[inline]
    pub const fn from_vmx(qualification: u64) -> Self {
        let size = match qualification & 7 {
            0 => 1,
            1 => 2,
            _ => 4,
        };
        Self {
            port: (qualification >> 16) as u16,
            size,
            input: qualification & (1 << 3) != 0,
            string: qualification & (1 << 4) != 0,
            rep: qualification & (1 << 5) != 0,
        }
    }

    /// What an OUT of this size writes; 0 for an IN, which has no value yet.
    #[inline]
    pub const fn value(self, rax: u64) -> u32 {
        match (self.input, self.size) {
            (true, _) => 0,
            (false, 1) => rax as u8 as u32,
            (false, 2) => rax as u16 as u32,
            (false, _) => rax as u32,
        }
    }

    /// The guest's RAX after an IN of this size that read `value`: 8 and 16-bit reads keep the rest of the register,
    /// 32-bit ones clear the upper half.
    #[inline]
    pub const fn merge_rax(self, rax: u64, value: u32) -> u64 {
        match self.size {
            1 => rax & !0xFF | (value & 0xFF) as u64,
            2 => rax & !0xFFFF | (value & 0xFFFF) as u64,
            _ => value as u64,
        }
    }
}

/// What an IN or OUT that exited does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortDecision {
    /// An OUT to the exit port: the partition ends with the byte in AL.
    Finish,
    /// The partition powers itself off.
    PowerOff,
    /// The partition resets itself.
    Reset,
    /// An OUT of AL to [`crate::cmos::Cmos::select`].
    CmosSelect,
    /// An IN from [`crate::cmos::Cmos::read`].
    CmosRead,
    /// A VMware backdoor call, if EAX holds its magic; else as [`Self::Quiet`].
    Vmware,
    /// An IN reads all ones, an OUT does nothing. Known and harmless: not counted.
    Quiet,
    /// An IN reads 0, an OUT does nothing. Known and harmless: not counted.
    Zero,
    /// An IN reads all ones, an OUT does nothing. Counted.
    Refuse,
    /// #GP, counted: a string form, which would need the guest's memory.
    Gp,
}

/// The I/O port policy of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPolicy {
    console: Option<SerialPort>,
    identity: Identity,
}

const CMOS_INDEX: u16 = 0x70;
const CMOS_DATA: u16 = 0x71;
/// The POST diagnostic port.
const POST_DELAY: u16 = quick_out::PORT;

/// An OUT of AL to the POST diagnostic port, which Linux writes to wait a microsecond: [`PortDecision::Quiet`] for all partitions, and so
/// told by a mask and a comparison.
pub mod quick_out {
    /// The port.
    pub const PORT: u16 = 0x80;
    /// The bits of SVM's EXITINFO1 that tell (APM vol. 2 section 15.10.2): port, size, REP, string, direction.
    pub const SVM_MASK: u32 = 0xFFFF_007D;
    /// What they are.
    pub const SVM_VALUE: u32 = (PORT as u32) << 16 | 1 << 4;
    /// The bits of VMX's exit qualification that tell (SDM vol. 3 table 28-5): port, REP, string, direction, size.
    pub const VMX_MASK: u32 = 0xFFFF_003F;
    /// What they are.
    pub const VMX_VALUE: u32 = (PORT as u32) << 16;
}
/// Command port of a PC's keyboard controller, and the command that pulses its output 0, which resets the PC.
const KEYBOARD_COMMAND: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xFE;
const PCI_CONFIG_FIRST: u16 = 0xCF8;
const PCI_CONFIG_LAST: u16 = 0xCFF;

/// Ports of one serial port.
pub(crate) const SERIAL_LEN: u16 = 8;

/// The first port of a serial port.
pub const fn serial_base(port: SerialPort) -> u16 {
    match port {
        SerialPort::Com2 => 0x2F8,
        SerialPort::Com3 => 0x3E8,
        SerialPort::Com4 => 0x2E8,
        SerialPort::Com5 => 0x5F8,
        SerialPort::Com6 => 0x4F8,
        SerialPort::Com7 => 0x5E8,
        SerialPort::Com8 => 0x4E8,
    }
}

impl PortPolicy {
    /// The policy of a partition that owns `console`.
    pub const fn new(console: Option<SerialPort>, identity: Identity) -> Self {
        Self { console, identity }
    }

    /// Whether the guest reaches this port without an exit.
    pub const fn owns(self, port: u16) -> bool {
        match self.console {
            Some(console) => port.wrapping_sub(serial_base(console)) < SERIAL_LEN,
            None => false,
        }
    }

    /// What an access that exited does; `value` is what an OUT writes, in its low `access.size` bytes.
    #[inline]
    pub const fn decide(self, access: IoAccess, value: u32) -> PortDecision {
        if access.string {
            return PortDecision::Gp;
        }
        match (access.port, access.input) {
            (POST_DELAY, _) => PortDecision::Quiet,
            (EXIT_PORT, false) => PortDecision::Finish,
            (CMOS_INDEX, false) if access.size == 1 => PortDecision::CmosSelect,
            (CMOS_DATA, true) if access.size == 1 => PortDecision::CmosRead,
            // The clock and its memory are read-only.
            (CMOS_INDEX | CMOS_DATA, _) if access.size == 1 => PortDecision::Quiet,
            (SLEEP_CONTROL_PORT, false) if access.size == 1 && powers_off(value as u8) => PortDecision::PowerOff,
            (SLEEP_CONTROL_PORT | SLEEP_STATUS_PORT, _) if access.size == 1 => PortDecision::Zero,
            (RESET_PORT, false) if access.size == 1 && value as u8 & RESET_NOW != 0 => PortDecision::Reset,
            (KEYBOARD_COMMAND, false) if access.size == 1 && value as u8 == KEYBOARD_RESET => PortDecision::Reset,
            // No PCI: probing finds nothing.
            (PCI_CONFIG_FIRST..=PCI_CONFIG_LAST, _) => PortDecision::Quiet,
            (BACKDOOR_PORT, true) if matches!(self.identity, Identity::Linux) => PortDecision::Vmware,
            // 0xB2 (SMI) among them, and COM1, and every port of the machine.
            _ => PortDecision::Refuse,
        }
    }

    /// Fills SVM's I/O permission map: every port exits but those of the console and of the other devices that the
    /// partition owns. To be done once, when a partition starts.
    pub fn fill_iopm(self, devices: &[PortRange], map: &mut [u8; IOPM_LEN]) {
        map.fill(0xFF);
        let console = self.console.map(serial_base).map(|first| PortRange { first, last: first + (SERIAL_LEN - 1) });
        for port in console.iter().chain(devices).flat_map(|range| range.first..=range.last) {
            if let Some(byte) = map.get_mut(usize::from(port / 8)) {
                *byte &= !(1 << (port % 8));
            }
        }
    }
}

/// Whether a byte for the sleep control register asks for power-off.
const fn powers_off(value: u8) -> bool {
    const SLEEP_TYPES: u8 = 7;
    value & SLEEP_ENABLE != 0 && value >> SLEEP_TYPE_SHIFT & SLEEP_TYPES == SLEEP_TYPE_OFF
}

/// Bytes of SVM's I/O permission map: 8 KiB for the ports, and a page for accesses that run past the last one
/// (APM vol. 2 section 15.10.1).
pub const IOPM_LEN: usize = 0x3000;

/// Reads a permission map as the processor does: whether an access of `size` bytes at `port` exits.
pub fn iopm_intercepts(map: &[u8; IOPM_LEN], port: u16, size: u8) -> bool {
    (usize::from(port)..usize::from(port) + usize::from(size))
        .any(|port| map.get(port / 8).is_none_or(|byte| byte & (1 << (port % 8)) != 0))
}
