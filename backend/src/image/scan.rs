//! Reads a disk's data in order, in large pieces, with several reads under way.
//!
//! ```text
//! chunks --- prepare (its metadata; may skip the data) ---> read --- in order ---> visit
//!                      at most DEPTH of CHUNK bytes under way
//! ```

use crate::image::ImageError;
use crate::io::{Lease, Owner, PAGE, Pool, Ring};
use crate::store::Errno;
use crate::store::file::{Outcome, outcome};
use crate::store::medium::Medium;
use crate::store::sidecar::Layout;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::Duration;

/// Bytes read at once.
const CHUNK: u64 = 1 << 20;
/// Reads under way. With reads of this size more gains nothing on a disk or an array.
const DEPTH: usize = 8;

/// A run of whole intervals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    /// The first interval.
    pub(crate) first: u64,
    /// How many.
    pub(crate) count: u64,
}

/// What is done with each chunk.
pub(crate) trait Visitor {
    /// Fills the metadata before the data is read; false if the data is not wanted.
    fn prepare(&mut self, chunk: Chunk, metadata: &mut [u8]) -> Result<bool, ImageError>;

    /// Has the data, or why it cannot be read. Called in order, for chunks whose data was wanted.
    fn visit(
        &mut self,
        chunk: Chunk,
        data: Result<&[u8], Errno>,
        metadata: &mut [u8],
    ) -> Result<(), ImageError>;
}

/// Cuts ranges of bytes, in order, into chunks of whole intervals; ranges that touch the same interval share it.
pub(crate) fn chunks(
    layout: Layout,
    ranges: impl Iterator<Item = io::Result<Range<u64>>>,
) -> impl Iterator<Item = io::Result<Chunk>> {
    let interval = layout.interval();
    let per_chunk = CHUNK / interval;
    let mut reached = 0;
    let whole = move |range: io::Result<Range<u64>>| {
        range.map(|range| {
            let first = (range.start / interval).max(reached);
            let end = range.end.div_ceil(interval).min(layout.intervals());
            reached = end.max(reached);
            first..end
        })
    };
    ranges.map(whole).flat_map(move |range| {
        let (mut at, end, mut error) = match range {
            Ok(range) => (range.start, range.end, None),
            Err(error) => (0, 0, Some(error)),
        };
        std::iter::from_fn(move || {
            if let Some(error) = error.take() {
                return Some(Err(error));
            }
            // Chunks begin where a chunk of the whole disk would, so that reads stay aligned.
            let count = (per_chunk - at % per_chunk).min(end.checked_sub(at)?);
            let chunk = Chunk { first: at, count };
            at += count;
            (count > 0).then_some(Ok(chunk))
        })
    })
}

/// A chunk whose read is under way or done.
struct Active {
    chunk: Chunk,
    lease: Lease,
    moved: usize,
    result: Option<Result<(), Errno>>,
}

/// Reads under way.
struct Reader<'a> {
    data: &'a Medium,
    interval: u64,
    ring: Ring,
    pool: Pool,
    active: VecDeque<Active>,
    /// The number of the first active chunk; reads are named by number.
    base: u64,
}

/// Reads all chunks and shows them to the visitor in order.
pub(crate) fn scan(
    data: &Medium,
    layout: &Layout,
    chunks: impl Iterator<Item = io::Result<Chunk>>,
    visitor: &mut impl Visitor,
) -> Result<(), ImageError> {
    // A page may hold several entries, or an interval several pages.
    let per_page = layout.entry() * PAGE.div_ceil(layout.interval() as usize);
    let mut reader = Reader::new(data, layout.interval(), per_page)
        .map_err(ImageError::io(&data.path, "cannot set up reading"))?;
    let result = reader.pump(layout.entry(), chunks, visitor);
    // After a failure reads may still be under way into the pool.
    while reader.active.iter().any(|active| active.result.is_none()) {
        reader.reap();
    }
    while let Some(Active { lease, .. }) = reader.active.pop_front() {
        reader.pool.give_back(lease);
    }
    result
}

impl<'a> Reader<'a> {
    fn new(data: &'a Medium, interval: u64, per_page: usize) -> io::Result<Self> {
        let pool = Pool::new(DEPTH * CHUNK as usize, per_page)?;
        let mut ring = Ring::new(DEPTH as u32 * 2).map_err(io::Error::other)?;
        ring.enable()?;
        ring.register(&pool);
        Ok(Self { data, interval, ring, pool, active: VecDeque::with_capacity(DEPTH), base: 0 })
    }

    fn pump(
        &mut self,
        entry: usize,
        chunks: impl Iterator<Item = io::Result<Chunk>>,
        visitor: &mut impl Visitor,
    ) -> Result<(), ImageError> {
        let mut chunks = chunks.peekable();
        loop {
            while self.active.len() < DEPTH
                && let Some(chunk) = chunks.peek()
            {
                let Ok(chunk) = *chunk else { break };
                let (bytes, metadata) =
                    ((chunk.count * self.interval) as usize, chunk.count as usize * entry);
                // Small chunks may have left no run that is long enough; reads to come back will.
                let Some(mut lease) = self.pool.take(bytes, metadata) else { break };
                chunks.next();
                match visitor.prepare(chunk, lease.parts_mut().1) {
                    Ok(true) => self.read(chunk, lease),
                    other => {
                        self.pool.give_back(lease);
                        other?;
                    }
                }
            }
            let Some(front) = self.active.front_mut() else {
                // Nothing is under way: the chunks are at their end, or could not be told.
                let error = chunks.next().and_then(Result::err);
                let error = error.map(ImageError::io(&self.data.path, "cannot tell data from holes"));
                return error.map_or(Ok(()), Err);
            };
            let Some(result) = front.result else {
                self.reap();
                continue;
            };
            let (bytes, metadata) = front.lease.parts_mut();
            visitor.visit(front.chunk, result.map(|()| &*bytes), metadata)?;
            if let Some(Active { lease, .. }) = self.active.pop_front() {
                self.pool.give_back(lease);
                self.base += 1;
            }
        }
    }

    fn read(&mut self, chunk: Chunk, lease: Lease) {
        let user_data = Owner::Store.user_data(self.base + self.active.len() as u64);
        self.ring.read(self.data.fd(), &lease, 0, chunk.first * self.interval, user_data);
        self.active.push_back(Active { chunk, lease, moved: 0, result: None });
    }

    /// Waits for completions and notes them.
    fn reap(&mut self) {
        // A time-out is no end: reads on a sick disk take long.
        if let Err(error) = self.ring.submit(Some(Duration::from_secs(1))) {
            log::warn!("{}: io_uring_enter: {error}", self.data.path.display());
        }
        while let Some((user_data, moved)) = self.ring.reap() {
            let index = (Owner::of(user_data).1 - self.base) as usize;
            let Some(active) = self.active.get_mut(index) else { continue };
            match outcome(moved, active.lease.len() - active.moved) {
                Outcome::Done => active.result = Some(Ok(())),
                Outcome::Failed(error) => active.result = Some(Err(error)),
                Outcome::Again { moved } => {
                    active.moved += moved;
                    let at = active.chunk.first * self.interval + active.moved as u64;
                    self.ring.read(self.data.fd(), &active.lease, active.moved, at, user_data);
                }
            }
        }
    }
}
