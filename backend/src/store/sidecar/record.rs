//! A record of the sidecar's log: what a crash must not forget about a write, a discard or a flush.
//!
//! `docs/sidecar.md` says how the log is written and read.
//!
//! ```text
//! | head, 64 bytes | hashes, 16 each | metadata, one entry each | zeroes up to a multiple of 64 |   a write
//! | head           | metadata        | data                     | zeroes                        |   with data
//! | head                                                                                       |   others
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions)
)]

use twox_hash::XxHash3_128;
use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

#[cfg(test)]
mod tests;

/// The first bytes of a record.
const MAGIC: [u8; 4] = *b"DXLR";
/// A record's length is a multiple of this.
const GRAIN: usize = 64;
const WRITE: u16 = 1;
const WRITE_WITH_DATA: u16 = 2;
const DISCARD: u16 = 3;
const FLUSH: u16 = 4;

/// A hash of one interval's data: XXH3-128, seeded with the first eight bytes of the store's UUID (little-endian).
///
/// It tells the data of one write from that of another after a crash. It need not withstand an enemy: who could
/// choose colliding data is the guest that owns all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct IntervalHash(pub [u8; 16]);

impl IntervalHash {
    /// The hash of one interval's data in the store of that UUID.
    pub fn of(store: &Uuid, data: &[u8]) -> Self {
        let (seed, _) = store.as_u64_pair();
        Self(XxHash3_128::oneshot_with_seed(seed.swap_bytes(), data).to_le_bytes())
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// The intervals from `first` on were to be written: after a crash, one whose data has the hash has the metadata.
    Write {
        /// The first interval.
        first: u64,
        /// One hash per interval.
        hashes: &'a [IntervalHash],
        /// One entry per interval.
        metadata: &'a [u8],
    },
    /// The same where an interval may be torn by a power cut: the data is here, and is written again.
    WriteWithData {
        /// The first interval.
        first: u64,
        /// One entry per interval.
        metadata: &'a [u8],
        /// One interval's data after the other.
        data: &'a [u8],
    },
    /// The intervals were to be discarded: whatever their data is, their metadata is escapes.
    Discard {
        /// The first interval.
        first: u64,
        /// How many.
        count: u64,
    },
    /// Every write up to and with this sequence number is durable: no older record may win over it.
    Flush {
        /// The sequence number of the last record whose write it covers.
        covers: u64,
    },
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The log's epoch: a record of another one is a leftover.
    pub epoch: u64,
    /// One more than the record before it.
    pub sequence: u64,
    /// What it says.
    pub body: Body<'a>,
}

/// Why bytes are no record. Where a log ends, they are none: this is no failure by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They do not start as a record does.
    #[error("no record starts here")]
    NoMagic,
    /// The length is impossible or goes beyond the bytes at hand.
    #[error("the record's length is impossible")]
    Length,
    /// The checksum differs: the record was not written in full.
    #[error("the record's checksum is wrong")]
    Checksum,
    /// A kind that this program does not know.
    #[error("record kind {0} is unknown")]
    Kind(u16),
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Head {
    magic: [u8; 4],
    kind: U16,
    /// Bytes of metadata per interval.
    entry: U16,
    /// Of the whole record.
    bytes: U32,
    /// Bytes of data per interval, where data follows.
    interval: U32,
    epoch: U64,
    sequence: U64,
    first: U64,
    count: U64,
    reserved: U64,
    checksum: U64,
}

const _: () = assert!(size_of::<Head>() == GRAIN);

impl<'a> Record<'a> {
    /// Appends the record to `out`. `entry` and `interval` are the profile's metadata size and interval in bytes.
    ///
    /// # Errors
    /// [`RecordError::Length`] if hashes, metadata and data are not of the same number of intervals, or too many.
    pub fn encode(&self, entry: u16, interval: u32, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let (kind, first, count, parts): (_, _, _, [&[u8]; 2]) = match self.body {
            Body::Write { first, hashes, metadata } => {
                (WRITE, first, hashes.len(), [hashes.as_bytes(), metadata])
            }
            Body::WriteWithData { first, metadata, data } => {
                (WRITE_WITH_DATA, first, metadata.len() / usize::from(entry.max(1)), [metadata, data])
            }
            Body::Discard { first, .. } => (DISCARD, first, 0, [&[], &[]]),
            Body::Flush { covers } => (FLUSH, covers, 0, [&[], &[]]),
        };
        let count = match self.body {
            Body::Discard { count, .. } => count,
            _ => u64::try_from(count).map_err(|_| RecordError::Length)?,
        };
        let body: usize = parts.iter().map(|part| part.len()).sum();
        if u64::try_from(body).ok() != body_bytes(kind, count, entry, interval) {
            return Err(RecordError::Length);
        }
        let bytes = (GRAIN + body).next_multiple_of(GRAIN);
        let mut head = Head::new_zeroed();
        head.magic = MAGIC;
        head.kind = kind.into();
        head.entry = entry.into();
        head.bytes = u32::try_from(bytes).map_err(|_| RecordError::Length)?.into();
        head.interval = interval.into();
        head.epoch = self.epoch.into();
        head.sequence = self.sequence.into();
        head.first = first.into();
        head.count = count.into();
        head.checksum = checksum(&head, parts, bytes - GRAIN - body).into();
        out.extend_from_slice(head.as_bytes());
        for part in parts {
            out.extend_from_slice(part);
        }
        out.resize(out.len() + (bytes - GRAIN - body), 0);
        Ok(())
    }

