//! A disk with a sidecar, one request after the other.

use crate::driver::Driver;
use crate::support::{Image, Numbers, dif, profile, scribble};
use dixback::store::{CrashMode, Errno, Op, StoreSpec, open};
use integrity::{Expected, Guard, Profile};
use std::os::unix::fs::MetadataExt;

/// Reads a range and gives its data, with escapes counted; the PI must match.
fn read(driver: &mut Driver, profile: Profile, offset: u64, bytes: usize) -> (Vec<u8>, usize) {
    let (data, metadata) = driver.read(offset, bytes).unwrap();
    let checked =
        profile.verify(&data, &metadata, &Expected::new(offset / profile.interval() as u64)).unwrap();
    (data, checked.escaped)
}

#[test]
fn read_when_never_written_gives_zeroes_and_escapes() {
    let image = Image::protected(8 << 20, dif());
    let store = image.open();
    let mut driver = Driver::new(&store);
    let (data, escaped) = read(&mut driver, dif(), 512, 1 << 20);
    assert!(data.iter().all(|byte| *byte == 0));
    assert_eq!(escaped, 2048);
}

#[test]
fn reopen_when_closed_gives_back_everything_written() {
    for (profile, bytes) in [
        (dif(), 40 << 20),
        (profile(Guard::Crc64Nvme, 4096, 64, 8), 40 << 20),
        (profile(Guard::Ip, 1024, 255, 3), 5 << 20),
    ] {
        let image = Image::protected(bytes, profile);
        let spec = StoreSpec { cache_bytes: 1, ..image.spec() };
        let mut numbers = Numbers(3);
        let mut model = vec![0u8; bytes as usize];
        let store = open(&spec, "reopen").unwrap();
        let mut driver = Driver::new(&store);
        for round in 0..150 {
            let unit = u64::from(store.geometry().logical_block);
            let offset = numbers.below(bytes / unit) * unit;
            let length = (numbers.below(700) + 1) * unit;
            let length = length.min(bytes - offset).min(2 << 20);
            let range = offset as usize..(offset + length) as usize;
            if round % 10 == 9 {
                driver.discard(offset, length).unwrap();
                model[range].fill(0);
                continue;
            }
            let data = numbers.bytes(length as usize);
            driver.write(offset, &data, round as u16, round % 7 == 0).unwrap();
            model[range].copy_from_slice(&data);
            if round % 20 == 0 {
                driver.flush().unwrap();
            }
        }
        let compare = |driver: &mut Driver, when: &str| {
            for at in (0..bytes).step_by(1 << 20) {
                let length = (bytes - at).min(1 << 20);
                let (data, _) = read(driver, profile, at, length as usize);
                assert!(data == model[at as usize..(at + length) as usize], "{when} at {at}");
            }
        };
        compare(&mut driver, "at once");
        drop(driver);
        store.close().unwrap();
        drop(store);
        let store = open(&StoreSpec { read_only: true, ..spec.clone() }, "reopen").unwrap();
        assert_eq!(store.attach_report(), None);
        compare(&mut Driver::new(&store), "after a reopen");
    }
}

#[test]
fn discard_when_it_cuts_blocks_leaves_escapes_in_all_of_it_and_nothing_else() {
    // Long enough for several chunks, from and to the middle of sidecar blocks, some in the cache and some not.
    for (cache, crash) in [(1, CrashMode::Off), (32 << 20, CrashMode::Log), (32 << 20, CrashMode::Bitmap)] {
        let bytes = 24u64 << 20;
        let image = Image::protected(bytes, dif());
        let spec = StoreSpec { cache_bytes: cache, crash, ..image.spec() };
        let store = open(&spec, "discard").unwrap();
        let mut driver = Driver::new(&store);
        let data = Numbers(1).bytes(1 << 20);
        for at in (0..bytes).step_by(1 << 20) {
            driver.write(at, &data, 1, false).unwrap();
        }
        driver.flush().unwrap();
        let (start, end) = (3 * 512, bytes - 5 * 512);
        driver.discard(start, end - start).unwrap();
        let compare = |driver: &mut Driver, when: &str| {
            let (found, escaped) = read(driver, dif(), 0, 1 << 20);
            assert_eq!(escaped, (1 << 11) - 3, "{when}");
            assert_eq!(found[..3 * 512], data[..3 * 512]);
            assert!(found[3 * 512..].iter().all(|byte| *byte == 0));
            for at in (1 << 20..bytes - (1 << 20)).step_by(1 << 20) {
                assert_eq!(read(driver, dif(), at, 1 << 20).1, 1 << 11, "{when} at {at}");
            }
            let (found, escaped) = read(driver, dif(), bytes - (1 << 20), 1 << 20);
            assert_eq!(escaped, (1 << 11) - 5, "{when}");
            assert_eq!(found[found.len() - 5 * 512..], data[data.len() - 5 * 512..]);
        };
        compare(&mut driver, "at once");
        drop(driver);
        store.close().unwrap();
        drop(store);
        let blocks = std::fs::metadata(image.sidecar()).unwrap().blocks();
        // The log keeps its room.
        let log = if crash == CrashMode::Log { 2 << 20 } else { 0 };
        assert!(blocks * 512 < (100 << 10) + log, "the sidecar is thin again: {blocks} sectors");
        let store = open(&spec, "discard").unwrap();
        let mut driver = Driver::new(&store);
        compare(&mut driver, "after a reopen");
    }
}

