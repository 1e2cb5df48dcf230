//! One block of metadata and the data it is of, as a replay works on it.

use super::Recovered;
use crate::store::StoreError;
use crate::store::sidecar::pifile::invert;
use crate::store::sidecar::wal::read::Found;
use crate::store::sidecar::{BLOCK, Body, IntervalHash, Pair};
use integrity::{Expected, Guard, PiType};
use memmap2::{MmapMut, MmapOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Most data in memory; a block that covers more is worked on in parts.
const PART: u64 = 1 << 20;

/// What becomes of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// No record speaks of it.
    Untouched,
    /// No record fits it: what is there stands.
    Stands,
    /// The record has its metadata.
    Takes(usize),
    /// The record has its metadata and its data.
    Rewrites(usize),
    /// It was discarded.
    Escaped,
    /// The record's write was flushed, and is gone.
    Lost(usize),
}

/// See the module's head.
pub(super) struct Sheet<'a> {
    pair: &'a Pair,
    /// The block as it is on disk, inverted, and as it was there. On pages, for direct I/O.
    block: MmapMut,
    before: Vec<u8>,
    /// The data of a part.
    data: MmapMut,
    /// Intervals of a part whose data is read, or cannot be.
    read: Vec<Option<bool>>,
    hashes: Vec<Option<IntervalHash>>,
    verdicts: Vec<Verdict>,
}

impl<'a> Sheet<'a> {
    pub(super) fn new(pair: &'a Pair) -> io::Result<Self> {
        let map = |bytes| MmapOptions::new().len(bytes).map_anon();
        let data = map(PART as usize)?;
        Ok(Self {
            pair,
            block: map(BLOCK)?,
            before: Vec::new(),
            data,
            read: Vec::new(),
            hashes: Vec::new(),
            verdicts: Vec::new(),
        })
    }

    /// Brings one block up to date by the records that touch it, oldest first.
    pub(super) fn block(
        &mut self,
        block: u64,
        records: &[(u64, usize)],
        found: &Found,
        done: &mut Recovered,
    ) -> Result<(), StoreError> {
        let (layout, sidecar) = (&self.pair.pi.layout, &self.pair.pi.medium);
        let at = layout.position(block);
        let read = sidecar.file.read_exact_at(&mut self.block, at);
        read.map_err(StoreError::io(&sidecar.path, "cannot read the metadata"))?;
        self.before.clear();
        self.before.extend_from_slice(&self.block);
        invert(&mut self.block);
        let per_block = layout.data_per_block() / layout.interval();
        let (start, end) = (block * per_block, ((block + 1) * per_block).min(layout.intervals()));
        let per_part = (PART / layout.interval()).max(1);
        let mut first = start;
        while first < end {
            let part = first..(first + per_part).min(end);
            self.part(part.clone(), start, records, found, done)?;
            first = part.end;
        }
        invert(&mut self.block);
        if self.block[..] != self.before[..] {
            let written = sidecar.write_all_at(&self.block, at);
            written.map_err(StoreError::io(&sidecar.path, "cannot write the metadata"))?;
        }
        Ok(())
    }

    /// A part of the block that starts with the interval `start`.
    fn part(
        &mut self,
        part: Range<u64>,
        start: u64,
        records: &[(u64, usize)],
        found: &Found,
        done: &mut Recovered,
    ) -> Result<(), StoreError> {
        // A part is in memory, so are its intervals' indexes.
        let count = (part.end - part.start) as usize;
        self.verdicts.clear();
        self.verdicts.resize(count, Verdict::Untouched);
        self.read.clear();
        self.read.resize(count, None);
        self.hashes.clear();
        self.hashes.resize(count, None);
        for (_, index) in records {
            let Some(record) = found.record(*index) else { continue };
            let (first, length) = match record.body {
                Body::Write { first, hashes, .. } => (first, hashes.len() as u64),
                Body::WriteWithData { first, metadata, .. } => {
                    (first, (metadata.len() / self.pair.pi.layout.entry()) as u64)
                }
                Body::Discard { first, count } => (first, count),
                Body::Flush { .. } => continue,
            };
            let (from, to) = (first.max(part.start), (first + length).min(part.end));
            for interval in from..to.max(from) {
                let here = (interval - part.start) as usize;
                self.verdicts[here] = match record.body {
                    Body::Discard { .. } => Verdict::Escaped,
                    Body::WriteWithData { .. } => Verdict::Rewrites(*index),
                    Body::Write { hashes, .. } => {
                        let hash = hashes[(interval - first) as usize];
                        match (self.hash(here, part.start, count), self.verdicts[here]) {
                            (Some(found), _) if found == hash => Verdict::Takes(*index),
                            // It cannot be read: the newest word on it is the best guess, and not tested.
                            (None, _) => Verdict::Takes(*index),
                            _ if record.sequence <= found.flushed => Verdict::Lost(*index),
                            (_, Verdict::Untouched) => Verdict::Stands,
                            (_, before) => before,
                        }
                    }
                    Body::Flush { .. } => continue,
                };
            }
        }
        for here in 0..count {
            self.settle(here, part.start, start, found, done)?;
        }
        Ok(())
    }

