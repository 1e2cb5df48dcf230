//! The tools: protect, scrub and reseal.

use crate::driver::Driver;
use crate::support::{Image, Numbers, dif, profile, scribble};
use dixback::image::{
    BadInterval, Fault, ImageError, IntervalRange, Observer, ResealOptions, Resealed, ScrubOptions, Scrubbed,
    protect, reseal, scrub,
};
use dixback::store::{StoreSpec, open};
use integrity::{Expected, Guard, PiType, Profile, ProfileSpec, Tag};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// Keeps what it is told.
#[derive(Default)]
struct Notes {
    bad: Vec<BadInterval>,
    progress: Vec<(u64, u64)>,
}

impl Observer for Notes {
    fn progress(&mut self, done: u64, total: u64) {
        self.progress.push((done, total));
    }

    fn bad(&mut self, interval: &BadInterval) {
        self.bad.push(*interval);
    }
}

fn run_scrub(image: &Image) -> (Scrubbed, Notes) {
    let mut notes = Notes::default();
    let options = ScrubOptions { disk: image.path.clone(), sidecar: None };
    (scrub(&options, &mut notes).unwrap(), notes)
}

fn run_reseal(image: &Image, range: Option<&str>) -> (Resealed, Notes) {
    let mut notes = Notes::default();
    let range = range.map(|text| text.parse::<IntervalRange>().unwrap());
    let options = ResealOptions { disk: image.path.clone(), sidecar: None, range };
    (reseal(&options, &mut notes).unwrap(), notes)
}

/// An image with data in some places, protected afterwards.
fn with_data(profile: Profile) -> (Image, Vec<u8>) {
    let image = Image::new(12 << 20);
    let data = Numbers(9).bytes(3 << 20);
    image.scribble(0, &data[..1 << 20]);
    image.scribble(5 << 20, &data[1 << 20..]);
    image.protect(profile);
    (image, data)
}

#[test]
fn protect_when_the_image_has_data_and_holes_seals_the_one_and_leaves_the_other() {
    for profile in [
        dif(),
        profile(Guard::Ip, 512, 24, 16),
        profile(Guard::Crc64Nvme, 4096, 16, 0),
        profile(Guard::Ip, 65536, 8, 0),
    ] {
        let (image, data) = with_data(profile);
        let (found, notes) = run_scrub(&image);
        let interval = profile.interval() as u64;
        assert_eq!((found.intervals, found.bad), ((12 << 20) / interval, 0));
        assert_eq!(found.unprotected, (9 << 20) / interval);
        assert_eq!(notes.progress.last(), Some(&(12 << 20, 12 << 20)));
        assert!(notes.progress.is_sorted());
        let thin = std::fs::metadata(image.sidecar()).unwrap();
        assert!(thin.blocks() * 512 < thin.size() / 2, "{} of {}", thin.blocks() * 512, thin.size());
        let store = image.open();
        assert_eq!(store.attach_report(), None);
        let mut driver = Driver::new(&store);
        let (found, metadata) = driver.read(5 << 20, 1 << 20).unwrap();
        assert!(found == data[1 << 20..2 << 20]);
        let expected = Expected::new((5 << 20) / interval);
        assert_eq!(profile.verify(&found, &metadata, &expected).unwrap().escaped, 0);
    }
}

#[test]
fn protect_when_type_3_leaves_the_reference_tag_to_the_guest() {
    let spec = ProfileSpec { pi_type: PiType::Type3, ..dif().spec() };
    let (image, _) = with_data(Profile::new(spec).unwrap());
    assert_eq!(run_scrub(&image).0, Scrubbed { intervals: 24576, bad: 0, unprotected: 18432 });
    image.scribble(700, b"x");
    assert_eq!(run_reseal(&image, None).0.changed, 1);
    assert_eq!(run_scrub(&image).0.bad, 0);
}

#[test]
fn protect_when_a_sidecar_exists_is_refused_unless_forced() {
    let image = Image::protected(1 << 20, dif());
    let before = std::fs::read(image.sidecar()).unwrap();
    let error = protect(&image.options(dif()), &mut ()).unwrap_err();
    assert!(matches!(error, ImageError::Exists { .. }), "{error}");
    assert!(error.to_string().contains("disk.img.pi") && error.to_string().contains("--force"), "{error}");
    assert_eq!(std::fs::read(image.sidecar()).unwrap(), before);
    let mut options = image.options(profile(Guard::Ip, 512, 8, 0));
    options.force = true;
    protect(&options, &mut ()).unwrap();
    assert_eq!(image.open().capabilities().profile.unwrap().guard(), Guard::Ip);
    let names: Vec<_> = std::fs::read_dir(image.path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 2, "nothing temporary is left: {names:?}");
}

