//! Backing devices behind one trait.
//!
//! ```text
//! control thread           queue thread 0              queue thread 1
//! Store::open ----------> Store::queue -> StoreQueue   Store::queue -> StoreQueue
//!                           submit(Io)                   submit(Io)
//!                           complete(CQE) -> Completion  ...
//! Store::close <--- after every queue has drained and gone
//! ```
//!
//! A store gets requests that are already admitted: in range, of whole logical blocks, allowed by the disk's mode.
//! What it stores as protection information (PI) is what it is handed: the queue has checked or made it. A store
//! maps reference tags itself where its medium counts otherwise than the virtual disk.

pub(crate) mod device;
mod error;
pub(crate) mod file;
mod flushes;
mod inbox;
pub(crate) mod lock;
pub(crate) mod medium;
mod null;
mod ranges;
pub mod sidecar;
mod spec;
mod survey;

pub use device::Wish;
pub use error::StoreError;
pub use medium::Direct;
pub use sidecar::AttachReport;
pub use spec::{CrashMode, Keeper, PiSource, Probe, StoreSpec, UnknownCrashMode, open, probe};
pub use survey::{Survey, WayReport, survey};

pub(crate) use null::parse_size;

use crate::io::{Doorbell, Lease, Ring};
use integrity::{Profile, Tag};
use std::io;
use std::sync::Arc;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Fill the lease with data and metadata.
    Read,
    /// Store the lease's data and metadata; with `fua`, durably before the completion.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// Make every write that completed on any queue of the disk durable.
    Flush,
    /// The range's contents are no longer needed.
    Discard,
}

/// One I/O. It owns its buffer until the [`Completion`] hands it back.
#[derive(Debug)]
pub struct Io {
    /// The queue's name of it.
    pub id: u32,
    /// What to do.
    pub op: Op,
    /// Where, in bytes on the disk, a multiple of the logical block size.
    pub offset: u64,
    /// How much, in bytes, a multiple of the logical block size; 0 for a flush. For reads and writes the lease's length.
    pub bytes: u64,
    /// The data and its metadata (reads and writes).
    pub buffer: Option<Lease>,
}

/// The end of an [`Io`].
#[derive(Debug)]
pub struct Completion {
    /// The queue's name of it.
    pub id: u32,
    /// The buffer handed in.
    pub buffer: Option<Lease>,
    /// How it went.
    pub result: Result<(), IoError>,
}

/// Why an [`Io`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoError {
    /// The kernel's reason.
    Kernel(Errno),
    /// PI that does not match, found below the queue: by the device, or by the store on the way to it.
    Mismatch(PiFault),
}

impl IoError {
    /// The kernel error number that says the same: EILSEQ for a mismatch, as the block layer has it.
    pub fn errno(&self) -> Errno {
        match self {
            IoError::Kernel(errno) => *errno,
            IoError::Mismatch(_) => Errno(libc::EILSEQ),
        }
    }
}

impl From<Errno> for IoError {
    fn from(errno: Errno) -> Self {
        IoError::Kernel(errno)
    }
}

/// PI that does not match, as far as could be found out. A device says little: NVMe which tag, a block device nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PiFault {
    /// Which tag.
    pub tag: Option<Tag>,
    /// Where its interval starts, in bytes on the disk.
    pub offset: Option<u64>,
    /// What the tag should have been, and what it is.
    pub values: Option<(u64, u64)>,
}

impl std::fmt::Display for PiFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "byte {offset}: ")?,
            None => f.write_str("an interval that could not be told: ")?,
        }
        match (self.tag, self.values) {
            (Some(tag), Some((expected, actual))) => {
                write!(f, "{tag} tag is {actual:#x}, expected {expected:#x}")
            }
            (Some(tag), None) => write!(f, "{tag} tag"),
            (None, _) => f.write_str("the device does not say which tag"),
        }
    }
}

/// A kernel error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

/// The shape of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in bytes, a multiple of the logical block size.
    pub bytes: u64,
    /// Smallest unit of I/O in bytes, at least 512.
    pub logical_block: u32,
    /// The unit the medium writes in, in bytes.
    pub physical_block: u32,
}

/// How a store discards, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardUnit {
    /// Smallest range worth discarding.
    pub granularity: u32,
    /// Offset of the first such range.
    pub alignment: u32,
}

/// What a store can do. Fixed while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The PI it keeps for every interval, or none.
    pub profile: Option<Profile>,
    /// Whether writes and discards are impossible.
    pub read_only: bool,
    /// Whether and how it discards.
    pub discard: Option<DiscardUnit>,
    /// Whether a completed write may still be lost until a flush.
    pub volatile_cache: bool,
}

/// A backing device, shared by the queues of one disk.
pub trait Store: Send + Sync {
    /// The disk's shape.
    fn geometry(&self) -> Geometry;

    /// What the store can do.
    fn capabilities(&self) -> Capabilities;

    /// One queue's way into the store. `doorbell` wakes that queue's thread, which then calls
    /// [`StoreQueue::resume`].
    ///
    /// # Errors
    /// The kernel refuses a resource.
    fn queue(self: Arc<Self>, doorbell: Doorbell) -> io::Result<Box<dyn StoreQueue>>;

    /// Whether its queues need a ring of wide entries ([`Ring::wide`]).
    fn wide_ring(&self) -> bool {
        false
    }

    /// Makes everything durable and leaves the store as one that was closed cleanly. Called once, by the control
    /// thread, after every queue has drained and gone.
    ///
    /// # Errors
    /// Something could not be made durable; the store then stays marked as not closed cleanly.
    fn close(&self) -> io::Result<()>;

    /// Takes in what the medium has grown by, and gives the disk's size in bytes now. Called while queues run, from a
    /// thread of its own; what is needed for the new part is durable before the size counts.
    ///
    /// # Errors
    /// The disk cannot grow, or the medium has shrunk; the size is what it was.
    fn grow(&self) -> Result<u64, StoreError> {
        Ok(self.geometry().bytes)
    }

    /// Why some of the disk may not match its PI, if there is reason to fear it; found when it was opened.
    fn attach_report(&self) -> Option<&AttachReport> {
        None
    }

    /// Counters and gauges of the store by name.
    fn statistics(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// One queue's half of a store. Every [`Io`] submitted ends in exactly one [`Completion`].
pub trait StoreQueue: Send {
    /// Starts an I/O. It may complete at once, into `done`.
    fn submit(&mut self, io: Io, ring: &mut Ring, done: &mut Vec<Completion>);

    /// Takes a completion of the ring that [`Owner::Store`](crate::io::Owner::Store) owns: its 56-bit value and result.
    fn complete(&mut self, value: u64, result: i32, ring: &mut Ring, done: &mut Vec<Completion>);

    /// Goes on with what waited for another queue, after the doorbell rang.
    fn resume(&mut self, ring: &mut Ring, done: &mut Vec<Completion>);

    /// The queue is about to end: whoever stops it waits for all that is under way. A discard is a hint, and one of a
    /// whole disk may take long: it ends, as done, with the part that it is at.
    fn hurry(&mut self) {}
}
