//! Block devices, as loop devices play them.

use crate::driver::Driver;
use crate::support::{Image, dif, profile, skip};
use dixback::image::{
    ProtectOptions, ReplayOptions, ResealOptions, ScrubOptions, protect, replay, reseal, scrub,
};
use dixback::store::{CrashMode, Keeper, PiSource, StoreSpec, open, probe, survey};
use integrity::Guard;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A loop device over an image.
struct Loop {
    path: PathBuf,
    _image: Image,
}

impl Loop {
    fn new(test: &str, bytes: u64, sector: u32) -> Option<Self> {
        Self::with(test, bytes, &["-b", &sector.to_string()])
    }

    fn with(test: &str, bytes: u64, options: &[&str]) -> Option<Self> {
        let image = Image::new(bytes);
        let output = Command::new("losetup").args(["--show", "-f"]).args(options).arg(&image.path).output();
        let reason = match output {
            Ok(output) if output.status.success() => {
                let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
                // blockdev --setro outlives losetup -d: whoever had this device before may have left it so.
                let _ = Command::new("blockdev").arg("--setrw").arg(&path).status();
                return Some(Self { path, _image: image });
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        skip(test, &format!("no loop device can be had: {reason}"));
        None
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("blockdev").arg("--setrw").arg(&self.path).status();
        let _ = Command::new("losetup").arg("-d").arg(&self.path).status();
    }
}

fn options(disk: &Path, sidecar: &Path) -> ProtectOptions {
    ProtectOptions {
        disk: disk.to_owned(),
        sidecar: Some(sidecar.to_owned()),
        profile: dif(),
        log: None,
        app_tag: 0,
        force: false,
        non_atomic: false,
    }
}

#[test]
fn device_when_served_without_pi_behaves_as_a_disk() {
    let Some(device) = Loop::new("device_when_served_without_pi_behaves_as_a_disk", 8 << 20, 4096) else {
        return;
    };
    let spec = StoreSpec::new(&device.path);
    let found = probe(&spec).unwrap();
    assert_eq!((found.geometry.bytes, found.geometry.logical_block), (8 << 20, 4096));
    let store = open(&spec, "device").unwrap();
    assert_eq!((store.geometry(), store.capabilities()), (found.geometry, found.capabilities));
    let refused = open(&spec, "second").err().unwrap().to_string();
    assert!(refused.contains("is in use by") && refused.contains("/dev/loop"), "{refused}");
    assert_eq!(probe(&spec).unwrap(), found, "a look is never refused");
    let mut driver = Driver::new(&store);
    driver.write(4096, &[7; 8192], 0, true).unwrap();
    if store.capabilities().discard.is_some() {
        driver.discard(4096, 4096).unwrap();
        assert_eq!(driver.read(4096, 4096).unwrap().0, [0; 4096]);
    }
    assert_eq!(driver.read(8192, 4096).unwrap().0, [7; 4096]);
    driver.flush().unwrap();
    drop(driver);
    store.close().unwrap();
    drop(store);
    open(&spec, "again").unwrap().close().unwrap();
}

#[test]
fn device_when_protected_by_a_sidecar_on_a_device_serves_and_scrubs() {
    let test = "device_when_protected_by_a_sidecar_on_a_device_serves_and_scrubs";
    let (Some(data), Some(pi)) = (Loop::new(test, 8 << 20, 512), Loop::new(test, 8 << 20, 512)) else {
        return;
    };
    let made = protect(&options(&data.path, &pi.path), &mut ()).unwrap();
    assert_eq!((made.intervals, made.sealed), (16384, 16384), "a device cannot tell its holes");
    let again = protect(&options(&data.path, &pi.path), &mut ()).unwrap_err().to_string();
    assert!(again.contains("--force"), "{again}");
    let spec = StoreSpec { pi: PiSource::Sidecar(pi.path.clone()), ..StoreSpec::new(&data.path) };
    let store = open(&spec, "domain 5 xvda (51712)").unwrap();
    assert_eq!(store.attach_report(), None);
    let refused = open(&spec, "second").err().unwrap().to_string();
    assert!(refused.contains("is in use by domain 5 xvda (51712)"), "{refused}");
    let mut driver = Driver::new(&store);
    driver.write(1 << 20, &[9; 1 << 20], 3, false).unwrap();
    if store.capabilities().discard.is_some() {
        driver.discard(4 << 20, 2 << 20).unwrap();
    }
    drop(driver);
    let discards = store.capabilities().discard.is_some();
    store.close().unwrap();
    drop(store);
    let scrub_options = ScrubOptions { disk: data.path.clone(), sidecar: Some(pi.path.clone()) };
    let found = scrub(&scrub_options, &mut ()).unwrap();
    assert_eq!((found.bad, found.unprotected), (0, if discards { 4096 } else { 0 }));
    // No times are kept of a device, so nothing looks changed.
    assert_eq!(open(&spec, "again").unwrap().attach_report(), None);
}

#[test]
fn device_when_its_sectors_are_larger_than_the_interval_has_its_own_sectors() {
    let test = "device_when_its_sectors_are_larger_than_the_interval_has_its_own_sectors";
    let Some(device) = Loop::new(test, 8 << 20, 4096) else { return };
    let folder = tempfile::tempdir().unwrap();
    let sidecar = folder.path().join("pi");
    protect(&options(&device.path, &sidecar), &mut ()).unwrap();
    let spec = StoreSpec { pi: PiSource::Sidecar(sidecar), ..StoreSpec::new(&device.path) };
    let store = open(&spec, "device").unwrap();
    assert_eq!(store.geometry().logical_block, 4096);
    let mut driver = Driver::new(&store);
    driver.write(4096, &[1; 4096], 0, false).unwrap();
    let (data, metadata) = driver.read(0, 12288).unwrap();
    assert!(dif().verify(&data, &metadata, &integrity::Expected::new(0)).is_ok());
}

#[test]
fn interval_when_it_is_a_part_of_a_devices_sector_can_be_resealed_alone() {
    let test = "interval_when_it_is_a_part_of_a_devices_sector_can_be_resealed_alone";
    let Some(device) = Loop::new(test, 1 << 20, 4096) else { return };
    let folder = tempfile::tempdir().unwrap();
    let sidecar = folder.path().join("pi");
    protect(&options(&device.path, &sidecar), &mut ()).unwrap();
    crate::support::scribble(&device.path, 39 * 512, b"rot");
    let (disk, sidecar) = (device.path.clone(), Some(sidecar));
    let range = Some("39".parse().unwrap());
    let done =
        reseal(&ResealOptions { disk: disk.clone(), sidecar: sidecar.clone(), range }, &mut ()).unwrap();
    assert_eq!((done.changed, done.unreadable), (1, 0));
    assert_eq!(scrub(&ScrubOptions { disk, sidecar }, &mut ()).unwrap().bad, 0);
}

#[test]
fn crash_when_blocks_of_metadata_begin_amid_a_devices_sector_is_made_good() {
    let test = "crash_when_blocks_of_metadata_begin_amid_a_devices_sector_is_made_good";
    for crash in [CrashMode::Log, CrashMode::Bitmap] {
        let Some(device) = Loop::new(test, 1 << 20, 4096) else { return };
        let folder = tempfile::tempdir().unwrap();
        let sidecar = folder.path().join("pi");
        // 204 entries a block.
        let profile = profile(Guard::Crc16T10Dif, 512, 20, 0);
        protect(&ProtectOptions { profile, ..options(&device.path, &sidecar) }, &mut ()).unwrap();
        let spec =
            StoreSpec { pi: PiSource::Sidecar(sidecar.clone()), crash, ..StoreSpec::new(&device.path) };
        let store = open(&spec, "device").unwrap();
        let mut driver = Driver::new(&store);
        driver.write(200 * 512, &[1; 4096], 0, false).unwrap();
        // As a killed daemon leaves it.
        let killed = std::fs::read(&sidecar).unwrap();
        drop(driver);
        drop(store);
        std::fs::write(&sidecar, killed).unwrap();
        let (disk, sidecar) = (device.path.clone(), Some(sidecar));
        let replayed = replay(&ReplayOptions { disk: disk.clone(), sidecar: sidecar.clone() }, &mut ());
        let done = replayed.unwrap().unwrap();
        assert_eq!((done.updated, done.lost.count, done.bad.count), (8, 0, 0), "{done}");
        assert_eq!(scrub(&ScrubOptions { disk, sidecar }, &mut ()).unwrap().bad, 0);
    }
}

#[test]
fn protect_when_a_device_writes_whole_blocks_allows_intervals_as_large() {
    let test = "protect_when_a_device_writes_whole_blocks_allows_intervals_as_large";
    let Some(device) = Loop::new(test, 8 << 20, 4096) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&device.path, &folder.path().join("pi"));
    options.profile = profile(Guard::Crc64Nvme, 4096, 16, 0);
    protect(&options, &mut ()).unwrap();
    options.profile = profile(Guard::Crc64Nvme, 8192, 16, 0);
    options.force = true;
    let text = protect(&options, &mut ()).unwrap_err().to_string();
    assert!(text.contains("8192") && text.contains("4096"), "{text}");
}

#[test]
fn protect_when_the_sidecars_device_is_used_or_too_small_is_refused() {
    let test = "protect_when_the_sidecars_device_is_used_or_too_small_is_refused";
    let Some(device) = Loop::new(test, 1 << 20, 512) else { return };
    let image = Image::new(8 << 20);
    let text = protect(&options(&image.path, &device.path), &mut ()).unwrap_err().to_string();
    assert!(text.contains("needs"), "{text}");
    std::fs::write(&device.path, b"something of value").unwrap();
    let text = protect(&options(&image.path, &device.path), &mut ()).unwrap_err().to_string();
    assert!(text.contains("--force"), "{text}");
}

#[test]
fn probe_when_a_device_takes_no_writes_refuses_a_writable_disk_and_not_a_reader() {
    let test = "probe_when_a_device_takes_no_writes_refuses_a_writable_disk_and_not_a_reader";
    let Some(device) = Loop::with(test, 1 << 20, &["-r"]) else { return };
    let spec = StoreSpec::new(&device.path);
    let text = probe(&spec).unwrap_err().to_string();
    assert!(text.contains("cannot be written") && text.contains("Read-only"), "{text}");
    let reader = StoreSpec { read_only: true, ..spec };
    probe(&reader).unwrap();
    open(&reader, "reader").unwrap().close().unwrap();
}

#[test]
fn device_when_it_keeps_no_pi_is_refused_where_that_is_asked_for_and_plain_elsewhere() {
    let test = "device_when_it_keeps_no_pi_is_refused_where_that_is_asked_for_and_plain_elsewhere";
    let Some(device) = Loop::new(test, 1 << 20, 512) else { return };
    let spec = StoreSpec::new(&device.path);
    assert_eq!(probe(&spec).unwrap().keeper, Keeper::Nobody);
    let asked = StoreSpec { pi: PiSource::Device, ..spec.clone() };
    for text in [probe(&asked).unwrap_err().to_string(), open(&asked, "device").err().unwrap().to_string()] {
        assert!(text.contains("keeps no PI") && text.contains("dixback probe"), "{text}");
    }
    let found = survey(&spec).unwrap();
    assert_eq!((found.kind, found.bytes, found.ways.len()), ("block device", 1 << 20, 2));
    assert!(found.ways.iter().all(|way| way.profile.is_none() && way.missing.is_some()), "{found:?}");
}
