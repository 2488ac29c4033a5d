use super::*;
use partita_abi::debug_port::{FrameWriter, PAYLOAD_MAX};
use proptest::prelude::*;

/// Text before each frame, the memory in it; and the exit byte.
fn written(pieces: &[(String, u64, Vec<u8>)], exit: Option<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut next = 0;
    for (text, address, memory) in pieces {
        out.extend_from_slice(text.as_bytes());
        let mut writer = FrameWriter::new(next, |bytes: &[u8]| out.extend_from_slice(bytes));
        writer.memory(*address, memory);
        next = writer.next();
    }
    if let Some(byte) = exit {
        FrameWriter::new(next, |bytes: &[u8]| out.extend_from_slice(bytes)).exit(byte);
    }
    out
}

fn three() -> Vec<u8> {
    let piece = |address, byte| ("<bochs:1> c\n".to_owned(), address, vec![byte; 64]);
    let mut out = written(&[piece(0x1000, 1), piece(0x2000, 2), piece(0x3000, 3)], Some(0x10));
    out.extend_from_slice(b"Bochs is exiting\n");
    out
}

fn addresses(stream: &Stream<'_>) -> Vec<u64> {
    stream.memory.iter().map(|piece| piece.address).collect()
}

/// Where the frames of [`three`] begin.
fn offsets(output: &[u8]) -> Vec<usize> {
    (0..output.len()).filter(|&at| output[at..].starts_with(&MAGIC)).collect()
}

#[test]
fn a_stream_is_found_in_other_text() {
    let output = three();
    let stream = Stream::read(&output);
    assert_eq!((addresses(&stream), stream.exit), (vec![0x1000, 0x2000, 0x3000], Some(0x10)));
    assert_eq!(stream.memory[1].bytes, [2; 64]);
    assert_eq!(stream.damage, []);
}

#[test]
fn output_without_a_stream_is_empty_and_whole() {
    assert_eq!(Stream::read(b"Next at t=0\n<bochs:1> q\n"), Stream::default());
    assert_eq!(Stream::read(b""), Stream::default());
}

#[test]
fn text_within_a_frame_damages_that_frame_only() {
    let mut output = three();
    let second = offsets(&output)[1];
    output.splice(second + HEADER_LEN + 5..second + HEADER_LEN + 5, *b"a line of Bochs\n");
    let stream = Stream::read(&output);
    assert_eq!((addresses(&stream), stream.exit), (vec![0x1000, 0x3000], Some(0x10)));
    let expected = [
        StreamDamage::Payload { offset: second, number: 1, address: Some(0x2000), len: 64 },
        StreamDamage::Missing { first: 1, count: 1 },
    ];
    assert_eq!(stream.damage, expected);
    assert!(stream.damage[0].to_string().contains("64 bytes of memory at 0x2000"));
}

#[test]
fn a_damaged_header_is_named() {
    let mut output = three();
    let first = offsets(&output)[0];
    output[first + 20] ^= 1;
    let stream = Stream::read(&output);
    assert_eq!(addresses(&stream), [0x2000, 0x3000]);
    assert_eq!(stream.damage, [StreamDamage::Header { offset: first }, StreamDamage::Missing { first: 0, count: 1 }]);
}

#[test]
fn a_stream_that_breaks_off_says_so() {
    let output = three();
    let at = offsets(&output);
    let stream = Stream::read(&output[..at[3]]);
    assert_eq!((stream.damage, stream.exit), (vec![StreamDamage::NoEnd { next: 3 }], None));
    let stream = Stream::read(&output[..at[2] + 40]);
    assert_eq!(stream.damage.len(), 2, "{:?}", stream.damage);
    assert_eq!(addresses(&stream), [0x1000, 0x2000]);
}

#[test]
fn nothing_counts_behind_the_last_frame_or_twice() {
    let mut output = three();
    let at = offsets(&output);
    let second = output[at[1]..at[2]].to_vec();
    output.extend_from_slice(&second);
    let stream = Stream::read(&output);
    assert_eq!(stream.memory.len(), 3);
    assert!(matches!(stream.damage[..], [StreamDamage::OutOfTurn { number: 1, .. }]), "{:?}", stream.damage);
}

#[test]
fn a_frame_within_a_good_payload_is_data() {
    let inner = written(&[(String::new(), 0x9000, vec![9; 8])], Some(0x10));
    let output = written(&[(String::new(), 0x1000, inner)], Some(0x11));
    let stream = Stream::read(&output);
    assert_eq!((addresses(&stream), stream.exit, stream.damage), (vec![0x1000], Some(0x11), vec![]));
}

fn pieces() -> impl Strategy<Value = Vec<(String, u64, Vec<u8>)>> {
    let memory = prop_oneof![proptest::collection::vec(any::<u8>(), 1..200), Just(vec![7; PAYLOAD_MAX + 1])];
    proptest::collection::vec(("[ -~\n]{0,20}", 0..1u64 << 40, memory), 0..8)
}

proptest! {
    #[test]
    fn what_is_written_is_read(pieces in pieces(), exit: u8) {
        let output = written(&pieces, Some(exit));
        let stream = Stream::read(&output);
        prop_assert_eq!(&stream.damage, &[]);
        prop_assert_eq!(stream.exit, Some(exit));
        let read: Vec<u8> = stream.memory.iter().flat_map(|piece| piece.bytes.iter().copied()).collect();
        let all: Vec<u8> = pieces.iter().flat_map(|(_, _, memory)| memory.iter().copied()).collect();
        prop_assert!(read == all);
    }

    #[test]
    fn no_damage_goes_unnoticed(pieces in pieces(), at: prop::sample::Index, change in 1u8.., cut: bool) {
        let good = written(&pieces, Some(0x10));
        let whole = Stream::read(&good);
        let mut output = good.clone();
        let at = at.index(output.len());
        if cut {
            output.drain(at..at + 1);
        } else {
            output[at] ^= change;
        }
        let stream = Stream::read(&output);
        // Text between frames can change; else all that is told is as it was, and what is not is damage.
        for piece in &stream.memory {
            prop_assert!(whole.memory.contains(piece));
        }
        let is_same = stream.memory == whole.memory && stream.exit == whole.exit;
        // Where nothing is left of a stream there is no exit either, and the run does not count.
        prop_assert!(is_same || !stream.damage.is_empty() || (stream.memory.is_empty() && stream.exit.is_none()));
    }

    #[test]
    fn arbitrary_bytes_can_be_read(parts in proptest::collection::vec(
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..50),
            Just(MAGIC.to_vec()),
            (any::<u64>(), any::<u32>(), 1..=PAYLOAD_MAX).prop_map(|(address, number, len)| {
                FrameHeader { content: Content::Memory { address }, number, len }.to_bytes().to_vec()
            }),
            (any::<u8>(), any::<u32>()).prop_map(|(byte, next)| {
                let mut out = Vec::new();
                FrameWriter::new(next, |bytes: &[u8]| out.extend_from_slice(bytes)).exit(byte);
                out
            }),
        ],
        0..20,
    )) {
        let output = parts.concat();
        let stream = Stream::read(&output);
        prop_assert!(stream.memory.len() <= output.len() / HEADER_LEN);
    }
}
