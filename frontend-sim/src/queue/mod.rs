//! One queue: requests at depth over one ring.
//!
//! ```text
//!   Submission --submit--> buffer filled, PI made, slots pushed
//!              --kick----> published, backend notified if it sleeps
//!              --complete> responses checked (spin, then sleep) --> Completion
//!   Completion::read_into  data copied out, PI checked again; dropped: the buffer is free
//! ```
//!
//! What is in flight is kept until its response, so that it can be sent again over a new ring when the
//! backend has gone and come back, as Linux's blkfront does.

mod blocking;
mod buffers;
mod completion;
mod counters;
mod flight;
mod port;
mod raw;
mod submission;
mod wait;

use std::collections::VecDeque;
use std::sync::Arc;

use blkif::{RawResponse, RawSlot};
use hypervisor::{DomId, Frontend as Hypervisor};

pub use completion::Completion;
pub use counters::Counters;
pub use raw::Raw;
pub use submission::{Operation, Source, Submission};

pub(crate) use port::{Link, Phase};

use buffers::{Buffers, Shape};
use flight::{Flight, PAYLOAD, Scratch, index_of};
use wait::Waiter;

use crate::{ConnectOptions, Disk, Error, Grants, Ring};

/// One queue of a connected disk. It can be moved to, or borrowed by, a thread of its own.
pub struct Queue {
    ring: Ring,
    link: Arc<Link>,
    /// Which of the link's queues this is.
    number: usize,
    /// The link's count of connections that `ring` belongs to.
    generation: u64,
    disk: Arc<Disk>,
    supply: Supply,
    slots: Vec<Slot>,
    free: Vec<usize>,
    done: VecDeque<usize>,
    /// Requests sent; each flight has its number.
    sequence: u64,
    waiter: Waiter,
    counters: Counters,
    /// Why nothing more can be done, once the backend broke the protocol.
    broken: Option<&'static str>,
    scratch: Scratch,
}

/// Where buffers come from.
struct Supply {
    hypervisor: Arc<dyn Hypervisor>,
    backend: DomId,
    grants: Grants,
    shape: Shape,
}

impl Supply {
    fn buffers(&self) -> Result<Buffers, Error> {
        Buffers::new(&*self.hypervisor, self.backend, self.shape)
    }
}

/// A place for one request.
#[derive(Default)]
struct Slot {
    buffers: Option<Buffers>,
    flight: Option<Flight>,
}

impl Queue {
    pub(crate) fn new(
        hypervisor: Arc<dyn Hypervisor>,
        backend: DomId,
        ring: Ring,
        link: Arc<Link>,
        number: usize,
        disk: Arc<Disk>,
        options: &ConnectOptions,
    ) -> Result<Self, Error> {
        let entries = ring.front.entries() as usize;
        let depth = options.depth.clamp(1, if disk.dix.is_some() { entries / 2 } else { entries });
        let shape = Shape::of(&disk);
        let supply = Supply { hypervisor, backend, grants: options.grants, shape };
        let mut slots = Vec::with_capacity(depth);
        for _ in 0..depth {
            let buffers = match options.grants {
                Grants::Kept => Some(supply.buffers()?),
                Grants::PerRequest => None,
            };
            slots.push(Slot { buffers, flight: None });
        }
        Ok(Self {
            generation: link.generation(),
            ring,
            link,
            number,
            disk,
            supply,
            slots,
            free: (0..depth).rev().collect(),
            done: VecDeque::with_capacity(depth),
            sequence: 0,
            waiter: Waiter::new(options.polling, options.request_timeout),
            counters: Counters::default(),
            broken: None,
            scratch: Scratch::default(),
        })
    }

    /// The disk as it was negotiated.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Requests that can be in flight.
    pub fn depth(&self) -> usize {
        self.slots.len()
    }

    /// Requests that can be submitted now.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Requests submitted and not yet given back as completions.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// What this queue did so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Puts a request on the ring, where the backend sees it after [`kick`](Self::kick). Bytes to write are
    /// copied, and PI is made of them, before this returns.
    ///
    /// # Errors
    /// [`Error::Full`]; [`Error::Request`] for one that cannot be expressed; [`Error::Closed`].
    pub fn submit(&mut self, submission: &Submission<'_>) -> Result<(), Error> {
        self.check()?;
        submission.validate(&self.disk)?;
        let index = *self.free.last().ok_or(Error::Full)?;
        let slot = &mut self.slots[index];
        if slot.buffers.is_none() {
            slot.buffers = Some(self.supply.buffers()?);
        }
        let buffers = slot.buffers.as_ref().expect("just made");
        let flight =
            Flight::prepare(submission, buffers, &self.disk, self.sequence + 1, index, &mut self.scratch);
        if (self.ring.front.free() as usize) < flight.raw.len() {
            return Err(Error::Ring(blkif::RingError::Full));
        }
        for raw in &flight.raw {
            self.ring.front.push(raw)?;
        }
        slot.flight = Some(flight);
        self.sequence += 1;
        self.free.pop();
        self.counters.requests += 1;
        self.link.set_in_flight(self.number, self.in_flight());
        Ok(())
    }

