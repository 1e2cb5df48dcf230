//! Resize: makes the sidecar of a disk that has grown cover all of it.

use crate::image::{ImageError, open};
use crate::store::lock::Access;
use std::path::PathBuf;

/// What to resize.
#[derive(Clone, Debug)]
pub struct ResizeOptions {
    /// The data, which has grown already.
    pub disk: PathBuf,
    /// Its sidecar; `DISK.pi` if none is named.
    pub sidecar: Option<PathBuf>,
}

/// How a resize ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resized {
    /// Bytes of data that the sidecar covered.
    pub before: u64,
    /// Bytes that it covers now. What was added carries an escape until it is written: nothing protects it.
    pub after: u64,
}

/// Makes the sidecar of a disk that nobody serves cover data that was added at its end.
///
/// # Errors
/// [`ImageError`]: it could not be done, and the sidecar covers what it covered. Data that is shorter is refused.
pub fn resize(options: &ResizeOptions) -> Result<Resized, ImageError> {
    let pair = open(&options.disk, options.sidecar.as_deref(), Access::Exclusive)?;
    let (before, after) = pair.grow()?;
    Ok(Resized { before, after })
}
