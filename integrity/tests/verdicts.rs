//! What a verifier says: which mismatch comes first, and what escapes mean.

mod common;

use common::{GUARDS, bare, noise, on_every_kernel, with_metadata};
use integrity::{AppTag, Checked, Escape, Expected, Guard, Mismatch, PiType, Profile, Tag};

/// A good buffer of `count` intervals, its reference tags from 7 on and its application tags 0x1234.
fn sealed(profile: &Profile, count: usize) -> (Vec<u8>, Vec<u8>) {
    let data = noise(count * profile.interval(), 1);
    let mut metadata = vec![0; profile.metadata_len(data.len())];
    profile.generate(&data, &mut metadata, 7, 0x1234);
    (data, metadata)
}

/// The metadata of one interval.
fn of<'a>(profile: &Profile, metadata: &'a mut [u8], interval: usize) -> &'a mut [u8] {
    &mut metadata[interval * profile.metadata_size()..][..profile.metadata_size()]
}

/// Changes one interval's tuple.
fn change(
    profile: &Profile,
    metadata: &mut [u8],
    interval: usize,
    change: impl FnOnce(&mut integrity::Tuple),
) {
    let metadata = of(profile, metadata, interval);
    let mut tuple = profile.tuple(metadata);
    change(&mut tuple);
    profile.set_tuple(metadata, tuple);
}

fn on_every_profile(name: &str, test: impl Fn(Profile)) {
    on_every_kernel(name, |kernel| {
        for guard in GUARDS {
            for interval in [512, 1024, 4096, 8192] {
                for pi_type in [PiType::Type1, PiType::Type3] {
                    let size = guard.tuple_size() as u16;
                    for (metadata_size, pi_offset) in [(size, 0), (size + 5, 3)] {
                        let profile = with_metadata(guard, interval, metadata_size, pi_offset, pi_type);
                        test(profile.with_kernel(kernel).unwrap());
                    }
                }
            }
        }
    });
}

#[test]
fn verify_when_several_tags_differ_then_order_is_guard_application_reference() {
    on_every_profile("verify_when_several_tags_differ_then_order", |profile| {
        let (mut data, mut metadata) = sealed(&profile, 70);
        let mut expected = Expected::new(7);
        expected.application = Some(AppTag { value: 0x1234, mask: 0xFFFF });
        let verify = |data: &[u8], metadata: &[u8]| profile.verify(data, metadata, &expected);
        assert_eq!(verify(&data, &metadata), Ok(Checked { escaped: 0 }));

        change(&profile, &mut metadata, 66, |tuple| tuple.reference ^= 1 << 20);
        let reference =
            Mismatch { interval: 66, tag: Tag::Reference, expected: 7 + 66, actual: (7 + 66) ^ 1 << 20 };
        let found = verify(&data, &metadata);
        assert_eq!(
            found,
            if profile.pi_type() == PiType::Type1 { Err(reference) } else { Ok(Checked::default()) }
        );

        change(&profile, &mut metadata, 66, |tuple| tuple.application = 0x1235);
        let application = Mismatch { interval: 66, tag: Tag::Application, expected: 0x1234, actual: 0x1235 };
        assert_eq!(verify(&data, &metadata), Err(application));

        let actual = profile.tuple(of(&profile, &mut metadata, 66)).guard;
        data[66 * profile.interval() + 17] ^= 0x40;
        let found = verify(&data, &metadata).unwrap_err();
        assert_eq!((found.interval, found.tag, found.actual), (66, Tag::Guard, actual));
        let mut again = metadata.clone();
        profile.generate(&data, &mut again, 7, 0x1234);
        assert_eq!(found.expected, profile.tuple(of(&profile, &mut again, 66)).guard);

        // An earlier interval's lesser tag comes before a later one's guard.
        change(&profile, &mut metadata, 3, |tuple| tuple.application = 0);
        let found = verify(&data, &metadata).unwrap_err();
        assert_eq!((found.interval, found.tag), (3, Tag::Application));
    });
}

#[test]
fn verify_when_application_tag_is_masked_then_other_bits_do_not_matter() {
    on_every_profile("verify_when_application_tag_is_masked", |profile| {
        let (data, mut metadata) = sealed(&profile, 9);
        change(&profile, &mut metadata, 8, |tuple| tuple.application = 0x12F4);
        let with = |value, mask| {
            let application = Some(AppTag { value, mask });
            profile.verify(&data, &metadata, &Expected { application, ..Expected::new(7) })
        };
        assert!(with(0x1234, 0xFF0F).is_ok());
        assert!(with(0xFFFF, 0).is_ok());
        assert_eq!(
            with(0x1234, 0x00F0),
            Err(Mismatch { interval: 8, tag: Tag::Application, expected: 0x1234, actual: 0x12F4 })
        );
        assert!(profile.verify(&data, &metadata, &Expected::new(7)).is_ok());
    });
}

#[test]
fn verify_when_intervals_are_escaped_then_counted_or_refused() {
    on_every_profile("verify_when_intervals_are_escaped", |profile| {
        let (mut data, mut metadata) = sealed(&profile, 70);
        let refuse = Expected { escape: Escape::Refuse, ..Expected::new(7) };
        assert_eq!(profile.verify(&data, &metadata, &refuse), Ok(Checked { escaped: 0 }));
        for interval in [2, 65, 69] {
            profile.escape(of(&profile, &mut metadata, interval));
            data[interval * profile.interval()] ^= 1;
        }
        assert_eq!(profile.verify(&data, &metadata, &Expected::new(7)), Ok(Checked { escaped: 3 }));
        let mismatch = Mismatch { interval: 2, tag: Tag::Application, expected: 0, actual: 0xFFFF };
        assert_eq!(profile.verify(&data, &metadata, &refuse), Err(mismatch));
        let application = Some(AppTag { value: 0x1234, mask: 0xFFFF });
        assert_eq!(
            profile.verify(&data, &metadata, &Expected { application, ..refuse }),
            Err(Mismatch { expected: 0x1234, ..mismatch })
        );
        assert_eq!(
            profile.verify(&data, &metadata, &Expected { application, ..Expected::new(7) }),
            Ok(Checked { escaped: 3 })
        );
    });
}

