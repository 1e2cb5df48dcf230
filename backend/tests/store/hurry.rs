//! A queue that is about to end: nobody waits long for a hint.

use crate::driver::Driver;
use crate::support::{Image, dif};
use dixback::store::Op;

const GIB: u64 = 1 << 30;

#[test]
fn discard_of_a_whole_disk_when_the_queue_is_about_to_end_then_ends_with_the_part_it_is_at() {
    for image in [Image::new(3 * GIB), Image::protected(3 * GIB, dif())] {
        let store = image.open();
        let mut driver = Driver::new(&store);
        let last = 3 * GIB - 4096;
        for offset in [0, last] {
            driver.write(offset, &[7; 4096], 0, false).unwrap();
        }
        let id = driver.start(Op::Discard, 0, 3 * GIB, None);
        driver.hurry();
        assert_eq!(driver.wait(id).result, Ok(()));
        assert_eq!(driver.read(0, 4096).unwrap().0, [0; 4096], "the part under way is not done");
        let (data, metadata) = driver.read(last, 4096).unwrap();
        assert_eq!(data, [7; 4096], "it went on to the end");
        if let Some(profile) = store.capabilities().profile {
            let expected = integrity::Expected::new(last / 512);
            assert!(profile.verify(&data, &metadata, &expected).is_ok_and(|checked| checked.escaped == 0));
        }
        driver.flush().unwrap();
        drop(driver);
        store.close().unwrap();
    }
}

#[test]
fn discard_of_more_than_one_part_when_nobody_hurries_then_is_done_to_its_end() {
    let image = Image::new(3 * GIB);
    let store = image.open();
    let mut driver = Driver::new(&store);
    let (first, end) = (512, 3 * GIB - 512);
    let places = [0, first, GIB, GIB + first, 2 * GIB + first, end - 512, end];
    for offset in places {
        driver.write(offset, &[7; 512], 0, false).unwrap();
    }
    driver.discard(first, end - first).unwrap();
    for offset in places {
        let kept = offset < first || offset >= end;
        assert_eq!(driver.read(offset, 512).unwrap().0, [if kept { 7 } else { 0 }; 512], "{offset}");
    }
    drop(driver);
    store.close().unwrap();
}

#[test]
fn discards_when_many_are_under_way_then_all_end_and_in_a_hurry_those_that_wait_do_nothing() {
    for (image, hurry) in [false, true].into_iter().flat_map(|hurry| {
        [Image::new(64 << 20), Image::protected(64 << 20, dif())].map(|image| (image, hurry))
    }) {
        let store = image.open();
        let mut driver = Driver::new(&store);
        let offsets: Vec<u64> = (0..40).map(|n| n * (1 << 20)).collect();
        for offset in &offsets {
            driver.write(*offset, &[7; 4096], 0, false).unwrap();
        }
        let ids: Vec<_> =
            offsets.iter().map(|offset| driver.start(Op::Discard, *offset, 1 << 20, None)).collect();
        if hurry {
            driver.hurry();
        }
        for id in ids {
            assert_eq!(driver.wait(id).result, Ok(()));
        }
        let left =
            offsets.iter().filter(|offset| driver.read(**offset, 4096).unwrap().0 == [7; 4096]).count();
        match hurry {
            false => assert_eq!(left, 0),
            true => assert!(left > 0 || store.capabilities().profile.is_some()),
        }
        drop(driver);
        store.close().unwrap();
    }
}
