//! The backend's end of a ring.

use std::sync::atomic::Ordering::Acquire;

use super::{Geometry, RingError};
use crate::abi::Abi;
use crate::memory::{Index, RingMemory};
use crate::response::Response;
use crate::slot::RawSlot;

/// Where a backend takes up a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// A frontend's new ring: no response was ever written.
    Fresh,
    /// A ring in use, all of whose consumed requests were answered: at its `rsp_prod`.
    At(u32),
}

/// How far a backend's end has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Indexes {
    /// Responses written, published or not.
    pub rsp_prod: u32,
    /// Requests consumed. Equal to `rsp_prod` once all of them are answered.
    pub req_cons: u32,
}

/// The backend's end: takes requests, gives responses. It owns the ring's memory.
#[derive(Debug)]
pub struct BackRing<M> {
    memory: M,
    geometry: Geometry,
    /// Requests consumed.
    req_cons: u32,
    /// `req_prod` as it was last found, and found possible.
    req_seen: u32,
    /// Responses written.
    rsp_pvt: u32,
    /// Responses published.
    rsp_prod: u32,
    /// Set for good when the frontend's index was impossible.
    stopped: Option<RingError>,
}

impl<M: RingMemory> BackRing<M> {
    /// Takes up a ring.
    ///
    /// # Errors
    /// [`RingError::TooSmall`]; [`RingError::Start`] where the ring's `rsp_prod` is not that of
    /// `start`; [`RingError::Producer`] where `req_prod` is already impossible.
    pub fn attach(memory: M, abi: Abi, start: Start) -> Result<Self, RingError> {
        let geometry = Geometry::new(abi, memory.size())?;
        let expected = match start {
            Start::Fresh => 0,
            Start::At(index) => index,
        };
        let actual = memory.load(Index::ResponseProducer, Acquire);
        if actual != expected {
            return Err(RingError::Start { expected, actual });
        }
        let mut ring = Self {
            memory,
            geometry,
            req_cons: expected,
            req_seen: expected,
            rsp_pvt: expected,
            rsp_prod: expected,
            stopped: None,
        };
        ring.look()?;
        Ok(ring)
    }

    /// Entries of the ring.
    pub fn entries(&self) -> u32 {
        self.geometry.entries
    }

    /// The layout of its entries.
    pub fn abi(&self) -> Abi {
        self.geometry.abi
    }

    /// How far this end has come.
    pub fn indexes(&self) -> Indexes {
        Indexes { rsp_prod: self.rsp_pvt, req_cons: self.req_cons }
    }

    /// Requests consumed and not yet answered.
    pub fn unanswered(&self) -> u32 {
        self.req_cons.wrapping_sub(self.rsp_pvt)
    }

    /// Reads `req_prod` anew: how many requests are visible and not consumed.
    ///
    /// # Errors
    /// [`RingError::Producer`], from then on always: the ring is stopped. Responses still go out.
    pub fn unconsumed(&mut self) -> Result<u32, RingError> {
        self.look()
    }

    fn look(&mut self) -> Result<u32, RingError> {
        if let Some(error) = self.stopped {
            return Err(error);
        }
        // Acquire: the slots' bytes are read after this, and were written before its store.
        let producer = self.memory.load(Index::RequestProducer, Acquire);
        let ahead = producer.wrapping_sub(self.req_cons);
        // What is consumed and unanswered occupies entries. An index that went backwards is far
        // ahead by wrapping, so it fails here too.
        let room = self.geometry.entries - self.unanswered();
        if ahead > room {
            let error = RingError::Producer { producer, consumer: self.req_cons, room };
            self.stopped = Some(error);
            return Err(error);
        }
        self.req_seen = producer;
        Ok(ahead)
    }

    /// How many requests are known to be visible, at least `want` of them if the ring has those:
    /// `req_prod` is read only when fewer are known, which keeps its cache line with the frontend.
    #[inline]
    pub(crate) fn visible(&mut self, want: u32) -> Result<u32, RingError> {
        let known = self.req_seen.wrapping_sub(self.req_cons);
        if known >= want && self.stopped.is_none() { Ok(known) } else { self.look() }
    }

    /// Copies the slot `ahead` of the next, which must be visible. To copy a slot again later, as is
    /// done for half a pair, nothing of the first copy may have been kept.
    #[inline]
    pub(crate) fn peek(&self, ahead: u32) -> RawSlot {
        let offset = self.geometry.offset(self.req_cons.wrapping_add(ahead));
        RawSlot::load(&self.memory, self.geometry.abi, offset)
    }

    /// Passes `count` visible slots: each now needs its response.
    #[inline]
    pub(crate) fn advance(&mut self, count: u32) {
        debug_assert!(count <= self.req_seen.wrapping_sub(self.req_cons));
        self.req_cons = self.req_cons.wrapping_add(count);
    }

    /// Takes the next request, copied once; none when no more are visible. Where DIX may be in use,
    /// [`crate::Pairing::next`] takes them.
    ///
    /// # Errors
    /// [`RingError::Producer`]: the frontend is broken or hostile, and the ring stopped.
    #[inline]
    pub fn consume(&mut self) -> Result<Option<RawSlot>, RingError> {
        if self.visible(1)? == 0 {
            return Ok(None);
        }
        let slot = self.peek(0);
        self.advance(1);
        Ok(Some(slot))
    }

    /// Writes a response, in any order of requests. The frontend sees it after [`Self::publish`].
    ///
    /// # Panics
    /// If all consumed requests were already answered.
    #[inline]
    pub fn respond(&mut self, response: &Response) {
        assert!(self.unanswered() != 0, "a response without a request");
        let words = response.raw().words();
        let words: &[u32] = if self.geometry.abi.is_padded() { &words } else { &words[..3] };
        self.memory.write(self.geometry.offset(self.rsp_pvt), words);
        self.rsp_pvt = self.rsp_pvt.wrapping_add(1);
    }

    /// Publishes all responses written so far, by one store. True: notify the frontend.
    #[inline]
    #[must_use = "the frontend may sleep until it is notified"]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.rsp_prod, self.rsp_pvt);
        if old == new {
            return false;
        }
        self.rsp_prod = new;
        super::publish(&self.memory, Index::ResponseProducer, Index::ResponseEvent, old, new)
    }

    /// Asks to be notified once `want` requests (at least 1; 2 for half a pair) are visible and
    /// unconsumed. True: so many are there already, do not sleep; also when the ring is stopped or its
    /// index is impossible, which [`Self::consume`] then says.
    #[must_use = "sleeping although work is there loses it"]
    pub fn arm(&mut self, want: u32) -> bool {
        let want = want.max(1);
        super::arm(&self.memory, Index::RequestEvent, self.req_cons.wrapping_add(want));
        self.look().map_or(true, |ahead| ahead >= want)
    }

    /// The memory, for a caller that wants the indexes as they are.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Lets go of the ring.
    pub fn into_memory(self) -> M {
        self.memory
    }
}
