//! What the queues and the control thread of a device share.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::{Error, Ring};

/// Where the device is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Requests flow.
    Connected = 0,
    /// The backend is gone and may come back; requests wait.
    Gone = 1,
    /// Over.
    Closed = 2,
}

/// The device as its queues see it.
pub(crate) struct Link {
    phase: AtomicU8,
    /// Connections made so far; a queue with an older ring has to take the new one.
    generation: AtomicU64,
    ports: Vec<Port>,
    /// Makes the control thread look.
    control: OwnedFd,
    stop: AtomicU8,
}

/// One queue's share of it.
struct Port {
    /// Makes a sleeping queue look.
    wake: OwnedFd,
    fresh: Mutex<Option<(Ring, u64)>>,
    in_flight: AtomicUsize,
}

fn event() -> Result<OwnedFd, Error> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(Error::system("making an eventfd"))
}

fn signal(event: &OwnedFd) {
    // It cannot fail short of a count of 2^64.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// A connected device of so many queues.
    pub(crate) fn new(queues: usize) -> Result<Self, Error> {
        let port = || Ok(Port { wake: event()?, fresh: Mutex::new(None), in_flight: AtomicUsize::new(0) });
        Ok(Self {
            phase: AtomicU8::new(Phase::Connected as u8),
            generation: AtomicU64::new(0),
            ports: (0..queues).map(|_| port()).collect::<Result<_, Error>>()?,
            control: event()?,
            stop: AtomicU8::new(0),
        })
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Acquire) {
            0 => Phase::Connected,
            1 => Phase::Gone,
            _ => Phase::Closed,
        }
    }

    /// Enters a phase and makes every queue look.
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Release);
        self.ports.iter().for_each(|port| signal(&port.wake));
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// Gives every queue its new ring.
    pub(crate) fn reconnect(&self, rings: Vec<Ring>) {
        let generation = self.generation() + 1;
        for (port, ring) in self.ports.iter().zip(rings) {
            *lock(&port.fresh) = Some((ring, generation));
        }
        // Release: the rings are there for whoever sees the number.
        self.generation.store(generation, Release);
        self.set_phase(Phase::Connected);
    }

    /// The new ring of a queue, if there is one.
    pub(crate) fn take_ring(&self, queue: usize) -> Option<(Ring, u64)> {
        lock(&self.ports[queue].fresh).take()
    }

    /// What makes a sleeping queue look.
    pub(crate) fn wake(&self, queue: usize) -> BorrowedFd<'_> {
        self.ports[queue].wake.as_fd()
    }

    /// Takes what was signalled there.
    pub(crate) fn clear_wake(&self, queue: usize) {
        let _ = rustix::io::read(&self.ports[queue].wake, &mut [0; 8]);
    }

    /// Says how many requests a queue has in flight.
    pub(crate) fn set_in_flight(&self, queue: usize, count: usize) {
        // Relaxed: only the control thread looks, to see whether it is 0 yet.
        self.ports[queue].in_flight.store(count, Relaxed);
    }

    /// Whether no queue has anything in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.ports.iter().all(|port| port.in_flight.load(Relaxed) == 0)
    }

    /// Asks the control thread to end.
    pub(crate) fn stop(&self) {
        self.stop.store(1, Release);
        signal(&self.control);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Acquire) != 0
    }

    /// What makes the control thread look.
    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}
