//! The one-writer lock: flock on the file itself, exclusive for a writer and shared for readers.
//!
//! flock belongs to the open file, so two stores of one process exclude each other as two processes do. It is only
//! taken without waiting, but for a holder that has ended: whoever is refused is told who holds it.
#![forbid(unsafe_code)]

use crate::store::StoreError;
use rustix::fs::{FlockOperation, fstat, major, minor};
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// What a store does to its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads, beside other readers.
    Shared,
    /// Reads and writes, alone.
    Exclusive,
}

/// Takes the lock. `owner` may know a better name of the present holder, whose process the kernel may know.
pub(crate) fn lock(
    file: &File,
    path: &Path,
    access: Access,
    owner: impl FnOnce(Option<u32>) -> Option<String>,
) -> Result<(), StoreError> {
    let operation = match access {
        Access::Shared => FlockOperation::NonBlockingLockShared,
        Access::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    let mut patience = 20;
    let (result, process) = loop {
        match rustix::fs::flock(file, operation) {
            Err(Errno::WOULDBLOCK) => {
                // A process that was killed holds its locks until the kernel has ended its I/O, for a moment.
                let process = holder(file);
                let ended = process.is_none_or(|process| !Path::new(&format!("/proc/{process}")).exists());
                if !ended || patience == 0 {
                    break (Err(Errno::WOULDBLOCK), process);
                }
                patience -= 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            result => break (result, None),
        }
    };
    match result {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => {
            let by =
                owner(process).unwrap_or_else(|| process.map_or("by another process".to_owned(), name_of));
            Err(StoreError::InUse { path: path.to_owned(), by })
        }
        Err(source) => Err(StoreError::io(path, "cannot lock")(source)),
    }
}

/// Which process holds a lock on the file, as /proc/locks says (proc_locks(5)).
fn holder(file: &File) -> Option<u32> {
    let stat = fstat(file).ok()?;
    let inode = format!("{:02x}:{:02x}:{}", major(stat.st_dev), minor(stat.st_dev), stat.st_ino);
    find_holder(&std::fs::read_to_string("/proc/locks").ok()?, &inode)
}

fn name_of(process: u32) -> String {
    match std::fs::read_to_string(format!("/proc/{process}/comm")) {
        Ok(comm) => format!("by process {process} ({})", comm.trim_end()),
        Err(_) => format!("by process {process}"),
    }
}

/// The process of the first granted flock on the `inode`; a waiter's line has an arrow before its kind.
fn find_holder(locks: &str, inode: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (kind, process, name) = (fields.next()?, fields.nth(2)?, fields.next()?);
        // A process outside our view of the process table has the number 0 or below.
        (kind == "FLOCK" && name == inode).then(|| process.parse().ok().filter(|process| *process > 0))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 11 fe:00:42 0 EOF\n2: FLOCK  ADVISORY  WRITE 0 fe:00:42 0 EOF\n\
                         2: -> FLOCK  ADVISORY  WRITE 12 fe:00:42 0 EOF\n3: FLOCK  ADVISORY  READ 13 fe:00:42 0 EOF\n";

    #[test]
    fn find_holder_when_several_lines_match_takes_the_visible_holder() {
        assert_eq!(find_holder(LOCKS, "fe:00:42"), Some(13));
        assert_eq!(find_holder(LOCKS, "fe:00:4"), None);
        assert_eq!(find_holder("garbage\n\n1:", "fe:00:42"), None);
    }

    #[test]
    fn lock_when_held_in_this_process_is_refused_by_process_number() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let again = file.reopen().unwrap();
        lock(file.as_file(), file.path(), Access::Exclusive, |_| None).unwrap();
        let refused = lock(&again, file.path(), Access::Shared, |_| None).unwrap_err().to_string();
        assert!(refused.contains(&file.path().display().to_string()), "{refused}");
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        let named = lock(&again, file.path(), Access::Exclusive, |_| Some("by me".to_owned())).unwrap_err();
        assert!(named.to_string().contains("in use by me;"), "{named}");
        drop(file);
        lock(&again, Path::new("gone"), Access::Exclusive, |_| None).unwrap();
    }
}
