//! The header's tests: what is written is read back, and nothing else is believed.

use super::*;
use proptest::prelude::*;

fn header() -> Header {
    let spec = ProfileSpec {
        guard: Guard::Crc16T10Dif,
        interval: 512,
        metadata_size: 8,
        pi_offset: 0,
        tag_size: 2,
        pi_type: PiType::Type1,
    };
    let mut header = Header::new(Profile::new(spec).unwrap(), 1 << 30, false);
    header.sequence = 7;
    header.uuid = Uuid::from_u128(7);
    header.owner = OwnerRecord { text: "domain 3 xvda (51712)".into(), host: "alpha".into(), process: 812 };
    header.closed = Closed { bytes: 1 << 30, modified: (-5, 999) };
    header
}

/// Changes a copy and makes its checksum right again.
fn forge(change: impl FnOnce(&mut Raw)) -> [u8; BLOCK] {
    let mut raw = Raw::read_from_bytes(&header().encode()).unwrap();
    change(&mut raw);
    raw.checksum = checksum(&mut raw).into();
    raw.as_bytes().try_into().unwrap()
}

#[test]
fn decode_when_encoded_gives_the_same_header() {
    for (clean, non_atomic) in [(false, false), (true, false), (false, true)] {
        for live in [Live::Nothing, Live::Log, Live::Bitmap] {
            let header = Header { clean, non_atomic, live, log_state: [1, 2, 3], ..header() };
            assert_eq!(Header::decode(&header.encode()).unwrap(), header);
        }
    }
}

#[test]
fn encode_when_fields_are_known_puts_them_at_the_documented_offsets() {
    let block = header().encode();
    assert_eq!(&block[..8], b"DIXBKPI\0");
    assert_eq!(block[8..16], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(block[24..32], 7u64.to_le_bytes());
    assert_eq!(block[56..66], [1, 1, 8, 0, 0, 2, 0, 0, 0, 2]);
    assert_eq!(block[72..80], (1u64 << 30).to_le_bytes());
    assert_eq!(block[80..88], (64u64 << 10).to_le_bytes());
    assert_eq!(block[96..104], (8u64 << 20).to_le_bytes());
    assert_eq!(block[104..112], (16u64 << 20).to_le_bytes());
    assert_eq!(block[112..120], (1u64 << 30).to_le_bytes());
    assert_eq!(block[120..128], (-5i64).to_le_bytes());
    assert_eq!(block[128..136], [231, 3, 0, 0, 44, 3, 0, 0]);
    assert_eq!(&block[192..198], b"alpha\0");
    assert_eq!(&block[256..278], b"domain 3 xvda (51712)\0");
}

#[test]
fn decode_when_one_bit_is_flipped_refuses() {
    let block = header().encode();
    for bit in 0..BLOCK * 8 {
        let mut bad = block;
        bad[bit / 8] ^= 1 << (bit % 8);
        let error = Header::decode(&bad).unwrap_err();
        assert_eq!(error, if bit < 64 { HeaderError::NoMagic } else { HeaderError::Damaged });
    }
}

#[test]
fn decode_when_version_or_feature_is_unknown_names_it() {
    assert_eq!(Header::decode(&forge(|raw| raw.version = 2.into())), Err(HeaderError::Version(2)));
    let error = Header::decode(&forge(|raw| raw.features = 0x8000_000A.into())).unwrap_err();
    assert_eq!(error, HeaderError::Feature("feature 3, feature 31".into()));
    assert!(
        Header::decode(&forge(|raw| raw.features = 6.into())).is_err(),
        "a log and a bitmap in one place"
    );
    assert!(Header::decode(&forge(|raw| raw.hints = u32::MAX.into())).is_ok());
}

#[test]
fn decode_when_values_are_impossible_refuses() {
    type Change = fn(&mut Raw);
    let changes: [Change; 12] = [
        |raw| raw.guard = 4,
        |raw| raw.pi_type = 2,
        |raw| raw.interval = 513.into(),
        |raw| raw.metadata_size = 0.into(),
        |raw| raw.data_bytes = 0.into(),
        |raw| raw.data_bytes = 513.into(),
        |raw| raw.data_bytes = (u64::MAX << 9).into(),
        |raw| raw.log_start = 4096.into(),
        |raw| raw.log_bytes = (u64::MAX << 12).into(),
        // A sparse sidecar can have that, the memory to replay it nobody.
        |raw| {
            raw.log_bytes = (1u64 << 40).into();
            raw.metadata_start = (2u64 << 40).into();
        },
        |raw| raw.metadata_start = 4096.into(),
        |raw| raw.metadata_bytes = 4096.into(),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert!(Header::decode(&forge(change)).is_err(), "change {index}");
    }
}

#[test]
fn newest_when_both_are_valid_takes_the_higher_sequence_in_either_place() {
    let (old, new) = (header(), Header { sequence: 8, clean: true, ..header() });
    let [a, b] = [old.encode(), new.encode()];
    assert_eq!(Header::newest(&[a, b]).unwrap(), (new.clone(), false));
    assert_eq!(Header::newest(&[b, a]).unwrap(), (new, false));
}

#[test]
fn newest_when_one_copy_is_damaged_takes_the_other_and_says_so() {
    let good = header().encode();
    let mut bad = good;
    bad[100] ^= 1;
    assert_eq!(Header::newest(&[bad, good]).unwrap(), (header(), true));
    assert_eq!(Header::newest(&[good, [0; BLOCK]]).unwrap(), (header(), true));
    assert_eq!(Header::newest(&[bad, bad]), Err(HeaderError::Damaged));
    assert_eq!(Header::newest(&[[0; BLOCK], bad]), Err(HeaderError::Damaged));
    assert_eq!(Header::newest(&[[0; BLOCK]; 2]), Err(HeaderError::NoMagic));
    let newer = forge(|raw| raw.version = 9.into());
    assert_eq!(Header::newest(&[good, newer]), Err(HeaderError::Version(9)));
    assert_eq!(Header::newest(&[newer, bad]), Err(HeaderError::Version(9)));
}

#[test]
fn texts_when_too_long_or_hostile_are_cut_and_made_printable() {
    let mut long = header();
    long.owner.text = "é".repeat(100);
    let back = Header::decode(&long.encode()).unwrap();
    assert_eq!(back.owner.text, "é".repeat(64));
    let hostile = forge(|raw| raw.host = [0x1B; HOST]);
    assert_eq!(Header::decode(&hostile).unwrap().owner.host, "\u{FFFD}".repeat(HOST));
}

proptest! {
    #[test]
    fn decode_when_bytes_are_arbitrary_never_panics(
        body in proptest::collection::vec(any::<u8>(), 376),
        magic in any::<bool>(),
    ) {
        let block = forge(|raw| {
            let (version, magic_bytes) = (raw.version, raw.magic);
            raw.as_mut_bytes()[..376].copy_from_slice(&body);
            if magic {
                (raw.version, raw.magic, raw.features) = (version, magic_bytes, 0.into());
            }
        });
        if let Ok(header) = Header::decode(&block) {
            prop_assert_eq!(Header::decode(&header.encode()).unwrap(), header);
        }
        let _ = Header::newest(&[block, block]);
    }
}
