//! PI on the way in and out.

use crate::harness::{Guest, Wish, profile};
use blkif::{Encode, Operation, RawSlot, Request, Sectors, Status};
use dixback::queue::{AppTagRule, Disk, Integrity};
use dixback::store::PiFault;
use integrity::{AppTag, Expected, Tag};

/// A pair over pages 0.. (data) and 100 (metadata).
fn pair(guest: &Guest, operation: Operation, sector: u64, pages: usize) -> [RawSlot; 2] {
    let data = Request::direct(1, operation, Sectors(sector), &guest.whole(0, pages), true);
    let payload = Encode::payload(2, 0, Sectors(sector), &[guest.segment(100, 0, 7)]);
    [Encode::request(&data), payload]
}

/// Puts data and its PI, made for `reference` with `tag`, into the guest's pages.
fn fill(guest: &Guest, seed: u8, pages: usize, reference: u64, tag: u16) -> (Vec<u8>, Vec<u8>) {
    let data: Vec<u8> = (0..pages * 4096).map(|i| (i / 7) as u8 ^ seed).collect();
    let mut metadata = vec![0; profile().metadata_len(data.len())];
    profile().generate(&data, &mut metadata, reference, tag);
    guest.put(0, &data);
    guest.put(100, &metadata);
    (data, metadata)
}

fn statuses(guest: &mut Guest, slots: &[RawSlot]) -> [Status; 2] {
    guest.send(slots);
    let answers = guest.responses(2);
    [answers[&1], answers[&2]]
}

#[test]
fn right_pi_is_stored_as_sent_and_comes_back() {
    let mut guest = Guest::new(Wish::default());
    let (data, metadata) = fill(&guest, 1, 2, 24, 0x1234);
    let slots = pair(&guest, Operation::Write, 24, 2);
    assert_eq!(statuses(&mut guest, &slots), [Status::Okay; 2]);
    assert_eq!(guest.store.state.lock().unwrap().metadata[24 * 8..40 * 8], metadata);
    guest.put(0, &vec![0; 8192]);
    guest.put(100, &[0; 4096]);
    let slots = pair(&guest, Operation::Read, 24, 2);
    assert_eq!(statuses(&mut guest, &slots), [Status::Okay; 2]);
    assert_eq!((guest.get(0, 8192), guest.get(100, metadata.len())), (data, metadata));
    let stats = guest.queue.as_ref().unwrap().stats();
    assert_eq!((stats.dix_requests, stats.daemon_requests), (2, 0));
}

#[test]
fn wrong_guard_reference_and_tag_get_their_own_status_and_nothing_is_written() {
    let operator: fn(Disk) -> Disk =
        |d| Disk { app_tag: AppTagRule::Operator(AppTag { value: 0x1200, mask: 0xFF00 }), ..d };
    let mut guest = Guest::new(Wish { disk: operator, ..Wish::default() });
    for (case, expected) in [Status::Guard, Status::Reference, Status::Application].into_iter().enumerate() {
        let (reference, tag) = ([24, 25, 24][case], [0x12AA, 0x1234, 0x3412][case]);
        let (mut data, _) = fill(&guest, 1, 1, reference, tag);
        if expected == Status::Guard {
            data[777] ^= 0x10;
            guest.put(0, &data);
        }
        let slots = pair(&guest, Operation::Write, 24, 1);
        assert_eq!(statuses(&mut guest, &slots), [Status::Error, expected]);
    }
    assert!(guest.store.asked().is_empty(), "something was written");
    let (_, metadata) = fill(&guest, 1, 1, 24, 0x12FF);
    let slots = pair(&guest, Operation::Write, 24, 1);
    assert_eq!(statuses(&mut guest, &slots), [Status::Okay; 2]);
    assert_eq!(guest.store.state.lock().unwrap().metadata[24 * 8..32 * 8], metadata);
}

