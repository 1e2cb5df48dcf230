//! Pairing: which slots belong together under DIX, and what becomes of those that do not.
//!
//! ```text
//! next slot          flag   DIX        then
//! anything           no     any        Single, or Refused (a payload slot on its own among them)
//! anything           yes    no         Refused: EOPNOTSUPP
//! without data       yes    yes        Refused: ERROR, alone
//! with data          yes    yes        the slot after it is
//!                                        not visible   NeedMore(2): nothing is consumed
//!                                        its payload   Pair, or Refused: ERROR for both
//!                                        another       Refused: ERROR, alone; the other is next
//! ```
//!
//! The machine's whole state is the ring's: half a pair stays unconsumed, so it neither delays a
//! clean stop nor is lost by it, and is copied and judged anew when the rest has come.

use arrayvec::ArrayVec;

use crate::limits::{DixLimits, Limits, MAX_SEGMENTS};
use crate::memory::RingMemory;
use crate::payload::Payload;
use crate::refusal::{Refusal, Refused};
use crate::request::{Request, Segments, parse_segments};
use crate::response::Response;
use crate::ring::{BackRing, RingError};
use crate::segment::total_len;
use crate::slot::RawSlot;
use crate::wire;

/// Slots of a pair.
const PAIR: u32 = 2;

/// What the next slot, or the next two, are.
// The variants differ in size on purpose: boxing the large one would allocate for each request.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Paired {
    /// A request of one slot.
    Single(Request),
    /// A request and its protection information.
    Pair {
        /// The data slot.
        data: Request,
        /// The payload slot. Where the data is indirect, [`Payload::needed`] is still to be asked.
        payload: Payload,
    },
    /// A slot, or a pair, that is answered as it stands.
    Refused(Refused),
    /// The first half of a pair: nothing was consumed. Arm for this many slots ([`BackRing::arm`])
    /// and go on with everything else meanwhile; never poll for it.
    NeedMore(u32),
}

impl Paired {
    /// Slots consumed, which is also how many responses are due.
    #[inline]
    pub fn slots(&self) -> u32 {
        match self {
            Paired::Single(_) => 1,
            Paired::Pair { .. } => PAIR,
            Paired::Refused(refused) => {
                if refused.responses.len() == 1 {
                    1
                } else {
                    PAIR
                }
            }
            Paired::NeedMore(_) => 0,
        }
    }
}

/// The pairing rules under one ring's limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pairing {
    limits: Limits,
}

impl Pairing {
    /// Pairing under these limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits }
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes the next request, or pair, from a ring; none when the ring has no more visible.
    ///
    /// # Errors
    /// As [`BackRing::consume`].
    #[inline]
    pub fn next<M: RingMemory>(&self, ring: &mut BackRing<M>) -> Result<Option<Paired>, RingError> {
        let mut paired = Paired::NeedMore(PAIR);
        Ok(self.next_into(ring, &mut paired)?.then_some(paired))
    }

    /// As [`Self::next`], but parsed in place, which saves moving a request: false, and `paired` as it
    /// was, when the ring has no more visible.
    ///
    /// # Errors
    /// As [`BackRing::consume`].
    #[inline]
    pub fn next_into<M: RingMemory>(
        &self,
        ring: &mut BackRing<M>,
        paired: &mut Paired,
    ) -> Result<bool, RingError> {
        if ring.visible(1)? == 0 {
            return Ok(false);
        }
        let first = ring.peek(0);
        if !first.is_flagged() {
            self.single(&first, paired);
        } else if self.starts_pair(&first) && ring.visible(PAIR)? >= PAIR {
            self.flagged(&first, Some(&ring.peek(1)), paired);
        } else {
            self.flagged(&first, None, paired);
        }
        ring.advance(paired.slots());
        Ok(true)
    }

    /// Whether a slot is the first of a pair, so that the one after it must be seen.
    #[inline]
    pub fn starts_pair(&self, slot: &RawSlot) -> bool {
        slot.is_flagged()
            && self.limits.dix.is_some()
            && slot.base_operation() != wire::OP_INTEGRITY
            && slot.nr_segments() != 0
    }

