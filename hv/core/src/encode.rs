//! The system description as bytes: postcard, as the bundle's first section carries it.
//!
//! The format is what `serde` and postcard make of [`SystemConfig`]; a change of either shows in this module's golden
//! test and asks for a new [`partita_abi::bundle::VERSION`].

use crate::system::SystemConfig;

/// Bytes that hold every system description in its encoding.
pub const ENCODED_MAX: usize = 16 << 10;

/// Why a system description could not be encoded or decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecError {
    /// The buffer to encode into is too small.
    BufferTooSmall {
        /// Its length in bytes; [`ENCODED_MAX`] is enough.
        len: usize,
    },
    /// More bytes than any system description has.
    TooLong {
        /// How many bytes there are.
        len: usize,
    },
    /// The bytes end in the middle of the description.
    Truncated {
        /// How many bytes there are.
        len: usize,
    },
    /// Bytes are left after the description.
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A number, name or list has a form or a size that a system description cannot have.
    Malformed,
}

impl core::fmt::Display for CodecError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BufferTooSmall { len } => {
                write!(f, "a buffer of {len} bytes is too small for the system description; provide {ENCODED_MAX}")
            }
            Self::TooLong { len } => write!(
                f,
                "the system description has {len} bytes, at most {ENCODED_MAX} are possible; build the bundle again"
            ),
            Self::Truncated { len } => {
                write!(f, "the system description ends too early, after {len} bytes; build the bundle again")
            }
            Self::TrailingBytes { count } => {
                write!(f, "{count} bytes are left after the system description; build the bundle again")
            }
            Self::Malformed => f.write_str(
                "the system description has a value or a length out of range; build bundle and hypervisor from one tree",
            ),
        }
    }
}

impl core::error::Error for CodecError {}

/// Encodes a system description into the start of `buffer` and returns that part.
///
/// # Errors
/// [`CodecError::BufferTooSmall`].
pub fn encode<'a>(system: &SystemConfig, buffer: &'a mut [u8]) -> Result<&'a [u8], CodecError> {
    let len = buffer.len();
    match postcard::to_slice(system, buffer) {
        Ok(encoded) => Ok(encoded),
        Err(postcard::Error::SerializeBufferFull) => Err(CodecError::BufferTooSmall { len }),
        Err(_) => Err(CodecError::Malformed),
    }
}

