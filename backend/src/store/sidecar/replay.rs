//! After a crash: makes the metadata agree with the data, by the log.
//!
//! ```text
//! both flushed, and read from the medium -> live records, by the metadata block they touch
//!   block by block: metadata read -> records, oldest first -> metadata written     (and data, where records carry it)
//!     write:    the interval's data has its hash?    its metadata          else nothing, and lost if a flush covers it
//!     with data:                                     data and metadata
//!     discard:                                       an escape
//! both flushed -> header: the log is over
//! ```
//!
//! So the newest record that fits an interval wins; where none does, the metadata of the last checkpoint stands. Nothing
//! that decides is changed before the header is, so a crash on the way begins anew and ends the same.

mod sheet;

use crate::store::lock::Access;
use crate::store::sidecar::wal::read::Found;
use crate::store::sidecar::{Body, Header, Live, Pair, bitmap};
use crate::store::{Errno, StoreError};
use sheet::Sheet;
use std::fmt;
use std::io;

/// Most intervals that are named.
const NAMED: usize = 64;

/// What was done about a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Live records of the log; none with a bitmap.
    pub records: u64,
    /// Intervals that were looked at.
    pub intervals: u64,
    /// Those whose metadata was brought up to date.
    pub updated: u64,
    /// Those given new PI from the data they have, as nothing better was kept (bitmap).
    pub sealed: Named,
    /// Those whose flushed write the medium has lost.
    pub lost: Named,
    /// Others that do not match their PI, or cannot be read.
    pub bad: Named,
}

/// Intervals by number: how many, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// How many.
    pub count: u64,
    /// The first 64.
    pub first: Vec<u64>,
}

impl Named {
    pub(super) fn add(&mut self, interval: u64) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(interval);
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.first.iter().map(u64::to_string).collect();
        let more = if self.count > self.first.len() as u64 { ", .." } else { "" };
        write!(f, "{} ({}{more})", self.count, numbers.join(", "))
    }
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, intervals, updated, .. } = self;
        if self.records > 0 || self.sealed.count == 0 {
            write!(f, "{records} records of its log replayed, ")?;
        }
        write!(f, "{intervals} intervals looked at, {updated} brought up to date")?;
        let named = [
            (&self.sealed, "given new PI from the data they have, intervals"),
            (&self.lost, "flushed writes LOST by the medium, intervals"),
            (&self.bad, "not matching or unreadable, intervals"),
        ];
        for (named, what) in named {
            if named.count > 0 {
                write!(f, "; {what}: {named}")?;
            }
        }
        Ok(())
    }
}

/// Told how far a recovery has got: done, and of how much.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(u64, u64);

impl Pair {
    /// Makes good what a crash left, if there is anything; afterwards the header says that there is not. Both are
    /// locked for writing.
    ///
    /// # Errors
    /// [`StoreError`]; then it is still to be done.
    pub(crate) fn recover(&mut self, progress: Progress<'_>) -> Result<Option<Recovered>, StoreError> {
        if self.pi.header.live == Live::Nothing {
            return Ok(None);
        }
        // What a killed daemon left may be in a cache only. What is decided by it now must not be undone by a power cut.
        self.sync()?;
        // Nor by the cache letting go of what it could not write, which the kernel has told to whoever wrote it.
        self.data.forget_cached();
        self.pi.medium.forget_cached();
        let done = match self.pi.header.live {
            Live::Nothing => return Ok(None),
            Live::Log => replay(self, progress)?,
            Live::Bitmap => bitmap::recover(self, progress)?,
        };
        self.sync()?;
        let header = Header { live: Live::Nothing, log_state: [0; 3], ..self.pi.header.clone() };
        self.pi.header = self.pi.write_header(header)?;
        Ok(Some(done))
    }

    /// Refuses a disk that a crash has left something to be done for.
    pub(crate) fn refuse_unrecovered(&self, access: Access) -> Result<(), StoreError> {
        let medium = &self.pi.medium;
        let refused = match self.pi.header.live {
            _ if access == Access::Exclusive => false,
            Live::Nothing => false,
            Live::Bitmap => true,
            // Whoever had it may have come as far as to leave nothing in it.
            Live::Log => {
                let found = Found::read(medium, &self.pi.header);
                found.map_err(StoreError::io(&medium.path, "cannot read the log"))?.len() > 0
            }
        };
        if !refused {
            return Ok(());
        }
        let (path, by) = (self.data.path.clone(), self.pi.header.owner.to_string());
        Err(StoreError::NeedsReplay { path, by })
    }

    fn sync(&self) -> Result<(), StoreError> {
        for medium in [&self.data, &self.pi.medium] {
            let failed = |Errno(errno)| {
                StoreError::io(&medium.path, "cannot make it durable")(io::Error::from_raw_os_error(errno))
            };
            medium.sync().map_err(failed)?;
        }
        Ok(())
    }
}

fn replay(pair: &Pair, progress: Progress<'_>) -> Result<Recovered, StoreError> {
    let sidecar = &pair.pi.medium;
    let found = Found::read(sidecar, &pair.pi.header)
        .map_err(StoreError::io(&sidecar.path, "cannot read the log"))?;
    let touched = touched(pair, &found);
    let mut done = Recovered { records: found.len() as u64, ..Recovered::default() };
    let mut sheet = Sheet::new(pair).map_err(StoreError::io(&sidecar.path, "no memory for a replay"))?;
    let total = touched.len() as u64;
    let mut rest = &touched[..];
    while let [(block, _), ..] = rest {
        let end = rest.partition_point(|(other, _)| other == block);
        let (these, others) = rest.split_at(end);
        sheet.block(*block, these, &found, &mut done)?;
        rest = others;
        progress(total - rest.len() as u64, total);
    }
    Ok(done)
}

/// Which record touches which block, by block and then by age.
fn touched(pair: &Pair, found: &Found) -> Vec<(u64, usize)> {
    let layout = &pair.pi.layout;
    let mut touched = Vec::new();
    for (index, record) in found.records().enumerate() {
        let (first, count) = match record.body {
            Body::Write { first, hashes, .. } => (first, hashes.len() as u64),
            Body::WriteWithData { first, metadata, .. } => (first, (metadata.len() / layout.entry()) as u64),
            Body::Discard { first, count } => (first, count),
            Body::Flush { .. } => continue,
        };
        if count > 0 {
            touched.extend(layout.blocks_of(first, count).map(|block| (block, index)));
        }
    }
    touched.sort_unstable();
    touched
}
