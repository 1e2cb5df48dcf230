//! Every way through the crate once, on as little data as has it: small enough for an interpreter that checks each access
//! (`cargo miri test -p integrity --test small`). Miri has no processor to ask for features: the kernels it runs are those
//! whose features `-C target-feature` gives; the others are named as lacking.

mod common;

use common::{GUARDS, bitwise, cut, noise, on_every_kernel, with_metadata};
use integrity::{Expected, Kernel, PiType, Profile, Tag, Tuple};

/// What is done: a profile, on how many intervals, cut where; and the right metadata, made once for all kernels.
struct Case {
    profile: Profile,
    bytes: Vec<u8>,
    cuts: &'static [usize],
    expected: Vec<u8>,
}

impl Case {
    /// Data that starts at an odd address.
    fn data(&self) -> &[u8] {
        &self.bytes[1..]
    }

    fn new(profile: Profile, count: usize, cuts: &'static [usize]) -> Case {
        let bytes = noise(count * profile.interval() + 1, count as u64);
        let mut expected = blank(&profile, count);
        for (i, (data, metadata)) in bytes[1..]
            .chunks(profile.interval())
            .zip(expected.chunks_mut(profile.metadata_size()))
            .enumerate()
        {
            let covered = [data, &metadata[..profile.pi_offset()]].concat();
            let reference = if profile.pi_type() == PiType::Type1 { 9 + i as u64 } else { 9 };
            let guard = bitwise(profile.guard(), &covered);
            profile.set_tuple(metadata, Tuple { guard, application: 4, reference });
        }
        Case { profile, bytes, cuts, expected }
    }
}

/// Metadata before it is made.
fn blank(profile: &Profile, count: usize) -> Vec<u8> {
    noise(count * profile.metadata_size(), 3)
}

/// Everything that can be done.
fn exercise(case: &Case, kernel: Kernel) {
    let Case { profile, cuts, expected, .. } = case;
    let profile = profile.with_kernel(kernel).unwrap();
    let data = case.data();
    let mut metadata = blank(&profile, profile.intervals(data.len()));
    profile.generate(data, &mut metadata, 9, 4);
    assert_eq!(metadata, *expected, "{profile}, {kernel}");
    let mut copy = vec![0; data.len()];
    let segments = cut(data, cuts);
    profile.copy_generate(&segments, &mut copy, &mut metadata, 9, 4);
    assert!(metadata == *expected && copy == data, "{profile}, {kernel}");
    copy.fill(0);
    assert!(profile.copy_verify(&segments, &mut copy, &metadata, &Expected::new(9)).is_ok());
    assert!(copy == data, "{profile}, {kernel}");
    assert!(profile.verify_segments(&segments, &metadata, &Expected::new(9)).is_ok());
    if profile.pi_type() == PiType::Type1 {
        profile.remap(&mut metadata, 9, 70_000);
        assert!(profile.verify(data, &metadata, &Expected::new(70_000)).is_ok());
    }
    copy[data.len() - 1] ^= 1;
    let found = profile.verify(&copy, expected, &Expected::new(9)).unwrap_err();
    assert_eq!((found.interval, found.tag), (profile.intervals(data.len()) - 1, Tag::Guard));
}

#[test]
fn operations_when_small_then_right_on_every_kernel() {
    let mut cases = Vec::new();
    for guard in GUARDS {
        if cfg!(miri) {
            // An interpreter takes a second for each of these: every loop and its rest, and metadata before the tuple, once.
            let size = guard.tuple_size() as u16;
            cases.push(Case::new(with_metadata(guard, 512, size, 0, PiType::Type1), 5, &[3, 513]));
            cases.push(Case::new(with_metadata(guard, 512, size + 20, 19, PiType::Type3), 2, &[500]));
            continue;
        }
        let tuple = guard.tuple_size() as u16;
        let mut add = |interval, size, offset, pi_type, count, cuts| {
            cases.push(Case::new(with_metadata(guard, interval, size, offset, pi_type), count, cuts));
        };
        add(512, tuple, 0, PiType::Type1, 9, &[3, 1500, 1501]);
        add(512, tuple + 20, 19, PiType::Type3, 3, &[512, 513]);
        add(1024, tuple + 8, 0, PiType::Type1, 3, &[]);
        add(2048, tuple, 0, PiType::Type1, 1, &[2047]);
        add(8192, tuple, 0, PiType::Type1, 1, &[1]);
    }
    on_every_kernel("operations_when_small_then_right_on_every_kernel", |kernel| {
        cases.iter().for_each(|case| exercise(case, kernel));
    });
}
