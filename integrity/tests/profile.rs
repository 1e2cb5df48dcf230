//! Which profiles are accepted, and what they say of themselves.

mod common;

use common::{INTERVALS, bare};
use integrity::{Guard, PiType, Profile, ProfileError, ProfileSpec};

const GOOD: ProfileSpec = ProfileSpec {
    guard: Guard::Crc16T10Dif,
    interval: 512,
    metadata_size: 8,
    pi_offset: 0,
    tag_size: 2,
    pi_type: PiType::Type1,
};

#[test]
fn new_when_interval_is_a_power_of_two_from_512_to_65536_then_accepted() {
    for interval in INTERVALS {
        let profile = Profile::new(ProfileSpec { interval, ..GOOD }).unwrap();
        assert_eq!(profile.interval(), interval as usize);
        assert_eq!(profile.is_for_guests(), interval <= 4096);
    }
    for interval in [0, 1, 256, 511, 513, 520, 768, 131_072, u32::MAX] {
        let refused = Profile::new(ProfileSpec { interval, ..GOOD });
        assert_eq!(refused, Err(ProfileError::Interval(interval)));
    }
}

#[test]
fn new_when_metadata_size_is_outside_1_to_255_then_refused() {
    for metadata_size in [0, 256, u16::MAX] {
        let refused = Profile::new(ProfileSpec { metadata_size, ..GOOD });
        assert_eq!(refused, Err(ProfileError::MetadataSize(metadata_size)));
    }
    assert!(Profile::new(ProfileSpec { metadata_size: 255, pi_offset: 247, ..GOOD }).is_ok());
}

#[test]
fn new_when_tuple_ends_beyond_metadata_then_refused() {
    for (guard, metadata_size, pi_offset) in [
        (Guard::Crc16T10Dif, 7, 0),
        (Guard::Crc16T10Dif, 8, 1),
        (Guard::Ip, 64, 57),
        (Guard::Crc64Nvme, 8, 0),
        (Guard::Crc64Nvme, 64, 49),
        (Guard::Crc64Nvme, 255, 255),
    ] {
        let refused = Profile::new(ProfileSpec { guard, metadata_size, pi_offset, ..GOOD });
        assert!(matches!(refused, Err(ProfileError::TupleOutside { .. })), "{refused:?}");
    }
    let spec = ProfileSpec { guard: Guard::Crc64Nvme, metadata_size: 64, pi_offset: 48, ..GOOD };
    assert!(Profile::new(spec).is_ok());
}

#[test]
fn new_when_type_and_guard_disagree_then_refused() {
    for (guard, pi_type) in [
        (Guard::None, PiType::Type1),
        (Guard::None, PiType::Type3),
        (Guard::Crc16T10Dif, PiType::Type0),
        (Guard::Crc64Nvme, PiType::Type0),
    ] {
        let refused = Profile::new(ProfileSpec { guard, pi_type, metadata_size: 16, tag_size: 0, ..GOOD });
        assert_eq!(refused, Err(ProfileError::TypeWithoutGuard { guard, pi_type }));
    }
}

#[test]
fn new_when_tuple_has_no_room_for_the_tag_then_refused() {
    let accepted = |guard, pi_type, tag_size| {
        Profile::new(ProfileSpec { guard, pi_type, tag_size, metadata_size: 16, ..GOOD }).is_ok()
    };
    for tag_size in 0..=u8::MAX {
        for guard in [Guard::Crc16T10Dif, Guard::Ip, Guard::Crc64Nvme] {
            assert_eq!(accepted(guard, PiType::Type1, tag_size), [0, 2].contains(&tag_size));
        }
        assert_eq!(accepted(Guard::Ip, PiType::Type3, tag_size), [0, 2, 6].contains(&tag_size));
        assert_eq!(accepted(Guard::Crc64Nvme, PiType::Type3, tag_size), [0, 2, 6, 8].contains(&tag_size));
        assert_eq!(accepted(Guard::None, PiType::Type0, tag_size), [0, 2, 6, 8].contains(&tag_size));
    }
}

#[test]
fn new_when_guard_is_none_then_offset_only_stays_within_metadata() {
    let none = ProfileSpec { guard: Guard::None, pi_type: PiType::Type0, tag_size: 0, ..GOOD };
    assert!(Profile::new(ProfileSpec { metadata_size: 1, ..none }).is_ok());
    assert!(Profile::new(ProfileSpec { metadata_size: 1, pi_offset: 1, ..none }).is_ok());
    assert!(Profile::new(ProfileSpec { metadata_size: 1, pi_offset: 2, ..none }).is_err());
}

#[test]
fn lengths_when_asked_then_count_whole_intervals() {
    let profile = bare(Guard::Crc64Nvme, 4096);
    assert_eq!(profile.intervals(4096 * 3 + 5), 3);
    assert_eq!(profile.metadata_len(4096 * 3), 48);
    assert_eq!((profile.tuple_size(), profile.metadata_size(), profile.pi_offset()), (16, 16, 0));
    assert_eq!(profile.reference_mask(), (1 << 48) - 1);
    assert_eq!(bare(Guard::Ip, 512).reference_mask(), u64::from(u32::MAX));
}

#[test]
fn names_when_parsed_then_give_the_same_again() {
    for guard in Guard::ALL {
        assert_eq!(guard.to_string().parse(), Ok(guard));
    }
    for pi_type in [PiType::Type0, PiType::Type1, PiType::Type3] {
        assert_eq!(PiType::try_from(pi_type.number()), Ok(pi_type));
    }
    assert!("crc32c".parse::<Guard>().is_err());
    assert_eq!(PiType::try_from(2), Err(ProfileError::TypeNumber(2)));
    let profile = Profile::new(GOOD).unwrap();
    assert_eq!(profile.to_string(), "crc16-t10dif type 1, interval 512, metadata 8, PI at 0, tag 2");
    assert_eq!(profile.spec(), GOOD);
}
