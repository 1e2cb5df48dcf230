//! The records' tests.

use super::*;
use proptest::prelude::*;

fn encoded(record: &Record<'_>, entry: u16, interval: u32) -> Vec<u8> {
    let mut out = Vec::new();
    record.encode(entry, interval, &mut out).unwrap();
    out
}

#[test]
fn encode_when_fields_are_known_puts_them_at_the_documented_offsets() {
    let hashes = [IntervalHash([0xAA; 16]); 3];
    let body = Body::Write { first: 9, hashes: &hashes, metadata: &[0xBB; 24] };
    let bytes = encoded(&Record { epoch: 5, sequence: 6, body }, 8, 512);
    assert_eq!(bytes.len(), 192);
    assert_eq!(&bytes[..16], b"DXLR\x01\0\x08\0\xC0\0\0\0\0\x02\0\0");
    let numbers: Vec<u64> =
        bytes[16..56].chunks(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap())).collect();
    assert_eq!(numbers, [5, 6, 9, 3, 0]);
    assert_eq!((bytes[64], bytes[111], bytes[112], bytes[135], bytes[136]), (0xAA, 0xAA, 0xBB, 0xBB, 0));
    let mut zeroed = bytes.clone();
    zeroed[56..64].fill(0);
    assert_eq!(bytes[56..64], crc_fast::crc64_nvme(&zeroed).to_le_bytes());
}

#[test]
fn decode_when_records_follow_each_other_gives_each_with_its_length() {
    let data = vec![3; 2 * 512];
    let bodies = [
        Body::Flush { covers: 41 },
        Body::Discard { first: u64::MAX, count: u64::MAX },
        Body::WriteWithData { first: 1, metadata: &[7; 16], data: &data },
        Body::Write { first: 0, hashes: &[], metadata: &[] },
    ];
    let mut out = Vec::new();
    for (sequence, body) in (100..).zip(bodies) {
        Record { epoch: 1, sequence, body }.encode(8, 512, &mut out).unwrap();
    }
    let mut rest = &out[..];
    for (sequence, body) in (100..).zip(bodies) {
        let (record, length) = Record::decode(rest).unwrap();
        assert_eq!(record, Record { epoch: 1, sequence, body });
        rest = &rest[length..];
    }
    assert!(rest.is_empty());
}

#[test]
fn encode_when_the_parts_disagree_refuses() {
    let hashes = [IntervalHash([0; 16]); 3];
    let mut out = Vec::new();
    let mut refuse = |body| Record { epoch: 1, sequence: 1, body }.encode(8, 512, &mut out).unwrap_err();
    assert_eq!(refuse(Body::Write { first: 0, hashes: &hashes, metadata: &[0; 23] }), RecordError::Length);
    assert_eq!(
        refuse(Body::WriteWithData { first: 0, metadata: &[0; 9], data: &[0; 512] }),
        RecordError::Length
    );
    assert!(out.is_empty());
}

#[test]
fn decode_when_any_bit_is_flipped_refuses() {
    let hashes = [IntervalHash([1; 16]); 2];
    let body = Body::Write { first: 9, hashes: &hashes, metadata: &[2; 16] };
    let bytes = encoded(&Record { epoch: 5, sequence: 6, body }, 8, 512);
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Record::decode(&bad).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(Record::decode(&bytes[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn hash_when_data_store_or_order_differ_differs() {
    let (a, b) = (Uuid::from_u128(1 << 64), Uuid::from_u128(2 << 64));
    let (one, two) = ([1; 512], [2; 512]);
    assert_eq!(IntervalHash::of(&a, &one), IntervalHash::of(&a, &one));
    assert_ne!(IntervalHash::of(&a, &one), IntervalHash::of(&b, &one));
    assert_ne!(IntervalHash::of(&a, &one), IntervalHash::of(&a, &two));
    // What the IP guard cannot tell apart: the same words in another order.
    let mut swapped = one;
    (swapped[0], swapped[1], swapped[2], swapped[3]) = (5, 6, 7, 8);
    let mut other = swapped;
    (other[0], other[1], other[2], other[3]) = (7, 8, 5, 6);
    assert_ne!(IntervalHash::of(&a, &swapped), IntervalHash::of(&a, &other));
}

#[test]
fn hash_when_the_seed_is_known_is_the_documented_one() {
    let store = Uuid::from_bytes([1, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]);
    let expected = XxHash3_128::oneshot_with_seed(1, b"data").to_le_bytes();
    assert_eq!(IntervalHash::of(&store, b"data").0, expected);
}

proptest! {
    #[test]
    fn decode_when_encoded_gives_the_same(
        first in any::<u64>(), epoch in any::<u64>(), sequence in any::<u64>(),
        hashes in proptest::collection::vec(any::<[u8; 16]>(), 0..40), entry in 1u16..256, fill in any::<u8>(),
    ) {
        let hashes: Vec<_> = hashes.into_iter().map(IntervalHash).collect();
        let metadata = vec![fill; hashes.len() * usize::from(entry)];
        let record = Record { epoch, sequence, body: Body::Write { first, hashes: &hashes, metadata: &metadata } };
        let bytes = encoded(&record, entry, 512);
        prop_assert_eq!(Record::decode(&bytes), Ok((record, bytes.len())));
    }

    #[test]
    fn decode_when_bytes_are_arbitrary_never_panics(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..512), kind in 0u16..6, count in any::<u64>(),
        sealed in any::<bool>(),
    ) {
        if sealed && let Ok((head, _)) = Head::mut_from_prefix(&mut bytes) {
            head.magic = MAGIC;
            head.kind = kind.into();
            head.count = (count >> (count % 64)).into();
            let length = bytes.len() / GRAIN * GRAIN;
            bytes.truncate(length);
            let (head, _) = Head::mut_from_prefix(&mut bytes).unwrap();
            head.bytes = (length as u32).into();
            let (head, rest) = Head::ref_from_prefix(&bytes).unwrap();
            let sum = checksum(head, [rest, &[]], 0);
            Head::mut_from_prefix(&mut bytes).unwrap().0.checksum = sum.into();
        }
        if let Ok((_, length)) = Record::decode(&bytes) {
            prop_assert!(length <= bytes.len());
        }
    }
}