#[test]
fn write_when_data_was_changed_from_outside_heals_only_what_it_writes() {
    let image = Image::protected(1 << 20, dif());
    let store = image.open();
    let mut driver = Driver::new(&store);
    driver.write(0, &[1; 4096], 0, true).unwrap();
    image.scribble(512, &[9]);
    image.scribble(1024, &[9]);
    driver.write(512, &[2; 512], 0, false).unwrap();
    let (data, metadata) = driver.read(0, 4096).unwrap();
    let mismatch = dif().verify(&data, &metadata, &Expected::new(0)).unwrap_err();
    assert_eq!(mismatch.interval, 2);
    drop(driver);
}

#[test]
fn submit_when_the_request_is_impossible_ends_with_an_errno() {
    let image = Image::protected(1 << 20, dif());
    let store = image.open();
    let mut driver = Driver::new(&store);
    assert_eq!(driver.write((1 << 20) - 512, &[0; 1024], 0, false), Err(Errno(libc::EINVAL)));
    assert_eq!(driver.write(1, &[0; 512], 0, false), Err(Errno(libc::EINVAL)));
    assert_eq!(driver.discard(u64::MAX - 511, 512), Err(Errno(libc::EINVAL)));
    let wrong = driver.buffer(1024);
    let id = driver.start(Op::Read, 0, 512, Some(wrong));
    let completion = driver.wait(id);
    assert_eq!(completion.result, Err(Errno(libc::EINVAL).into()));
    driver.give_back(completion.buffer.unwrap());
    drop(driver);
    drop(store);

    let spec = StoreSpec { read_only: true, discard: false, ..image.spec() };
    let store = open(&spec, "reader").unwrap();
    let mut driver = Driver::new(&store);
    assert_eq!(driver.write(0, &[0; 512], 0, false), Err(Errno(libc::EROFS)));
    assert_eq!(driver.discard(0, 512), Err(Errno(libc::EROFS)));
    driver.flush().unwrap();
    drop(driver);
    drop(store);

    let store = open(&StoreSpec { discard: false, ..image.spec() }, "writer").unwrap();
    assert_eq!(store.capabilities().discard, None);
    let mut driver = Driver::new(&store);
    assert_eq!(driver.discard(0, 512), Err(Errno(libc::EOPNOTSUPP)));
}

#[test]
fn metadata_when_it_holds_more_than_a_tuple_is_kept_as_sent() {
    let profile = profile(Guard::Crc16T10Dif, 512, 16, 4);
    let image = Image::protected(1 << 20, profile);
    let store = image.open();
    let mut driver = Driver::new(&store);
    let mut lease = driver.buffer(1024);
    let (data, metadata) = lease.parts_mut();
    data.fill(3);
    metadata.copy_from_slice(b"abcd........efghijkl........mnop");
    profile.generate(data, metadata, 10, 77);
    let sent = metadata.to_vec();
    let id = driver.start(Op::Write { fua: false }, 5120, 1024, Some(lease));
    let completion = driver.wait(id);
    driver.give_back(completion.buffer.unwrap());
    drop(driver);
    store.close().unwrap();
    drop(store);
    let store = image.open();
    let mut driver = Driver::new(&store);
    assert_eq!(driver.read(5120, 1024).unwrap().1, sent);
}

#[test]
fn sidecar_when_a_byte_of_it_rots_gives_a_mismatch_in_that_interval_alone() {
    let image = Image::protected(1 << 20, dif());
    let store = image.open();
    let mut driver = Driver::new(&store);
    driver.write(0, &[1; 8192], 0, false).unwrap();
    drop(driver);
    store.close().unwrap();
    drop(store);
    // Metadata starts at 1 MiB in so small a sidecar; interval 9's guard.
    scribble(&image.sidecar(), (1 << 20) + 9 * 8, &[0]);
    let store = image.open();
    assert_eq!(store.attach_report(), None);
    let mut driver = Driver::new(&store);
    let (data, metadata) = driver.read(0, 8192).unwrap();
    assert_eq!(dif().verify(&data, &metadata, &Expected::new(0)).unwrap_err().interval, 9);
}
