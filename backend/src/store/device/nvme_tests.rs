use super::*;

/// An answer to identify: format `index` has `metadata` bytes and blocks of 2^`shift`.
fn answer(index: usize, metadata: u16, shift: u8, flbas: u8, dps: u8) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..8].copy_from_slice(&1000u64.to_le_bytes());
    (bytes[26], bytes[29]) = (flbas, dps);
    bytes[128 + 4 * index..130 + 4 * index].copy_from_slice(&metadata.to_le_bytes());
    bytes[130 + 4 * index] = shift;
    bytes
}

fn extended(index: usize, value: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[12 + 4 * index..16 + 4 * index].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[test]
fn format_when_it_can_be_served_gives_profile_and_size() {
    for (answer, extended, expected) in [
        (answer(3, 8, 9, 3, 1), None, (Guard::Crc16T10Dif, 512, 8, 0, PiType::Type1, 2)),
        (answer(3, 64, 12, 3, 3), None, (Guard::Crc16T10Dif, 4096, 64, 56, PiType::Type3, 6)),
        (
            answer(17, 64, 12, 0x21, 1),
            Some(extended(17, 2 << 7)),
            (Guard::Crc64Nvme, 4096, 64, 48, PiType::Type1, 2),
        ),
        (
            answer(0, 16, 12, 0, 8 | 3),
            Some(extended(0, 2 << 7)),
            (Guard::Crc64Nvme, 4096, 16, 0, PiType::Type3, 8),
        ),
        (answer(0, 64, 12, 0, 8 | 1), None, (Guard::Crc16T10Dif, 4096, 64, 0, PiType::Type1, 2)),
        (answer(0, 16, 9, 0, 0), None, (Guard::None, 512, 16, 0, PiType::Type0, 0)),
    ] {
        let found = format(&answer, extended.as_deref()).unwrap();
        let spec = found.profile.spec();
        let shape =
            (spec.guard, spec.interval, spec.metadata_size, spec.pi_offset, spec.pi_type, spec.tag_size);
        assert_eq!((shape, found.blocks, found.block), (expected, 1000, spec.interval));
    }
}

#[test]
fn format_when_it_cannot_be_served_says_why() {
    for (answer, extended, words) in [
        (answer(0, 0, 9, 0, 0), None, "without metadata"),
        (answer(0, 8, 9, 0x10, 1), None, "part of the data"),
        (answer(0, 8, 9, 0, 2), None, "type 2"),
        (answer(0, 16, 12, 0, 1), Some(extended(0, 1 << 7)), "32 bits"),
        (answer(0, 16, 12, 0, 1), Some(extended(0, 2 << 7 | 16)), "storage tag (16 bits)"),
        (answer(0, 8, 12, 0, 1), Some(extended(0, 2 << 7)), "tuple"),
        (answer(0, 300, 12, 0, 1), None, "too many"),
        (answer(0, 8, 8, 0, 1), None, "2^8"),
    ] {
        let text = format(&answer, extended.as_deref()).unwrap_err();
        assert!(text.contains(words), "{text}");
    }
    assert!(format(&[], None).is_err(), "an answer cut short");
}

#[test]
fn command_when_laid_out_is_what_the_kernel_and_the_controller_read() {
    let profile = format(&answer(0, 16, 12, 0, 1), Some(&extended(0, 2 << 7))).unwrap().profile;
    let namespace = Namespace {
        file: File::open("/dev/null").unwrap(),
        path: "/dev/null".into(),
        _claim: None,
        id: 7,
        profile,
        bytes: 1 << 60,
        block: 4096,
        part: 4096,
        discards: true,
        discard_most: u64::MAX,
        volatile_cache: true,
    };
    let offset = 0x12_3456_789A * 4096;
    let bytes = namespace.transfer(Some(true), true, offset, (0x1111, 3 * 4096), (0x2222, 48)).bytes();
    let dword = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((bytes[0], dword(4), dword(12)), (1, 7, 0x12));
    assert_eq!((dword(16), dword(24), dword(32), dword(36)), (0x2222, 0x1111, 48, 3 * 4096));
    assert_eq!((dword(40), dword(44)), (0x3456_789A, 0x12));
    // Three blocks, FUA, guard and reference checked; the expected reference tag's low 32 bits.
    assert_eq!((dword(48), dword(56)), (0x5400_0002, 0x3456_789A));
    let unchecked = namespace.transfer(None, false, offset, (0x1111, 4096), (0x2222, 16));
    assert_eq!((unchecked.opcode, unchecked.dwords[2]), (2, 0));
    assert_eq!(namespace.range(8192, 3 * 4096)[4..], [3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn status_when_about_pi_names_the_tag_whatever_else_it_says() {
    assert_eq!(mismatch(0x282), Some(Tag::Guard));
    assert_eq!(mismatch(0x4283), Some(Tag::Application));
    assert_eq!(mismatch(0x6284), Some(Tag::Reference));
    assert_eq!((mismatch(0x281), mismatch(0)), (None, None));
    assert_eq!((errno(0x4002), errno(0x281)), (libc::EOPNOTSUPP, libc::EIO));
}
