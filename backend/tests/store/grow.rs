//! Disks that grow while they are served and while they are not.

use crate::driver::Driver;
use crate::support::{Image, Numbers, dif, profile};
use dixback::image::{ImageError, ResizeOptions, Resized, ScrubOptions, resize, scrub};
use dixback::store::{Errno, StoreError, open};
use integrity::Guard;
use std::fs::File;

const SMALL: u64 = 600 * 512;
const LARGE: u64 = 3 << 20;

fn set_len(image: &Image, bytes: u64) {
    File::options().write(true).open(&image.path).unwrap().set_len(bytes).unwrap();
}

fn options(image: &Image) -> ResizeOptions {
    ResizeOptions { disk: image.path.clone(), sidecar: None }
}

fn scrubbed(image: &Image) -> (u64, u64, u64) {
    let found = scrub(&ScrubOptions { disk: image.path.clone(), sidecar: None }, &mut ()).unwrap();
    (found.intervals, found.bad, found.unprotected)
}

#[test]
fn disk_when_it_grows_under_a_queue_then_the_new_part_is_unprotected_until_it_is_written_and_then_kept() {
    let image = Image::protected(SMALL, dif());
    let store = image.open();
    let mut driver = Driver::new(&store);
    let mut numbers = Numbers(7);
    // The last block of metadata is not full: it is replaced as far as the disk goes, and grown into.
    let old = numbers.bytes(SMALL as usize - 512 * 512);
    driver.write(512 * 512, &old, 5, false).unwrap();
    assert_eq!(driver.read(SMALL, 512).unwrap_err(), Errno(libc::EINVAL));
    assert_eq!(store.grow().unwrap(), SMALL, "nothing to grow by");
    set_len(&image, LARGE);
    assert_eq!(store.grow().unwrap(), LARGE);
    assert_eq!(store.geometry().bytes, LARGE);
    let (data, metadata) = driver.read(SMALL, (1024 - 600) * 512).unwrap();
    assert!(data.iter().all(|byte| *byte == 0) && metadata.iter().all(|byte| *byte == 0xFF));
    let new = numbers.bytes(64 << 10);
    for offset in [SMALL, LARGE - new.len() as u64] {
        driver.write(offset, &new, 6, false).unwrap();
        let (data, metadata) = driver.read(offset, new.len()).unwrap();
        assert!(data == new);
        let expected = integrity::Expected {
            reference: offset / 512,
            application: Some(integrity::AppTag { value: 6, mask: u16::MAX }),
            escape: integrity::Escape::Refuse,
        };
        dif().verify(&data, &metadata, &expected).unwrap();
    }
    driver.flush().unwrap();
    drop(driver);
    store.close().unwrap();
    drop(store);
    let intervals = LARGE / 512;
    assert_eq!(scrubbed(&image), (intervals, 0, intervals - 88 - 256));
    let store = image.open();
    assert!(store.attach_report().is_none(), "{:?}", store.attach_report());
    assert_eq!(Driver::new(&store).read(512 * 512, old.len()).unwrap().0, old);
}

#[test]
fn disk_when_it_shrank_then_growing_is_refused_and_its_size_stays() {
    for image in [Image::protected(LARGE, dif()), Image::new(LARGE)] {
        let store = image.open();
        set_len(&image, SMALL);
        assert!(matches!(store.grow(), Err(StoreError::Shrunk { found: SMALL, served: LARGE, .. })));
        assert_eq!(store.geometry().bytes, LARGE);
        set_len(&image, LARGE + 100);
        assert_eq!(store.grow().unwrap(), LARGE, "whole sectors only");
    }
}

#[test]
fn disk_without_pi_when_it_grows_under_a_queue_then_is_served_to_its_end() {
    let image = Image::new(SMALL);
    let store = image.open();
    let mut driver = Driver::new(&store);
    set_len(&image, LARGE);
    assert_eq!(store.grow().unwrap(), LARGE);
    driver.write(LARGE - 4096, &[9; 4096], 0, false).unwrap();
    assert_eq!(driver.read(LARGE - 4096, 4096).unwrap().0, [9; 4096]);
}

#[test]
fn disk_when_served_read_only_then_does_not_outgrow_its_sidecar() {
    let image = Image::protected(SMALL, dif());
    let mut spec = image.spec();
    spec.read_only = true;
    let store = open(&spec, "test").unwrap();
    set_len(&image, LARGE);
    assert!(matches!(store.grow(), Err(StoreError::ReadOnlyGrowth { .. })));
    assert_eq!(store.geometry().bytes, SMALL);
}

#[test]
fn image_when_resized_then_its_sidecar_covers_what_was_added_and_nothing_is_reported_at_attach() {
    for profile in [dif(), profile(Guard::Crc64Nvme, 4096, 255, 16)] {
        let image = Image::protected(12 << 12, profile);
        set_len(&image, LARGE);
        let report = image.open().attach_report().unwrap().to_string();
        assert!(report.contains("dixback image resize"), "{report}");
        // Opened and not closed: left as it was, in use.
        assert_eq!(resize(&options(&image)).unwrap(), Resized { before: 12 << 12, after: LARGE });
        assert_eq!(resize(&options(&image)).unwrap(), Resized { before: LARGE, after: LARGE });
        let store = image.open();
        assert_eq!(store.geometry().bytes, LARGE);
        let mut driver = Driver::new(&store);
        driver.write(LARGE - 8192, &[3; 8192], 0, false).unwrap();
        drop(driver);
        store.close().unwrap();
        drop(store);
        let (intervals, bad, unprotected) = scrubbed(&image);
        let written = 8192 / profile.interval() as u64;
        assert_eq!((intervals - written, bad), (unprotected, 0));
        set_len(&image, LARGE * 2);
        resize(&options(&image)).unwrap();
        assert!(image.open().attach_report().is_none(), "closed cleanly, and grown since");
    }
}

#[test]
fn image_when_it_shrank_or_is_in_use_then_is_not_resized() {
    let image = Image::protected(LARGE, dif());
    let store = image.open();
    let refused = resize(&options(&image)).unwrap_err();
    assert!(matches!(refused, ImageError::Store(StoreError::InUse { .. })), "{refused}");
    drop(store);
    set_len(&image, SMALL);
    let refused = resize(&options(&image)).unwrap_err();
    assert!(matches!(refused, ImageError::Store(StoreError::DataShorter { .. })), "{refused}");
}

#[test]
fn sidecar_when_the_disk_grows_into_bytes_it_holds_then_they_become_escapes() {
    let image = Image::protected(SMALL, dif());
    let end = std::fs::metadata(image.sidecar()).unwrap().len();
    crate::support::scribble(&image.sidecar(), end, &[0x5A; 9000]);
    set_len(&image, LARGE);
    resize(&options(&image)).unwrap();
    assert_eq!(scrubbed(&image), (LARGE / 512, 0, LARGE / 512));
}
