//! Grants of the simulation: what is given, refused, revoked, and with which of Xen's numbers.

mod common;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use common::{BACK, FRONT, OTHER, Page, World, copy, copy_from, copy_to};
use hypervisor::{
    Access, Backend, Copy, Counted, Direction, DomId, Error, Frontend, GrantRef, GrantStatus, PAGE_SIZE, sim,
};

fn refused(result: Result<hypervisor::Mapping, Error>) -> (GrantRef, GrantStatus) {
    match result {
        Err(Error::Grant { gref, status, .. }) => (gref, status),
        other => panic!("expected a refused grant, got {other:?}"),
    }
}

#[test]
fn copy_when_granted_then_moves_the_bytes_both_ways() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    let shared = front.share(BACK, 3, Access::ReadWrite).unwrap();
    assert_eq!(shared.len(), 3 * PAGE_SIZE);
    shared.write(PAGE_SIZE + 100, b"from the guest");
    let mut copier = back.copier(FRONT).unwrap();
    let mut page = Page([0; 4096]);

    let gref = shared.refs()[1];
    assert_eq!(
        copy(&mut *copier, gref, &mut page, 100, 14, Direction::FromGuest).unwrap(),
        GrantStatus::OKAY
    );
    assert_eq!(&page.0[..14], b"from the guest");
    page.0.fill(0xa5);
    assert_eq!(copy_to(&mut *copier, shared.refs()[2], &mut page, 4096), GrantStatus::OKAY);
    let mut seen = [0; PAGE_SIZE + 1];
    shared.read(2 * PAGE_SIZE - 1, &mut seen);
    assert_eq!(seen[0], 0);
    assert!(seen[1..].iter().all(|byte| *byte == 0xa5));
}

#[test]
fn map_when_refs_are_in_any_order_then_pages_are_side_by_side() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    let shared = front.share(BACK, 4, Access::ReadWrite).unwrap();
    for page in 0..4 {
        shared.write(page * PAGE_SIZE, &[page as u8 + 1]);
    }
    let order = [3, 0, 2];
    let mapping = back.map(FRONT, &order.map(|page| shared.refs()[page])).unwrap();
    assert_eq!(mapping.len(), 3 * PAGE_SIZE);
    for (place, page) in order.into_iter().enumerate() {
        // SAFETY: inside the mapping.
        let byte = unsafe { mapping.base().add(place * PAGE_SIZE) };
        // SAFETY: inside the mapping, and nobody writes it now.
        assert_eq!(unsafe { byte.read() }, page as u8 + 1);
    }
    // SAFETY: inside the mapping, and nobody reads it now.
    unsafe { mapping.base().write(99) };
    let mut seen = [0];
    shared.read(3 * PAGE_SIZE, &mut seen);
    assert_eq!(seen[0], 99);
}

#[test]
fn readonly_when_written_or_mapped_then_refused_and_read_is_not() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    let shared = front.share(BACK, 1, Access::ReadOnly).unwrap();
    shared.write(0, b"look");
    let gref = shared.refs()[0];
    let mut copier = back.copier(FRONT).unwrap();
    let mut page = Page([7; 4096]);
    assert_eq!(copy_to(&mut *copier, gref, &mut page, 4), GrantStatus::GENERAL_ERROR);
    assert_eq!(refused(back.map(FRONT, &[gref])), (gref, GrantStatus::GENERAL_ERROR));
    assert_eq!(copy_from(&mut *copier, gref, &mut page, 4), GrantStatus::OKAY);
    assert_eq!(&page.0[..5], b"look\x07");
}

#[test]
fn reference_when_unused_or_beyond_the_table_then_refused_with_xens_numbers() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    let shared = front.share(BACK, 1, Access::ReadWrite).unwrap();
    let mut copier = back.copier(FRONT).unwrap();
    let mut page = Page([0; 4096]);
    let beyond = GrantRef(sim::Options::default().grant_entries);
    for (gref, status) in [
        (GrantRef(0), GrantStatus::GENERAL_ERROR),
        (GrantRef(shared.refs()[0].0 + 1), GrantStatus::GENERAL_ERROR),
        (beyond, GrantStatus::BAD_REFERENCE),
        (GrantRef(u32::MAX), GrantStatus::BAD_REFERENCE),
    ] {
        assert_eq!(copy_from(&mut *copier, gref, &mut page, 1), status, "{gref}");
        assert_eq!(refused(back.map(FRONT, &[shared.refs()[0], gref])), (gref, status));
    }
    assert_eq!(world.broker.usage(FRONT).mapped, 0, "all or nothing");
}

#[test]
fn reference_when_granted_to_another_domain_then_refused() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    let other = world.connect(OTHER);
    let shared = front.share(OTHER, 1, Access::ReadWrite).unwrap();
    let gref = shared.refs()[0];
    let mut page = Page([0; 4096]);
    assert_eq!(copy_from(&mut *back.copier(FRONT).unwrap(), gref, &mut page, 1), GrantStatus::GENERAL_ERROR);
    assert_eq!(refused(back.map(FRONT, &[gref])), (gref, GrantStatus::GENERAL_ERROR));
    assert_eq!(copy_from(&mut *other.copier(FRONT).unwrap(), gref, &mut page, 1), GrantStatus::OKAY);
}

