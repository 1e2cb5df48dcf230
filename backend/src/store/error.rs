//! Why a disk cannot be opened, probed or protected: what is wrong with which path, and what to do about it.

use crate::store::sidecar::{HeaderError, default_path};
use std::io;
use std::path::{Path, PathBuf};

/// Why a store cannot be opened. Every text names the path, what is wrong with it and, where there is one, the
/// command to run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The kernel refused something.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file or device.
        path: PathBuf,
        /// What was being done, as in "cannot open".
        doing: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Neither a regular file nor a block device.
    #[error("{}: is {found}, neither a regular file nor a block device", path.display())]
    NotADisk {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The size is no whole number of sectors or intervals.
    #[error(
        "{}: {bytes} bytes is not a whole number of {unit}-byte {what}; to pad the image: truncate -s %{unit} {}",
        path.display(),
        path.display()
    )]
    Size {
        /// The path.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// What the size must be a multiple of.
        unit: u32,
        /// What the unit is: sectors or intervals.
        what: &'static str,
    },
    /// The disk holds nothing at all.
    #[error("{}: is empty; to make an image: truncate -s SIZE {}", path.display(), path.display())]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// Direct I/O was asked for and is not possible.
    #[error("{}: direct I/O is not possible: {why}; let the daemon choose (direct=auto)", path.display())]
    Direct {
        /// The path.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Somebody else uses the disk.
    #[error("{}: is in use {by}; one disk has one writer: stop that one first", path.display())]
    InUse {
        /// The file or device that is locked.
        path: PathBuf,
        /// By whom, as in "by domain 3 xvda (51712), process 812 on host a".
        by: String,
    },
    /// The path is no sidecar, or its header cannot be used.
    #[error("{}: {source}", path.display())]
    Header {
        /// The sidecar.
        path: PathBuf,
        /// Why.
        source: HeaderError,
    },
    /// The sidecar ends before its metadata does.
    #[error(
        "{}: the sidecar is cut short: {found} of {needed} bytes; restore it, or to make it anew from the data as \
         it is now: dixback image protect --force {}",
        path.display(),
        pair(data, path)
    )]
    Truncated {
        /// The sidecar.
        path: PathBuf,
        /// The data.
        data: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The length that its header asks for.
        needed: u64,
    },
    /// The data is shorter than the sidecar says.
    #[error(
        "{}: holds {found} bytes, but its sidecar {} was made for {needed}; restore the data, or to begin anew \
         with what is there: dixback image protect --force {}",
        path.display(),
        sidecar.display(),
        pair(path, sidecar)
    )]
    DataShorter {
        /// The data.
        path: PathBuf,
        /// The sidecar.
        sidecar: PathBuf,
        /// The data's length in bytes.
        found: u64,
        /// The length that the sidecar was made for.
        needed: u64,
    },
    /// The medium has become shorter than the disk that is served.
    #[error("{}: holds {found} bytes, and the disk has {served}: a disk cannot shrink; make the data as long again", path.display())]
    Shrunk {
        /// The data.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The disk's.
        served: u64,
    },
    /// A sidecar on a device has no room to grow.
    #[error("{}: the sidecar's device has {found} bytes, and {needed} are needed: make it larger first", path.display())]
    SidecarFull {
        /// The sidecar.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The length that is needed.
        needed: u64,
    },
    /// The sidecar of a disk that is only read cannot be made longer.
    #[error("{}: has grown, but it is served read-only and its sidecar covers what it covered", path.display())]
    ReadOnlyGrowth {
        /// The data.
        path: PathBuf,
    },
    /// The sidecar's log area is too small to keep a log in.
    #[error(
        "{}: its log area has {found} bytes, and a log needs {needed}; serve the disk with crash=bitmap or \
         crash=off, or make the sidecar anew",
        path.display()
    )]
    SmallLog {
        /// The sidecar.
        path: PathBuf,
        /// The area's length in bytes.
        found: u64,
        /// The length that is needed.
        needed: u64,
    },
    /// The disk was not closed, and what its log says has to be done before it can be read.
    #[error(
        "{}: was not closed by its last user ({by}), and cannot be only read before that is made good: dixback image \
         replay {}",
        path.display(),
        path.display()
    )]
    NeedsReplay {
        /// The data.
        path: PathBuf,
        /// Who did not close it.
        by: String,
    },
    /// The device's own PI cannot be used.
    #[error("{}: {why}; what it can carry, and what is missing: dixback probe {}", path.display(), path.display())]
    DevicePi {
        /// The device.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is no sidecar where there should be one.
    #[error("{}: there is no PI sidecar here; to make one: dixback image protect {}", path.display(), pair(data, path))]
    NoSidecar {
        /// Where it should be.
        path: PathBuf,
        /// The data.
        data: PathBuf,
    },
    /// `null:` followed by something else than it takes.
    #[error("{path}: {why}; a null disk is null:SIZE[:GUARD[:INTERVAL]], as in null:10G:crc16-t10dif:512")]
    Null {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A disk and its sidecar as `dixback image` takes them.
fn pair(data: &Path, sidecar: &Path) -> String {
    let named =
        if sidecar == default_path(data) { String::new() } else { format!(" --pi {}", sidecar.display()) };
    format!("{}{named}", data.display())
}

impl StoreError {
    /// A closure for `map_err`: the kernel refused `doing` to `path`.
    pub(crate) fn io<E: Into<io::Error>>(path: &Path, doing: &'static str) -> impl FnOnce(E) -> StoreError {
        move |source| StoreError::Io { path: path.to_owned(), doing, source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_for_a_sidecar_that_is_elsewhere_names_it() {
        let missing =
            |path: &str| StoreError::NoSidecar { path: path.into(), data: "/srv/a.img".into() }.to_string();
        assert!(missing("/srv/a.img.pi").ends_with("dixback image protect /srv/a.img"));
        assert!(missing("/pi/a.pi").ends_with("dixback image protect /srv/a.img --pi /pi/a.pi"));
    }
}
