//! Segments: every single border, and the shapes that guests make.

mod common;

use common::{GUARDS, bare, noise, on_every_kernel};
use integrity::{Expected, Guard, Profile};

/// Checks that segments give what the same bytes give in one piece.
fn same(profile: &Profile, segments: &[&[u8]], data: &[u8], expected: &[u8]) {
    let mut metadata = vec![0; expected.len()];
    profile.generate_segments(segments, &mut metadata, 1, 2);
    assert_eq!(metadata, expected, "{profile}");
    assert!(profile.verify_segments(segments, expected, &Expected::new(1)).is_ok());
    let mut copy = vec![0; data.len()];
    metadata.fill(0);
    profile.copy_generate(segments, &mut copy, &mut metadata, 1, 2);
    assert_eq!(metadata, expected, "{profile}");
    assert_eq!(copy, data);
    copy.fill(0);
    assert!(profile.copy_verify(segments, &mut copy, expected, &Expected::new(1)).is_ok());
    assert_eq!(copy, data);
}

fn sealed(profile: &Profile, count: usize) -> (Vec<u8>, Vec<u8>) {
    let data = noise(count * profile.interval(), 11);
    let mut metadata = vec![0; profile.metadata_len(data.len())];
    profile.generate(&data, &mut metadata, 1, 2);
    (data, metadata)
}

#[test]
fn segments_when_cut_at_every_byte_then_as_in_one_piece() {
    on_every_kernel("segments_when_cut_at_every_byte_then_as_in_one_piece", |kernel| {
        // Without optimisation, where this takes minutes, every so many bytes.
        let each = if cfg!(debug_assertions) { 61 } else { 1 };
        for guard in GUARDS {
            for (interval, count) in [(512, 3), (4096, 2)] {
                let profile = bare(guard, interval).with_kernel(kernel).unwrap();
                let (data, metadata) = sealed(&profile, count);
                for place in (0..=data.len()).step_by(each) {
                    same(&profile, &[&data[..place], &data[place..]], &data, &metadata);
                }
            }
        }
    });
}

#[test]
fn segments_when_of_every_size_then_as_in_one_piece() {
    on_every_kernel("segments_when_of_every_size_then_as_in_one_piece", |kernel| {
        for guard in GUARDS {
            for (interval, count) in [(512, 19), (1024, 9), (4096, 5), (8192, 3), (65536, 2)] {
                let profile = bare(guard, interval).with_kernel(kernel).unwrap();
                let (data, metadata) = sealed(&profile, count);
                for size in [1, 2, 3, 63, 64, 65, 511, 512, 513, 1536, 2048, 3584, 4096, 4097, 12288, 65535] {
                    let segments: Vec<&[u8]> = data.chunks(size).collect();
                    same(&profile, &segments, &data, &metadata);
                }
            }
        }
    });
}

#[test]
fn segments_when_some_are_empty_then_as_in_one_piece() {
    let profile = bare(Guard::Crc64Nvme, 4096);
    let (data, metadata) = sealed(&profile, 2);
    let segments: [&[u8]; 6] = [&[], &data[..100], &[], &[], &data[100..], &[]];
    same(&profile, &segments, &data, &metadata);
}