#[test]
fn domain_when_unknown_then_no_domain() {
    let world = World::new();
    let back = world.connect(BACK);
    assert!(matches!(back.copier(FRONT), Err(Error::NoDomain { domain: FRONT })));
    assert!(matches!(back.map(FRONT, &[GrantRef(8)]), Err(Error::NoDomain { domain: FRONT })));
    assert!(matches!(back.bind(FRONT, hypervisor::Port(1)), Err(Error::NoDomain { domain: FRONT })));
}

#[test]
fn domain_when_it_serves_itself_then_works() {
    let world = World::new();
    let (one, two) = (world.connect(BACK), world.connect(BACK));
    let shared = one.share(BACK, 1, Access::ReadWrite).unwrap();
    shared.write(0, b"self");
    let mut page = Page([0; 4096]);
    assert_eq!(copy_from(&mut *two.copier(BACK).unwrap(), shared.refs()[0], &mut page, 4), GrantStatus::OKAY);
    assert_eq!(&page.0[..4], b"self");
}

#[test]
fn revoke_when_mapped_then_busy_until_unmapped() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    let shared = front.share(BACK, 2, Access::ReadWrite).unwrap();
    let gref = shared.refs()[0];
    let (first, second) = (back.map(FRONT, &[gref]).unwrap(), back.map(FRONT, &[gref]).unwrap());
    assert!(matches!(shared.revoke(0), Err(Error::Busy { gref: busy }) if busy == gref));
    shared.revoke(1).unwrap();
    drop(first);
    assert!(matches!(shared.revoke(0), Err(Error::Busy { .. })));
    drop(second);
    shared.revoke(0).unwrap();
    shared.revoke(0).unwrap();
    assert_eq!(refused(back.map(FRONT, &[gref])), (gref, GrantStatus::GENERAL_ERROR));
    let mut page = Page([0; 4096]);
    let status = copy_to(&mut *back.copier(FRONT).unwrap(), gref, &mut page, 1);
    assert_eq!(status, GrantStatus::GENERAL_ERROR);
    shared.write(0, b"still ours");
}

#[test]
fn revoke_when_there_is_no_such_page_then_invalid() {
    let world = World::new();
    let shared = world.connect(FRONT).share(BACK, 1, Access::ReadWrite).unwrap();
    assert!(matches!(shared.revoke(1), Err(Error::Invalid { .. })));
}

#[test]
fn shared_when_dropped_while_mapped_then_taken_back_when_unmapped() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    let shared = front.share(BACK, 2, Access::ReadWrite).unwrap();
    shared.write(0, b"kept");
    let mapping = back.map(FRONT, &shared.refs()[..1]).unwrap();
    drop(shared);
    assert_eq!(world.broker.usage(FRONT).granted, 1);
    let fresh = front.share(BACK, 4, Access::ReadWrite).unwrap();
    fresh.write(0, &[0xff; 4 * PAGE_SIZE]);
    // SAFETY: inside the mapping; the page is nobody's but ours as long as it is mapped.
    let kept = unsafe { mapping.base().cast::<[u8; 4]>().read() };
    assert_eq!(&kept, b"kept");
    drop((mapping, fresh));
    let usage = world.broker.usage(FRONT);
    assert_eq!((usage.granted, usage.mapped), (0, 0));
}

#[test]
fn share_when_pages_were_used_before_then_they_are_zero() {
    let world = World::new();
    let options = sim::Options { memory_pages: 8, grant_entries: 64 };
    let front = sim::connect_with(world.dir.path(), FRONT, options).unwrap();
    for _ in 0..20 {
        let shared = front.share(BACK, 8, Access::ReadWrite).unwrap();
        let mut seen = vec![1; shared.len()];
        shared.read(0, &mut seen);
        assert!(seen.iter().all(|byte| *byte == 0));
        shared.write(0, &vec![0xee; shared.len()]);
    }
}

#[test]
fn share_when_memory_or_references_are_used_up_then_no_space_and_nothing_lost() {
    let world = World::new();
    let options = sim::Options { memory_pages: 8, grant_entries: 32 };
    let front = sim::connect_with(world.dir.path(), FRONT, options).unwrap();
    let seven = front.share(BACK, 7, Access::ReadWrite).unwrap();
    assert!(matches!(front.share(BACK, 2, Access::ReadWrite), Err(Error::NoSpace { .. })));
    let _one = front.share(BACK, 1, Access::ReadWrite).unwrap();
    drop(seven);
    drop(front.share(BACK, 7, Access::ReadWrite).unwrap());

    let options = sim::Options { memory_pages: 100, grant_entries: 16 };
    let other = sim::connect_with(world.dir.path(), OTHER, options).unwrap();
    assert!(matches!(other.share(BACK, 9, Access::ReadWrite), Err(Error::NoSpace { .. })));
    let eight = other.share(BACK, 8, Access::ReadWrite).unwrap();
    assert!(eight.refs().iter().all(|gref| (8..16).contains(&gref.0)));
    assert!(matches!(other.share(BACK, 0, Access::ReadWrite), Err(Error::Invalid { .. })));
}

