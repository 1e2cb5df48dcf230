//! The cost of a slot on a request's way, by the size of the request. The baseline in the same run is
//! a plain copy of a whole entry, which every backend makes at the least.
//!
//! Each figure is for one ring of 32 entries, gone through whole.

use std::hint::black_box;
use std::ptr::NonNull;

use blkif::{
    Abi, BackRing, DixLimits, Encode, FrontRing, GrantRef, Limits, Operation, Paired, Pairing, RawSlot,
    Request, RingMemory, Sectors, Segment, SharedMemory, Start, Status, encode_indirect, parse_indirect,
};
use divan::Bencher;

const ENTRIES: usize = 32;

fn main() {
    divan::main();
}

fn segments(count: usize) -> Vec<Segment> {
    vec![Segment { gref: GrantRef(8), first_sector: 0, last_sector: 7 }; count]
}

fn pairing() -> Pairing {
    Pairing::new(Limits { max_indirect: 256, dix: Some(DixLimits { interval: 512, metadata_size: 8 }) })
}

/// A ring full of `slots`, repeated, and its backend's end.
fn full(abi: Abi, slots: &[RawSlot]) -> BackRing<SharedMemory> {
    let page = Box::leak(Box::new([0u64; 512]));
    let base = NonNull::from(page).cast();
    // SAFETY: the page is leaked, and reached through these two views only.
    let view = || unsafe { SharedMemory::new(base, 4096, ()) };
    let mut front = FrontRing::init(view(), abi).expect("a page holds a ring");
    for slot in slots.iter().cycle().take(ENTRIES) {
        front.push(slot).expect("the ring is empty");
    }
    let _ = front.publish();
    BackRing::attach(view(), abi, Start::Fresh).expect("a page holds a ring")
}

fn read(count: usize) -> RawSlot {
    Encode::request(&Request::direct(1, Operation::Read, Sectors(8), &segments(count), false))
}

#[divan::bench]
fn copy_of_whole_entries(bencher: Bencher) {
    let ring = full(Abi::X86_64, &[read(11)]);
    bencher.counter(ENTRIES).bench_local(|| {
        for entry in 0..ENTRIES {
            let mut words = [0; 28];
            ring.memory().read(64 + 112 * entry, &mut words);
            black_box(&words);
        }
    });
}

#[divan::bench(args = [1, 4, 8, 11])]
fn consume(bencher: Bencher, count: usize) {
    let slot = read(count);
    bencher.counter(ENTRIES).with_inputs(|| full(Abi::X86_64, std::slice::from_ref(&slot))).bench_local_refs(
        |ring| {
            while let Ok(Some(slot)) = ring.consume() {
                black_box(&slot);
            }
        },
    );
}

#[divan::bench(args = [1, 4, 8, 11])]
fn consume_and_parse(bencher: Bencher, count: usize) {
    take(bencher, Abi::X86_64, &[read(count)]);
}

#[divan::bench(args = [1, 11])]
fn consume_and_parse_and_move(bencher: Bencher, count: usize) {
    let (slot, pairing) = (read(count), pairing());
    bencher.counter(ENTRIES).with_inputs(|| full(Abi::X86_64, std::slice::from_ref(&slot))).bench_local_refs(
        |ring| {
            while let Ok(Some(paired)) = pairing.next(ring) {
                black_box(&paired);
            }
        },
    );
}

#[divan::bench(args = [1, 11])]
fn consume_and_parse_x86_32(bencher: Bencher, count: usize) {
    take(bencher, Abi::X86_32, &[read(count)]);
}

#[divan::bench(args = [1, 11])]
fn consume_and_parse_pairs(bencher: Bencher, count: usize) {
    let data = Request::direct(1, Operation::Write, Sectors(8), &segments(count), true);
    let payload = Encode::payload(2, 0, Sectors(8), &segments(1));
    take(bencher, Abi::X86_64, &[Encode::request(&data), payload]);
}

fn take(bencher: Bencher, abi: Abi, slots: &[RawSlot]) {
    let pairing = pairing();
    bencher.counter(ENTRIES).with_inputs(|| full(abi, slots)).bench_local_refs(|ring| {
        let mut paired = Paired::NeedMore(0);
        while let Ok(true) = pairing.next_into(ring, &mut paired) {
            assert!(!matches!(paired, Paired::Refused(_)));
            black_box(&paired);
        }
    });
}

#[divan::bench]
fn consume_parse_respond_publish(bencher: Bencher) {
    let (slot, pairing) = (read(8), pairing());
    bencher.counter(ENTRIES).with_inputs(|| full(Abi::X86_64, std::slice::from_ref(&slot))).bench_local_refs(
        |ring| {
            let mut paired = Paired::NeedMore(0);
            while let Ok(true) = pairing.next_into(ring, &mut paired) {
                if let Paired::Single(request) = &paired {
                    ring.respond(&request.response(Status::Okay));
                }
            }
            black_box(ring.publish())
        },
    );
}

#[divan::bench(args = [32, 256])]
fn parse_indirect_segments(bencher: Bencher, count: u16) {
    let bytes = encode_indirect(&segments(count.into()));
    let mut out = Vec::with_capacity(256);
    bencher.counter(usize::from(count)).bench_local(|| {
        parse_indirect(black_box(&bytes), count, pairing().limits(), &mut out).expect("all are valid");
        black_box(&out);
    });
}