/// Decodes a system description, which must take all of `bytes`. Whether the system makes sense is for
/// [`crate::rules`] to say.
///
/// # Errors
/// Any but [`CodecError::BufferTooSmall`].
pub fn decode(bytes: &[u8]) -> Result<SystemConfig, CodecError> {
    let len = bytes.len();
    if len > ENCODED_MAX {
        return Err(CodecError::TooLong { len });
    }
    match postcard::take_from_bytes(bytes) {
        Ok((system, [])) => Ok(system),
        Ok((_, rest)) => Err(CodecError::TrailingBytes { count: rest.len() }),
        Err(postcard::Error::DeserializeUnexpectedEnd) => Err(CodecError::Truncated { len }),
        Err(_) => Err(CodecError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::*;
    use proptest::prelude::*;

    fn small() -> SystemConfig {
        let rt0 = Partition {
            name: Name::try_from("rt0").unwrap(),
            pcpus: [2, 300].into_iter().collect(),
            lapic: LapicMode::Passthrough,
            memory_bytes: 64 << 20,
            memory_at: None,
            entry: Entry::Pvh { entry: 0x10_0040, start_info: 0xE_4000 },
            identity: Identity::Partita,
            console: None,
            io_ports: heapless::Vec::new(),
            mmio: heapless::Vec::new(),
            expect: Expectation::Finish,
            on_reboot: OnReboot::Restart,
            is_required: true,
        };
        let linux = Partition {
            name: Name::try_from("linux").unwrap(),
            pcpus: [1].into_iter().collect(),
            memory_at: Some(512 << 20),
            entry: Entry::Linux64 { entry: 0x100_0200, boot_params: 1, page_tables: 2, gdt: 3 },
            identity: Identity::Linux,
            console: Some(SerialPort::Com3),
            io_ports: [PortRange { first: 0xE9, last: 0x102 }].into_iter().collect(),
            mmio: [MmioRange { gpa: 0x1000, hpa: 0x2000, bytes: 0x80 }].into_iter().collect(),
            expect: Expectation::Run,
            on_reboot: OnReboot::End,
            is_required: false,
            ..rt0.clone()
        };
        SystemConfig {
            name: Name::try_from("demo").unwrap(),
            housekeeping: Housekeeping {
                pcpu: 0,
                smp_call_hz: 1000,
                smp_call_deadline_ms: 100,
                smp_call_rounds: 7,
                smp_call_mode: SmpCallMode::Broadcast,
            },
            trace: TraceConfig { ring_bytes: 64 << 10, exits: true },
            partitions: [rt0, linux].into_iter().collect(),
        }
    }

    /// The description with the longest encoding.
    fn largest() -> SystemConfig {
        let name = || Name::try_from("n".repeat(NAME_MAX).as_str()).unwrap();
        let partition = Partition {
            name: name(),
            pcpus: [u16::MAX; PARTITION_PCPUS_MAX].into_iter().collect(),
            lapic: LapicMode::Passthrough,
            memory_bytes: u64::MAX,
            memory_at: Some(u64::MAX),
            entry: Entry::Linux64 { entry: u64::MAX, boot_params: u64::MAX, page_tables: u64::MAX, gdt: u64::MAX },
            identity: Identity::Linux,
            console: Some(SerialPort::Com8),
            io_ports: [PortRange { first: u16::MAX, last: u16::MAX }; PORT_RANGES_MAX].into_iter().collect(),
            mmio: [MmioRange { gpa: u64::MAX, hpa: u64::MAX, bytes: u64::MAX }; MMIO_RANGES_MAX].into_iter().collect(),
            expect: Expectation::Anything,
            on_reboot: OnReboot::End,
            is_required: false,
        };
        SystemConfig {
            name: name(),
            housekeeping: Housekeeping {
                pcpu: u16::MAX,
                smp_call_hz: u32::MAX,
                smp_call_deadline_ms: u32::MAX,
                smp_call_rounds: u32::MAX,
                smp_call_mode: SmpCallMode::Broadcast,
            },
            trace: TraceConfig { ring_bytes: u32::MAX, exits: true },
            partitions: core::iter::repeat_n(partition, PARTITIONS_MAX).collect(),
        }
    }

    fn encoded(system: &SystemConfig) -> Vec<u8> {
        encode(system, &mut [0; ENCODED_MAX]).unwrap().to_vec()
    }

    /// If this fails, the format has changed: raise `partita_abi::bundle::VERSION` with these bytes.
    #[test]
    fn the_format_keeps_its_bytes() {
        let mut golden = Vec::new();
        golden.extend(b"\x04demo"); // name
        golden.extend([0, 0xE8, 0x07, 100, 7, 1]); // housekeeping
        golden.extend([0x80, 0x80, 0x04, 1]); // trace
        golden.push(2); // partitions
        golden.extend(b"\x03rt0");
        golden.extend([2, 2, 0xAC, 0x02]); // pcpus
        golden.push(0); // lapic
        golden.extend([0x80, 0x80, 0x80, 0x20]); // memory_bytes
        golden.push(0); // memory_at
        golden.extend([0, 0xC0, 0x80, 0x40, 0x80, 0x80, 0x39]); // entry
        golden.extend([0, 0, 0, 0]); // identity, console, io_ports, mmio
        golden.extend([0, 0, 1]); // expect, on_reboot, is_required
        golden.extend(b"\x05linux");
        golden.extend([1, 1]); // pcpus
        golden.push(0); // lapic
        golden.extend([0x80, 0x80, 0x80, 0x20]); // memory_bytes
        golden.extend([1, 0x80, 0x80, 0x80, 0x80, 0x02]); // memory_at
        golden.extend([1, 0x80, 0x84, 0x80, 0x08, 1, 2, 3]); // entry
        golden.extend([1, 1, 1]); // identity, console
        golden.extend([1, 0xE9, 0x01, 0x82, 0x02]); // io_ports
        golden.extend([1, 0x80, 0x20, 0x80, 0x40, 0x80, 0x01]); // mmio
        golden.extend([1, 1, 0]); // expect, on_reboot, is_required
        assert_eq!(encoded(&small()), golden);
        assert_eq!(decode(&golden), Ok(small()));
        let mut untraced = small();
        untraced.trace.exits = false;
        golden[14] = 0;
        assert_eq!(encoded(&untraced), golden);
        assert_eq!(partita_abi::bundle::VERSION, 4, "new bytes for a new version, and the other way round");
    }

    #[test]
    fn the_largest_description_fits() {
        let bytes = encoded(&largest());
        assert_eq!(decode(&bytes), Ok(largest()));
        let mut buffer = vec![0; bytes.len() - 1];
        let len = buffer.len();
        assert_eq!(encode(&largest(), &mut buffer), Err(CodecError::BufferTooSmall { len }));
    }

    #[test]
    fn every_shortened_description_is_truncated() {
        for bytes in [encoded(&small()), encoded(&largest())] {
            for len in 0..bytes.len() {
                assert_eq!(decode(&bytes[..len]), Err(CodecError::Truncated { len }));
            }
        }
    }

    #[test]
    fn what_is_not_a_description_is_named() {
        let mut bytes = encoded(&small());
        bytes.extend([0; 3]);
        assert_eq!(decode(&bytes), Err(CodecError::TrailingBytes { count: 3 }));
        assert_eq!(decode(&[0; ENCODED_MAX + 1]), Err(CodecError::TooLong { len: ENCODED_MAX + 1 }));
        // A name that is too long, one that is not UTF-8, an unknown way of SMP calls, truth values of 2, an unknown
        // expectation, an unknown end of a reboot, too many partitions.
        let broken = |at: usize, byte| {
            let mut bytes = encoded(&small());
            bytes[at] = byte;
            bytes.resize(400, 0);
            decode(&bytes)
        };
        for (at, byte) in [
            (0, NAME_MAX as u8 + 1),
            (1, 0xFF),
            (10, 2),
            (14, 2),
            (41, 3),
            (42, 2),
            (43, 2),
            (15, PARTITIONS_MAX as u8 + 1),
        ] {
            assert_eq!(broken(at, byte), Err(CodecError::Malformed), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn damaged_and_random_bytes_never_panic(
            at in 0usize..100, bit in 0u8..8, random in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut bytes = encoded(&small());
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            for bytes in [bytes, random] {
                if let Ok(system) = decode(&bytes) {
                    prop_assert_eq!(decode(&encoded(&system)), Ok(system));
                }
            }
        }
    }
}
