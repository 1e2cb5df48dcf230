//! Reseal: accepts the data as it is, where it does not match its PI.

use crate::image::find::Finder;
use crate::image::scan::{Chunk, Visitor, chunks, scan};
use crate::image::{BadInterval, ImageError, IntervalRange, Observer, open};
use crate::store::Errno;
use crate::store::lock::Access;
use crate::store::medium::Stamp;
use crate::store::sidecar::{Closed, Header, Pair};
use integrity::PiType;
use std::path::PathBuf;

/// What to reseal.
#[derive(Clone, Debug)]
pub struct ResealOptions {
    /// The data.
    pub disk: PathBuf,
    /// Its sidecar; `DISK.pi` if none is named.
    pub sidecar: Option<PathBuf>,
    /// Which part of it; all if none is named.
    pub range: Option<IntervalRange>,
}

/// How a reseal ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Intervals looked at.
    pub intervals: u64,
    /// Those that got new PI.
    pub changed: u64,
    /// Those that cannot be read, and were left.
    pub unreadable: u64,
    /// Those that carry an escape, and were left.
    pub unprotected: u64,
}

/// Gives every interval that does not match its PI a guard and, in type 1, a reference tag that do. Its other tags
/// and escapes stay. After a whole disk was resealed it counts as closed cleanly.
///
/// # Errors
/// [`ImageError`]: it could not be done. Intervals already shown to the observer may have been changed.
pub fn reseal(options: &ResealOptions, observer: &mut dyn Observer) -> Result<Resealed, ImageError> {
    let mut pair = open(&options.disk, options.sidecar.as_deref(), Access::Exclusive)?;
    // What a log knows better than the data is not thrown away.
    if let Some(done) = pair.recover(&mut |_, _| ())? {
        log::info!("{}: {done}", options.disk.display());
    }
    let (layout, before) = (pair.pi.layout, pair.data.stamp()?);
    let all = 0..layout.intervals();
    let range = options.range.as_ref().map_or(all.clone(), |range| range.intervals(layout.interval()));
    if range.end > all.end {
        let path = options.disk.clone();
        return Err(ImageError::Range { path, end: range.end, intervals: all.end });
    }
    let mut resealer = Resealer {
        pair: &pair,
        finder: Finder::new(pair.pi.header.profile),
        bytes: (range.end - range.start) * layout.interval(),
        done: 0,
        result: Resealed { intervals: range.end - range.start, ..Resealed::default() },
        observer,
    };
    let bytes = range.start * layout.interval()..range.end * layout.interval();
    scan(&pair.data, &layout, chunks(layout, std::iter::once(Ok(bytes))), &mut resealer)?;
    let Resealer { finder, result, .. } = resealer;
    let sync = pair.pi.medium.file.sync_data();
    sync.map_err(ImageError::io(&pair.pi.medium.path, "cannot make the metadata durable"))?;
    finish(&pair, before, range == all && result.unreadable == 0)?;
    Ok(Resealed { unprotected: finder.unprotected, ..result })
}

/// Checks that nobody wrote meanwhile, and marks a disk of which everything was seen as closed cleanly.
fn finish(pair: &Pair, before: Stamp, everything: bool) -> Result<(), ImageError> {
    let stamp = pair.data.stamp()?;
    if stamp != before {
        return Err(ImageError::Changed { path: pair.data.path.clone() });
    }
    if everything {
        let header = Header { clean: true, closed: Closed::of(stamp), ..pair.pi.header.clone() };
        pair.pi.write_header(header)?;
    }
    Ok(())
}

struct Resealer<'a> {
    pair: &'a Pair,
    finder: Finder,
    bytes: u64,
    /// Bytes read, or found to hold nothing.
    done: u64,
    result: Resealed,
    observer: &'a mut dyn Observer,
}

impl Resealer<'_> {
    fn progress(&mut self, chunk: Chunk) {
        self.done += chunk.count * self.pair.pi.layout.interval();
        self.observer.progress(self.done, self.bytes);
    }
}

impl Visitor for Resealer<'_> {
    fn prepare(&mut self, chunk: Chunk, metadata: &mut [u8]) -> Result<bool, ImageError> {
        let pi = &self.pair.pi;
        let read = pi.read_metadata(chunk.first, metadata);
        read.map_err(ImageError::io(&pi.medium.path, "cannot read the metadata"))?;
        let escaped = self.finder.all_escaped(metadata);
        if escaped {
            self.finder.unprotected += chunk.count;
            self.progress(chunk);
        }
        Ok(!escaped)
    }

    fn visit(
        &mut self,
        chunk: Chunk,
        data: Result<&[u8], Errno>,
        metadata: &mut [u8],
    ) -> Result<(), ImageError> {
        let Self { pair, finder, result, observer, .. } = self;
        let (pi, profile) = (&pair.pi, finder.profile);
        finder.find(&pair.data, chunk, data, metadata, |interval: BadInterval, data, entry| {
            observer.bad(&interval);
            let Some(data) = data else {
                result.unreadable += 1;
                return Ok(());
            };
            let old = profile.tuple(entry);
            let reference = if profile.pi_type() == PiType::Type1 { interval.number } else { old.reference };
            profile.generate(data, entry, reference, old.application);
            result.changed += 1;
            let written = pi.write_metadata(interval.number, entry);
            written.map_err(ImageError::io(&pi.medium.path, "cannot write the metadata"))
        })?;
        self.progress(chunk);
        Ok(())
    }
}
