//! Scrub: reads everything and lists what does not match its PI.

use crate::image::extents::Extents;
use crate::image::find::Finder;
use crate::image::scan::{Chunk, Visitor, chunks, scan};
use crate::image::{ImageError, Observer, open};
use crate::store::Errno;
use crate::store::lock::Access;
use crate::store::sidecar::Pair;
use std::path::PathBuf;

/// What to scrub.
#[derive(Clone, Debug)]
pub struct ScrubOptions {
    /// The data.
    pub disk: PathBuf,
    /// Its sidecar; `DISK.pi` if none is named.
    pub sidecar: Option<PathBuf>,
}

/// How a scrub ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Intervals of the disk.
    pub intervals: u64,
    /// Those that do not match their PI or cannot be read.
    pub bad: u64,
    /// Those that carry an escape: nothing protects them.
    pub unprotected: u64,
}

/// Checks every interval of a disk that nobody writes. The data of holes without PI is not read: there is neither.
///
/// # Errors
/// [`ImageError`]: it could not be done. A bad interval is no error.
pub fn scrub(options: &ScrubOptions, observer: &mut dyn Observer) -> Result<Scrubbed, ImageError> {
    let pair = open(&options.disk, options.sidecar.as_deref(), Access::Shared)?;
    pair.refuse_unrecovered(Access::Shared)?;
    let layout = pair.pi.layout;
    let mut scrubber =
        Scrubber { pair: &pair, finder: Finder::new(pair.pi.header.profile), bad: 0, done: 0, observer };
    let whole = std::iter::once(Ok(0..pair.pi.header.data_bytes));
    scan(&pair.data, &layout, chunks(layout, whole), &mut scrubber)?;
    let Scrubber { finder, bad, .. } = scrubber;
    Ok(Scrubbed { intervals: layout.intervals(), bad, unprotected: finder.unprotected })
}

struct Scrubber<'a> {
    pair: &'a Pair,
    finder: Finder,
    bad: u64,
    /// Bytes read, or found to hold nothing.
    done: u64,
    observer: &'a mut dyn Observer,
}

impl Scrubber<'_> {
    fn progress(&mut self, chunk: Chunk) {
        self.done += chunk.count * self.pair.pi.layout.interval();
        self.observer.progress(self.done, self.pair.pi.header.data_bytes);
    }
}

impl Visitor for Scrubber<'_> {
    fn prepare(&mut self, chunk: Chunk, metadata: &mut [u8]) -> Result<bool, ImageError> {
        let Pair { data, pi } = self.pair;
        let read = pi.read_metadata(chunk.first, metadata);
        read.map_err(ImageError::io(&pi.medium.path, "cannot read the metadata"))?;
        if !self.finder.all_escaped(metadata) {
            return Ok(true);
        }
        let start = chunk.first * pi.layout.interval();
        let end = start + chunk.count * pi.layout.interval();
        let hole = Extents::new(data, start..end).next().is_none();
        if hole {
            self.finder.unprotected += chunk.count;
            self.progress(chunk);
        }
        Ok(!hole)
    }

    fn visit(
        &mut self,
        chunk: Chunk,
        data: Result<&[u8], Errno>,
        metadata: &mut [u8],
    ) -> Result<(), ImageError> {
        let Self { pair, finder, bad, observer, .. } = self;
        finder.find(&pair.data, chunk, data, metadata, |interval, _, _| {
            *bad += 1;
            observer.bad(&interval);
            Ok::<(), ImageError>(())
        })?;
        self.progress(chunk);
        Ok(())
    }
}
