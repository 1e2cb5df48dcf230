//! The run directory: the lock that keeps a second daemon out, and the restart records.

use super::id::DiskId;
use super::record::Record;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Another daemon has it.
    #[error("{} is in use by {by}: one daemon serves a run directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who.
        by: String,
    },
    /// The system refused something.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A record is no record.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
}

fn io_error<E: Into<io::Error>>(path: &Path, doing: &'static str) -> impl FnOnce(E) -> RunDirError {
    move |source| RunDirError::Io { path: path.to_owned(), doing, source: source.into() }
}

/// A run directory that is this daemon's alone. Clones share it; the lock goes with the last.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: Arc<File>,
}

impl RunDir {
    /// Makes the directory if it is not there, and takes its lock.
    ///
    /// # Errors
    /// [`RunDirError::InUse`] names the daemon that has it.
    pub fn take(path: &Path) -> Result<Self, RunDirError> {
        std::fs::create_dir_all(path).map_err(io_error(path, "cannot make the run directory"))?;
        let file = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            // Whoever can open it can take its lock.
            .mode(0o600)
            .open(&file)
            .map_err(io_error(&file, "cannot open"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut by = String::new();
                let _ = lock.read_to_string(&mut by);
                let by =
                    if by.trim().is_empty() { "another daemon".to_owned() } else { by.trim().to_owned() };
                return Err(RunDirError::InUse { path: path.to_owned(), by });
            }
            Err(source) => return Err(io_error(&file, "cannot lock")(source)),
        }
        let name = format!("dixback, process {}\n", std::process::id());
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(name.as_bytes()))
            .map_err(io_error(&file, "cannot write"))?;
        Ok(Self { path: path.to_owned(), _lock: Arc::new(lock) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a disk's record, durably: whole or not at all.
    ///
    /// # Errors
    /// The system refused; there is no record then, or the file is not known to be durable.
    pub fn store(&self, id: &DiskId, record: &Record) -> Result<(), RunDirError> {
        let path = self.file(id);
        let text = toml::to_string(record)
            .map_err(|error| RunDirError::Malformed { path: path.clone(), what: error.to_string() })?;
        let new = path.with_extension("new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            self.sync()
        };
        write().map_err(io_error(&path, "cannot write the restart record"))
    }

    /// Reads a disk's record; none if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn load(&self, id: &DiskId) -> Result<Option<Record>, RunDirError> {
        let path = self.file(id);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error(&path, "cannot read")(source)),
        };
        toml::from_str(&text)
            .map(Some)
            .map_err(|error| RunDirError::Malformed { path, what: error.message().to_owned() })
    }

    /// Deletes a disk's record, durably, if there is one.
    ///
    /// # Errors
    /// The system refused: the record may be there still.
    pub fn forget(&self, id: &DiskId) -> Result<(), RunDirError> {
        let path = self.file(id);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.and_then(|()| self.sync()).map_err(io_error(&path, "cannot delete")),
        }
    }

    /// Deletes the records of all disks but these: theirs are gone.
    pub fn sweep(&self, keep: impl Fn(&str) -> bool) {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) => return log::warn!("{}: {error}", self.path.display()),
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Nothing else is ours to delete: an operator may keep a configuration file beside them.
            let stem = name.strip_suffix(".toml").or_else(|| name.strip_suffix(".new"));
            if stem.is_some_and(DiskId::is_file_stem) && !keep(&name) {
                log::info!("{name}: a restart record without a disk, deleted");
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn file(&self, id: &DiskId) -> PathBuf {
        self.path.join(id.file())
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