#[test]
fn batch_when_one_entry_crosses_a_page_then_nothing_is_copied() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    let shared = front.share(BACK, 1, Access::ReadWrite).unwrap();
    let mut copier = back.copier(FRONT).unwrap();
    let mut pages = Box::new([const { Page([9; 4096]) }; 2]);
    let local = pages.as_mut_ptr().cast::<u8>();
    let good = Copy {
        gref: shared.refs()[0],
        offset: 0,
        len: 4096,
        local,
        direction: Direction::ToGuest,
        status: GrantStatus(77),
    };
    for bad in [
        Copy { offset: 4000, len: 97, ..good },
        Copy { offset: 4096, len: 1, ..good },
        Copy { offset: u16::MAX, len: u16::MAX, ..good },
        Copy { local: local.wrapping_add(1), ..good },
    ] {
        let mut batch = [good, bad, good];
        // SAFETY: two pages of private memory; no entry reaches beyond them.
        let result = unsafe { copier.copy(&mut batch) };
        assert!(matches!(result, Err(Error::InvalidCopy { index: 1 })), "{bad:?}");
        assert_eq!(batch[0].status, GrantStatus(77));
    }
    let mut seen = [1];
    shared.read(0, &mut seen);
    assert_eq!(seen[0], 0);
}

#[test]
fn batch_when_some_entries_are_refused_then_the_others_are_done_and_all_are_counted() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    let shared = front.share(BACK, 2, Access::ReadWrite).unwrap();
    shared.revoke(0).unwrap();
    let before = back.statistics();
    let mut copier = back.copier(FRONT).unwrap();
    let mut page = Page([3; 4096]);
    let mut entry = |gref, len| Copy {
        gref,
        offset: 0,
        len,
        local: page.0.as_mut_ptr(),
        direction: Direction::ToGuest,
        status: GrantStatus(77),
    };
    let mut batch = [
        entry(shared.refs()[0], 8),
        entry(shared.refs()[1], 8),
        entry(GrantRef(u32::MAX), 0),
        entry(GrantRef(u32::MAX), 8),
    ];
    // SAFETY: all entries are inside `page`, which nothing else uses.
    unsafe { copier.copy(&mut batch) }.unwrap();
    let statuses = batch.map(|copy| copy.status);
    assert_eq!(
        statuses,
        [GrantStatus::GENERAL_ERROR, GrantStatus::OKAY, GrantStatus::OKAY, GrantStatus::BAD_REFERENCE]
    );
    let counted = back.statistics() - before;
    assert_eq!((counted.copy_calls, counted.copies), (1, 4));
    assert_eq!((counted.copied_bytes, counted.copy_failures), (8, 2));
    drop(copier);
    assert_eq!(back.statistics() - before, counted, "what a copier counted stays");
}

#[test]
fn revoke_when_copies_are_under_way_then_none_lands_after_it() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    for _ in 0..50 {
        let shared = front.share(BACK, 1, Access::ReadWrite).unwrap();
        let gref = shared.refs()[0];
        let mut copier = back.copier(FRONT).unwrap();
        let started = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut page = Page([0; 4096]);
                for round in 0.. {
                    page.0.fill(round as u8);
                    if !copy_to(&mut *copier, gref, &mut page, 4096).is_okay() {
                        break;
                    }
                    started.store(true, Relaxed);
                }
            });
            while !started.load(Relaxed) {
                std::hint::spin_loop();
            }
            shared.revoke(0).unwrap();
            let (mut one, mut two) = ([0; PAGE_SIZE], [0; PAGE_SIZE]);
            shared.read(0, &mut one);
            std::thread::yield_now();
            shared.read(0, &mut two);
            assert_eq!(one, two);
        });
    }
}

#[test]
fn statistics_when_pages_are_mapped_then_count_them_until_unmapped() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    let shared = front.share(BACK, 3, Access::ReadWrite).unwrap();
    let mapping = back.map(FRONT, shared.refs()).unwrap();
    assert_eq!((back.statistics().mapped, back.statistics().unmapped), (3, 0));
    assert_eq!(front.usage(FRONT).unwrap().mapped, 3);
    drop(mapping);
    assert_eq!((back.statistics().mapped, back.statistics().unmapped), (3, 3));
    assert_eq!(world.broker.usage(FRONT).mapped, 0);
    assert_eq!(world.broker.usage(FRONT).granted, 3);
}

#[test]
fn open_when_named_then_gives_both_sides() {
    let world = World::new();
    let spec = format!("sim:{}", world.dir.path().display());
    let handle = hypervisor::open(&spec, DomId(5)).unwrap();
    assert_eq!(handle.domain(), DomId(5));
    assert!(matches!(hypervisor::open("qubes:", DomId(5)), Err(Error::Spec { .. })));
    assert!(matches!(hypervisor::open("sim:/nowhere", DomId(5)), Err(Error::System { .. })));
}