#[test]
fn a_guest_without_pi_has_it_made_and_checked() {
    let mut guest = Guest::new(Wish::default());
    fill(&guest, 9, 1, 0, 0);
    let write = Request::direct(1, Operation::Write, Sectors(40), &guest.whole(0, 1), false);
    assert_eq!(guest.ask(&Encode::request(&write)).status, Status::Okay);
    {
        let mut state = guest.store.state.lock().unwrap();
        let (data, metadata) = (&state.data[40 * 512..48 * 512], &state.metadata[40 * 8..48 * 8]);
        assert!(profile().verify(data, metadata, &Expected::new(40)).is_ok());
        state.data[43 * 512 + 5] ^= 1;
    }
    guest.put(0, &[0x55; 4096]);
    let read = Request::direct(1, Operation::Read, Sectors(40), &guest.whole(0, 1), false);
    assert_eq!(guest.ask(&Encode::request(&read)).status, Status::Error);
    assert_eq!(guest.get(0, 4096), [0x55; 4096], "what did not match was given to the guest");
    assert_eq!(guest.queue.as_ref().unwrap().stats().medium_guard_mismatches, 1);
}

#[test]
fn a_read_whose_medium_does_not_match_names_the_tag_and_copies_nothing() {
    let mut guest = Guest::new(Wish::default());
    fill(&guest, 3, 1, 8, 7);
    let slots = pair(&guest, Operation::Write, 8, 1);
    assert_eq!(statuses(&mut guest, &slots), [Status::Okay; 2]);
    guest.store.state.lock().unwrap().metadata[8 * 8 + 7] ^= 1;
    guest.put(0, &[0x55; 4096]);
    guest.put(100, &[0x66; 4096]);
    let slots = pair(&guest, Operation::Read, 8, 1);
    assert_eq!(statuses(&mut guest, &slots), [Status::Error, Status::Reference]);
    assert_eq!((guest.get(0, 4096), guest.get(100, 4096)), (vec![0x55; 4096], vec![0x66; 4096]));
}

#[test]
fn require_refuses_plain_requests_and_escapes() {
    let mut guest =
        Guest::new(Wish { disk: |d| Disk { integrity: Integrity::Require, ..d }, ..Wish::default() });
    let plain = Request::direct(1, Operation::Write, Sectors(0), &guest.whole(0, 1), false);
    assert_eq!(guest.ask(&Encode::request(&plain)).status, Status::Error);
    let (_, mut metadata) = fill(&guest, 1, 1, 0, 0);
    metadata[2..4].fill(0xFF);
    guest.put(100, &metadata);
    let slots = pair(&guest, Operation::Write, 0, 1);
    assert_eq!(statuses(&mut guest, &slots), [Status::Error, Status::Application]);
    assert!(guest.store.asked().is_empty());
    // Never written: an escape, which a read accepts.
    let slots = pair(&guest, Operation::Read, 0, 1);
    assert_eq!(statuses(&mut guest, &slots), [Status::Okay; 2]);
}

#[test]
fn escapes_under_auto_are_accepted_and_counted() {
    let mut guest = Guest::new(Wish::default());
    let (_, mut metadata) = fill(&guest, 1, 1, 0, 0);
    metadata[2..4].fill(0xFF);
    guest.put(100, &metadata);
    let slots = pair(&guest, Operation::Write, 0, 1);
    assert_eq!(statuses(&mut guest, &slots), [Status::Okay; 2]);
    assert_eq!(guest.queue.as_ref().unwrap().stats().escaped_intervals, 1);
}

#[test]
fn payload_slack_is_untouched_on_a_read() {
    let mut guest = Guest::new(Wish::default());
    guest.put(100, &[0x77; 4096]);
    let slots = pair(&guest, Operation::Read, 0, 1);
    assert_eq!(statuses(&mut guest, &slots), [Status::Okay; 2]);
    assert_eq!(guest.get(100, 4096)[64..], [0x77; 4096 - 64]);
}

