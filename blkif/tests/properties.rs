//! Properties: what is encoded parses to the same; nothing that a guest can write panics.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use blkif::{
    Abi, DixLimits, Encode, FrontendNodes, GrantRef, Index, Limits, MAX_INDIRECT_SEGMENTS, Operation, Paired,
    Pairing, Properties, RawSlot, Request, Response, RingMemory, Sectors, Segment, Segments, Status,
    Transport, encode_indirect, extent, parse_indirect, total_len,
};
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

mod common;
use common::rings;

const MANY: Limits = Limits { max_indirect: MAX_INDIRECT_SEGMENTS, dix: None };

fn abi() -> impl Strategy<Value = Abi> {
    select(Abi::ALL.to_vec())
}

fn segment() -> impl Strategy<Value = Segment> {
    (any::<u32>(), 0..8u8, 0..8u8).prop_map(|(gref, a, b)| Segment {
        gref: GrantRef(gref),
        first_sector: a.min(b),
        last_sector: a.max(b),
    })
}

fn direct() -> impl Strategy<Value = (Operation, Segments)> {
    use Operation::*;
    let data = (select(vec![Read, Write, WriteBarrier, Flush]), vec(segment(), 1..=11));
    let empty = select(vec![WriteBarrier, Flush]).prop_map(|operation| (operation, vec![]));
    let discard = (any::<bool>(), 0..1u64 << 53)
        .prop_map(|(secure, sectors)| (Discard { secure, sectors: Sectors(sectors) }, vec![]));
    prop_oneof![data, empty, discard]
        .prop_map(|(operation, segments)| (operation, Segments::Direct(segments.into_iter().collect())))
}

fn indirect() -> impl Strategy<Value = (Operation, Segments)> {
    let operation = select(vec![Operation::Read, Operation::Write]);
    (operation, 1..=MAX_INDIRECT_SEGMENTS, any::<[u32; 8]>()).prop_map(|(operation, count, grants)| {
        let pages = usize::from(count.div_ceil(512));
        let pages = grants.into_iter().take(pages).map(GrantRef).collect();
        (operation, Segments::Indirect { count, pages })
    })
}

