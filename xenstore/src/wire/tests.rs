use proptest::prelude::*;

use super::*;

#[test]
fn header_when_encoded_then_has_the_layout_of_xs_wire_h() {
    let bytes = encode(Kind::Read, 7, 9, &[b"/a", b"\0"]).unwrap();
    let mut expected = Vec::new();
    for word in [2u32, 7, 9, 3] {
        expected.extend_from_slice(&word.to_ne_bytes());
    }
    expected.extend_from_slice(b"/a\0");
    assert_eq!(bytes, expected);
}

#[test]
fn payload_when_longer_than_the_limit_then_is_not_encoded() {
    assert!(encode(Kind::Write, 0, 0, &[&[0; PAYLOAD_MAX]]).is_ok());
    assert_eq!(encode(Kind::Write, 0, 0, &[&[0; PAYLOAD_MAX], b"x"]), Err(Oversized));
}

#[test]
fn length_when_beyond_the_limit_then_ends_the_stream_without_waiting_for_it() {
    let header = Header { kind: 2, request: 0, transaction: 0, length: u32::MAX };
    let mut frames = Frames::new();
    frames.push(&header.to_bytes());
    assert_eq!(frames.next_message(), Err(Oversized));
    assert_eq!(frames.next_message(), Err(Oversized));
}

#[test]
fn kind_when_numbered_then_is_found_again() {
    for &kind in Kind::ALL {
        assert_eq!(Kind::from_number(kind.number()), Some(kind));
    }
    assert_eq!(Kind::from_number(20), None);
    assert_eq!(Kind::from_number(0xffff), None);
}

fn message() -> impl Strategy<Value = (usize, u32, u32, Vec<u8>)> {
    (0..Kind::ALL.len(), any::<u32>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..200))
}

proptest! {
    #[test]
    fn messages_when_cut_anywhere_then_come_out_whole(
        messages in prop::collection::vec(message(), 0..8),
        step in 1usize..40,
    ) {
        let mut stream = Vec::new();
        for (kind, request, transaction, payload) in &messages {
            stream.extend(encode(Kind::ALL[*kind], *request, *transaction, &[payload]).unwrap());
        }
        let mut frames = Frames::new();
        let mut seen = Vec::new();
        for piece in stream.chunks(step) {
            frames.push(piece);
            while let Some(message) = frames.next_message().unwrap() {
                seen.push(message);
            }
        }
        prop_assert_eq!(seen.len(), messages.len());
        for (seen, (kind, request, transaction, payload)) in seen.iter().zip(&messages) {
            prop_assert_eq!(seen.kind(), Some(Kind::ALL[*kind]));
            prop_assert_eq!(seen.header.request, *request);
            prop_assert_eq!(seen.header.transaction, *transaction);
            prop_assert_eq!(&seen.payload, payload);
        }
    }

    #[test]
    fn bytes_when_arbitrary_then_neither_panic_nor_grow_the_buffer(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
    ) {
        let mut frames = Frames::new();
        let mut pushed = 0;
        'stream: for piece in &pieces {
            frames.push(piece);
            pushed += piece.len();
            loop {
                match frames.next_message() {
                    Ok(Some(message)) => prop_assert!(message.payload.len() <= pushed),
                    Ok(None) => break,
                    Err(Oversized) => break 'stream,
                }
            }
        }
    }
}
