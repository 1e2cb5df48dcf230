//! The sidecar's header: two copies, each one block with a sequence number and a checksum; the newest valid one
//! counts. `docs/sidecar.md` has the offsets and the reasons.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions)
)]

use crate::store::sidecar::{BLOCK, Layout};
use integrity::{Guard, PiType, Profile, ProfileError, ProfileSpec};
use uuid::Uuid;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

#[cfg(test)]
mod tests;

/// The first bytes of a sidecar.
const MAGIC: [u8; 8] = *b"DIXBKPI\0";
/// The format's version.
const VERSION: u32 = 1;
/// Where the two copies lie; far enough apart that one bad stretch of a medium does not take both.
pub const COPIES: [u64; 2] = [0, 32 << 10];
/// What both copies take; there the log area starts by default.
pub const HEADERS: u64 = 64 << 10;
const MIB: u64 = 1 << 20;
/// Largest log area: it is read into memory to be replayed, and a sidecar may have been made elsewhere.
const LOG_MOST: u64 = 1 << 30;
/// What the header's areas are aligned to.
const ALIGNMENT: u64 = 4096;

/// State: the disk was closed cleanly and nothing was written since.
const CLEAN: u32 = 1;

/// A feature that a reader must know, or it would misread the disk.
const NON_ATOMIC: u32 = 1;
const LOG: u32 = 2;
const BITMAP: u32 = 4;
const KNOWN_FEATURES: u32 = NON_ATOMIC | LOG | BITMAP;

/// Longest host name kept, in bytes (HOST_NAME_MAX).
const HOST: usize = 64;
/// Longest owner's text kept, in bytes.
const OWNER: usize = 128;

/// Why a header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Neither copy starts as a sidecar's header does.
    #[error(
        "is no PI sidecar (no header found); to name another: pi=PATH, to do without: pi=none, to make one in its \
         place: dixback image protect --force DISK"
    )]
    NoMagic,
    /// There is a header, and no copy of it has the right checksum.
    #[error(
        "both copies of the header are damaged (checksum); restore the sidecar, or make it anew from the data as \
         it is: dixback image protect --force DISK"
    )]
    Damaged,
    /// A version to come.
    #[error("is of format version {0}; this program knows version 1: use a newer dixback")]
    Version(u32),
    /// A feature to come.
    #[error("uses {0}, which this program does not know: use a newer dixback")]
    Feature(String),
    /// The profile is none.
    #[error("holds an impossible profile: {0}")]
    Profile(#[from] ProfileError),
    /// A guard's number is none.
    #[error("holds guard number {0}, which this program does not know")]
    Guard(u8),
    /// The areas overlap or do not suffice.
    #[error("holds an impossible layout: {0}")]
    Layout(&'static str),
}

/// Who has a disk open, or had it open last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerRecord {
    /// What it is to its user, as in "domain 3 xvda (51712)"; at most 128 bytes are kept.
    pub text: String,
    /// The host's name; at most 64 bytes are kept.
    pub host: String,
    /// The process.
    pub process: u32,
}

impl std::fmt::Display for OwnerRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "by {}, process {} on host {}", self.text, self.process, self.host)
    }
}

/// What the log area holds that the next opener has to heed. Nothing after a clean close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Live {
    /// Nothing.
    #[default]
    Nothing,
    /// Records of writes that may have been cut short.
    Log,
    /// A bitmap of the regions in which writes may have been cut short.
    Bitmap,
}

/// The data file at the last clean close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was last modified: seconds and nanoseconds since 1970; zeroes if that was not known.
    pub modified: (i64, u32),
}

