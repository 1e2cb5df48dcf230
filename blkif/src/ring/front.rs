//! The frontend's end of a ring.

use std::sync::atomic::Ordering::{Acquire, Release};

use super::{Geometry, RingError};
use crate::abi::{Abi, RING_HEADER};
use crate::memory::{Index, RingMemory};
use crate::response::RawResponse;
use crate::slot::RawSlot;

/// The frontend's end: gives requests, takes responses. It owns its view of the memory.
#[derive(Debug)]
pub struct FrontRing<M> {
    memory: M,
    geometry: Geometry,
    /// Requests written.
    req_pvt: u32,
    /// Requests published.
    req_prod: u32,
    /// Responses taken.
    rsp_cons: u32,
    /// `rsp_prod` as it was last found, and found possible.
    rsp_seen: u32,
}

impl<M: RingMemory> FrontRing<M> {
    /// Makes a new ring of the memory, before the backend knows of it (ring.h, SHARED_RING_INIT).
    ///
    /// # Errors
    /// [`RingError::TooSmall`].
    pub fn init(memory: M, abi: Abi) -> Result<Self, RingError> {
        Self::init_at(memory, abi, 0)
    }

    /// The same with all indexes at `start`, as a ring in use has them; a test reaches their wrap so.
    ///
    /// # Errors
    /// [`RingError::TooSmall`].
    pub fn init_at(memory: M, abi: Abi, start: u32) -> Result<Self, RingError> {
        let geometry = Geometry::new(abi, memory.size())?;
        memory.write(16, &[0; (RING_HEADER - 16) / size_of::<u32>()]);
        for index in [Index::RequestProducer, Index::ResponseProducer] {
            memory.store(index, start, Release);
        }
        for index in [Index::RequestEvent, Index::ResponseEvent] {
            memory.store(index, start.wrapping_add(1), Release);
        }
        Ok(Self { memory, geometry, req_pvt: start, req_prod: start, rsp_cons: start, rsp_seen: start })
    }

    /// Entries of the ring.
    pub fn entries(&self) -> u32 {
        self.geometry.entries
    }

    /// The layout of its entries.
    pub fn abi(&self) -> Abi {
        self.geometry.abi
    }

    /// Entries that [`Self::push`] still has room for. A pair needs two before its first is pushed.
    pub fn free(&self) -> u32 {
        self.geometry.entries - self.unanswered()
    }

    /// Requests pushed whose responses were not taken yet.
    pub fn unanswered(&self) -> u32 {
        self.req_pvt.wrapping_sub(self.rsp_cons)
    }

    /// Writes a request. The backend sees it after [`Self::publish`].
    ///
    /// # Errors
    /// [`RingError::Full`].
    pub fn push(&mut self, slot: &RawSlot) -> Result<(), RingError> {
        if self.free() == 0 {
            return Err(RingError::Full);
        }
        slot.store(&self.memory, self.geometry.abi, self.geometry.offset(self.req_pvt));
        self.req_pvt = self.req_pvt.wrapping_add(1);
        Ok(())
    }

    /// Publishes all requests written so far, by one store: both slots of a pair appear together.
    /// True: notify the backend.
    #[must_use = "the backend may sleep until it is notified"]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.req_prod, self.req_pvt);
        if old == new {
            return false;
        }
        self.req_prod = new;
        super::publish(&self.memory, Index::RequestProducer, Index::RequestEvent, old, new)
    }

    /// Takes the next response, copied once; none when no more are visible.
    /// [`RawResponse::check`] it against what was sent.
    ///
    /// # Errors
    /// [`RingError::Producer`]: there cannot be so many responses; the backend is broken or hostile.
    pub fn take_response(&mut self) -> Result<Option<RawResponse>, RingError> {
        if self.rsp_seen == self.rsp_cons && self.look()? == 0 {
            return Ok(None);
        }
        let mut words = [0; 3];
        self.memory.read(self.geometry.offset(self.rsp_cons), &mut words);
        self.rsp_cons = self.rsp_cons.wrapping_add(1);
        Ok(Some(RawResponse::from_words(words)))
    }

    fn look(&mut self) -> Result<u32, RingError> {
        // Acquire: the responses' bytes are read after this, and were written before its store.
        let producer = self.memory.load(Index::ResponseProducer, Acquire);
        let ahead = producer.wrapping_sub(self.rsp_cons);
        let room = self.req_prod.wrapping_sub(self.rsp_cons);
        if ahead > room {
            return Err(RingError::Producer { producer, consumer: self.rsp_cons, room });
        }
        self.rsp_seen = producer;
        Ok(ahead)
    }

    /// Asks to be notified once `want` responses (at least 1) are visible and not taken. True: so many
    /// are there already, do not sleep; also when the index is impossible.
    #[must_use = "sleeping although responses are there loses them"]
    pub fn arm(&mut self, want: u32) -> bool {
        let want = want.max(1);
        super::arm(&self.memory, Index::ResponseEvent, self.rsp_cons.wrapping_add(want));
        self.look().map_or(true, |ahead| ahead >= want)
    }

    /// The memory; a hostile frontend writes impossible indexes through it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Lets go of the ring.
    pub fn into_memory(self) -> M {
        self.memory
    }
}
