//! Parsing single slots and indirect pages.

use blkif::{
    Abi, DixLimits, Encode, GrantRef, Limits, Operation, RawSlot, Refusal, Request, Sectors, Segments,
    Status, encode_indirect, extent, parse_indirect, total_len,
};

mod common;
use common::segment;

const LIMITS: Limits = Limits { max_indirect: 256, dix: None };

/// A slot of x86_64 bytes: the first four, then sector and body.
fn slot(first: [u8; 4], sector: u64, body: &[u8]) -> RawSlot {
    let mut bytes = first.to_vec();
    bytes.extend([0; 4]);
    bytes.extend(0x99u64.to_le_bytes());
    bytes.extend(sector.to_le_bytes());
    bytes.extend(body);
    RawSlot::from_bytes(Abi::X86_64, &bytes)
}

fn parse(first: [u8; 4], sector: u64, body: &[u8]) -> Result<Request, Refusal> {
    Request::parse(&slot(first, sector, body), &LIMITS)
}

#[test]
fn a_segment_leaves_its_page_then_it_is_refused() {
    for (first, last) in [(1, 0), (0, 8), (8, 8), (7, 6), (0, 255), (255, 0), (255, 255)] {
        let body = [1, 0, 0, 0, 0, 7, 0, 0, 2, 0, 0, 0, first, last, 0, 0];
        assert_eq!(parse([0, 2, 0, 0], 0, &body), Err(Refusal::Segment { index: 1, first, last }));
    }
    let body = [1, 0, 0, 0, 7, 7, 0xAA, 0xBB];
    let request = parse([0, 1, 0, 0], 0, &body).expect("padding is ignored");
    let Segments::Direct(segments) = request.segments else { panic!("direct") };
    assert_eq!(segments.as_slice(), [segment(1, 7, 7)]);
    assert_eq!((segments[0].offset(), segments[0].bytes()), (3584, 512));
}

#[test]
fn the_segment_count_is_out_of_range_then_it_is_refused() {
    for operation in [0, 1] {
        assert_eq!(parse([operation, 0, 0, 0], 0, &[]), Err(Refusal::NoSegments));
    }
    for operation in [0, 1, 2, 3] {
        for count in [12, 255] {
            let refusal = Refusal::TooManySegments { count: u16::from(count), max: 11 };
            assert_eq!(parse([operation, count, 0, 0], 0, &[0; 88]), Err(refusal));
            assert_eq!(refusal.status(), Status::Error);
        }
    }
}

#[test]
fn a_flush_or_barrier_is_empty_then_its_sector_may_be_garbage() {
    for (number, operation) in [(2, Operation::WriteBarrier), (3, Operation::Flush)] {
        let request = parse([number, 0, 0, 0], u64::MAX, &[]).expect("no data, no range");
        assert_eq!((request.operation, request.echo), (operation, number));
    }
}

#[test]
fn the_operation_is_unknown_then_it_is_not_supported() {
    for operation in [4, 7, 8, 0x7F] {
        let refusal = parse([operation, 1, 0, 0], 0, &[0; 8]).unwrap_err();
        assert_eq!(refusal, Refusal::UnknownOperation(operation));
        assert_eq!(refusal.status(), Status::Unsupported);
    }
}

#[test]
fn offsets_overflow_then_it_is_refused() {
    let body = [1, 0, 0, 0, 0, 7, 0, 0];
    let last = Sectors::MAX.0 - 8;
    assert!(parse([0, 1, 0, 0], last, &body).is_ok());
    for sector in [last + 1, 1 << 55, u64::MAX - 7, u64::MAX] {
        assert!(matches!(parse([1, 1, 0, 0], sector, &body), Err(Refusal::Overflow { .. })));
    }
    assert!(parse([5, 0, 0, 0], 8, &(Sectors::MAX.0 - 8).to_le_bytes()).is_ok());
    for sectors in [Sectors::MAX.0 - 7, u64::MAX, u64::MAX - 7] {
        assert!(matches!(parse([5, 0, 0, 0], 8, &sectors.to_le_bytes()), Err(Refusal::Overflow { .. })));
    }
    assert_eq!(extent(Sectors(1), 4096), Ok(Sectors(8)));
    assert!(extent(Sectors::MAX, 512).is_err());
    assert_eq!(Sectors::MAX.bytes(), Some(i64::MAX as u64 & !511));
    assert_eq!(Sectors(Sectors::MAX.0 + 1).bytes(), None);
}

#[test]
fn a_discard_is_secure_by_bit_zero_only() {
    for (flag, expected) in [(0, false), (1, true), (2, false), (255, true)] {
        let request = parse([5, flag, 0, 0], 16, &32u64.to_le_bytes()).unwrap();
        assert_eq!(request.operation, Operation::Discard { secure: expected, sectors: Sectors(32) });
    }
}

#[test]
fn an_indirect_request_holds_another_operation_then_only_read_and_write_pass() {
    for inner in 0..=255 {
        let result = parse([6, inner, 1, 0], 0, &[0; 36]);
        match inner {
            0 | 1 => assert_eq!(result.unwrap().echo, inner),
            _ => assert_eq!(result, Err(Refusal::IndirectOperation(inner))),
        }
    }
}

