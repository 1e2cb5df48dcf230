//! What a device serves, in a file of its own below the run directory, which its server keeps locked.
//!
//! A device outlives its server: who takes it over must serve the same disk, and the kernel knows nothing of disks. The
//! files go with the devices, at the latest when the machine goes down.
#![forbid(unsafe_code)]

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the files are.
pub(super) const FOLDER: &str = "/run/dixback/ublk";

/// What a device serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The target with its keys, the path absolute.
    pub target: String,
    /// `--read-only`.
    pub read_only: bool,
    /// The device's mark: a number says nothing, for it may be another device's by now.
    #[serde(default)]
    pub mark: u64,
    /// The kernel that the device lives in: a file left over by another says nothing of this one's devices.
    pub boot: String,
}

/// A device's file, locked. The lock goes with it.
#[derive(Debug)]
pub(super) struct Claim {
    file: File,
    path: PathBuf,
}

impl Claim {
    /// Takes a device's file, which is made if there is none. None: a server has it.
    pub fn take(folder: &Path, device: u32) -> io::Result<Option<Self>> {
        // Nobody else may lock what is in it.
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = folder.join(format!("{device}.toml"));
        loop {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            // Its last owner may have removed it between the two calls: then this one is nobody's.
            let named = std::fs::metadata(&path).map(|named| (named.dev(), named.ino())).ok();
            let mine = file.metadata()?;
            if named == Some((mine.dev(), mine.ino())) {
                return Ok(Some(Self { file, path }));
            }
        }
    }

    /// Takes a device's file and writes `record` into it. Its last owner may hold it for a moment after the device is
    /// gone: that is waited for. None: it is held for longer than `patience`.
    pub fn make(folder: &Path, device: u32, record: &Record, patience: Duration) -> io::Result<Option<Self>> {
        let since = Instant::now();
        loop {
            if let Some(mut claim) = Self::take(folder, device)? {
                claim.write(record)?;
                return Ok(Some(claim));
            }
            if since.elapsed() >= patience {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the file says, if it is of this boot and of the device with this mark.
    pub fn record(&mut self, mark: u64) -> io::Result<Option<Record>> {
        let mut text = String::new();
        self.file.rewind()?;
        self.file.read_to_string(&mut text)?;
        Ok(parse(&text, mark))
    }

    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let text = toml::to_string(record).map_err(io::Error::other)?;
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())
    }

    /// The device is gone.
    pub fn forget(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

impl Record {
    pub fn new(target: &str, read_only: bool, mark: u64) -> Self {
        Self { target: target.to_owned(), read_only, mark, boot: boot() }
    }
}

/// A mark that no other device has. TOML has no numbers above 2^63.
pub(super) fn new_mark() -> u64 {
    RandomState::new().build_hasher().finish() >> 1 | 1
}

/// What the file of the device with this number and mark says, without a claim on it.
pub(super) fn look(folder: &Path, device: u32, mark: u64) -> Option<Record> {
    parse(&std::fs::read_to_string(folder.join(format!("{device}.toml"))).ok()?, mark)
}

fn parse(text: &str, mark: u64) -> Option<Record> {
    toml::from_str(text).ok().filter(|record: &Record| record.boot == boot() && record.mark == mark)
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_when_held_is_refused_and_after_it_is_given_back_finds_the_record() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record::new("/srv/a b.img?queues=2", true, 7);
        let mut claim = Claim::take(folder.path(), 3).unwrap().unwrap();
        assert_eq!(claim.record(7).unwrap(), None);
        claim.write(&Record::new("/a/longer/target/than/the/second", false, 1 << 62)).unwrap();
        claim.write(&record).unwrap();
        assert!(Claim::take(folder.path(), 3).unwrap().is_none());
        assert_eq!(look(folder.path(), 3, 7).as_ref(), Some(&record));
        drop(claim);
        let mut claim = Claim::take(folder.path(), 3).unwrap().unwrap();
        assert_eq!(claim.record(8).unwrap(), None, "of another device");
        assert_eq!(claim.record(7).unwrap(), Some(record));
        claim.forget().unwrap();
        assert_eq!(look(folder.path(), 3, 7), None);
    }

    #[test]
    fn claim_when_its_last_owner_is_about_to_forget_it_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let make = |record: &Record, patience| Claim::make(folder.path(), 3, record, patience).unwrap();
        let first = make(&Record::new("/a", false, 1), Duration::ZERO).unwrap();
        let second = Record::new("/b", false, 2);
        assert!(make(&second, Duration::ZERO).is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| make(&second, Duration::MAX).unwrap());
            first.forget().unwrap();
            let mut claim = waiting.join().unwrap();
            assert_eq!(claim.record(2).unwrap().as_ref(), Some(&second));
        });
        assert_eq!(look(folder.path(), 3, 2), Some(second));
    }

    #[test]
    fn record_when_of_another_boot_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let old = Record { boot: "another".to_owned(), ..Record::new("/a", false, 7) };
        Claim::take(folder.path(), 0).unwrap().unwrap().write(&old).unwrap();
        assert_eq!(look(folder.path(), 0, 7), None);
    }

    #[test]
    fn mark_when_made_is_another_each_time_and_fits_a_file() {
        let marks = [new_mark(), new_mark(), new_mark()];
        assert!(marks.iter().all(|mark| *mark != 0 && i64::try_from(*mark).is_ok()), "{marks:?}");
        assert!(marks[0] != marks[1] && marks[1] != marks[2], "{marks:?}");
    }
}
