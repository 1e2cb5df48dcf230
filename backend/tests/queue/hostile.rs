//! What a guest can do wrong, on purpose or not: a status or a stopped ring, and nothing else.

use crate::harness::{BACK, Guest, PAGES, Wish};
use blkif::{Abi, Encode, Index, Operation, RawSlot, Request, RingMemory, Sectors, Segment, Status};
use hypervisor::{Access, Frontend};
use proptest::prelude::*;
use std::sync::atomic::Ordering;

fn one(guest: &mut Guest, operation: Operation, segment: Segment) -> Status {
    guest.ask(&Encode::request(&Request::direct(1, operation, Sectors(0), &[segment], false))).status
}

#[test]
fn grants_that_do_not_permit_are_an_error_and_the_ring_goes_on() {
    let mut guest = Guest::new(Wish::default());
    let read_only = guest.guest.share(BACK, 1, Access::ReadOnly).unwrap();
    let foreign = guest.guest.share(hypervisor::DomId(7), 1, Access::ReadWrite).unwrap();
    let revoked = guest.guest.share(BACK, 1, Access::ReadWrite).unwrap();
    revoked.revoke(0).unwrap();
    let over = |shared: &hypervisor::Shared| Segment {
        gref: blkif::GrantRef(shared.refs()[0].0),
        first_sector: 0,
        last_sector: 7,
    };
    let invented = Segment { gref: blkif::GrantRef(u32::MAX), first_sector: 0, last_sector: 7 };
    assert_eq!(one(&mut guest, Operation::Read, over(&read_only)), Status::Error);
    assert_eq!(one(&mut guest, Operation::Write, over(&read_only)), Status::Okay);
    for segment in [over(&foreign), over(&revoked), invented] {
        assert_eq!(one(&mut guest, Operation::Read, segment), Status::Error);
        assert_eq!(one(&mut guest, Operation::Write, segment), Status::Error);
    }
    let good = guest.segment(0, 0, 7);
    assert_eq!(one(&mut guest, Operation::Read, good), Status::Okay);
    assert_eq!(guest.queue.as_ref().unwrap().stats().grant_errors, 7);
    // An indirect request whose list cannot be read.
    let request = Request::indirect(1, Operation::Read, Sectors(0), 20, &[blkif::GrantRef(9_999_999)], false);
    assert_eq!(guest.ask(&Encode::request(&request)).status, Status::Error);
}

#[test]
fn an_impossible_producer_index_stops_the_ring_and_says_why() {
    let mut guest = Guest::new(Wish::default());
    guest.ring.memory().store(Index::RequestProducer, 10_000, Ordering::Release);
    guest.channel.notify().unwrap();
    let reason = loop {
        if let Some(reason) = guest.queue.as_ref().unwrap().failure() {
            break reason;
        }
        std::thread::yield_now();
    };
    assert!(reason.contains("10000"), "{reason}");
    assert!(!guest.stop().resumable);
    assert_eq!(guest.guest.usage(hypervisor::DomId(1)).unwrap().mapped, 0, "the ring is still mapped");
}

#[test]
fn a_read_into_the_ring_itself_stops_that_ring_and_nothing_else() {
    let mut guest = Guest::new(Wish::default());
    let mut other = Guest::new(Wish::default());
    let ring = blkif::GrantRef(guest.ring_pages.refs()[0].0);
    let whole = Segment { gref: ring, first_sector: 0, last_sector: 7 };
    // Zeroes over the indexes: the next look finds an index that cannot be.
    guest.send(&[Encode::request(&Request::direct(1, Operation::Read, Sectors(0), &[whole], false))]);
    let reason = loop {
        if let Some(reason) = guest.queue.as_ref().unwrap().failure() {
            break reason;
        }
        guest.channel.notify().unwrap();
        std::thread::yield_now();
    };
    assert!(reason.contains("ring"), "{reason}");
    assert!(!guest.stop().resumable);
    assert_eq!(guest.guest.usage(hypervisor::DomId(1)).unwrap().mapped, 0, "the ring is still mapped");
    let good = other.segment(0, 0, 7);
    assert_eq!(one(&mut other, Operation::Read, good), Status::Okay);
}

