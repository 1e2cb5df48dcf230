//! Copying, verifying and measuring, and that verify finds what it is there to find.

mod common;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use common::{Machine, options, pattern, profile, until, world};
use frontend_sim::workload::{Access, BenchOptions, Limit, Verify, VerifyOptions, bench, copy_in, copy_out};
use frontend_sim::{ConnectOptions, DixMode, Error, Grants};
use integrity::Guard;

#[test]
fn copy_when_in_and_out_then_is_the_same_and_the_rest_is_kept() {
    for dix in [None, Some(profile(Guard::Crc16T10Dif, 4096))] {
        let machine = Machine::new();
        let responder = machine.respond(world(dix));
        let mut front = machine.connect(options()).unwrap();
        let queue = front.queue(0);
        queue.write_at(0, &vec![0x77; 4 << 20]).unwrap();
        let data = pattern(3_000_001, 4);
        let mut last = 0;
        copy_in(queue, &mut &data[..], 8192, data.len() as u64, &mut |done, all| {
            assert!(last <= done && done <= all);
            last = done;
        })
        .unwrap();
        assert_eq!(last, data.len() as u64);
        let mut out = Vec::new();
        let escaped = copy_out(queue, &mut out, 8192, data.len() as u64 + 3, &mut |_, _| {}).unwrap();
        assert_eq!(escaped, 0);
        assert!(out[..data.len()] == data);
        assert_eq!(out[data.len()..], [0x77; 3]);
        assert_eq!(responder.world.medium.lock().unwrap().data[0], 0x77);
        assert!(copy_in(queue, &mut &data[..10], 0, 4096, &mut |_, _| {}).is_err(), "the file is short");
    }
}

#[test]
fn copy_out_when_never_written_then_counts_what_was_not_protected() {
    let machine = Machine::new();
    let _responder = machine.respond(world(Some(profile(Guard::Crc64Nvme, 512))));
    let mut front = machine.connect(options()).unwrap();
    front.queue(0).write_at(0, &[1; 1024]).unwrap();
    let escaped = copy_out(front.queue(0), &mut std::io::sink(), 0, 4096, &mut |_, _| {}).unwrap();
    assert_eq!(escaped, 6);
}

#[test]
fn verify_when_all_is_well_then_passes_over_several_queues() {
    for dix in [None, Some(profile(Guard::Crc16T10Dif, 512)), Some(profile(Guard::Crc64Nvme, 4096))] {
        let machine = Machine::new();
        let _responder = machine.respond(world(dix));
        let mut front = machine.connect(ConnectOptions { queues: 2, ..options() }).unwrap();
        let verify = Verify::new(
            VerifyOptions { bytes: Some(1 << 20), discard: true, ..VerifyOptions::default() },
            front.disk(),
        )
        .unwrap();
        verify.fill(front.queue(0)).unwrap();
        let report = verify.run(&mut front, Limit::requests(1000)).unwrap();
        assert_eq!(report.reads + report.writes + report.flushes + report.discards, 1000);
        assert!(report.reads > 0 && report.writes > 0 && report.discards > 0);
        let blocks = (1 << 20) / front.disk().block() as u64;
        assert_eq!(verify.check(front.queue(1)).unwrap().blocks, blocks);
    }
}

#[test]
fn verify_when_the_medium_goes_back_in_time_then_finds_it() {
    let machine = Machine::new();
    let responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 512))));
    let mut front = machine.connect(options()).unwrap();
    let options = VerifyOptions { bytes: Some(256 << 10), ..VerifyOptions::default() };
    let verify = Verify::new(options, front.disk()).unwrap();
    verify.fill(front.queue(0)).unwrap();
    let (data, metadata) = {
        let medium = responder.world.medium.lock().unwrap();
        (medium.data.clone(), medium.metadata.clone())
    };
    verify.run(&mut front, Limit::requests(200)).unwrap();
    {
        // Old data with its own PI: only who knows what was written can tell.
        let mut medium = responder.world.medium.lock().unwrap();
        medium.data = data;
        medium.metadata = metadata;
    }
    assert!(matches!(verify.check(front.queue(0)), Err(Error::Data(_))));
    // The queue can be used further, and a region written anew is right again.
    verify.fill(front.queue(0)).unwrap();
    verify.check(front.queue(0)).unwrap();
    // A flipped bit on the medium: PI tells.
    responder.world.medium.lock().unwrap().data[1000] ^= 4;
    assert!(verify.check(front.queue(0)).unwrap_err().failure().is_some());
}