/// Any request that can be sent, flagged or not.
fn request() -> impl Strategy<Value = Request> {
    let place = (any::<u64>(), any::<u16>(), 0..1u64 << 53, any::<bool>());
    (place, prop_oneof![direct(), indirect()]).prop_map(
        |((id, handle, sector, flag), (operation, segments))| {
            let number = match operation {
                Operation::Read => 0,
                Operation::Write => 1,
                Operation::WriteBarrier => 2,
                Operation::Flush => 3,
                Operation::Discard { .. } => 5,
            };
            let echo = number | if flag { 0x80 } else { 0 };
            Request { id, handle, sector: Sectors(sector), operation, segments, echo }
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    let dix = (any::<u32>(), any::<u16>())
        .prop_map(|(interval, metadata_size)| DixLimits { interval, metadata_size });
    let likely = Just(DixLimits { interval: 512, metadata_size: 8 });
    (any::<u16>(), prop_oneof![Just(None), likely.prop_map(Some), dix.prop_map(Some)])
        .prop_map(|(max_indirect, dix)| Limits { max_indirect, dix })
}

/// Bytes of an entry: arbitrary, or with an operation and a count that lead somewhere.
fn entry() -> impl Strategy<Value = Vec<u8>> {
    let operation = select(vec![0, 1, 2, 3, 5, 6, 7, 0x80, 0x81, 0x82, 0x83, 0x85, 0x86, 0x87]);
    let likely = (operation, 0..14u8, vec(0..9u8, 106)).prop_map(|(operation, second, rest)| {
        let mut bytes = vec![operation, second, 0, 0];
        bytes.extend(rest);
        bytes
    });
    prop_oneof![vec(any::<u8>(), 112), likely]
}

/// Does with a paired request what a backend does.
fn follow(paired: &Paired, limits: &Limits, pages: &[u8]) -> Result<(), TestCaseError> {
    let (data, payload) = match paired {
        Paired::Single(request) => (request, None),
        Paired::Pair { data, payload } => (data, Some(payload)),
        Paired::Refused(refused) => {
            prop_assert_eq!(refused.responses.len(), paired.slots() as usize);
            prop_assert!(refused.responses.iter().all(|response| response.status != Status::Okay));
            return Ok(());
        }
        Paired::NeedMore(want) => {
            prop_assert_eq!(*want, 2);
            return Ok(());
        }
    };
    prop_assert_eq!(data.is_flagged(), payload.is_some());
    let mut list = Vec::new();
    let segments = match &data.segments {
        Segments::Direct(segments) => segments.as_slice(),
        Segments::Indirect { count, .. } => match parse_indirect(pages, *count, limits, &mut list) {
            Ok(()) => &list,
            Err(_) => return Ok(()),
        },
    };
    for segment in segments {
        prop_assert!(segment.offset() + segment.bytes() <= 4096 && segment.bytes() >= 512);
    }
    let bytes = total_len(segments);
    let _ = extent(data.sector, bytes);
    if let (Some(payload), Some(dix)) = (payload, limits.dix)
        && let Ok(needed) = payload.needed(&dix, data.sector, bytes)
    {
        prop_assert!(needed <= total_len(&payload.segments));
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_request_is_encoded_then_parsing_gives_it_back(request in request(), abi in abi()) {
        let slot = Encode::request(&request);
        prop_assert_eq!(Request::parse(&slot, &MANY), Ok(request.clone()));
        let bytes = slot.to_bytes(abi);
        prop_assert_eq!(bytes.len(), abi.entry_size());
        prop_assert_eq!(RawSlot::from_bytes(abi, &bytes), slot);
    }

    #[test]
    fn a_request_crosses_a_ring_then_parsing_gives_it_back(request in request(), abi in abi()) {
        let (mut front, mut back) = rings(abi, 1);
        front.push(&Encode::request(&request)).unwrap();
        prop_assert!(front.publish());
        let slot = back.consume().unwrap().unwrap();
        prop_assert_eq!(Request::parse(&slot, &MANY), Ok(request.clone()));
        back.respond(&request.response(Status::Okay));
        prop_assert!(back.publish());
        let response = front.take_response().unwrap().unwrap();
        prop_assert_eq!(response.id, request.id);
        prop_assert_eq!(response.check(request.echo), Ok(Status::Okay));
    }

    #[test]
    fn segments_are_encoded_for_indirect_pages_then_parsing_gives_them_back(
        segments in vec(segment(), 1..1200),
    ) {
        let mut out = Vec::new();
        let count = segments.len() as u16;
        parse_indirect(&encode_indirect(&segments), count, &MANY, &mut out).unwrap();
        prop_assert_eq!(out, segments);
    }

    #[test]
    fn a_response_crosses_a_ring_then_it_is_the_same(
        id in any::<u64>(), operation in any::<u8>(), abi in abi(),
        status in select(vec![
            Status::Okay, Status::Error, Status::Unsupported, Status::Guard, Status::Application,
            Status::Reference,
        ]),
    ) {
        let (mut front, mut back) = rings(abi, 1);
        front.push(&RawSlot::from_bytes(abi, &[])).unwrap();
        let _ = front.publish();
        back.consume().unwrap();
        let response = Response { id, operation, status };
        back.respond(&response);
        let _ = back.publish();
        prop_assert_eq!(front.take_response().unwrap(), Some(response.raw()));
        prop_assert_eq!(Status::from_wire(response.raw().status), Some(status));
    }

    #[test]
    fn slots_are_arbitrary_then_all_of_them_end_in_a_request_or_a_response(
        entries in vec(entry(), 0..=32), limits in limits(), abi in abi(),
        pages in vec(any::<u8>(), 0..600),
    ) {
        let (mut front, mut back) = rings(abi, 1);
        for entry in &entries {
            front.push(&RawSlot::from_bytes(abi, entry)).unwrap();
        }
        let _ = front.publish();
        let pairing = Pairing::new(limits);
        let mut half = 0;
        while let Some(paired) = pairing.next(&mut back).unwrap() {
            follow(&paired, &limits, &pages)?;
            if let Paired::NeedMore(want) = paired {
                prop_assert!(!back.arm(want), "nobody adds to the ring");
                half = 1;
                break;
            }
        }
        prop_assert_eq!(back.unanswered() as usize + half, entries.len());
        prop_assert_eq!(back.unconsumed(), Ok(half as u32));
    }

    #[test]
    fn the_whole_ring_page_is_arbitrary_then_work_is_bounded(
        words in vec(any::<u32>(), 1020), producer in any::<u32>(), event in any::<u32>(),
        limits in limits(), abi in abi(),
    ) {
        let (front, mut back) = rings(abi, 1);
        front.memory().write(16, &words);
        front.memory().store(Index::RequestProducer, producer, Ordering::Release);
        front.memory().store(Index::ResponseEvent, event, Ordering::Release);
        let pairing = Pairing::new(limits);
        let mut taken = 0;
        while let Ok(Some(paired)) = pairing.next(&mut back) {
            follow(&paired, &limits, &[])?;
            if paired.slots() == 0 {
                break;
            }
            taken += paired.slots();
            prop_assert!(taken <= back.entries());
        }
        for _ in 0..taken {
            back.respond(&Response { id: 0, operation: 0, status: Status::Error });
        }
        let _ = back.publish();
        let _ = back.arm(2);
    }

    #[test]
    fn a_backend_writes_an_arbitrary_page_then_the_frontends_work_is_bounded(
        words in vec(any::<u32>(), 1020), producer in any::<u32>(), sent in 0..=32u32, abi in abi(),
    ) {
        let (mut front, back) = rings(abi, 1);
        for _ in 0..sent {
            front.push(&RawSlot::from_bytes(abi, &[])).unwrap();
        }
        let _ = front.publish();
        back.memory().write(16, &words);
        back.memory().store(Index::ResponseProducer, producer, Ordering::Release);
        let mut taken = 0;
        while let Ok(Some(response)) = front.take_response() {
            let _ = response.check(0x81);
            taken += 1;
            prop_assert!(taken <= sent);
        }
        let _ = front.arm(1);
    }

    #[test]
    fn indirect_pages_are_arbitrary_then_what_parses_is_within_bounds(
        pages in vec(any::<u8>(), 0..9000), count in any::<u16>(), max_indirect in any::<u16>(),
    ) {
        let limits = Limits { max_indirect, dix: None };
        let mut out = Vec::new();
        if parse_indirect(&pages, count, &limits, &mut out).is_ok() {
            prop_assert_eq!(out.len(), usize::from(count));
            prop_assert!(out.iter().all(|segment| segment.offset() + segment.bytes() <= 4096));
        } else {
            prop_assert!(out.is_empty());
        }
    }

    #[test]
    fn nodes_are_arbitrary_then_what_is_accepted_is_within_the_offer(nodes in nodes()) {
        let offered = Transport { max_ring_page_order: 2, max_queues: 3, ..Transport::default() };
        let read = |name: &str| nodes.get(name).cloned();
        if let Ok(accepted) = FrontendNodes::parse(&read, &offered) {
            prop_assert!((1..=3).contains(&accepted.rings.len()));
            prop_assert!(accepted.rings.iter().all(|ring| [1, 2, 4].contains(&ring.refs.len())));
            prop_assert!(accepted.rings.iter().all(|ring| ring.port != 0));
            prop_assert!(!accepted.dix);
        }
        let _ = Transport::parse(&read);
        let _ = Properties::parse(&read);
    }
}

/// Nodes of names that are read, with values that are numbers now and then.
fn nodes() -> impl Strategy<Value = HashMap<String, Vec<u8>>> {
    let names = [
        "protocol",
        "ring-ref",
        "ring-ref0",
        "ring-ref1",
        "event-channel",
        "ring-page-order",
        "multi-queue-num-queues",
        "queue-0/ring-ref",
        "queue-0/event-channel",
        "queue-1/ring-ref",
        "queue-1/event-channel",
        "feature-persistent",
        "feature-data-integrity",
        "data-integrity-version",
        "data-integrity-guard",
        "data-integrity-interval",
        "data-integrity-metadata-size",
        "feature-large-sector-size",
        "sectors",
        "sector-size",
        "max-ring-page-order",
        "feature-max-indirect-segments",
    ];
    let value = prop_oneof![
        (0..10u8).prop_map(|number| number.to_string().into_bytes()),
        any::<u64>().prop_map(|number| number.to_string().into_bytes()),
        Just(b"x86_64-abi".to_vec()),
        vec(any::<u8>(), 0..30),
    ];
    hash_map(select(names.map(str::to_owned).to_vec()), value, 0..16)
}
