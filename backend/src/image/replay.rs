//! Replay: makes good what a crash left of a disk, as its next attachment would.

use crate::image::{ImageError, Observer, open};
use crate::store::lock::Access;
use crate::store::sidecar::{Closed, Header, Recovered};
use std::path::PathBuf;

/// What to replay.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The data.
    pub disk: PathBuf,
    /// Its sidecar; `DISK.pi` if none is named.
    pub sidecar: Option<PathBuf>,
}

/// Replays the log of a disk that nobody serves, or gives what does not match in the dirty regions of its bitmap new
/// PI; then it counts as closed cleanly. None: a crash left nothing to be done.
///
/// # Errors
/// [`ImageError`]: it could not be done, and is still to be done.
pub fn replay(options: &ReplayOptions, observer: &mut dyn Observer) -> Result<Option<Recovered>, ImageError> {
    let mut pair = open(&options.disk, options.sidecar.as_deref(), Access::Exclusive)?;
    let done = pair.recover(&mut |done, total| observer.progress(done, total))?;
    if done.is_some() {
        let closed = Closed::of(pair.data.stamp()?);
        pair.pi.write_header(Header { clean: true, closed, ..pair.pi.header.clone() })?;
    }
    Ok(done)
}
