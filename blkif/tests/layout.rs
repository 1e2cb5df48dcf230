//! The three layouts, byte by byte, against the numbers of blkif.h.

use blkif::{Abi, Encode, GrantRef, Operation, RawSlot, Request, Sectors};

mod common;
use common::segment;

const ID: u64 = 0x1122_3344_5566_7788;
const SECTOR: u64 = 0xA1A2_A3A4_A5A6;

/// (ABI, id, sector, body) offsets.
const OFFSETS: [(Abi, usize, usize, usize); 3] =
    [(Abi::X86_64, 8, 16, 24), (Abi::X86_32, 4, 12, 20), (Abi::Arm, 8, 16, 24)];

fn check_common(bytes: &[u8], id: usize, sector: usize) {
    assert_eq!(bytes[id..id + 8], ID.to_le_bytes());
    assert_eq!(bytes[sector..sector + 8], SECTOR.to_le_bytes());
    assert!(bytes[4..id].iter().all(|byte| *byte == 0), "padding before id");
}

#[test]
fn a_write_is_encoded_then_every_field_lies_where_blkif_h_has_it() {
    let segments: Vec<_> = (0..11).map(|i| segment(0x0101_0000 + i, 1, 6)).collect();
    let mut request = Request::direct(ID, Operation::Write, Sectors(SECTOR), &segments, false);
    request.handle = 0xBEEF;
    for (abi, id, sector, body) in OFFSETS {
        let bytes = Encode::request(&request).to_bytes(abi);
        assert_eq!(bytes.len(), abi.entry_size());
        assert_eq!(bytes[..4], [1, 11, 0xEF, 0xBE]);
        check_common(&bytes, id, sector);
        for (i, bytes) in bytes[body..].chunks(8).enumerate() {
            assert_eq!(bytes[..4], (0x0101_0000 + i as u32).to_le_bytes());
            assert_eq!(bytes[4..], [1, 6, 0, 0]);
        }
        assert_eq!(body + 11 * 8, abi.entry_size());
    }
}

#[test]
fn a_discard_is_encoded_then_every_field_lies_where_blkif_h_has_it() {
    let operation = Operation::Discard { secure: true, sectors: Sectors(0x0102_0304_0506) };
    let mut request = Request::direct(ID, operation, Sectors(SECTOR), &[], false);
    request.handle = 0x1234;
    for (abi, id, sector, body) in OFFSETS {
        let bytes = Encode::request(&request).to_bytes(abi);
        assert_eq!(bytes[..4], [5, 1, 0x34, 0x12]);
        check_common(&bytes, id, sector);
        assert_eq!(bytes[body..body + 8], 0x0102_0304_0506u64.to_le_bytes());
    }
}

#[test]
fn an_indirect_request_is_encoded_then_every_field_lies_where_blkif_h_has_it() {
    let pages: Vec<_> = (0..8).map(|i| GrantRef(0x0700_0000 + i)).collect();
    let mut request = Request::indirect(ID, Operation::Write, Sectors(SECTOR), 4096, &pages, false);
    request.handle = 0xBEEF;
    for (abi, id, sector, handle) in OFFSETS {
        let bytes = Encode::request(&request).to_bytes(abi);
        assert_eq!(bytes[..4], [6, 1, 0x00, 0x10]);
        check_common(&bytes, id, sector);
        assert_eq!(bytes[handle..handle + 4], [0xEF, 0xBE, 0, 0]);
        let grants = handle + 4;
        for (i, bytes) in bytes[grants..grants + 32].chunks(4).enumerate() {
            assert_eq!(bytes, (0x0700_0000 + i as u32).to_le_bytes());
        }
    }
}

#[test]
fn entries_are_counted_then_each_order_has_as_many_as_ring_h_says() {
    for abi in Abi::ALL {
        for (order, entries) in [32, 64, 128, 256, 512].into_iter().enumerate() {
            assert_eq!(abi.entries(4096 << order), entries, "{abi}, order {order}");
        }
        assert_eq!(abi.entries(0), 0);
        assert_eq!(abi.entries(64 + abi.entry_size() - 1), 0);
        assert_eq!(abi.entries(64 + abi.entry_size()), 1);
    }
}

#[test]
fn sizes_are_asked_then_they_are_blkif_hs() {
    let sizes = |abi: Abi| (abi.entry_size(), abi.response_size(), abi.body_offset());
    assert_eq!(sizes(Abi::X86_64), (112, 16, 8));
    assert_eq!(sizes(Abi::X86_32), (108, 12, 4));
    assert_eq!(sizes(Abi::Arm), (112, 16, 8));
}

#[test]
fn a_slot_is_taken_from_too_few_bytes_then_the_rest_is_zero() {
    for abi in Abi::ALL {
        let slot = RawSlot::from_bytes(abi, &[1, 2, 3]);
        assert_eq!((slot.operation(), slot.nr_segments(), slot.handle()), (1, 2, 3));
        assert_eq!((slot.id(), slot.sector()), (0, 0));
    }
}

#[test]
fn a_protocol_node_is_read_then_only_the_three_names_are_known() {
    for abi in Abi::ALL {
        assert_eq!(Abi::from_name(abi.name().as_bytes()), Some(abi));
    }
    for name in ["", "x86_64", "x86_64-abi ", "native", "X86_32-ABI"] {
        assert_eq!(Abi::from_name(name.as_bytes()), None);
    }
}