/// The header's contents.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Which of two copies is newer.
    pub sequence: u64,
    /// The store's name for life.
    pub uuid: Uuid,
    /// Whether it was closed cleanly, and nothing was written since.
    pub clean: bool,
    /// Whether an interval may be larger than what a power cut leaves whole, so that a log must carry data too.
    pub non_atomic: bool,
    /// What is kept per interval.
    pub profile: Profile,
    /// Bytes of data that the metadata covers.
    pub data_bytes: u64,
    /// The log area: start and length in bytes.
    pub log: (u64, u64),
    /// The metadata area: start and length in bytes.
    pub metadata: (u64, u64),
    /// The data file at the last clean close.
    pub closed: Closed,
    /// What the log area holds.
    pub live: Live,
    /// The log's epoch, and the oldest live record's sequence and place in the area; or the size of a bitmap's regions
    /// in bytes, and zeroes; or zeroes.
    pub log_state: [u64; 3],
    /// Who has it open, or had last.
    pub owner: OwnerRecord,
}

/// The header as it is on disk.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U32,
    state: U32,
    checksum: U64,
    sequence: U64,
    uuid: [u8; 16],
    features: U32,
    /// Features that a reader may ignore.
    hints: U32,
    guard: u8,
    pi_type: u8,
    metadata_size: U16,
    interval: U32,
    pi_offset: u8,
    tag_size: u8,
    reserved_1: [u8; 6],
    data_bytes: U64,
    log_start: U64,
    log_bytes: U64,
    metadata_start: U64,
    metadata_bytes: U64,
    closed_bytes: U64,
    closed_seconds: I64,
    closed_nanoseconds: U32,
    process: U32,
    log_state: [U64; 3],
    reserved_2: [u8; 32],
    host: [u8; HOST],
    owner: [u8; OWNER],
    rest: [u8; BLOCK - 384],
}

const _: () = assert!(size_of::<Raw>() == BLOCK);

impl Header {
    /// A header for a new sidecar, marked as in use.
    pub fn new(profile: Profile, data_bytes: u64, non_atomic: bool) -> Self {
        // A log as large as what a burst of writes leaves behind, and never more than it is worth for a small disk.
        let log_end = (data_bytes / 128).next_multiple_of(MIB).clamp(MIB, 64 * MIB);
        let layout = Layout::new(&profile, data_bytes, log_end);
        Self {
            sequence: 0,
            uuid: Uuid::new_v4(),
            clean: false,
            non_atomic,
            profile,
            data_bytes,
            log: (HEADERS, log_end - HEADERS),
            metadata: (log_end, layout.position(layout.blocks()) - log_end),
            closed: Closed::default(),
            live: Live::Nothing,
            log_state: [0; 3],
            owner: OwnerRecord::default(),
        }
    }

    /// The same, for a new sidecar, with a log area of so many bytes, or of as many as a log needs.
    pub fn with_log(self, bytes: u64) -> Self {
        let spec = self.profile.spec();
        let bytes = bytes.max(super::wal::smallest(spec.interval, spec.metadata_size));
        let bytes = bytes.next_multiple_of(ALIGNMENT);
        Self { log: (self.log.0, bytes), metadata: (self.log.0 + bytes, self.metadata.1), ..self }
    }

    /// Where the metadata lies.
    pub fn layout(&self) -> Layout {
        Layout::new(&self.profile, self.data_bytes, self.metadata.0)
    }

    /// The sidecar's length in bytes.
    pub fn sidecar_bytes(&self) -> u64 {
        self.metadata.0 + self.metadata.1
    }

