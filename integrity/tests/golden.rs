//! Guards and tuples known from elsewhere: SBC-4's and SPDK's test vectors, and values on which SPDK, ISA-L and
//! crc-fast agree. (Vectors of whole intervals; shorter ones are in the guard module's own tests.)

mod common;

use common::{bare, bitwise, library, on_every_kernel, with_metadata};
use integrity::{Expected, Guard, PiType, Profile, Tuple};

const CRC16: Guard = Guard::Crc16T10Dif;
const IP: Guard = Guard::Ip;
const CRC64: Guard = Guard::Crc64Nvme;

fn zeroes(length: usize) -> Vec<u8> {
    vec![0; length]
}

fn ones(length: usize) -> Vec<u8> {
    vec![0xFF; length]
}

fn rising(length: usize) -> Vec<u8> {
    (0..length).map(|i| i as u8).collect()
}

fn falling(length: usize) -> Vec<u8> {
    (0..length).map(|i| 255 - i as u8).collect()
}

/// All vectors: data of one interval, guard, its number.
fn vectors() -> Vec<(Vec<u8>, Guard, u64)> {
    vec![
        (rising(512), CRC16, 0x4F10),
        (rising(512), IP, 0x7F80),
        (rising(512), CRC64, 0x65F4_8632_094A_1B07),
        (ones(512), CRC16, 0xE6A1),
        (ones(512), IP, 0x0000),
        (ones(512), CRC64, 0x5277_682D_DAEB_44B6),
        (zeroes(512), CRC16, 0x0000),
        (zeroes(512), IP, 0xFFFF),
        (zeroes(512), CRC64, 0x1DE6_0E28_68A7_82E9),
        (falling(512), CRC16, 0xA9B1),
        (falling(512), IP, 0x807F),
        (falling(512), CRC64, 0x2A65_E037_BB06_DD58),
        (zeroes(4096), CRC16, 0x0000),
        (zeroes(4096), IP, 0xFFFF),
        (zeroes(4096), CRC64, 0x6482_D367_EB22_B64E),
        (ones(4096), CRC16, 0x8B5D),
        (ones(4096), IP, 0x0000),
        (ones(4096), CRC64, 0xC0DD_BA73_02EC_A3AC),
        (rising(4096), CRC16, 0x8F6D),
        (rising(4096), IP, 0xFC03),
        (rising(4096), CRC64, 0x3E72_9F5F_6750_449C),
        (falling(4096), CRC16, 0x0430),
        (falling(4096), IP, 0x03FC),
        (falling(4096), CRC64, 0x9A2D_F64B_8E9E_517E),
    ]
}

/// All vectors with metadata before the tuple: data, that metadata, guard, its number.
fn vectors_with_metadata() -> Vec<(Vec<u8>, Vec<u8>, Guard, u64)> {
    vec![
        (rising(512), vec![0xA5; 56], CRC16, 0xEB31),
        (rising(512), vec![0xA5; 56], IP, 0x6162),
        (rising(512), vec![0xA5; 48], CRC64, 0x95AA_3FE1_1615_50EA),
        (rising(4096), vec![0xA5; 48], CRC64, 0xD48D_E6F4_06E4_BA75),
    ]
}

fn generated(profile: Profile, data: &[u8], metadata: &mut [u8]) -> Tuple {
    profile.generate(data, metadata, 0, 0);
    profile.tuple(metadata)
}

#[test]
fn oracles_when_given_vectors_then_agree() {
    for (data, guard, expected) in vectors() {
        assert_eq!(bitwise(guard, &data), expected, "{guard}");
        assert_eq!(library(guard, &data), expected, "{guard}");
    }
    for (data, before, guard, expected) in vectors_with_metadata() {
        let covered = [data, before].concat();
        assert_eq!(bitwise(guard, &covered), expected, "{guard}");
        assert_eq!(library(guard, &covered), expected, "{guard}");
    }
}

#[test]
fn generate_when_given_vectors_then_guard_is_theirs() {
    on_every_kernel("generate_when_given_vectors_then_guard_is_theirs", |kernel| {
        for (data, guard, expected) in vectors() {
            let profile = bare(guard, data.len() as u32).with_kernel(kernel).unwrap();
            let tuple = generated(profile, &data, &mut vec![0; guard.tuple_size()]);
            assert_eq!(tuple.guard, expected, "{guard}, {} bytes, {kernel}", data.len());
        }
    });
}

#[test]
fn generate_when_metadata_lies_before_the_tuple_then_guard_covers_it() {
    on_every_kernel("generate_when_metadata_lies_before_the_tuple_then_guard_covers_it", |kernel| {
        for (data, mut metadata, guard, expected) in vectors_with_metadata() {
            let before = metadata.clone();
            metadata.resize(64, 0);
            let profile = with_metadata(guard, data.len() as u32, 64, before.len() as u8, PiType::Type1)
                .with_kernel(kernel)
                .unwrap();
            assert_eq!(generated(profile, &data, &mut metadata).guard, expected, "{guard}, {kernel}");
            assert_eq!(metadata[..before.len()], before, "metadata before the tuple is left");
            assert!(profile.verify(&data, &metadata, &Expected::new(0)).is_ok());
            metadata[0] ^= 1;
            assert!(profile.verify(&data, &metadata, &Expected::new(0)).is_err());
        }
    });
}

#[test]
fn generate_when_given_tags_then_tuple_bytes_are_big_endian() {
    on_every_kernel("generate_when_given_tags_then_tuple_bytes_are_big_endian", |kernel| {
        let mut metadata = [0; 8];
        let profile = bare(CRC16, 512).with_kernel(kernel).unwrap();
        profile.generate(&rising(512), &mut metadata, 0x1234_5678, 0x1234);
        assert_eq!(metadata, [0x4F, 0x10, 0x12, 0x34, 0x12, 0x34, 0x56, 0x78]);

        let mut metadata = [0; 16];
        let profile = bare(CRC64, 4096).with_kernel(kernel).unwrap();
        profile.generate(&rising(4096), &mut metadata, 0x1234_5678_9ABC, 0x1234);
        assert_eq!(
            metadata,
            [0x3E, 0x72, 0x9F, 0x5F, 0x67, 0x50, 0x44, 0x9C, 0x12, 0x34, 0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC]
        );

        let mut metadata = [0; 8];
        let profile = bare(IP, 512).with_kernel(kernel).unwrap();
        profile.generate(&rising(512), &mut metadata, 1, 0);
        assert_eq!(metadata, [0x7F, 0x80, 0, 0, 0, 0, 0, 1]);
    });
}
