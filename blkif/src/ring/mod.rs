//! The ring: two producers' indexes and the entries between them (ring.h), from either end.
//!
//! ```text
//!   frontend: push, publish --req_prod--> backend: consume ... respond, publish --rsp_prod--> frontend
//!   backend sleeps:  arm --req_event--> frontend's publish says: notify
//!   frontend sleeps: arm --rsp_event--> backend's publish says: notify
//! ```
//!
//! No wake-up is lost because each side stores first and looks second, with a full barrier between:
//! the publisher stores its producer index, then reads the event index; the sleeper stores the event
//! index, then reads the producer index. One of them sees the other's store.
//!
//! A slot's bytes are published by a release store of the producer index and read after an acquire
//! load of it. That also orders reuse: a slot is written again only by whoever has seen, through the
//! other index, that it was read.

mod back;
mod front;

pub use back::{BackRing, Indexes, Start};
pub use front::FrontRing;

use crate::abi::{Abi, RING_HEADER};
use crate::memory::{Index, RingMemory};
use std::sync::atomic::Ordering::{Relaxed, Release};

/// What is wrong with a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RingError {
    /// The memory holds no ring of at least two entries (a DIX pair needs two).
    #[error("a ring does not fit {bytes} bytes")]
    TooSmall {
        /// Bytes of the memory.
        bytes: usize,
    },
    /// A ring was to be attached to where it is not.
    #[error("the ring's responses stand at {actual}, expected at {expected}")]
    Start {
        /// Where the caller believes it to stand.
        expected: u32,
        /// What the ring says.
        actual: u32,
    },
    /// The other side's producer index cannot be: the ring is stopped, nothing more is taken from it.
    #[error("producer index {producer} cannot be: {consumer} consumed, room for {room} more")]
    Producer {
        /// The index found.
        producer: u32,
        /// How far this side has consumed.
        consumer: u32,
        /// The most the index may be ahead of that.
        room: u32,
    },
    /// No free entry: a frontend must wait for responses.
    #[error("the ring is full")]
    Full,
}

/// Where the entries are.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    abi: Abi,
    entries: u32,
}

impl Geometry {
    fn new(abi: Abi, bytes: usize) -> Result<Self, RingError> {
        match abi.entries(bytes) {
            0 | 1 => Err(RingError::TooSmall { bytes }),
            entries => Ok(Self { abi, entries }),
        }
    }

    /// The byte offset of the entry an index names; entries are a power of two.
    // u32 to usize: every machine with Xen has at least 32 bits. The index is masked.
    #[allow(clippy::as_conversions)]
    #[inline]
    fn offset(&self, index: u32) -> usize {
        RING_HEADER + (index & (self.entries - 1)) as usize * self.abi.entry_size()
    }
}

/// Publishes what was written between two values of a producer index, by one store. True: the other side, whose event
/// index is `event`, is to be notified.
#[inline]
fn publish(memory: &impl RingMemory, producer: Index, event: Index, old: u32, new: u32) -> bool {
    // Release: the entries' bytes come before the index.
    memory.store(producer, new, Release);
    // The index before the look at the event index: the sleeper does it the other way round.
    memory.barrier();
    passed(memory.load(event, Relaxed), old, new)
}

/// Asks to be notified when the other side's producer index reaches `at`. The caller looks at that index next.
#[inline]
fn arm(memory: &impl RingMemory, event: Index, at: u32) {
    memory.store(event, at, Relaxed);
    // The event index before the look at the producer index: the publisher does it the other way round.
    memory.barrier();
}

/// Whether a producer that went from `old` to `new` owes the other side an event: the event index is
/// among those passed (ring.h, RING_PUSH_*_AND_CHECK_NOTIFY).
#[inline]
fn passed(event: u32, old: u32, new: u32) -> bool {
    new.wrapping_sub(event) < new.wrapping_sub(old)
}