#[test]
fn pages_that_are_data_and_list_and_payload_at_once_are_each_taken_as_they_were() {
    let mut guest = Guest::new(Wish::default());
    let page = guest.segment(0, 0, 7);
    // Data and PI in one page: the PI is of other bytes, and must not match.
    guest.put(0, &[7; 4096]);
    let data = Request::direct(1, Operation::Write, Sectors(0), &[page], true);
    guest.send(&[Encode::request(&data), Encode::payload(2, 0, Sectors(0), &[page])]);
    assert_eq!(guest.responses(2), [(1, Status::Error), (2, Status::Guard)].into());
    assert!(guest.store.asked().is_empty());
    // Read into one page: the PI comes last.
    let data = Request::direct(1, Operation::Read, Sectors(0), &[page], true);
    guest.send(&[Encode::request(&data), Encode::payload(2, 0, Sectors(0), &[page])]);
    assert_eq!(guest.responses(2), [(1, Status::Okay), (2, Status::Okay)].into());
    // A list of segments that is overwritten by what is read into it, twice over.
    let segments: Vec<_> = std::iter::repeat_n(page, 20).collect();
    guest.put(0, &blkif::encode_indirect(&segments));
    let request = Request::indirect(3, Operation::Read, Sectors(0), 20, &[page.gref], false);
    assert_eq!(guest.ask(&Encode::request(&request)).status, Status::Okay);
    assert_eq!(guest.store.asked().last().unwrap().bytes, 20 * 4096);
    assert!(guest.stop().resumable);
}

#[test]
fn a_secure_discard_which_is_never_offered_is_unsupported_and_discards_nothing() {
    let mut guest = Guest::new(Wish::default());
    let discard = Operation::Discard { secure: true, sectors: Sectors(8) };
    let answer = guest.ask(&Encode::request(&Request::direct(1, discard, Sectors(0), &[], false)));
    assert_eq!(answer.status, Status::Unsupported);
    assert!(guest.store.asked().is_empty(), "{:?}", guest.store.asked());
}

#[test]
fn errors_of_the_medium_reach_the_guest_as_errors() {
    let mut guest = Guest::new(Wish::default());
    guest.store.state.lock().unwrap().fail = Some(libc::EIO);
    let good = guest.segment(0, 0, 7);
    assert_eq!(one(&mut guest, Operation::Read, good), Status::Error);
    assert_eq!(one(&mut guest, Operation::WriteBarrier, good), Status::Error);
    guest.store.state.lock().unwrap().fail = None;
    assert_eq!(one(&mut guest, Operation::WriteBarrier, good), Status::Okay);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Slots of arbitrary bytes, with operations and counts biased to what gets far. Each slot gets one response.
    #[test]
    fn arbitrary_slots_each_get_one_response(
        slots in proptest::collection::vec((any::<[u8; 32]>(), any::<[u8; 32]>(), 0u8..9, any::<bool>(), 0u8..13), 1..200),
        dix: bool,
    ) {
        let mut guest = Guest::new(Wish { dix, pool: 2 << 20, ..Wish::default() });
        let mut sent = 0usize;
        for chunk in slots.chunks(16) {
            for (head, tail, operation, flag, count) in chunk {
                let mut bytes = [0u8; 112];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = head[i % 32] ^ tail[(i * 7) % 32];
                }
                bytes[0] = operation | if *flag { 0x80 } else { 0 };
                bytes[1] = *count;
                if tail[0] & 1 == 0 {
                    // A sector on the disk, and grants that exist, so that some requests get through.
                    bytes[16..24].copy_from_slice(&u64::from(tail[1]).to_le_bytes());
                    for s in 0..11 {
                        let gref = guest.pages.refs()[usize::from(head[s]) % PAGES].0;
                        bytes[24 + s * 8..28 + s * 8].copy_from_slice(&gref.to_le_bytes());
                        bytes[28 + s * 8] &= 7;
                        bytes[29 + s * 8] = 7;
                    }
                }
                guest.ring.push(&RawSlot::from_bytes(Abi::X86_64, &bytes)).unwrap();
                sent += 1;
            }
            if guest.ring.publish() {
                guest.channel.notify().unwrap();
            }
            // A flagged last slot waits for its payload: anything completes it.
            let flush = Encode::request(&Request::direct(7, Operation::Flush, Sectors(0), &[], false));
            guest.ring.push(&flush).unwrap();
            sent += 1;
            if guest.ring.publish() {
                guest.channel.notify().unwrap();
            }
            while sent > 0 {
                let response = guest.response();
                prop_assert!(Status::from_wire(response.status).is_some());
                sent -= 1;
            }
        }
        prop_assert!(guest.queue.as_ref().unwrap().failure().is_none());
        prop_assert!(guest.stop().resumable);
    }
}
