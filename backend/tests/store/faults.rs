//! Media that fail or cannot do everything: the errno reaches the request, and what was written before stays right.

use crate::driver::Driver;
use crate::support::{Image, dif, skip};
use dixback::image::{ScrubOptions, protect, scrub};
use dixback::store::{CrashMode, Direct, Errno, PiSource, StoreSpec, open};
use integrity::Expected;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system mounted for a test.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(test: &str, kind: &str, options: &str) -> Option<Self> {
        Self::of(test, kind, options, Path::new(kind))
    }

    fn of(test: &str, kind: &str, options: &str, what: &Path) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let output =
            Command::new("mount").args(["-t", kind, "-o", options]).arg(what).arg(folder.path()).output();
        match output {
            Ok(output) if output.status.success() => Some(Self(folder)),
            Ok(output) => {
                skip(
                    test,
                    &format!("no {kind} can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim()),
                );
                None
            }
            Err(error) => {
                skip(test, &format!("mount cannot be run: {error}"));
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(self.path()).status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a test that failed may have files open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// A sidecar for the image at that path.
fn protect_at(image: &Image, sidecar: PathBuf) -> StoreSpec {
    let mut options = image.options(dif());
    options.sidecar = Some(sidecar.clone());
    protect(&options, &mut ()).unwrap();
    StoreSpec { pi: PiSource::Sidecar(sidecar), ..image.spec() }
}

#[test]
fn write_when_the_data_has_no_room_fails_and_the_old_pi_stays() {
    let test = "write_when_the_data_has_no_room_fails_and_the_old_pi_stays";
    let Some(mount) = Mount::new(test, "tmpfs", "size=256k") else { return };
    let path = mount.path().join("disk.img");
    File::create(&path).unwrap().set_len(8 << 20).unwrap();
    let sidecar = tempfile::tempdir().unwrap();
    let mut options = Image::new(512).options(dif());
    (options.disk, options.sidecar) = (path.clone(), Some(sidecar.path().join("pi")));
    protect(&options, &mut ()).unwrap();
    let pi = PiSource::Sidecar(options.sidecar.clone().unwrap());
    let store = open(&StoreSpec { pi, ..StoreSpec::new(&path) }, "full").unwrap();
    let mut driver = Driver::new(&store);
    driver.write(0, &[1; 64 << 10], 1, false).unwrap();
    assert_eq!(driver.write(1 << 20, &[2; 1 << 20], 2, false), Err(Errno(libc::ENOSPC)));
    // A page that could not be had is a hole, and its escapes stand; what was there before is as it was.
    let (data, metadata) = driver.read((1 << 20) + (512 << 10), 64 << 10).unwrap();
    assert_eq!(dif().verify(&data, &metadata, &Expected::new(3072)).unwrap().escaped, 128);
    let (data, metadata) = driver.read(0, 64 << 10).unwrap();
    assert_eq!(dif().verify(&data, &metadata, &Expected::new(0)).unwrap().escaped, 0);
    // Room again: the same write goes through.
    mount.remount("size=16m");
    driver.write(1 << 20, &[2; 1 << 20], 2, true).unwrap();
    drop(driver);
    store.close().unwrap();
    drop(store);
    assert_eq!(scrub(&ScrubOptions { disk: path, sidecar: options.sidecar }, &mut ()).unwrap().bad, 0);
}

/// A loop device over a file, which may have less room than the device has bytes.
struct Loop(PathBuf);

impl Loop {
    fn new(test: &str, file: &Path) -> Option<Self> {
        let reason = match Command::new("losetup").args(["--show", "-f"]).arg(file).output() {
            Ok(output) if output.status.success() => {
                return Some(Self(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())));
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
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

#[test]
fn recovery_when_the_cache_holds_what_the_medium_never_took_goes_by_the_medium() {
    let test = "recovery_when_the_cache_holds_what_the_medium_never_took_goes_by_the_medium";
    let Some(room) = Mount::new(test, "tmpfs", "size=4m") else { return };
    let file = room.path().join("device");
    File::create(&file).unwrap().set_len(16 << 20).unwrap();
    let Some(device) = Loop::new(test, &file) else { return };
    match Command::new("mkfs.ext4").args(["-q", "-O", "^has_journal"]).arg(&device.0).output() {
        Ok(output) if output.status.success() => {}
        _ => return skip(test, "mkfs.ext4 cannot be run"),
    }
    let Some(mount) = Mount::of(test, "ext4", "errors=continue", &device.0) else { return };
    let path = mount.path().join("disk.img");
    File::create(&path).unwrap().set_len(8 << 20).unwrap();
    let sidecar = tempfile::tempdir().unwrap();
    let mut options = Image::new(512).options(dif());
    (options.disk, options.sidecar) = (path.clone(), Some(sidecar.path().join("pi")));
    protect(&options, &mut ()).unwrap();
    let pi = PiSource::Sidecar(options.sidecar.clone().unwrap());
    let spec = StoreSpec { pi, direct: Direct::Off, ..StoreSpec::new(&path) };
    let store = open(&spec, "full").unwrap();
    let mut driver = Driver::new(&store);
    driver.write(0, &[1; 64 << 10], 1, true).unwrap();
    // No room any more for what is written from now on.
    let filler = std::fs::write(room.path().join("filler"), vec![0; 4 << 20]);
    assert!(filler.is_err(), "there was room for it");
    driver.write(4 << 20, &[2; 64 << 10], 2, false).unwrap();
    assert!(driver.flush().is_err());
    drop(driver);
    drop(store);
    let store = open(&spec, "after").unwrap();
    let done = store.attach_report().unwrap().recovered.clone().unwrap();
    assert_eq!((done.lost.count, done.bad.count), (0, 0), "{done}");
    store.close().unwrap();
    drop(store);
    // Some time later.
    rustix::fs::fadvise(File::open(&path).unwrap(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert_eq!(scrub(&ScrubOptions { disk: path, sidecar: options.sidecar }, &mut ()).unwrap().bad, 0);
}

#[test]
fn flush_when_a_durable_write_was_told_of_what_others_lost_fails_too() {
    let test = "flush_when_a_durable_write_was_told_of_what_others_lost_fails_too";
    let Some(mount) = Mount::new(test, "tmpfs", "size=1m") else { return };
    let path = mount.path().join("disk.img");
    File::create(&path).unwrap().set_len(8 << 20).unwrap();
    // Its cache takes more than there is room for.
    let Some(device) = Loop::new(test, &path) else { return };
    let store = open(&StoreSpec { direct: Direct::Off, ..StoreSpec::new(&device.0) }, "full").unwrap();
    let mut driver = Driver::new(&store);
    driver.write(0, &[1; 64 << 10], 0, true).unwrap();
    driver.write(4 << 20, &[2; 2 << 20], 0, false).unwrap();
    // Written back behind the store's back, as the kernel does some time.
    assert!(
        File::options().write(true).open(&device.0).unwrap().sync_data().is_err(),
        "there was room for it"
    );
    let failed = driver.write(0, &[3; 4096], 0, true);
    let flushed = driver.flush();
    drop(driver);
    assert_eq!((failed, flushed), (Err(Errno(libc::EIO)), Err(Errno(libc::EIO))));
}

#[test]
fn flush_when_the_sidecar_has_no_room_fails_until_it_has() {
    let test = "flush_when_the_sidecar_has_no_room_fails_until_it_has";
    let Some(mount) = Mount::new(test, "tmpfs", "size=64k") else { return };
    let image = Image::new(64 << 20);
    let crash = CrashMode::Off;
    let spec = StoreSpec { cache_bytes: 1, crash, ..protect_at(&image, mount.path().join("pi")) };
    let store = open(&spec, "full").unwrap();
    let mut driver = Driver::new(&store);
    for at in 0..12 {
        driver.write(at * (256 << 10), &[at as u8; 256 << 10], 0, false).unwrap();
    }
    let failed = driver.flush();
    assert!(failed.is_ok() || failed == Err(Errno(libc::ENOSPC)));
    // More sidecar blocks than the cache has frames, and no room to write any: some writes cannot be had.
    let mut refused = 0;
    for at in 12..40 {
        match driver.write(at * (256 << 10), &[at as u8; 256 << 10], 0, false) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, Errno(libc::ENOSPC));
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    assert_eq!(driver.flush(), Err(Errno(libc::ENOSPC)));
    let (data, metadata) = driver.read(0, 4096).unwrap();
    assert_eq!(dif().verify(&data, &metadata, &Expected::new(0)).unwrap().escaped, 0);

    mount.remount("size=16m");
    driver.flush().unwrap();
    for at in 0..40 {
        driver.write(at * (256 << 10), &[at as u8; 256 << 10], 0, false).unwrap();
    }
    drop(driver);
    store.close().unwrap();
    drop(store);
    let PiSource::Sidecar(sidecar) = spec.pi else { unreachable!() };
    let found = scrub(&ScrubOptions { disk: image.path.clone(), sidecar: Some(sidecar) }, &mut ()).unwrap();
    assert_eq!((found.bad, found.intervals - found.unprotected), (0, 40 * 512));
}

#[test]
fn write_when_the_log_has_no_room_on_its_disk_fails_and_changes_nothing_until_it_has() {
    let test = "write_when_the_log_has_no_room_on_its_disk_fails_and_changes_nothing_until_it_has";
    let Some(mount) = Mount::new(test, "tmpfs", "size=64k") else { return };
    let image = Image::new(16 << 20);
    let spec = protect_at(&image, mount.path().join("pi"));
    let store = open(&spec, "full").unwrap();
    let mut driver = Driver::new(&store);
    let mut written = 0;
    while driver.write(written * (64 << 10), &[1; 64 << 10], 0, false).is_ok() {
        written += 1;
        assert!(written < 64, "so much does not fit");
    }
    for _ in 0..3 {
        assert_eq!(driver.write(0, &[2; 4096], 0, false), Err(Errno(libc::ENOSPC)));
    }
    let (data, metadata) = driver.read(0, 4096).unwrap();
    assert_eq!(data, [1; 4096]);
    assert_eq!(dif().verify(&data, &metadata, &Expected::new(0)).unwrap().escaped, 0);
    mount.remount("size=16m");
    driver.write(0, &[2; 4096], 0, true).unwrap();
    driver.discard(4096, 4096).unwrap();
    drop(driver);
    store.close().unwrap();
    drop(store);
    let PiSource::Sidecar(sidecar) = spec.pi else { unreachable!() };
    let found = scrub(&ScrubOptions { disk: image.path.clone(), sidecar: Some(sidecar) }, &mut ()).unwrap();
    assert_eq!((found.bad, found.intervals - found.unprotected), (0, written * 128 - 8));
}

#[test]
fn request_when_the_sidecar_was_cut_off_meanwhile_fails_and_others_do_not() {
    let image = Image::protected(8 << 20, dif());
    let store = open(&StoreSpec { cache_bytes: 1, ..image.spec() }, "cut").unwrap();
    let mut driver = Driver::new(&store);
    driver.write(0, &[1; 4096], 1, true).unwrap();
    let sidecar = File::options().write(true).open(image.sidecar()).unwrap();
    let length = sidecar.metadata().unwrap().size();
    sidecar.set_len((1 << 20) + 4096).unwrap();
    assert_eq!(driver.read(4 << 20, 4096).unwrap_err(), Errno(libc::EIO));
    assert_eq!(driver.write(4 << 20, &[2; 512], 2, false), Err(Errno(libc::EIO)));
    assert!(driver.read(0, 4096).is_ok());
    sidecar.set_len(length).unwrap();
    // What cannot be had of the sidecar is known before the data is touched.
    let (data, metadata) = driver.read(4 << 20, 512).unwrap();
    assert_eq!((data, dif().is_escaped(&metadata)), (vec![0; 512], true));
    driver.write(4 << 20, &[2; 512], 2, false).unwrap();
    drop(driver);
    store.close().unwrap();
}

#[test]
fn read_when_the_data_was_cut_off_meanwhile_fails() {
    for direct in [Direct::Auto, Direct::Off] {
        let image = Image::new(8 << 20);
        let store = open(&StoreSpec { direct, ..image.spec() }, "cut").unwrap();
        let mut driver = Driver::new(&store);
        File::options().write(true).open(&image.path).unwrap().set_len(1 << 20).unwrap();
        assert_eq!(driver.read(4 << 20, 4096).unwrap_err(), Errno(libc::EIO));
        assert_eq!(driver.read((1 << 20) - 4096, 8192).unwrap_err(), Errno(libc::EIO));
        assert!(driver.read(0, 4096).is_ok());
    }
}

#[test]
fn discard_when_the_sidecar_cannot_have_holes_leaves_escapes_all_the_same() {
    let test = "discard_when_the_sidecar_cannot_have_holes_leaves_escapes_all_the_same";
    // ramfs knows no fallocate.
    let Some(mount) = Mount::new(test, "ramfs", "mode=0700") else { return };
    for cache in [1, 1 << 20] {
        let image = Image::new(16 << 20);
        let spec =
            StoreSpec { cache_bytes: cache, ..protect_at(&image, mount.path().join(format!("pi-{cache}"))) };
        let store = open(&spec, "ramfs").unwrap();
        let mut driver = Driver::new(&store);
        for at in 0..16 {
            driver.write(at << 20, &[3; 1 << 20], 0, false).unwrap();
        }
        driver.flush().unwrap();
        driver.discard(512, (16 << 20) - 1024).unwrap();
        drop(driver);
        store.close().unwrap();
        drop(store);
        let PiSource::Sidecar(sidecar) = spec.pi else { unreachable!() };
        let found =
            scrub(&ScrubOptions { disk: image.path.clone(), sidecar: Some(sidecar) }, &mut ()).unwrap();
        assert_eq!((found.bad, found.intervals - found.unprotected), (0, 2));
    }
}

#[test]
fn discard_when_the_data_cannot_have_holes_is_not_supported_and_changes_nothing() {
    let test = "discard_when_the_data_cannot_have_holes_is_not_supported_and_changes_nothing";
    let Some(mount) = Mount::new(test, "ramfs", "mode=0700") else { return };
    let path = mount.path().join("disk.img");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let mut options = Image::new(512).options(dif());
    options.disk = path.clone();
    protect(&options, &mut ()).unwrap();
    let store = open(&StoreSpec::new(&path), "ramfs").unwrap();
    let mut driver = Driver::new(&store);
    driver.write(0, &[3; 4096], 0, false).unwrap();
    assert_eq!(driver.discard(0, 1 << 20), Err(Errno(libc::EOPNOTSUPP)));
    let (data, metadata) = driver.read(0, 4096).unwrap();
    assert_eq!(dif().verify(&data, &metadata, &Expected::new(0)).unwrap().escaped, 0);
}
