//! The way back: the live records of a log that was not retired.
//!
//! ```text
//! header: epoch, first live record, its place --> record --> record --> .. --> the next one is not there: the end
//!                                      not behind the last one: at the next page, or at the area's start
//! ```
//!
//! Numbers rise, with gaps where a batch could not be written. What is left of older records has lower ones.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions)
)]

use crate::store::medium::Medium;
use crate::store::sidecar::{Body, Header, Record};
use memmap2::{Mmap, MmapOptions};
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes read at once.
const PIECE: usize = 1 << 20;
/// Where a batch may begin.
const PAGE: usize = 4096;

/// The area as it was found, and where in it the live records are.
pub(in crate::store::sidecar) struct Found {
    area: Mmap,
    /// Places of the live records, oldest first.
    places: Vec<usize>,
    /// The newest sequence number that a flush mark covers.
    pub(in crate::store::sidecar) flushed: u64,
}

impl Found {
    /// Reads the log that the header speaks of.
    pub(in crate::store::sidecar) fn read(sidecar: &Medium, header: &Header) -> io::Result<Self> {
        let length = usize::try_from(header.log.1).map_err(io::Error::other)?;
        let mut area = MmapOptions::new().len(length.max(PAGE)).map_anon()?;
        let mut at = header.log.0;
        for piece in area.chunks_mut(PIECE) {
            sidecar.file.read_exact_at(piece, at)?;
            at += u64::try_from(piece.len()).unwrap_or(0);
        }
        let area = area.make_read_only()?;
        let (places, flushed) = find(&area, header);
        Ok(Self { area, places, flushed })
    }

    /// The records, oldest first.
    pub(in crate::store::sidecar) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.places.len()).filter_map(|index| self.record(index))
    }

    /// One of them.
    pub(in crate::store::sidecar) fn record(&self, index: usize) -> Option<Record<'_>> {
        let bytes = self.area.get(*self.places.get(index)?..)?;
        Record::decode(bytes).ok().map(|(record, _)| record)
    }

    pub(in crate::store::sidecar) fn len(&self) -> usize {
        self.places.len()
    }
}

/// Where the live records are, and what the newest flush mark covers.
fn find(area: &[u8], header: &Header) -> (Vec<usize>, u64) {
    let [epoch, mut expected, place] = header.log_state;
    let (mut places, mut flushed) = (Vec::new(), 0);
    let Ok(mut at) = usize::try_from(place) else { return (places, flushed) };
    loop {
        let next_page = at.checked_next_multiple_of(PAGE).unwrap_or(usize::MAX);
        // Sequence numbers only rise, so no place is come to twice, and this ends.
        let found = [at, next_page, 0].into_iter().find_map(|place| {
            let (record, length) = Record::decode(area.get(place..)?).ok()?;
            let counts = record.epoch == epoch && record.sequence >= expected && fits(&record.body, header);
            counts.then_some((place, length, record))
        });
        let Some((place, length, Record { sequence, body, .. })) = found else { return (places, flushed) };
        if let Body::Flush { covers } = body {
            flushed = flushed.max(covers);
        }
        places.push(place);
        let Some(next) = sequence.checked_add(1) else { return (places, flushed) };
        (at, expected) = (place + length, next);
    }
}

/// Whether a record is of this disk's shape and within it: the rest of the program computes with it.
fn fits(body: &Body<'_>, header: &Header) -> bool {
    let spec = header.profile.spec();
    let (entry, interval) = (usize::from(spec.metadata_size), usize::try_from(spec.interval).unwrap_or(0));
    let inside = |first: u64, count: u64| {
        first.checked_add(count).is_some_and(|end| end <= header.layout().intervals())
    };
    let long = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    match *body {
        Body::Write { first, hashes, metadata } => {
            Some(metadata.len()) == hashes.len().checked_mul(entry) && inside(first, long(hashes.len()))
        }
        Body::WriteWithData { first, metadata, data } => {
            let count = metadata.len() / entry.max(1);
            Some(data.len()) == count.checked_mul(interval)
                && metadata.len() == count * entry
                && inside(first, long(count))
        }
        Body::Discard { first, count } => inside(first, count),
        Body::Flush { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use integrity::{Guard, PiType, Profile, ProfileSpec};

    fn header() -> Header {
        let profile = Profile::new(ProfileSpec {
            guard: Guard::Crc16T10Dif,
            interval: 512,
            metadata_size: 8,
            pi_offset: 0,
            tag_size: 2,
            pi_type: PiType::Type1,
        });
        Header { log_state: [77, 5, 4096], ..Header::new(profile.unwrap(), 1 << 20, false) }
    }

    fn put(area: &mut [u8], at: usize, epoch: u64, sequence: u64, body: Body<'_>) -> usize {
        let mut bytes = Vec::new();
        Record { epoch, sequence, body }.encode(8, 512, &mut bytes).unwrap();
        area[at..at + bytes.len()].copy_from_slice(&bytes);
        at + bytes.len()
    }

    const DISCARD: Body<'_> = Body::Discard { first: 0, count: 1 };

    #[test]
    fn find_when_records_follow_at_the_next_page_and_at_the_start_finds_all() {
        let mut area = vec![0; 16 << 10];
        let end = put(&mut area, 4096, 77, 5, DISCARD);
        put(&mut area, end, 77, 6, Body::Flush { covers: 5 });
        // A batch with the numbers before it failed.
        put(&mut area, 8192, 77, 17, DISCARD);
        let end = put(&mut area, 0, 77, 18, DISCARD);
        put(&mut area, end, 77, 19, Body::Flush { covers: 4 });
        assert_eq!(find(&area, &header()), (vec![4096, 4160, 8192, 0, 64], 5));
        // Rotten: what was written later, to other places that are looked at, counts all the same.
        area[8200] ^= 1;
        assert_eq!(find(&area, &header()).0, [4096, 4160, 0, 64]);
        area[8] ^= 1;
        assert_eq!(find(&area, &header()).0, [4096, 4160]);
    }

    #[test]
    fn find_when_records_are_of_another_epoch_or_sequence_or_disk_ends() {
        let other = [
            (78, 6, DISCARD),
            (77, 5, DISCARD),
            (77, 4, DISCARD),
            (77, 6, Body::Discard { first: 2047, count: 2 }),
            (77, 6, Body::Discard { first: u64::MAX, count: 2 }),
            (
                77,
                6,
                Body::Write {
                    first: 2048,
                    hashes: &[crate::store::sidecar::IntervalHash([0; 16])],
                    metadata: &[0; 8],
                },
            ),
        ];
        for (epoch, sequence, body) in other {
            let mut area = vec![0; 16 << 10];
            let end = put(&mut area, 4096, 77, 5, DISCARD);
            put(&mut area, end, epoch, sequence, body);
            assert_eq!(find(&area, &header()).0, [4096], "{body:?}");
        }
        assert_eq!(find(&[0; 4096], &Header { log_state: [77, 5, u64::MAX], ..header() }).0, [0; 0]);
    }
}