#[test]
fn an_indirect_request_is_refused_then_the_response_still_echoes_the_inner_operation() {
    assert_eq!(slot([6, 5, 1, 0], 0, &[]).echo(), 5);
    assert_eq!(slot([0x86, 1, 1, 0], 0, &[]).echo(), 0x81);
}

#[test]
fn an_indirect_request_counts_segments_then_the_limit_and_its_pages_follow() {
    let body: Vec<u8> = (0..9u32).flat_map(u32::to_le_bytes).collect();
    let parse = |count: u16, max_indirect| {
        let [low, high] = count.to_le_bytes();
        Request::parse(&slot([6, 0, low, high], 0, &body), &Limits { max_indirect, dix: None })
    };
    for (count, pages) in [(1, 1), (512, 1), (513, 2), (1024, 2), (4095, 8), (4096, 8)] {
        let Segments::Indirect { count: parsed, pages: grants } = parse(count, 4096).unwrap().segments else {
            panic!("indirect")
        };
        let expected: Vec<_> = (1..=pages).map(GrantRef).collect();
        assert_eq!((parsed, grants.as_slice()), (count, expected.as_slice()));
    }
    assert_eq!(parse(0, 256), Err(Refusal::NoSegments));
    assert_eq!(parse(257, 256), Err(Refusal::TooManySegments { count: 257, max: 256 }));
    assert_eq!(parse(4097, u16::MAX), Err(Refusal::TooManySegments { count: 4097, max: 4096 }));
    let refusal = parse(1, 0).unwrap_err();
    assert_eq!((refusal, refusal.status()), (Refusal::IndirectNotOffered, Status::Unsupported));
}

#[test]
fn indirect_pages_are_parsed_then_what_is_wrong_is_named() {
    let segments: Vec<_> = (0..256).map(|i| segment(i, 0, (i % 8) as u8)).collect();
    let mut bytes = encode_indirect(&segments);
    let mut out = vec![segment(9, 0, 0)];
    parse_indirect(&bytes, 256, &LIMITS, &mut out).unwrap();
    assert_eq!(out, segments);
    assert_eq!(total_len(&out), segments.iter().map(|s| s.bytes()).sum());
    parse_indirect(&bytes, 1, &LIMITS, &mut out).unwrap();
    assert_eq!(out, segments[..1]);

    let mut refused = |bytes: &[u8], count| {
        let refusal = parse_indirect(bytes, count, &LIMITS, &mut out).unwrap_err();
        assert!(out.is_empty());
        refusal
    };
    assert_eq!(refused(&bytes, 0), Refusal::NoSegments);
    assert_eq!(refused(&bytes, 257), Refusal::TooManySegments { count: 257, max: 256 });
    assert_eq!(refused(&bytes[..2047], 256), Refusal::IndirectPages { bytes: 2047, count: 256 });
    bytes[8 * 200 + 5] = 8;
    assert_eq!(refused(&bytes, 256), Refusal::Segment { index: 200, first: 0, last: 8 });
}

#[test]
fn the_vector_has_room_then_indirect_parsing_does_not_move_it() {
    let bytes = encode_indirect(&vec![segment(1, 0, 7); 256]);
    let mut out = Vec::with_capacity(256);
    let place = out.as_ptr();
    parse_indirect(&bytes, 256, &LIMITS, &mut out).unwrap();
    assert_eq!(out.as_ptr(), place);
}

#[test]
fn metadata_is_large_then_fewer_indirect_segments_are_offered() {
    let max = |interval, metadata_size, cap| DixLimits { interval, metadata_size }.max_indirect(cap);
    assert_eq!(max(512, 8, 256), 256);
    assert_eq!(max(512, 8, 4096), 704);
    assert_eq!(max(512, 64, 256), 88);
    assert_eq!(max(512, 255, 256), 22);
    assert_eq!(max(4096, 8, 4096), 4096);
    for interval in [512, 1024, 2048, 4096] {
        for metadata_size in 1..=255 {
            let segments = usize::from(max(interval, metadata_size, 4096));
            let limits = DixLimits { interval, metadata_size };
            let largest = segments * 4096 / interval as usize * interval as usize;
            assert!(limits.metadata_len(Sectors(0), largest).unwrap() <= DixLimits::MAX_PAYLOAD);
            assert!(segments >= 11, "a request that holds its segments always fits");
        }
    }
}

#[test]
fn a_request_is_answered_then_a_mismatch_becomes_an_error() {
    let request = Request::direct(5, Operation::Write, Sectors(0), &[segment(1, 0, 7)], true);
    let response = request.response(Status::Guard);
    assert_eq!((response.id, response.operation, response.status), (5, 0x81, Status::Error));
    assert_eq!(request.response(Status::Unsupported).status, Status::Unsupported);
    assert_eq!(Encode::request(&request).echo(), 0x81);
}