#[test]
fn protect_when_the_image_has_a_mode_gives_it_to_the_sidecar() {
    let image = Image::new(1 << 20);
    std::fs::set_permissions(&image.path, std::fs::Permissions::from_mode(0o640)).unwrap();
    image.protect(dif());
    assert_eq!(std::fs::metadata(image.sidecar()).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn protect_when_the_interval_is_larger_than_what_is_written_whole_is_refused_unless_accepted() {
    let image = Image::new(1 << 20);
    let mut options = image.options(profile(Guard::Crc16T10Dif, 65536, 8, 0));
    options.non_atomic = false;
    let text = protect(&options, &mut ()).unwrap_err().to_string();
    assert!(text.contains("65536") && text.contains("--interval") && text.contains("--non-atomic"), "{text}");
    assert!(!image.sidecar().exists());
    options.non_atomic = true;
    protect(&options, &mut ()).unwrap();
}

#[test]
fn protect_when_the_size_is_no_whole_number_of_intervals_is_refused() {
    let image = Image::new((1 << 20) + 512);
    let text = protect(&image.options(profile(Guard::Ip, 4096, 8, 0)), &mut ()).unwrap_err().to_string();
    assert!(text.contains("4096-byte intervals") && text.contains("truncate -s %4096"), "{text}");
}

#[test]
fn tools_when_a_daemon_serves_the_disk_are_refused_by_its_name() {
    let image = Image::protected(1 << 20, dif());
    let store = open(&image.spec(), "domain 7 xvdb (51728)").unwrap();
    let disk = image.path.clone();
    let refused = [
        scrub(&ScrubOptions { disk: disk.clone(), sidecar: None }, &mut ()).unwrap_err().to_string(),
        reseal(&ResealOptions { disk, sidecar: None, range: None }, &mut ()).unwrap_err().to_string(),
        protect(&image.options(dif()), &mut ()).unwrap_err().to_string(),
    ];
    for text in refused {
        assert!(text.contains("domain 7 xvdb (51728)") && text.contains("disk.img"), "{text}");
    }
    drop(store);
    run_scrub(&image);
    // Readers may have it open meanwhile.
    let store = open(&StoreSpec { read_only: true, ..image.spec() }, "reader").unwrap();
    run_scrub(&image);
    drop(store);
}

#[test]
fn scrub_when_one_byte_changed_finds_it_and_reseal_heals_it() {
    for profile in [dif(), profile(Guard::Crc64Nvme, 512, 32, 8), profile(Guard::Ip, 4096, 8, 0)] {
        let (image, mut data) = with_data(profile);
        // Somewhere in the second megabyte's chunk, not at a border of anything.
        let at = (6 << 20) + 777;
        data[(1 << 20) + (1 << 20) + 777] ^= 0x40;
        image.scribble(at, &data[(2 << 20) + 777..][..1]);
        let (found, notes) = run_scrub(&image);
        let interval = profile.interval() as u64;
        let [bad] = notes.bad[..] else { panic!("{:?}", notes.bad) };
        assert_eq!((found.bad, bad.number, bad.offset), (1, at / interval, at / interval * interval));
        assert!(
            matches!(bad.fault, Fault::Mismatch { tag: Tag::Guard, expected, actual } if expected != actual)
        );
        let text = bad.to_string();
        assert!(
            text.starts_with(&format!("interval {} at byte {}: guard", bad.number, bad.offset)),
            "{text}"
        );
        assert_eq!(run_scrub(&image).1.bad, [bad], "a scrub changes nothing");

        let before = std::fs::read(&image.path).unwrap();
        let (resealed, notes) = run_reseal(&image, None);
        assert_eq!((resealed.changed, resealed.unreadable), (1, 0));
        assert_eq!(notes.bad, [bad], "what is changed is listed");
        assert_eq!(resealed.unprotected, (9 << 20) / interval, "escapes stay");
        assert!(std::fs::read(&image.path).unwrap() == before, "the data is never touched");
        assert_eq!(run_scrub(&image).0.bad, 0);
        assert_eq!(image.open().attach_report(), None, "all was seen: it counts as closed cleanly");
    }
}

#[test]
fn scrub_when_tags_are_wrong_names_them_and_reseal_keeps_the_application_tag() {
    let image = Image::protected(1 << 20, dif());
    let store = image.open();
    let mut driver = Driver::new(&store);
    driver.write(0, &[5; 8192], 0x1234, false).unwrap();
    drop(driver);
    store.close().unwrap();
    drop(store);
    // Interval 3's reference tag, and interval 7's guard; bytes lie inverted.
    scribble(&image.sidecar(), (1 << 20) + 3 * 8 + 7, &[!9]);
    scribble(&image.sidecar(), (1 << 20) + 7 * 8, &[!0xEE, !0xEE]);
    let (_, notes) = run_scrub(&image);
    let found: Vec<_> = notes.bad.iter().map(|bad| (bad.number, bad.fault)).collect();
    assert_eq!(found[0], (3, Fault::Mismatch { tag: Tag::Reference, expected: 3, actual: 9 }));
    assert!(matches!(found[1], (7, Fault::Mismatch { tag: Tag::Guard, actual: 0xEEEE, .. })));
    assert_eq!(run_reseal(&image, None).0.changed, 2);
    let store = image.open();
    let mut driver = Driver::new(&store);
    let (data, metadata) = driver.read(0, 8192).unwrap();
    assert!(dif().verify(&data, &metadata, &Expected::new(0)).is_ok());
    assert!(metadata.chunks(8).all(|entry| dif().tuple(entry).application == 0x1234));
}

#[test]
fn reseal_when_a_range_is_given_touches_nothing_else_and_promises_nothing_else() {
    let (image, _) = with_data(dif());
    drop(image.open());
    for interval in [10, 20, 30] {
        image.scribble(interval * 512, b"outside");
    }
    let (resealed, notes) = run_reseal(&image, Some("bytes:10K..15K"));
    assert_eq!((resealed.intervals, resealed.changed), (10, 1));
    assert_eq!(notes.bad[0].number, 20);
    let left: Vec<_> = run_scrub(&image).1.bad.iter().map(|bad| bad.number).collect();
    assert_eq!(left, [10, 30]);
    let store = image.open();
    assert!(store.attach_report().unwrap().unclean.is_some());
    drop(store);
    run_reseal(&image, Some("10"));
    run_reseal(&image, Some("11..31"));
    assert_eq!(run_scrub(&image).0.bad, 0);
    let options = |text: &str| ResealOptions {
        disk: image.path.clone(),
        sidecar: None,
        range: Some(text.parse().unwrap()),
    };
    let error = reseal(&options("0..24577"), &mut ()).unwrap_err();
    assert!(matches!(error, ImageError::Range { end: 24577, intervals: 24576, .. }), "{error}");
}

#[test]
fn scrub_when_the_sidecar_has_another_name_is_told_it() {
    let image = Image::new(1 << 20);
    let other = image.path.with_extension("other");
    let mut options = image.options(dif());
    options.sidecar = Some(other.clone());
    assert_eq!(protect(&options, &mut ()).unwrap().sidecar, other);
    let missing = ScrubOptions { disk: image.path.clone(), sidecar: None };
    let text = scrub(&missing, &mut ()).unwrap_err().to_string();
    assert!(text.contains("dixback image protect"), "{text}");
    let found = scrub(&ScrubOptions { sidecar: Some(other), ..missing }, &mut ()).unwrap();
    assert_eq!(found, Scrubbed { intervals: 2048, bad: 0, unprotected: 2048 });
}

#[test]
fn protect_when_told_how_large_the_log_is_to_be_makes_it_so_and_never_too_small() {
    for (asked, made) in [(1, 64 << 10), (100_000, 102_400)] {
        let image = Image::new(1 << 20);
        let mut options = image.options(dif());
        options.log = Some(asked);
        protect(&options, &mut ()).unwrap();
        // Both headers before it, four blocks of metadata behind it.
        let length = std::fs::metadata(image.sidecar()).unwrap().len();
        assert_eq!(length, (64 << 10) + made + 4 * 4096);
        let store = image.open();
        let mut driver = Driver::new(&store);
        // Several times round.
        for number in 0..100 {
            driver.write(number % 2 * (512 << 10), &[number as u8; 512 << 10], 1, number % 10 == 0).unwrap();
        }
        drop(driver);
        store.close().unwrap();
        drop(store);
        run_scrub(&image);
    }
}
