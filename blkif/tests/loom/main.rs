//! The real ring code under a model checker, which tries the interleavings of two threads and the
//! reorderings that the memory model allows:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p blkif --release --test loom
//! ```
//!
//! A lost wake-up shows as a deadlock, a slot read before it is published, or written again before it
//! was read, as a data race. Sleeping is waiting for an event that only a notification ends, as with
//! an event channel.
#![cfg(loom)]

mod memory;
mod pairs;
mod singles;

use blkif::{Abi, BackRing, FrontRing, Start};
use loom::sync::{Arc, Condvar, Mutex};
use memory::LoomMemory;

/// An event channel: a notification is remembered until it is waited for, and several are one.
#[derive(Clone)]
pub(crate) struct Event(Arc<(Mutex<bool>, Condvar)>);

impl Event {
    pub(crate) fn new() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    pub(crate) fn notify(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_one();
    }

    /// Sleeps until notified. Never to be is a deadlock, which the checker reports.
    pub(crate) fn wait(&self) {
        let mut pending = self.0.0.lock().unwrap();
        while !*pending {
            pending = self.0.1.wait(pending).unwrap();
        }
        *pending = false;
    }
}

/// Both ends of a ring of a few entries, whose indexes stand at `start`, and their events: the
/// backend's, then the frontend's.
pub(crate) struct Ends {
    pub(crate) front: FrontRing<LoomMemory>,
    pub(crate) back: BackRing<LoomMemory>,
    pub(crate) to_back: Event,
    pub(crate) to_front: Event,
}

pub(crate) fn ends(entries: usize, start: u32) -> Ends {
    let memory = LoomMemory::new(entries);
    let front = FrontRing::init_at(memory.clone(), Abi::X86_64, start).unwrap();
    let back = BackRing::attach(memory, Abi::X86_64, Start::At(start)).unwrap();
    assert_eq!(back.entries() as usize, entries);
    Ends { front, back, to_back: Event::new(), to_front: Event::new() }
}

/// Checks a model. The bound on preemptions keeps the number of interleavings in hand; faults of
/// rings like these need one or two.
pub(crate) fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}
