//! Files without PI.

use crate::driver::Driver;
use crate::support::{Image, Numbers};
use dixback::store::{Direct, Errno, Op, StoreSpec, open, probe};

#[test]
fn file_when_written_read_and_discarded_behaves_as_a_disk() {
    for direct in [Direct::Auto, Direct::Off] {
        let bytes = 8u64 << 20;
        let image = Image::new(bytes);
        let spec = StoreSpec { direct, ..image.spec() };
        let store = open(&spec, "file").unwrap();
        assert_eq!(store.capabilities().profile, None);
        let mut driver = Driver::new(&store);
        let mut numbers = Numbers(5);
        let mut model = vec![0u8; bytes as usize];
        for round in 0..200 {
            let offset = numbers.below(bytes / 512) * 512;
            let length = ((numbers.below(300) + 1) * 512).min(bytes - offset);
            let range = offset as usize..(offset + length) as usize;
            match round % 5 {
                4 => {
                    driver.discard(offset, length).unwrap();
                    model[range].fill(0);
                }
                3 => assert!(driver.read(offset, length as usize).unwrap().0 == model[range]),
                _ => {
                    let data = numbers.bytes(length as usize);
                    driver.write(offset, &data, 0, round % 3 == 0).unwrap();
                    model[range].copy_from_slice(&data);
                }
            }
        }
        driver.flush().unwrap();
        assert!(driver.read(0, bytes as usize).unwrap().0 == model);
        assert_eq!(driver.read(bytes, 512).unwrap_err(), Errno(libc::EINVAL));
        drop(driver);
        store.close().unwrap();
        assert!(std::fs::read(&image.path).unwrap() == model);
    }
}

#[test]
fn flushes_when_they_come_from_several_queues_at_once_then_all_end() {
    let image = Image::new(1 << 20);
    let store = image.open();
    let mut drivers = [Driver::new(&store), Driver::new(&store), Driver::new(&store)];
    for _ in 0..20 {
        let ids: Vec<Vec<u32>> = drivers
            .iter_mut()
            .map(|driver| {
                driver.write(0, &[7; 512], 0, false).unwrap();
                (0..5).map(|_| driver.start(Op::Flush, 0, 0, None)).collect()
            })
            .collect();
        // The first leads, with its first flush alone; then it shares a round with all others, and so on.
        while drivers.iter().map(Driver::pending).sum::<usize>() > 0 {
            for (driver, ids) in drivers.iter_mut().zip(&ids) {
                driver.turn(false);
                for completion in driver.finished() {
                    assert!(ids.contains(&completion.id));
                    assert_eq!(completion.result, Ok(()));
                }
            }
        }
    }
    drop(drivers);
    store.close().unwrap();
}

#[test]
fn probe_when_there_is_no_pi_changes_nothing_and_takes_no_lock() {
    let image = Image::new(1 << 20);
    let writer = image.open();
    let found = probe(&image.spec()).unwrap();
    assert_eq!(found.geometry, writer.geometry());
    assert_eq!(found.capabilities, writer.capabilities());
    assert_eq!((found.geometry.bytes, found.geometry.logical_block), (1 << 20, 512));
}

#[test]
fn null_when_opened_by_its_name_reads_writes_and_says_its_size() {
    let store = open(&StoreSpec::new("null:1G:crc16-t10dif"), "null").unwrap();
    assert_eq!(probe(&StoreSpec::new("null:1G:crc16-t10dif")).unwrap().geometry, store.geometry());
    let mut driver = Driver::new(&store);
    driver.write(0, &[1; 4096], 0, false).unwrap();
    let (data, metadata) = driver.read(1 << 20, 128 << 10).unwrap();
    let profile = store.capabilities().profile.unwrap();
    assert!(profile.verify(&data, &metadata, &integrity::Expected::new(2048)).is_ok());
    driver.discard(0, 1 << 30).unwrap();
    driver.flush().unwrap();
    drop(driver);
    store.close().unwrap();
    assert!(open(&StoreSpec::new("null:"), "null").err().unwrap().to_string().contains("null:SIZE"));
}
