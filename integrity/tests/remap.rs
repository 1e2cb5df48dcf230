//! Remapping of reference tags.

mod common;

use common::{GUARDS, noise, on_every_kernel, with_metadata};
use integrity::{PiType, Profile, Tuple};

/// The definition, one tuple after the other.
fn plain(profile: &Profile, metadata: &mut [u8], from: u64, to: u64) {
    for (i, metadata) in metadata.chunks_exact_mut(profile.metadata_size()).enumerate() {
        let tuple = profile.tuple(metadata);
        if tuple.reference == from.wrapping_add(i as u64) & profile.reference_mask() {
            let reference = to.wrapping_add(i as u64) & profile.reference_mask();
            profile.set_tuple(metadata, Tuple { reference, ..tuple });
        }
    }
}

#[test]
fn remap_when_some_tags_match_then_only_those_change() {
    on_every_kernel("remap_when_some_tags_match_then_only_those_change", |kernel| {
        for guard in GUARDS {
            let tuple = guard.tuple_size() as u16;
            for (size, offset) in
                [(tuple, 0), (tuple + 8, 0), (tuple + 8, 8), (tuple + 5, 3), (64, 0), (255, 200)]
            {
                let profile =
                    with_metadata(guard, 512, size, offset, PiType::Type1).with_kernel(kernel).unwrap();
                let mask = profile.reference_mask();
                for count in (0..40).chain([63, 64, 65, 257]) {
                    for (from, to) in [(0, 5), (mask - 7, 3), (u64::MAX - 3, mask - 1), (1 << 33, 1 << 47)] {
                        let mut metadata = noise(count * profile.metadata_size(), from ^ count as u64);
                        for (i, metadata) in metadata.chunks_exact_mut(profile.metadata_size()).enumerate() {
                            // Two of three are right; the others are wrong by one bit, or escaped.
                            let mut tuple = profile.tuple(metadata);
                            tuple.reference = from.wrapping_add(i as u64) & mask;
                            match i % 6 {
                                2 => tuple.reference ^= 1 << (i % 32),
                                5 => {
                                    tuple.reference = mask;
                                    tuple.application = 0xFFFF;
                                }
                                _ => {}
                            }
                            profile.set_tuple(metadata, tuple);
                        }
                        let mut expected = metadata.clone();
                        plain(&profile, &mut expected, from, to);
                        profile.remap(&mut metadata, from, to);
                        assert_eq!(
                            metadata, expected,
                            "{profile}, {count} tuples, {from:#x} to {to:#x}, {kernel}"
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn remap_when_undone_then_gives_the_same_again() {
    for guard in GUARDS {
        let profile = with_metadata(guard, 512, guard.tuple_size() as u16, 0, PiType::Type1);
        let data = noise(512 * 21, 9);
        let mut metadata = vec![0; profile.metadata_len(data.len())];
        profile.generate(&data, &mut metadata, 1000, 3);
        let kept = metadata.clone();
        profile.remap(&mut metadata, 1000, 5_000_000_000);
        assert!(profile.verify(&data, &metadata, &integrity::Expected::new(5_000_000_000)).is_ok());
        profile.remap(&mut metadata, 5_000_000_000, 1000);
        assert_eq!(metadata, kept);
    }
}

#[test]
fn remap_when_type_is_3_then_leaves_all() {
    for guard in GUARDS {
        let profile = with_metadata(guard, 512, 16, 0, PiType::Type3);
        let mut metadata = vec![0; 16 * 9];
        profile.remap(&mut metadata, 0, 77);
        assert_eq!(metadata, vec![0; 16 * 9]);
    }
}