    /// Writes an interval's verdict into the block.
    fn settle(
        &mut self,
        here: usize,
        part: u64,
        start: u64,
        found: &Found,
        done: &mut Recovered,
    ) -> Result<(), StoreError> {
        let (profile, layout) = (self.pair.pi.header.profile, self.pair.pi.layout);
        let (entry, interval) = (layout.entry(), profile.interval());
        let number = part + here as u64;
        let at = (number - start) as usize * entry;
        let place = at..at + entry;
        let verdict = self.verdicts[here];
        let record = match verdict {
            Verdict::Takes(index) | Verdict::Rewrites(index) | Verdict::Lost(index) => found.record(index),
            _ => None,
        };
        let slice = |first: u64, size: usize| {
            let from = (number - first) as usize * size;
            from..from + size
        };
        if verdict == Verdict::Untouched {
            return Ok(());
        }
        done.intervals += 1;
        let expected = Expected::new(if profile.pi_type() == PiType::Type1 { number } else { 0 });
        let old = self.block[place.clone()].to_vec();
        match (verdict, record.map(|record| record.body)) {
            (Verdict::Escaped, _) => self.block[place.clone()].fill(0xFF),
            (Verdict::Takes(_), Some(Body::Write { first, metadata, .. })) => {
                self.block[place.clone()].copy_from_slice(&metadata[slice(first, entry)]);
                if self.read[here] == Some(false) {
                    done.bad.add(number);
                }
            }
            (Verdict::Rewrites(_), Some(Body::WriteWithData { first, metadata, data })) => {
                self.block[place.clone()].copy_from_slice(&metadata[slice(first, entry)]);
                let medium = &self.pair.data;
                // Through the part's buffer, which lies where direct I/O wants it.
                let buffer = &mut self.data[here * interval..][..interval];
                buffer.copy_from_slice(&data[slice(first, interval)]);
                let written = medium.write_all_at(buffer, number * layout.interval());
                written.map_err(StoreError::io(&medium.path, "cannot write what the log has"))?;
            }
            (Verdict::Lost(_), Some(Body::Write { first, metadata, .. })) => {
                self.block[place.clone()].copy_from_slice(&metadata[slice(first, entry)]);
                let data = &self.data[here * interval..][..interval];
                let bytes = &mut self.block[place.clone()];
                if profile.guard() != Guard::None && profile.verify(data, bytes, &expected).is_ok() {
                    // The guard cannot tell, or was not to: what is there must not pass for what was flushed.
                    profile.generate(data, bytes, expected.reference, 0);
                    let mut tuple = profile.tuple(bytes);
                    tuple.guard ^= 1;
                    profile.set_tuple(bytes, tuple);
                }
                done.lost.add(number);
            }
            _ => {
                let data = &self.data[here * interval..][..interval];
                let good = profile.verify(data, &self.block[place.clone()], &expected).is_ok();
                if !good {
                    done.bad.add(number);
                }
            }
        }
        done.updated += u64::from(self.block[place] != old[..]);
        Ok(())
    }

    /// The hash of an interval's data, or none where it cannot be read.
    fn hash(&mut self, here: usize, part: u64, count: usize) -> Option<IntervalHash> {
        let interval = self.pair.pi.header.profile.interval();
        if self.read[here].is_none() {
            // What a record is of lies together: so many intervals are read at once, and one by one if that fails.
            let run = (here..count.min(here + 64)).take_while(|other| self.read[*other].is_none()).count();
            let (medium, at) = (&self.pair.data, (part + here as u64) * interval as u64);
            let bytes = &mut self.data[here * interval..][..run * interval];
            let all = medium.read_exact_at(bytes, at).is_ok();
            for index in 0..run {
                let bytes = &mut self.data[(here + index) * interval..][..interval];
                let one = all || medium.read_exact_at(bytes, at + (index * interval) as u64).is_ok();
                self.read[here + index] = Some(one);
            }
        }
        if self.read[here] == Some(false) {
            return None;
        }
        let data = &self.data[here * interval..][..interval];
        Some(*self.hashes[here].get_or_insert_with(|| IntervalHash::of(&self.pair.pi.header.uuid, data)))
    }
}