    /// One copy, as it goes to disk.
    pub fn encode(&self) -> [u8; BLOCK] {
        let spec = self.profile.spec();
        let mut raw = Raw::new_zeroed();
        raw.magic = MAGIC;
        raw.version = VERSION.into();
        raw.state = if self.clean { CLEAN } else { 0 }.into();
        raw.sequence = self.sequence.into();
        raw.uuid = *self.uuid.as_bytes();
        let live = match self.live {
            Live::Nothing => 0,
            Live::Log => LOG,
            Live::Bitmap => BITMAP,
        };
        raw.features = (live | if self.non_atomic { NON_ATOMIC } else { 0 }).into();
        raw.guard = match spec.guard {
            Guard::None => 0,
            Guard::Crc16T10Dif => 1,
            Guard::Ip => 2,
            Guard::Crc64Nvme => 3,
        };
        raw.pi_type = spec.pi_type.number();
        raw.metadata_size = spec.metadata_size.into();
        raw.interval = spec.interval.into();
        raw.pi_offset = spec.pi_offset;
        raw.tag_size = spec.tag_size;
        raw.data_bytes = self.data_bytes.into();
        raw.log_start = self.log.0.into();
        raw.log_bytes = self.log.1.into();
        raw.metadata_start = self.metadata.0.into();
        raw.metadata_bytes = self.metadata.1.into();
        raw.closed_bytes = self.closed.bytes.into();
        raw.closed_seconds = self.closed.modified.0.into();
        raw.closed_nanoseconds = self.closed.modified.1.into();
        raw.process = self.owner.process.into();
        raw.log_state = self.log_state.map(U64::from);
        put_text(&mut raw.host, &self.owner.host);
        put_text(&mut raw.owner, &self.owner.text);
        raw.checksum = checksum(&mut raw).into();
        let mut block = [0; BLOCK];
        block.copy_from_slice(raw.as_bytes());
        block
    }

    /// Reads one copy.
    ///
    /// # Errors
    /// [`HeaderError`]; [`HeaderError::NoMagic`] and [`HeaderError::Damaged`] speak of this copy alone.
    pub fn decode(block: &[u8; BLOCK]) -> Result<Self, HeaderError> {
        let mut raw = Raw::read_from_bytes(block).map_err(|_| HeaderError::NoMagic)?;
        if raw.magic != MAGIC {
            return Err(HeaderError::NoMagic);
        }
        if checksum(&mut raw) != raw.checksum.get() {
            return Err(HeaderError::Damaged);
        }
        if raw.version.get() != VERSION {
            return Err(HeaderError::Version(raw.version.get()));
        }
        let unknown = raw.features.get() & !KNOWN_FEATURES;
        if unknown != 0 {
            return Err(HeaderError::Feature(feature_names(unknown)));
        }
        let profile = Profile::new(ProfileSpec {
            guard: match raw.guard {
                0 => Guard::None,
                1 => Guard::Crc16T10Dif,
                2 => Guard::Ip,
                3 => Guard::Crc64Nvme,
                other => return Err(HeaderError::Guard(other)),
            },
            interval: raw.interval.get(),
            metadata_size: raw.metadata_size.get(),
            pi_offset: raw.pi_offset,
            tag_size: raw.tag_size,
            pi_type: PiType::try_from(raw.pi_type)?,
        })?;
        let live = match raw.features.get() & (LOG | BITMAP) {
            0 => Live::Nothing,
            LOG => Live::Log,
            BITMAP => Live::Bitmap,
            _ => return Err(HeaderError::Layout("the log area holds a log and a bitmap")),
        };
        let header = Self {
            sequence: raw.sequence.get(),
            uuid: Uuid::from_bytes(raw.uuid),
            clean: raw.state.get() & CLEAN != 0,
            non_atomic: raw.features.get() & NON_ATOMIC != 0,
            profile,
            data_bytes: raw.data_bytes.get(),
            log: (raw.log_start.get(), raw.log_bytes.get()),
            metadata: (raw.metadata_start.get(), raw.metadata_bytes.get()),
            closed: Closed {
                bytes: raw.closed_bytes.get(),
                modified: (raw.closed_seconds.get(), raw.closed_nanoseconds.get()),
            },
            live,
            log_state: raw.log_state.map(U64::get),
            owner: OwnerRecord {
                text: get_text(&raw.owner),
                host: get_text(&raw.host),
                process: raw.process.get(),
            },
        };
        header.check_layout()?;
        Ok(header)
    }

