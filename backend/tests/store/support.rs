//! What the tests share: images with sidecars, and tests that cannot run here.

use dixback::image::{ProtectOptions, protect};
use dixback::store::{Store, StoreSpec, open};
use integrity::{Guard, PiType, Profile, ProfileSpec};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

pub const OWNER: &str = "domain 3 xvda (51712)";

pub fn profile(guard: Guard, interval: u32, metadata_size: u16, pi_offset: u8) -> Profile {
    let spec = ProfileSpec { guard, interval, metadata_size, pi_offset, tag_size: 2, pi_type: PiType::Type1 };
    Profile::new(spec).unwrap()
}

pub fn dif() -> Profile {
    profile(Guard::Crc16T10Dif, 512, 8, 0)
}

/// An image in a folder of its own.
pub struct Image {
    _folder: TempDir,
    pub path: PathBuf,
}

impl Image {
    /// A sparse image without PI.
    pub fn new(bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        File::create(&path).unwrap().set_len(bytes).unwrap();
        Self { _folder: folder, path }
    }

    /// A sparse image with a sidecar.
    pub fn protected(bytes: u64, profile: Profile) -> Self {
        let image = Self::new(bytes);
        image.protect(profile);
        image
    }

    pub fn options(&self, profile: Profile) -> ProtectOptions {
        ProtectOptions {
            disk: self.path.clone(),
            sidecar: None,
            profile,
            log: None,
            app_tag: 0,
            force: false,
            non_atomic: true,
        }
    }

    pub fn protect(&self, profile: Profile) {
        protect(&self.options(profile), &mut ()).unwrap();
    }

    pub fn sidecar(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".pi");
        path.into()
    }

    pub fn spec(&self) -> StoreSpec {
        StoreSpec::new(&self.path)
    }

    pub fn open(&self) -> Arc<dyn Store> {
        open(&self.spec(), OWNER).unwrap()
    }

    /// Changes the data behind the store's back.
    pub fn scribble(&self, offset: u64, bytes: &[u8]) {
        scribble(&self.path, offset, bytes);
    }
}

pub fn scribble(path: &Path, offset: u64, bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// Says that a test cannot run here.
pub fn skip(name: &str, reason: &str) {
    eprintln!("SKIPPED {name}: {reason}");
    if let Some(path) = std::env::var_os("DIXBACK_SKIP_LOG") {
        let mut log = File::options().create(true).append(true).open(path).unwrap();
        writeln!(log, "SKIPPED {name}: {reason}").unwrap();
    }
}

/// Numbers that look random and are the same every time.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 24
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
