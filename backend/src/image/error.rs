//! Why a tool could not do its work.

use crate::store::StoreError;
use std::io;
use std::path::PathBuf;

/// Why a tool could not do its work. Every text names the path and, where there is one, the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The disk or its sidecar cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel refused something.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file or device.
        path: PathBuf,
        /// What was being done, as in "cannot read".
        doing: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// There is a sidecar, or something else, where one is to be made.
    #[error("{}: exists already; to replace it by a new sidecar: --force", path.display())]
    Exists {
        /// What exists.
        path: PathBuf,
    },
    /// A device is too small for the sidecar.
    #[error("{}: has {found} bytes, and the sidecar needs {needed}", path.display())]
    Small {
        /// The device.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// What is needed.
        needed: u64,
    },
    /// A power cut could leave half an interval written.
    #[error(
        "{}: an interval of {interval} bytes is more than is written whole when the power fails ({atomic} bytes); \
         take --interval {atomic}, or accept that such an interval may be lost then: --non-atomic",
        path.display()
    )]
    NonAtomic {
        /// The disk.
        path: PathBuf,
        /// The interval asked for, in bytes.
        interval: u32,
        /// What is written whole, in bytes.
        atomic: u32,
    },
    /// The data was written to meanwhile, by somebody who takes no lock.
    #[error("{}: its data was changed while the tool worked; stop whoever writes to it, and begin again", path.display())]
    Changed {
        /// The disk.
        path: PathBuf,
    },
    /// There is no place for an application tag.
    #[error("--app-tag needs a guard and a tag size of 2 bytes or more")]
    NoAppTag,
    /// A range beyond the disk's end.
    #[error("{}: the range ends at interval {end}, and the disk has {intervals}", path.display())]
    Range {
        /// The disk.
        path: PathBuf,
        /// The range's end.
        end: u64,
        /// How many the disk has.
        intervals: u64,
    },
}

impl ImageError {
    /// A closure for `map_err`: the kernel refused `doing` to `path`.
    pub(crate) fn io<E: Into<io::Error>>(
        path: &std::path::Path,
        doing: &'static str,
    ) -> impl FnOnce(E) -> ImageError {
        move |source| ImageError::Io { path: path.to_owned(), doing, source: source.into() }
    }
}
