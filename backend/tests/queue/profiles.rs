//! Odd profiles: metadata that fills no page evenly, tuples anywhere in it, intervals larger than a sector, no tuple.

use crate::harness::{Guest, Wish};
use blkif::{Encode, Operation, RawSlot, Request, Sectors, Segment, Status, total_len};
use integrity::{Expected, Guard, PiType, Profile, ProfileSpec};

fn profiles() -> Vec<Profile> {
    let spec = |guard, interval, metadata_size, pi_offset, tag_size, pi_type| {
        let spec = ProfileSpec { guard, interval, metadata_size, pi_offset, tag_size, pi_type };
        Profile::new(spec).unwrap_or_else(|error| panic!("{spec:?}: {error}"))
    };
    vec![
        spec(Guard::Crc16T10Dif, 512, 255, 247, 2, PiType::Type1),
        spec(Guard::Crc64Nvme, 4096, 255, 100, 0, PiType::Type1),
        spec(Guard::Ip, 1024, 9, 1, 6, PiType::Type3),
        spec(Guard::None, 512, 1, 0, 0, PiType::Type0),
        spec(Guard::None, 2048, 255, 0, 0, PiType::Type0),
    ]
}

/// Pages of data.
const DATA: usize = 4;
/// The guest's first page of metadata.
const PAYLOAD: usize = 100;

fn pair(operation: Operation, data: &[Segment], payload: &[Segment]) -> [RawSlot; 2] {
    let data = Request::direct(1, operation, Sectors(64), data, true);
    [Encode::request(&data), Encode::payload(2, 0, Sectors(64), payload)]
}

fn statuses(guest: &mut Guest, slots: &[RawSlot]) -> [Status; 2] {
    guest.send(slots);
    let answers = guest.responses(2);
    [answers[&1], answers[&2]]
}

#[test]
fn every_profile_carries_data_and_metadata_both_ways_and_refuses_what_is_no_whole_interval() {
    for profile in profiles() {
        let mut guest =
            Guest::new(Wish { profile: Some(profile), pool: 0, max_indirect: 11, ..Wish::default() });
        let reference = 64 * 512 / profile.interval() as u64;
        let data_segments = guest.whole(0, DATA);
        let mut payload = vec![guest.segment(PAYLOAD, 5, 7)];
        payload.extend(guest.whole(PAYLOAD + 1, 3));
        let bytes: Vec<u8> = (0..DATA * 4096).map(|i| (i / 3) as u8).collect();
        let mut metadata: Vec<u8> = (0..profile.metadata_len(bytes.len())).map(|i| i as u8).collect();
        assert!(metadata.len() <= total_len(&payload));
        profile.generate(&bytes, &mut metadata, reference, 0);
        guest.put(0, &bytes);
        guest.pages.write(PAYLOAD * 4096 + 5 * 512, &metadata);
        let write = pair(Operation::Write, &data_segments, &payload);
        assert_eq!(statuses(&mut guest, &write), [Status::Okay; 2], "{profile}");

        guest.put(0, &vec![0x55; DATA * 4096]);
        guest.put(PAYLOAD, &[0x66; 4 * 4096]);
        let read = pair(Operation::Read, &data_segments, &payload);
        assert_eq!(statuses(&mut guest, &read), [Status::Okay; 2], "{profile}");
        assert!(guest.get(0, DATA * 4096) == bytes, "{profile}");
        let got = guest.get(PAYLOAD, 4 * 4096);
        let (before, got) = got.split_at(5 * 512);
        let (got, after) = got.split_at(metadata.len());
        assert!(got == metadata, "{profile}: metadata around the tuple included");
        assert!(before.iter().chain(after).all(|byte| *byte == 0x66), "{profile}: beyond the metadata");

        if metadata.len() > 512 {
            let slots = pair(Operation::Write, &data_segments, &[guest.segment(PAYLOAD, 0, 0)]);
            assert_eq!(statuses(&mut guest, &slots), [Status::Error; 2], "{profile}: a payload too short");
        }
        if profile.interval() > 512 {
            let sector = [guest.segment(0, 0, 0)];
            let slots = pair(Operation::Read, &sector, &payload);
            assert_eq!(statuses(&mut guest, &slots), [Status::Error; 2], "{profile}");
            let plain = Encode::request(&Request::direct(1, Operation::Write, Sectors(0), &sector, false));
            assert_eq!(guest.ask(&plain).status, Status::Error, "{profile}");
        }
    }
}

#[test]
fn what_the_daemon_makes_holds_nothing_of_the_buffers_last_user() {
    for profile in profiles() {
        let mut guest =
            Guest::new(Wish { profile: Some(profile), pool: 0, max_indirect: 11, ..Wish::default() });
        let data = guest.whole(0, DATA);
        let payload = guest.whole(PAYLOAD, 4);
        // The pool's memory full of metadata that is all one byte, where a guest may choose it.
        let metadata = vec![0xA5; profile.metadata_len(DATA * 4096)];
        guest.put(PAYLOAD, &metadata);
        let slots = pair(Operation::Write, &data, &payload);
        statuses(&mut guest, &slots);

        let plain = Encode::request(&Request::direct(1, Operation::Write, Sectors(64), &data, false));
        assert_eq!(guest.ask(&plain).status, Status::Okay, "{profile}");
        let state = guest.store.state.lock().unwrap();
        let at = profile.metadata_len(64 * 512);
        let stored = &state.metadata[at..at + metadata.len()];
        let bytes = &state.data[64 * 512..64 * 512 + DATA * 4096];
        let reference = 64 * 512 / profile.interval() as u64;
        assert!(profile.verify(bytes, stored, &Expected::new(reference)).is_ok(), "{profile}");
        let tuple = profile.pi_offset()..profile.pi_offset() + profile.tuple_size();
        for one in stored.chunks_exact(profile.metadata_size()) {
            let around = one.iter().enumerate().filter(|(i, _)| !tuple.contains(i));
            assert!(around.clone().all(|(_, byte)| *byte == 0), "{profile}: {one:x?}");
        }
    }
}
