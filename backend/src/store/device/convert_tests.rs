use super::*;
use integrity::Tag;

fn profile(guard: Guard, interval: u32, metadata_size: u16, pi_offset: u8, pi_type: PiType) -> Profile {
    let tag_size = if pi_type == PiType::Type3 { 6 } else { 2 };
    Profile::new(ProfileSpec { guard, interval, metadata_size, pi_offset, tag_size, pi_type }).unwrap()
}

fn wish(guard: Option<Guard>, interval: Option<u32>, metadata_size: Option<u16>) -> Wish {
    Wish { guard, interval, metadata_size }
}

fn data(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 7 + i / 251) as u8).collect()
}

const CRC: Guard = Guard::Crc16T10Dif;
const CRC64: Guard = Guard::Crc64Nvme;

#[test]
fn convert_when_nothing_is_wished_gives_the_guest_the_devices_own() {
    let device = profile(CRC64, 4096, 64, 48, PiType::Type1);
    for nothing in [Wish::default(), wish(Some(CRC64), Some(4096), Some(64))] {
        let convert = Convert::new(device, &nothing).unwrap();
        assert!(convert.is_identity());
        assert_eq!((convert.guest, convert.unit()), (device, 4096));
    }
}

#[test]
fn data_when_it_goes_to_the_device_and_back_has_pi_that_verifies_on_both_sides() {
    let cases = [
        (profile(CRC, 512, 8, 0, PiType::Type1), wish(Some(Guard::Ip), None, None)),
        (profile(CRC, 4096, 64, 56, PiType::Type1), wish(None, None, Some(8))),
        (profile(CRC64, 4096, 64, 0, PiType::Type1), wish(Some(CRC), None, None)),
        (profile(CRC64, 4096, 16, 0, PiType::Type1), wish(Some(CRC), Some(512), None)),
        (profile(CRC, 512, 8, 0, PiType::Type1), wish(Some(CRC64), Some(4096), None)),
        (profile(CRC64, 4096, 64, 48, PiType::Type3), wish(Some(CRC), None, None)),
    ];
    for (device, wish) in cases {
        let convert = Convert::new(device, &wish).unwrap();
        let guest = convert.guest;
        assert_eq!(guest.metadata_size(), guest.tuple_size());
        let (data, offset) = (data(5 * 4096), 3 * 4096);
        let tag = if guest.tag_size() == 0 { 0 } else { 0x1234 };
        let mut sent = vec![0; guest.metadata_len(data.len())];
        guest.generate(&data, &mut sent, offset / guest.interval() as u64, tag);
        // One escape: all of its unit is one on the other side.
        guest.escape(&mut sent[guest.metadata_len(4096)..][..guest.metadata_size()]);
        let mut stored = vec![0xA5; device.metadata_len(data.len())];
        convert.for_device(&data, &sent, &mut stored, offset).unwrap();
        let first = offset / device.interval() as u64;
        let escaped = device.verify(&data, &stored, &Expected::new(first)).unwrap().escaped;
        let unit = convert.unit();
        assert_eq!(escaped, unit / device.interval(), "{device}");
        let mut back = vec![0xA5; sent.len()];
        convert.for_guest(&data, &stored, &mut back, offset).unwrap();
        let seen = guest.verify(&data, &back, &Expected::new(offset / guest.interval() as u64)).unwrap();
        assert_eq!(seen.escaped, unit / guest.interval());
        // All but the unit of the escape is what was sent.
        let hole = guest.metadata_len(4096)..guest.metadata_len(4096 + unit);
        assert_eq!(
            (&back[..hole.start], &back[hole.end..]),
            (&sent[..hole.start], &sent[hole.end..]),
            "{device}"
        );
    }
}

#[test]
fn old_pi_when_it_does_not_match_is_named_whichever_way_the_data_goes() {
    let device = profile(CRC64, 4096, 16, 0, PiType::Type1);
    let convert = Convert::new(device, &wish(Some(CRC), Some(512), None)).unwrap();
    let mut bytes = data(8192);
    let mut sent = vec![0; convert.guest.metadata_len(8192)];
    convert.guest.generate(&bytes, &mut sent, 8, 0);
    let mut stored = vec![0; device.metadata_len(8192)];
    convert.for_device(&bytes, &sent, &mut stored, 4096).unwrap();
    bytes[4096 + 513] ^= 1;
    let found = convert.for_device(&bytes, &sent, &mut stored.clone(), 4096).unwrap_err();
    assert_eq!((found.interval, found.tag), (9, Tag::Guard));
    let found = convert.for_guest(&bytes, &stored, &mut sent.clone(), 4096).unwrap_err();
    assert_eq!((found.interval, found.tag), (1, Tag::Guard));
    let found = convert.for_device(&bytes[..4096], &sent[..64], &mut stored[..16], 0).unwrap_err();
    assert_eq!((found.interval, found.tag), (0, Tag::Reference), "sent for elsewhere");
}

#[test]
fn escapes_when_completed_are_escapes_still_and_have_the_guard_and_place_of_their_data() {
    for (guard, pi_type, pi_offset) in [
        (CRC, PiType::Type1, 0),
        (CRC, PiType::Type3, 56),
        (CRC64, PiType::Type1, 48),
        (CRC64, PiType::Type3, 0),
    ] {
        let profile = profile(guard, 512, 64, pi_offset, pi_type);
        let bytes = data(1536);
        let mut right = vec![0; profile.metadata_len(1536)];
        profile.generate(&bytes, &mut right, 7, 0x1234);
        let mut sent = right.clone();
        sent[64..128].fill(0xFF);
        complete_escapes(&profile, &bytes, &mut sent, 7 * 512);
        assert!(profile.is_escaped(&sent[64..128]));
        assert_eq!((&sent[..64], &sent[128..]), (&right[..64], &right[128..]), "the others are as they were");
        // What a device finds that knows no escapes: metadata before the tuple is covered, too.
        let tuple = profile.tuple(&sent[64..128]);
        let mut made = [0xFF; 64];
        profile.generate(&bytes[512..1024], &mut made, 8, 0);
        let wanted = profile.tuple(&made);
        let reference = if pi_type == PiType::Type1 { 8 } else { profile.reference_mask() };
        assert_eq!((tuple.guard, tuple.reference), (wanted.guard, reference));
    }
}

#[test]
fn wishes_when_they_cannot_be_are_refused_with_the_key() {
    let type1 = profile(CRC, 4096, 64, 0, PiType::Type1);
    let type3 = profile(CRC, 4096, 8, 0, PiType::Type3);
    let opaque = Profile::new(ProfileSpec {
        guard: Guard::None,
        interval: 512,
        metadata_size: 8,
        pi_offset: 0,
        tag_size: 0,
        pi_type: PiType::Type0,
    })
    .unwrap();
    for (device, wish, words) in [
        (type1, wish(None, None, Some(32)), "metadata-size=32"),
        (type1, wish(Some(Guard::None), None, None), "guard=none"),
        (type1, wish(None, Some(8192), Some(8)), "interval=8192"),
        (type3, wish(None, Some(512), None), "interval=512"),
        (type3, wish(Some(CRC64), None, None), "guard=crc64-nvme"),
        (opaque, wish(Some(CRC), None, None), "guard=crc16-t10dif"),
    ] {
        let text = Convert::new(device, &wish).unwrap_err();
        assert!(text.contains(words), "{text}");
    }
}