    /// Reads both copies: the newest valid one, and whether the other is no good (which an unfinished write of it
    /// can be the reason for).
    ///
    /// # Errors
    /// [`HeaderError`], of the newer copy where both are whole.
    pub fn newest(copies: &[[u8; BLOCK]; 2]) -> Result<(Self, bool), HeaderError> {
        match copies.each_ref().map(Self::decode) {
            [Ok(a), Ok(b)] => Ok((if b.sequence > a.sequence { b } else { a }, false)),
            // A copy that is whole and cannot be read may be the newer one: its word counts.
            [Ok(header), Err(HeaderError::NoMagic | HeaderError::Damaged)]
            | [Err(HeaderError::NoMagic | HeaderError::Damaged), Ok(header)] => Ok((header, true)),
            [Ok(_), Err(error)] | [Err(error), Ok(_)] => Err(error),
            [Err(a), Err(b)] => Err(if rank(&b) > rank(&a) { b } else { a }),
        }
    }

    /// Refuses areas that overlap, are unaligned or too small: the rest of the program computes with them.
    fn check_layout(&self) -> Result<(), HeaderError> {
        let interval = u64::from(self.profile.spec().interval);
        let end = |(start, bytes): (u64, u64)| {
            let aligned = start.is_multiple_of(ALIGNMENT) && bytes.is_multiple_of(ALIGNMENT);
            start.checked_add(bytes).filter(|end| aligned && i64::try_from(*end).is_ok())
        };
        let [_, second] = COPIES;
        let log_end = end(self.log).ok_or(HeaderError::Layout("the log area is unaligned or endless"))?;
        end(self.metadata).ok_or(HeaderError::Layout("the metadata area is unaligned or endless"))?;
        if self.data_bytes == 0
            || !self.data_bytes.is_multiple_of(interval)
            || i64::try_from(self.data_bytes).is_err()
        {
            return Err(HeaderError::Layout("the data is no whole number of intervals"));
        }
        if self.log.1 > LOG_MOST {
            return Err(HeaderError::Layout("the log area is larger than 1 GiB"));
        }
        if self.log.0 < second + ALIGNMENT || self.metadata.0 < log_end {
            return Err(HeaderError::Layout("areas overlap"));
        }
        // Fits: at most 255 bytes for 512 bytes of data, in blocks that are at least half full.
        if self.layout().blocks() > self.metadata.1 / ALIGNMENT {
            return Err(HeaderError::Layout("the metadata area is too small"));
        }
        Ok(())
    }
}

/// How much an error says about the sidecar.
fn rank(error: &HeaderError) -> u8 {
    match error {
        HeaderError::NoMagic => 0,
        HeaderError::Damaged => 1,
        _ => 2,
    }
}

/// CRC-64/NVME of the whole block with the checksum's own bytes zero.
fn checksum(raw: &mut Raw) -> u64 {
    let stored = std::mem::replace(&mut raw.checksum, U64::ZERO);
    let checksum = crc_fast::crc64_nvme(raw.as_bytes());
    raw.checksum = stored;
    checksum
}

fn feature_names(unknown: u32) -> String {
    let bits = (0..u32::BITS).filter(|bit| unknown >> bit & 1 != 0);
    bits.map(|bit| format!("feature {bit}")).collect::<Vec<_>>().join(", ")
}

/// As much of a text as fits, cut between characters; zeroes fill the field.
fn put_text(field: &mut [u8], text: &str) {
    let end = (0..=field.len().min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    for (to, from) in field.iter_mut().zip(text.as_bytes().iter().take(end)) {
        *to = *from;
    }
}

/// The text up to the first zero; control characters and what is no UTF-8 become U+FFFD, for it will be printed.
fn get_text(field: &[u8]) -> String {
    let bytes: Vec<u8> = field.iter().copied().take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).replace(char::is_control, "\u{FFFD}")
}