#[test]
fn verify_when_without_pi_and_two_blocks_change_places_then_finds_it() {
    let machine = Machine::new();
    let responder = machine.respond(world(None));
    let mut front = machine.connect(options()).unwrap();
    let options = VerifyOptions { bytes: Some(64 << 10), offset: 4096, ..VerifyOptions::default() };
    let verify = Verify::new(options, front.disk()).unwrap();
    verify.fill(front.queue(0)).unwrap();
    {
        let mut medium = responder.world.medium.lock().unwrap();
        let (one, two) = medium.data[8192..].split_at_mut(512);
        one.swap_with_slice(&mut two[..512]);
    }
    assert!(matches!(verify.check(front.queue(0)), Err(Error::Data(_))));
}

#[test]
fn verify_when_the_backend_is_killed_meanwhile_then_nothing_acknowledged_is_lost() {
    let machine = Machine::new();
    let world = std::sync::Arc::new(world(Some(profile(Guard::Crc16T10Dif, 512))));
    let mut responder = Some(machine.respond_again(world.clone()));
    let mut front = machine.connect(ConnectOptions { queues: 2, ..options() }).unwrap();
    let options = VerifyOptions { bytes: Some(1 << 20), ..VerifyOptions::default() };
    let verify = Verify::new(options, front.disk()).unwrap();
    verify.fill(front.queue(0)).unwrap();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| verify.run(&mut front, Limit::requests(3000)));
        for _ in 0..3 {
            let seen = || world.seen.lock().unwrap().len();
            let enough = seen() + 300;
            until("some requests", || seen() >= enough || running.is_finished());
            responder.take().unwrap().kill();
            responder = Some(machine.respond_again(world.clone()));
        }
        running.join().unwrap().unwrap();
    });
    verify.check(front.queue(0)).unwrap();
    assert!(front.reconnections() > 0);
}

#[test]
fn bench_when_run_then_counts_what_it_did() {
    for (dix, grants) in [(DixMode::Auto, Grants::Kept), (DixMode::Off, Grants::PerRequest)] {
        let machine = Machine::new();
        let _responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 4096))));
        let mut front = machine.connect(ConnectOptions { dix, grants, queues: 2, ..options() }).unwrap();
        for access in
            [Access::RandomRead, Access::RandomWrite, Access::SequentialRead, Access::SequentialWrite]
        {
            let bytes = access.usual_bytes();
            let bench_options =
                BenchOptions { access, bytes, depth: 8, limit: Limit::requests(100), region: None };
            let report = bench(&mut front, bench_options).unwrap();
            assert_eq!(report.requests, 100);
            assert_eq!(report.counters.requests, 100);
            assert!(report.json().starts_with(r#"{"bench":""#) && report.json().ends_with('}'));
        }
        let bad = BenchOptions {
            access: Access::RandomRead,
            bytes: 4096,
            depth: 1000,
            limit: Limit::time(Duration::from_millis(1)),
            region: None,
        };
        assert!(matches!(bench(&mut front, bad), Err(Error::Request(_))));
        assert!(matches!(
            bench(&mut front, BenchOptions { bytes: 512, depth: 1, ..bad }),
            Err(Error::Request(_))
        ));
    }
}

#[test]
fn bench_when_the_backend_says_nothing_then_the_time_out_ends_it() {
    let machine = Machine::new();
    let responder = machine.respond(world(None));
    responder.world.behaviour.mute.store(true, SeqCst);
    let timeout = Some(Duration::from_millis(20));
    let mut front = machine.connect(ConnectOptions { request_timeout: timeout, ..options() }).unwrap();
    assert!(matches!(front.queue(0).read_at(0, &mut [0; 512]), Err(Error::Timeout { .. })));
}
