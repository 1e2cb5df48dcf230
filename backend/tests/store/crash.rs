//! A daemon that is killed: whatever it left is made good when the disk is opened again, or refused with the command.
//!
//! The other process writes through a store of its own and is killed in the middle; the kernel keeps what was written.
//! What a power cut can take away besides is enumerated in `store/sidecar/cut` of the library.

use crate::driver::Driver;
use crate::support::{Image, Numbers, dif, profile};
use dixback::image::{ReplayOptions, ScrubOptions, replay, scrub};
use dixback::store::{CrashMode, Op, StoreError, StoreSpec, open};
use integrity::{Expected, Guard, Profile};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

fn mode() -> CrashMode {
    std::env::var("DIXBACK_TEST_CRASH").unwrap().parse().unwrap()
}

/// Not a test of its own: the other process, which writes until it is killed.
#[test]
fn helper_when_asked_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os("DIXBACK_TEST_WRITE") else { return };
    let seed = std::env::var("DIXBACK_TEST_SEED").unwrap().parse().unwrap();
    let store = open(&StoreSpec { crash: mode(), cache_bytes: 1, ..StoreSpec::new(path) }, "killed").unwrap();
    let bytes = store.geometry().bytes;
    let unit = u64::from(store.geometry().logical_block);
    let profile = store.capabilities().profile.unwrap();
    let mut driver = Driver::new(&store);
    let mut numbers = Numbers(seed);
    for round in 0u64.. {
        while driver.pending() >= 16 {
            driver.turn(true);
            for completion in driver.finished() {
                assert_eq!(completion.result, Ok(()));
                if let Some(lease) = completion.buffer {
                    driver.give_back(lease);
                }
            }
        }
        let offset = numbers.below(bytes / unit) * unit;
        let length = ((numbers.below(64) + 1) * unit).min(bytes - offset);
        match round % 16 {
            3 => _ = driver.start(Op::Discard, offset, length, None),
            7 => _ = driver.start(Op::Flush, 0, 0, None),
            _ => {
                let mut lease = driver.buffer(length as usize);
                let (data, metadata) = lease.parts_mut();
                data.copy_from_slice(&numbers.bytes(data.len()));
                metadata.fill(0);
                profile.generate(data, metadata, offset / profile.interval() as u64, round as u16 >> 1);
                driver.start(Op::Write { fua: false }, offset, length, Some(lease));
            }
        }
        if round == 200 {
            println!("\nWRITES");
            std::io::stdout().flush().unwrap();
        }
        driver.turn(false);
    }
}

/// Kills the other process until it leaves something to be done, which the refusal of a scrub says. It leaves nothing
/// when it came no further than the end of a checkpoint, all of its writes before that: then the disk is whole at once.
fn killed_at_work(path: &Path, crash: &str, seed: u64) -> String {
    for again in 0..20 {
        killed(path, crash, seed + 100 * again);
        match scrub(&ScrubOptions { disk: path.to_owned(), sidecar: None }, &mut ()) {
            Err(refused) => return refused.to_string(),
            Ok(scrubbed) => assert!(crash == "log" && scrubbed.bad == 0, "{crash}: {scrubbed:?}"),
        }
    }
    panic!("killed twenty times, and never at work");
}

/// Lets the other process write for a while and kills it.
fn killed(path: &Path, crash: &str, seed: u64) {
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::helper_when_asked_writes_until_it_is_killed", "--nocapture"])
        .env("DIXBACK_TEST_WRITE", path)
        .env("DIXBACK_TEST_SEED", seed.to_string())
        .env("DIXBACK_TEST_CRASH", crash)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "WRITES"), "it ended by itself");
    other.kill().unwrap();
    other.wait().unwrap();
}

fn all_matches(image: &Image, profile: Profile) {
    let store = open(&StoreSpec { read_only: true, ..image.spec() }, "reader").unwrap();
    let mut driver = Driver::new(&store);
    for offset in (0..store.geometry().bytes).step_by(1 << 20) {
        let bytes = (store.geometry().bytes - offset).min(1 << 20);
        let (data, metadata) = driver.read(offset, bytes as usize).unwrap();
        profile.verify(&data, &metadata, &Expected::new(offset / profile.interval() as u64)).unwrap();
    }
}

#[test]
fn disk_when_the_daemon_was_killed_is_whole_after_the_next_opening() {
    let profiles = [dif(), profile(Guard::Ip, 512, 21, 13), profile(Guard::Crc64Nvme, 4096, 16, 0)];
    for (crash, profile) in
        profiles.into_iter().flat_map(|profile| ["log", "bitmap"].map(|crash| (crash, profile)))
    {
        let image = Image::protected(8 << 20, profile);
        let mut looked_at = 0;
        for seed in 0..3 {
            let refused = killed_at_work(&image.path, crash, seed);
            assert!(refused.contains("dixback image replay") && refused.contains("killed"), "{refused}");
            let reader = open(&StoreSpec { read_only: true, ..image.spec() }, "reader").err().unwrap();
            assert!(matches!(reader, StoreError::NeedsReplay { .. }), "{reader}");
            if seed == 1 {
                let options = ReplayOptions { disk: image.path.clone(), sidecar: None };
                let done = replay(&options, &mut ()).unwrap().unwrap();
                assert_eq!((done.lost.count, done.bad.count), (0, 0), "{done}");
                assert_eq!(replay(&options, &mut ()).unwrap(), None);
                all_matches(&image, profile);
                continue;
            }
            let store = image.open();
            let report = store.attach_report().unwrap();
            let done = report.recovered.clone().unwrap();
            assert_eq!((done.lost.count, done.bad.count), (0, 0), "{report}");
            assert_eq!(done.records > 0, crash == "log", "{report}");
            looked_at += done.intervals;
            store.close().unwrap();
            drop(store);
            assert_eq!(image.open().attach_report(), None);
            all_matches(&image, profile);
        }
        assert!(looked_at > 0, "{crash}: flushes were all that was under way, each time");
    }
}