#[test]
fn verify_when_an_escape_is_otherwise_good_then_still_counted() {
    on_every_profile("verify_when_an_escape_is_otherwise_good", |profile| {
        let (data, mut metadata) = sealed(&profile, 5);
        change(&profile, &mut metadata, 4, |tuple| {
            tuple.application = 0xFFFF;
            if profile.pi_type() == PiType::Type3 {
                tuple.reference = u64::MAX;
            }
        });
        assert!(profile.is_escaped(of(&profile, &mut metadata, 4)));
        assert!(!profile.is_escaped(of(&profile, &mut metadata, 3)));
        assert_eq!(profile.verify(&data, &metadata, &Expected::new(7)), Ok(Checked { escaped: 1 }));
    });
}

#[test]
fn verify_when_type_3_has_only_half_an_escape_then_checked() {
    on_every_profile("verify_when_type_3_has_only_half_an_escape", |profile| {
        if profile.pi_type() != PiType::Type3 {
            return;
        }
        let (mut data, mut metadata) = sealed(&profile, 5);
        change(&profile, &mut metadata, 4, |tuple| tuple.application = 0xFFFF);
        assert_eq!(profile.verify(&data, &metadata, &Expected::new(7)), Ok(Checked { escaped: 0 }));
        data[4 * profile.interval()] ^= 1;
        let found = profile.verify(&data, &metadata, &Expected::new(7)).unwrap_err();
        assert_eq!((found.interval, found.tag), (4, Tag::Guard));
    });
}

#[test]
fn verify_when_reference_wraps_then_low_bits_go_on_from_zero() {
    on_every_profile("verify_when_reference_wraps", |profile| {
        let data = noise(20 * profile.interval(), 3);
        let mut metadata = vec![0; profile.metadata_len(data.len())];
        for start in
            [profile.reference_mask() - 9, u64::MAX - 9, 0xAA_0000_0000_0000 + profile.reference_mask()]
        {
            profile.generate(&data, &mut metadata, start, 0);
            assert_eq!(profile.verify(&data, &metadata, &Expected::new(start)), Ok(Checked::default()));
            if profile.pi_type() == PiType::Type1 {
                let tuple = profile.tuple(of(&profile, &mut metadata, 19));
                assert_eq!(tuple.reference, start.wrapping_add(19) & profile.reference_mask());
                let found = profile.verify(&data, &metadata, &Expected::new(start ^ 1)).unwrap_err();
                assert_eq!((found.interval, found.tag), (0, Tag::Reference));
            }
        }
    });
}

#[test]
fn operations_when_type_is_0_then_metadata_is_neither_made_nor_checked() {
    let profile = with_metadata(Guard::None, 512, 12, 0, PiType::Type0);
    let data = noise(512 * 5, 4);
    let mut metadata = noise(12 * 5, 5);
    let kept = metadata.clone();
    profile.generate(&data, &mut metadata, 1, 2);
    profile.remap(&mut metadata, 1, 2);
    assert_eq!(metadata, kept);
    let refuse = Expected { escape: Escape::Refuse, ..Expected::new(0) };
    assert_eq!(profile.verify(&data, &[0xFF; 60], &refuse), Ok(Checked::default()));
    let mut copy = vec![0; data.len()];
    let halves = [&data[..700], &data[700..]];
    assert!(profile.copy_verify(&halves, &mut copy, &metadata, &refuse).is_ok());
    assert_eq!(copy, data);
    copy.fill(0);
    profile.copy_generate(&halves, &mut copy, &mut metadata, 0, 0);
    assert_eq!((copy, metadata), (data, kept));
    assert!(!profile.is_escaped(&[0xFF; 12]));
}

#[test]
fn operations_when_data_is_empty_then_nothing_is_wrong() {
    for guard in Guard::ALL {
        let pi_type = if guard == Guard::None { PiType::Type0 } else { PiType::Type1 };
        let profile = with_metadata(guard, 512, 16, 0, pi_type);
        profile.generate(&[], &mut [], 0, 0);
        assert!(profile.verify(&[], &[], &Expected::new(0)).is_ok());
        assert!(profile.verify_segments(&[], &[], &Expected::new(0)).is_ok());
        assert!(profile.copy_verify(&[&[], &[]], &mut [], &[], &Expected::new(0)).is_ok());
        profile.remap(&mut [], 0, 1);
    }
}

#[test]
#[should_panic(expected = "whole intervals")]
fn verify_when_data_is_no_whole_interval_then_panics() {
    let _ = bare(Guard::Ip, 512).verify(&[0; 511], &[], &Expected::new(0));
}

#[test]
#[should_panic(expected = "metadata must be that of the data")]
fn verify_when_metadata_is_too_short_then_panics() {
    let _ = bare(Guard::Ip, 512).verify(&[0; 1024], &[0; 8], &Expected::new(0));
}

#[test]
#[should_panic(expected = "as long as its source")]
fn copy_generate_when_copy_is_too_short_then_panics() {
    bare(Guard::Ip, 512).copy_generate(&[&[0; 512]], &mut [0; 511], &mut [0; 8], 0, 0);
}
