//! Properties that hold for every profile, all data and every way to cut it.

mod common;

use common::{cut, noise, reference_generate};
use integrity::{Expected, Guard, Kernel, PiType, Profile, ProfileSpec, Tag};
use proptest::prelude::*;
use proptest::sample::{Index, select};

prop_compose! {
    fn profiles()(
        guard in select(&common::GUARDS[..]),
        exponent in 9u32..=13,
        size_seed: u16,
        offset_seed: u8,
        pi_type in select(&[PiType::Type1, PiType::Type3][..]),
        bare: bool,
        kernel in select(Kernel::available()),
    ) -> Profile {
        let tuple = guard.tuple_size() as u16;
        let metadata_size = if bare { tuple } else { tuple + size_seed % (256 - tuple) };
        let pi_offset = (u16::from(offset_seed) % (metadata_size - tuple + 1)) as u8;
        let spec = ProfileSpec { guard, interval: 1 << exponent, metadata_size, pi_offset, tag_size: 0, pi_type };
        Profile::new(spec).unwrap().with_kernel(kernel).unwrap()
    }
}

proptest! {
    #[test]
    fn generate_when_any_profile_then_as_the_oracle(
        profile in profiles(), count in 0usize..20, seed: u64, reference: u64, application: u16, cuts: Vec<usize>,
    ) {
        let data = noise(count * profile.interval(), seed);
        let blank = noise(profile.metadata_len(data.len()), !seed);
        let mut expected = blank.clone();
        reference_generate(&profile, &data, &mut expected, reference, application);

        let mut metadata = blank.clone();
        profile.generate(&data, &mut metadata, reference, application);
        prop_assert_eq!(&metadata, &expected);

        let segments = cut(&data, &cuts);
        let mut metadata = blank.clone();
        profile.generate_segments(&segments, &mut metadata, reference, application);
        prop_assert_eq!(&metadata, &expected);

        let mut copy = vec![0; data.len()];
        let mut metadata = blank;
        profile.copy_generate(&segments, &mut copy, &mut metadata, reference, application);
        prop_assert_eq!(&metadata, &expected);
        prop_assert_eq!(&copy, &data);

        copy.fill(0);
        prop_assert!(profile.copy_verify(&segments, &mut copy, &metadata, &Expected::new(reference)).is_ok());
        prop_assert_eq!(&copy, &data);
        prop_assert!(profile.verify(&data, &metadata, &Expected::new(reference)).is_ok());
    }

    #[test]
    fn verify_when_one_data_bit_is_flipped_then_one_guard_mismatch_is_located(
        profile in profiles(), count in 1usize..20, seed: u64, reference: u64, place: Index, cuts: Vec<usize>,
    ) {
        let mut data = noise(count * profile.interval(), seed);
        let mut metadata = vec![0; profile.metadata_len(data.len())];
        profile.generate(&data, &mut metadata, reference, 0);
        let bit = place.index(data.len() * 8);
        data[bit / 8] ^= 1 << (bit % 8);
        let expected = Expected::new(reference);
        let segments = cut(&data, &cuts);
        let mut copy = vec![0; data.len()];
        let found = [
            profile.verify(&data, &metadata, &expected),
            profile.verify_segments(&segments, &metadata, &expected),
            profile.copy_verify(&segments, &mut copy, &metadata, &expected),
        ];
        let mismatch = found[0].unwrap_err();
        prop_assert_eq!(found, [Err(mismatch); 3]);
        prop_assert_eq!((mismatch.interval, mismatch.tag), (bit / 8 / profile.interval(), Tag::Guard));
        prop_assert_ne!(mismatch.expected, mismatch.actual);

        // All the other intervals are still good.
        let from = (mismatch.interval + 1) * profile.interval();
        let metadata = &metadata[(mismatch.interval + 1) * profile.metadata_size()..];
        let step = if profile.pi_type() == PiType::Type1 { mismatch.interval as u64 + 1 } else { 0 };
        let rest = Expected::new(reference.wrapping_add(step));
        prop_assert!(profile.verify(&data[from..], metadata, &rest).is_ok());
    }

    #[test]
    fn verify_when_one_metadata_bit_is_flipped_then_located_if_it_is_protected(
        profile in profiles(), count in 1usize..20, seed: u64, place: Index,
    ) {
        let data = noise(count * profile.interval(), seed);
        let mut metadata = noise(profile.metadata_len(data.len()), !seed);
        profile.generate(&data, &mut metadata, 5, 0x00F0);
        let bit = place.index(metadata.len() * 8);
        metadata[bit / 8] ^= 1 << (bit % 8);
        let application = Some(integrity::AppTag { value: 0x00F0, mask: 0xFFFF });
        let found = profile.verify(&data, &metadata, &Expected { application, ..Expected::new(5) });

        let (interval, byte) = (bit / 8 / profile.metadata_size(), bit / 8 % profile.metadata_size());
        let guard_size = profile.guard().guard_size();
        let tag = match byte.checked_sub(profile.pi_offset()) {
            None => Some(Tag::Guard),
            Some(byte) if byte < guard_size => Some(Tag::Guard),
            Some(byte) if byte < guard_size + 2 => Some(Tag::Application),
            Some(byte) if byte < profile.tuple_size() && profile.pi_type() == PiType::Type1 => Some(Tag::Reference),
            Some(_) => None,
        };
        prop_assert_eq!(found.err().map(|found| (found.interval, found.tag)), tag.map(|tag| (interval, tag)));
    }

    #[test]
    fn tuple_when_set_then_read_back_and_nothing_else_changed(
        profile in profiles(), seed: u64, guard: u64, application: u16, reference: u64,
    ) {
        let before = noise(profile.metadata_size(), seed);
        let mut metadata = before.clone();
        let guard = if profile.guard() == Guard::Crc64Nvme { guard } else { guard & 0xFFFF };
        let tuple = integrity::Tuple { guard, application, reference: reference & profile.reference_mask() };
        profile.set_tuple(&mut metadata, tuple);
        prop_assert_eq!(profile.tuple(&metadata), tuple);
        let end = profile.pi_offset() + profile.tuple_size();
        prop_assert_eq!(&metadata[..profile.pi_offset()], &before[..profile.pi_offset()]);
        prop_assert_eq!(&metadata[end..], &before[end..]);
    }
}