    /// Judges a slot and, if it starts a pair and the next is visible, that one.
    /// [`Paired::slots`] says how many of them are consumed.
    pub fn pair(&self, first: &RawSlot, second: Option<&RawSlot>) -> Paired {
        let mut paired = Paired::NeedMore(PAIR);
        if first.is_flagged() {
            self.flagged(first, second, &mut paired);
        } else {
            self.single(first, &mut paired);
        }
        paired
    }

    #[inline]
    fn single(&self, slot: &RawSlot, paired: &mut Paired) {
        *paired = Paired::Single(Request::named(slot));
        let Paired::Single(request) = paired else { return };
        match request.fill(slot, &self.limits) {
            Ok(()) => {}
            Err(Refusal::UnknownOperation(wire::OP_INTEGRITY)) => {
                *paired = refuse(slot, Refusal::LonePayload)
            }
            Err(refusal) => *paired = refuse(slot, refusal),
        }
    }

    fn flagged(&self, first: &RawSlot, second: Option<&RawSlot>, paired: &mut Paired) {
        *paired = match (self.limits.dix, second) {
            (None, _) => refuse(first, Refusal::NotNegotiated(first.operation())),
            _ if !self.starts_pair(first) => refuse(first, without_data(first)),
            (_, None) => Paired::NeedMore(PAIR),
            (_, Some(second)) if !is_payload_of(first, second) => refuse(first, Refusal::NoPayload),
            (Some(dix), Some(second)) => return self.both(&dix, first, second, paired),
        };
    }

    fn both(&self, dix: &DixLimits, first: &RawSlot, second: &RawSlot, paired: &mut Paired) {
        let payload = Payload { id: second.id(), segments: ArrayVec::new_const() };
        *paired = Paired::Pair { data: Request::named(first), payload };
        let Paired::Pair { data, payload } = paired else { return };
        if let Err(reason) = self.fill(dix, data, payload, first, second) {
            *paired = refuse_both(first, second, reason);
        }
    }

    fn fill(
        &self,
        dix: &DixLimits,
        data: &mut Request,
        payload: &mut Payload,
        first: &RawSlot,
        second: &RawSlot,
    ) -> Result<(), Refusal> {
        data.fill(first, &self.limits)?;
        parse_segments(second, &mut payload.segments)?;
        match &data.segments {
            Segments::Direct(segments) => {
                payload.needed(dix, data.sector, total_len(segments))?;
            }
            // The length is in pages not yet copied, the start is here already.
            Segments::Indirect { .. } => {
                dix.metadata_len(data.sector, 0)?;
            }
        }
        Ok(())
    }
}

/// The reason for a flagged slot that starts no pair: known operations lack data, others are unknown.
fn without_data(slot: &RawSlot) -> Refusal {
    match slot.base_operation() {
        wire::OP_READ
        | wire::OP_WRITE
        | wire::OP_WRITE_BARRIER
        | wire::OP_FLUSH_DISKCACHE
        | wire::OP_DISCARD
        | wire::OP_INDIRECT => Refusal::FlagWithoutData(slot.operation()),
        _ => Refusal::UnknownOperation(slot.operation()),
    }
}

/// Whether `second` is the payload slot of `first`; its segments' bounds are not looked at yet.
fn is_payload_of(first: &RawSlot, second: &RawSlot) -> bool {
    second.operation() == wire::OP_INTEGRITY
        && (1..=MAX_SEGMENTS).contains(&usize::from(second.nr_segments()))
        && second.handle() == first.handle()
        && second.sector() == first.sector()
}

fn refuse(slot: &RawSlot, reason: Refusal) -> Paired {
    let mut responses = ArrayVec::new();
    responses.push(Response { id: slot.id(), operation: slot.echo(), status: reason.status() });
    Paired::Refused(Refused { responses, reason })
}

fn refuse_both(first: &RawSlot, second: &RawSlot, reason: Refusal) -> Paired {
    let status = reason.status();
    let responses = ArrayVec::from([
        Response { id: first.id(), operation: first.echo(), status },
        Response { id: second.id(), operation: wire::OP_INTEGRITY, status },
    ]);
    Paired::Refused(Refused { responses, reason })
}