#[test]
fn discard_leaves_escapes_for_whole_blocks_inside_only() {
    let mut guest = Guest::new(Wish::default());
    fill(&guest, 1, 2, 0, 0);
    let slots = pair(&guest, Operation::Write, 0, 2);
    assert_eq!(statuses(&mut guest, &slots), [Status::Okay; 2]);
    let discard = Operation::Discard { secure: false, sectors: Sectors(5) };
    let slot = Encode::request(&Request::direct(1, discard, Sectors(3), &[], false));
    assert_eq!(guest.ask(&slot).status, Status::Okay);
    let state = guest.store.state.lock().unwrap();
    for interval in 0..16 {
        let escaped = profile().is_escaped(&state.metadata[interval * 8..interval * 8 + 8]);
        assert_eq!(escaped, (3..8).contains(&interval), "interval {interval}");
    }
}

#[test]
fn an_indirect_pair_of_the_largest_size_goes_through_unaligned_pages() {
    let mut guest = Guest::new(Wish::default());
    // 255 pages from the middle of the first to the middle of the last.
    let mut segments = vec![guest.segment(0, 4, 7)];
    segments.extend(guest.whole(1, 254));
    segments.push(guest.segment(255, 0, 3));
    let bytes = blkif::total_len(&segments);
    let data: Vec<u8> = (0..bytes).map(|i| (i / 11) as u8).collect();
    let mut metadata = vec![0; profile().metadata_len(bytes)];
    profile().generate(&data, &mut metadata, 64, 0xAB);
    guest.pages.write(2048, &data);
    guest.put(300, &metadata);
    guest.put(299, &blkif::encode_indirect(&segments));
    let list = [blkif::GrantRef(guest.pages.refs()[299].0)];
    let slots = |guest: &Guest, operation| {
        let request = Request::indirect(1, operation, Sectors(64), segments.len() as u16, &list, true);
        [Encode::request(&request), Encode::payload(2, 0, Sectors(64), &guest.whole(300, 5))]
    };
    let write = slots(&guest, Operation::Write);
    assert_eq!(statuses(&mut guest, &write), [Status::Okay; 2]);
    assert_eq!(guest.store.state.lock().unwrap().data[64 * 512..64 * 512 + bytes], data);
    guest.pages.write(0, &vec![0; 300 * 4096 - 4096]);
    guest.put(300, &vec![0; 5 * 4096]);
    let read = slots(&guest, Operation::Read);
    assert_eq!(statuses(&mut guest, &read), [Status::Okay; 2]);
    assert_eq!((guest.get(300, metadata.len()), guest.get(0, 2048)), (metadata, vec![0; 2048]));
    let mut back = vec![0; bytes];
    guest.pages.read(2048, &mut back);
    assert!(back == data);
}

#[test]
fn a_mismatch_that_the_device_found_reaches_the_guest_with_its_tag() {
    let mut guest = Guest::new(Wish::default());
    fill(&guest, 1, 1, 24, 0);
    let cases = [
        (Some(Tag::Guard), Status::Guard),
        (Some(Tag::Application), Status::Application),
        (Some(Tag::Reference), Status::Reference),
        (None, Status::Error),
    ];
    for (operation, (tag, expected)) in [Operation::Write, Operation::Read]
        .into_iter()
        .flat_map(|operation| cases.map(|case| (operation, case)))
    {
        guest.store.state.lock().unwrap().mismatch =
            Some(PiFault { tag, offset: Some(25 * 512), values: None });
        let slots = pair(&guest, operation, 24, 1);
        assert_eq!(statuses(&mut guest, &slots), [Status::Error, expected], "{operation:?} {tag:?}");
    }
    let stats = guest.queue.as_ref().unwrap().stats();
    assert_eq!((stats.medium_mismatches(), stats.medium_errors), (6, 2));
}
