//! Why a request is answered without being looked at further, and with what.

use arrayvec::ArrayVec;

use crate::response::{Response, Status};
use crate::units::Sectors;

/// What is wrong with a request. [`Refusal::status`] is what the guest is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// No such operation.
    #[error("operation {0:#04x} is unknown")]
    UnknownOperation(u8),
    /// An indirect request, though none were offered.
    #[error("indirect requests were not offered")]
    IndirectNotOffered,
    /// The DIX flag, though DIX was not negotiated.
    #[error("operation {0:#04x} carries the DIX flag, which was not negotiated")]
    NotNegotiated(u8),
    /// A payload slot that follows no flagged slot.
    #[error("a payload slot follows no flagged slot")]
    LonePayload,
    /// A read or write of nothing, or an indirect request without segments.
    #[error("no segments")]
    NoSegments,
    /// More segments than a slot has, or than were offered.
    #[error("{count} segments, at most {max} are allowed")]
    TooManySegments {
        /// As sent.
        count: u16,
        /// As allowed.
        max: u16,
    },
    /// A segment that ends before it starts, or outside its page.
    #[error("segment {index} goes from sector {first} to {last} of its page")]
    Segment {
        /// Which, from 0.
        index: usize,
        /// First sector as sent.
        first: u8,
        /// Last sector as sent.
        last: u8,
    },
    /// An indirect request of something else than read or write.
    #[error("operation {0:#04x} cannot be indirect")]
    IndirectOperation(u8),
    /// The segments' pages hold fewer bytes than the segments need: the caller copied too little.
    #[error("{bytes} bytes of segments for {count} segments")]
    IndirectPages {
        /// Bytes given.
        bytes: usize,
        /// Segments announced.
        count: u16,
    },
    /// Start and length leave the range that offsets can express.
    #[error("{sectors} sectors from {start} leave the range of offsets")]
    Overflow {
        /// First sector.
        start: Sectors,
        /// Sectors in all.
        sectors: Sectors,
    },
    /// The DIX flag on a request without data: a discard, an empty flush or barrier.
    #[error("operation {0:#04x} carries the DIX flag without data")]
    FlagWithoutData(u8),
    /// The slot after a flagged one is not its payload.
    #[error("no payload slot follows a flagged one")]
    NoPayload,
    /// Start or length is no multiple of the protection interval.
    #[error("{bytes} bytes from sector {sector} are not whole intervals of {interval} bytes")]
    Unaligned {
        /// First sector.
        sector: Sectors,
        /// Bytes in all.
        bytes: usize,
        /// Bytes of an interval.
        interval: u32,
    },
    /// The payload slot's segments are too few for the data.
    #[error("a payload of {actual} bytes where {needed} are needed")]
    PayloadTooShort {
        /// Bytes that the data needs.
        needed: usize,
        /// Bytes that the segments have.
        actual: usize,
    },
}

impl Refusal {
    /// The status for the guest: EOPNOTSUPP for what was not offered, else ERROR.
    pub fn status(&self) -> Status {
        match self {
            Refusal::UnknownOperation(_)
            | Refusal::IndirectNotOffered
            | Refusal::NotNegotiated(_)
            | Refusal::LonePayload => Status::Unsupported,
            _ => Status::Error,
        }
    }
}

/// A refused request, or pair: the responses that go out, one for each slot, and the reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// One response for each slot consumed, in the slots' order.
    pub responses: ArrayVec<Response, 2>,
    /// Why; of a pair, the first thing found.
    pub reason: Refusal,
}