    /// Reads the record at the start of `bytes`, and says how many bytes it takes. That it is of this log's epoch and
    /// sequence, and within the disk, is the reader's to check.
    ///
    /// # Errors
    /// [`RecordError`]: no record is here.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, usize), RecordError> {
        let (head, rest) = Head::ref_from_prefix(bytes).map_err(|_| RecordError::Length)?;
        if head.magic != MAGIC {
            return Err(RecordError::NoMagic);
        }
        let length = usize::try_from(head.bytes.get()).map_err(|_| RecordError::Length)?;
        if length % GRAIN != 0 {
            return Err(RecordError::Length);
        }
        let rest = length.checked_sub(GRAIN).and_then(|end| rest.get(..end)).ok_or(RecordError::Length)?;
        if checksum(head, [rest, &[]], 0) != head.checksum.get() {
            return Err(RecordError::Checksum);
        }
        let (kind, count, entry) = (head.kind.get(), head.count.get(), head.entry.get());
        let body = body_bytes(kind, count, entry, head.interval.get())
            .and_then(|body| usize::try_from(body).ok())
            .and_then(|body| rest.get(..body))
            .ok_or(RecordError::Length)?;
        // Both below the body's length, which is in memory.
        let part = |size: u64| usize::try_from(count.saturating_mul(size)).unwrap_or(usize::MAX);
        let first = head.first.get();
        let body = match kind {
            WRITE => {
                let (hashes, metadata) = body.split_at_checked(part(16)).ok_or(RecordError::Length)?;
                let hashes = <[IntervalHash]>::ref_from_bytes(hashes).map_err(|_| RecordError::Length)?;
                Body::Write { first, hashes, metadata }
            }
            WRITE_WITH_DATA => {
                let (metadata, data) =
                    body.split_at_checked(part(u64::from(entry))).ok_or(RecordError::Length)?;
                Body::WriteWithData { first, metadata, data }
            }
            DISCARD => Body::Discard { first, count },
            FLUSH => Body::Flush { covers: first },
            other => return Err(RecordError::Kind(other)),
        };
        Ok((Self { epoch: head.epoch.get(), sequence: head.sequence.get(), body }, length))
    }
}

/// Bytes that follow the head, before the zeroes; none if that is beyond all measure.
fn body_bytes(kind: u16, count: u64, entry: u16, interval: u32) -> Option<u64> {
    match kind {
        WRITE => count.checked_mul(16 + u64::from(entry)),
        WRITE_WITH_DATA => count.checked_mul(u64::from(entry) + u64::from(interval)),
        _ => Some(0),
    }
}

/// CRC-64/NVME of the whole record with the checksum's own bytes zero.
fn checksum(head: &Head, parts: [&[u8]; 2], zeroes: usize) -> u64 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    let (before, _) = head.as_bytes().split_at_checked(GRAIN - 8).unwrap_or_default();
    digest.update(before);
    digest.update(&[0; 8]);
    for part in parts {
        digest.update(part);
    }
    digest.update([0; GRAIN].get(..zeroes).unwrap_or_default());
    digest.finalize()
}