    /// Publishes what was submitted, all at once, and notifies the backend if it asked for that.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Hypervisor`].
    pub fn kick(&mut self) -> Result<(), Error> {
        self.check()?;
        if self.ring.front.publish() {
            self.ring.event.notify()?;
            self.counters.notifications += 1;
        }
        Ok(())
    }

    /// A completion if there is one now; never waits, and does not [`kick`](Self::kick).
    ///
    /// # Errors
    /// [`Error::Ring`], [`Error::Response`], [`Error::Protocol`] when the backend broke the protocol: then
    /// nothing more can be done with this queue. [`Error::Closed`].
    pub fn poll(&mut self) -> Result<Option<Completion<'_>>, Error> {
        if self.done.is_empty() {
            self.check()?;
            self.reap()?;
        }
        Ok(self.done.pop_front().map(|index| Completion::new(self, index)))
    }

    /// The next completion; kicks, spins and sleeps for it. None when nothing is in flight.
    ///
    /// # Errors
    /// As [`poll`](Self::poll); [`Error::Timeout`] if a time-out was asked for.
    pub fn complete(&mut self) -> Result<Option<Completion<'_>>, Error> {
        if self.done.is_empty() {
            if self.in_flight() == 0 {
                return Ok(None);
            }
            self.kick()?;
            self.wait()?;
        }
        Ok(self.done.pop_front().map(|index| Completion::new(self, index)))
    }

    /// Raw access to the ring, for tests that misbehave. What is pushed there is on no books here.
    pub fn raw(&mut self) -> Raw<'_> {
        Raw::new(self)
    }

    /// Sees whether the link is still what `ring` belongs to; takes up a new ring if there is one.
    fn check(&mut self) -> Result<(), Error> {
        if let Some(what) = self.broken {
            return Err(Error::Protocol { what, id: 0 });
        }
        match self.link.phase() {
            Phase::Closed => Err(Error::Closed),
            _ if self.link.generation() != self.generation => self.resume(),
            _ => Ok(()),
        }
    }

    /// Sends everything that is in flight again, over the new ring, in its order.
    fn resume(&mut self) -> Result<(), Error> {
        let Some((ring, generation)) = self.link.take_ring(self.number) else { return Ok(()) };
        self.ring = ring;
        self.generation = generation;
        let mut flights: Vec<&mut Flight> =
            self.slots.iter_mut().filter_map(|slot| slot.flight.as_mut()).filter(|f| !f.is_done()).collect();
        flights.sort_by_key(|flight| flight.sequence);
        self.counters.requeued += flights.len() as u64;
        for flight in flights {
            flight.restart();
            for raw in &flight.raw {
                self.ring.front.push(raw)?;
            }
        }
        if self.ring.front.publish() {
            self.ring.event.notify()?;
            self.counters.notifications += 1;
        }
        Ok(())
    }

    /// Takes all responses there are. Anything the protocol does not allow ends the queue.
    fn reap(&mut self) -> Result<(), Error> {
        loop {
            let taken = self.ring.front.take_response().map_err(Error::Ring);
            let outcome = match taken {
                Ok(None) => return Ok(()),
                Ok(Some(response)) => self.account(&response),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                self.broken = Some("an earlier response was wrong");
                return Err(error);
            }
        }
    }

    fn account(&mut self, response: &RawResponse) -> Result<(), Error> {
        let wrong = |what| Error::Protocol { what, id: response.id };
        let index = index_of(response.id);
        let slot = self.slots.get_mut(index).ok_or(wrong("a response to no request"))?;
        let flight = slot.flight.as_mut().filter(|flight| flight.id() == response.id & !PAYLOAD);
        let flight = flight.ok_or(wrong("a response to no request in flight"))?;
        self.counters.responses += 1;
        if flight.respond(response)? {
            if let Some(buffers) = &slot.buffers {
                flight.hit_delivered(buffers);
            }
            self.done.push_back(index);
        }
        Ok(())
    }

    /// Gives a request's place back.
    fn release(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.flight = None;
        if self.supply.grants == Grants::PerRequest
            && let Some(buffers) = slot.buffers.take()
            && let Err(error) = buffers.revoke()
        {
            log::error!("{error}");
            self.broken = Some("a grant was still in use after its response");
        }
        self.free.push(index);
        self.link.set_in_flight(self.number, self.in_flight());
    }

    fn push_raw(&mut self, slot: &RawSlot) -> Result<(), Error> {
        Ok(self.ring.front.push(slot)?)
    }
}
