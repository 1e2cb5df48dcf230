//! What a copy through the simulation costs beyond the memory copy itself.
//!
//! The baseline is the same memory, in the same order, copied without any check. Each is measured several
//! times, alternating, and the smallest is taken: the machine's other work only ever adds.

use std::hint::black_box;
use std::time::Instant;

use hypervisor::sim::{self, Broker};
use hypervisor::{Access, Backend, Copier, Copy, Direction, DomId, Frontend, GrantStatus, PAGE_SIZE};

const PAGES: usize = 1024;
const ROUNDS: usize = 20;

fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let _broker = Broker::start(dir.path()).expect("a broker");
    let front = sim::connect(dir.path(), DomId(1)).expect("a domain");
    let back = sim::connect(dir.path(), DomId(0)).expect("a domain");
    let shared = front.share(DomId(0), PAGES, Access::ReadWrite).expect("pages");
    shared.write(0, &vec![1; shared.len()]);
    let mapping = back.map(DomId(1), shared.refs()).expect("a mapping");
    let mut copier = back.copier(DomId(1)).expect("a copier");
    let mut pool = vec![0u8; 33 * PAGE_SIZE];
    let start = pool.as_ptr().align_offset(PAGE_SIZE);
    let pool = pool[start..].as_mut_ptr();

    println!("batch  bytes  plain ns/copy  checked ns/copy  overhead ns  ratio");
    for (batch, len) in [(1, 512), (32, 512), (1, 4096), (32, 4096)] {
        let mut copies: Vec<Copy> = (0..PAGES)
            .map(|index| Copy {
                // A stride that is coprime to the number of pages: neighbours in time are not in memory.
                gref: shared.refs()[index * 397 % PAGES],
                offset: 0,
                len,
                local: pool.wrapping_add(index % 32 * PAGE_SIZE),
                direction: Direction::FromGuest,
                status: GrantStatus::OKAY,
            })
            .collect();
        let (mut plain, mut checked) = (f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            plain = plain.min(measure(|| {
                for (index, copy) in copies.iter().enumerate() {
                    let from = mapping.base().as_ptr().wrapping_add(index * 397 % PAGES * PAGE_SIZE);
                    // SAFETY: a page of the mapping and a page of the pool.
                    unsafe { std::ptr::copy_nonoverlapping(from, black_box(copy.local), usize::from(len)) };
                }
            }));
            checked = checked.min(measure(|| {
                for part in copies.chunks_mut(batch) {
                    run(&mut *copier, part);
                }
            }));
        }
        let over = checked - plain;
        println!("{batch:5}  {len:5}  {plain:13.1}  {checked:15.1}  {over:11.1}  {:5.2}", checked / plain);
    }
}

fn run(copier: &mut dyn Copier, part: &mut [Copy]) {
    // SAFETY: every entry is one page of the pool, which this thread alone uses.
    unsafe { copier.copy(black_box(part)) }.expect("a batch inside its pages");
    assert!(part.iter().all(|copy| copy.status.is_okay()));
}

/// Nanoseconds per copy, of a pass over all pages.
fn measure(mut pass: impl FnMut()) -> f64 {
    let started = Instant::now();
    for _ in 0..4 {
        pass();
    }
    started.elapsed().as_nanos() as f64 / (4 * PAGES) as f64
}
