//! The tools of a disk's PI sidecar: make it, check it, accept the data as it is.
//!
//! | tool | lock | does |
//! |---|---|---|
//! | [`protect()`] | exclusive | makes the sidecar: PI for the data that is there, escapes for holes |
//! | [`scrub()`] | shared | reads everything and lists every interval that does not match its PI |
//! | [`reseal()`] | exclusive | gives intervals that do not match the PI of the data they have, and lists them |
//! | [`replay()`] | exclusive | makes good what a crash left, by the log or the bitmap |
//! | [`resize()`] | exclusive | makes the sidecar cover data that was added at the end |
//!
//! They are functions that report to an [`Observer`]; [`cli`] makes `dixback image ...` of them. Each takes the
//! locks that a daemon takes, so it is refused while the disk is served.

pub mod cli;
mod error;
mod extents;
mod find;
mod protect;
mod range;
mod replay;
mod reseal;
mod resize;
mod scan;
mod scrub;

pub use error::ImageError;
pub use find::{BadInterval, Fault};
pub use protect::{ProtectOptions, Protected, protect};
pub use range::{IntervalRange, RangeError};
pub use replay::{ReplayOptions, replay};
pub use reseal::{ResealOptions, Resealed, reseal};
pub use resize::{ResizeOptions, Resized, resize};
pub use scrub::{ScrubOptions, Scrubbed, scrub};

use crate::store::lock::Access;
use crate::store::medium::Direct;
use crate::store::sidecar::{Pair, default_path};
use std::path::Path;

/// Who is told how far a tool has got and what it found.
pub trait Observer {
    /// `done` of `total` bytes of data are through.
    fn progress(&mut self, done: u64, total: u64);

    /// An interval that does not match its PI (or did not, until it was resealed), in order of their numbers.
    fn bad(&mut self, interval: &BadInterval);
}

/// Nobody.
impl Observer for () {
    fn progress(&mut self, _done: u64, _total: u64) {}

    fn bad(&mut self, _interval: &BadInterval) {}
}

/// Opens a disk with its sidecar, `DISK.pi` if none is named, and takes the locks that a daemon takes.
fn open(disk: &Path, sidecar: Option<&Path>, access: Access) -> Result<Pair, ImageError> {
    let default = default_path(disk);
    let sidecar = sidecar.unwrap_or(&default);
    Ok(Pair::open(disk, sidecar, access, Direct::Auto, Direct::Off, true)?)
}
