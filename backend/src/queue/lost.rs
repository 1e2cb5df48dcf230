//! A queue that went before its requests had ended, after a panic or because io_uring failed.
//!
//! What it had under way in the store stays as it was, locked ranges included: the kernel may still work on it, and
//! nobody can wait for that. So the disk's other queues must not wait for it either: each ends as soon as it is told to
//! stop, and the store is not closed as one that is whole.

use crate::io::Doorbell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whether a queue of a disk was lost, and how the others hear of it.
#[derive(Debug, Default)]
pub struct Lost {
    flag: AtomicBool,
    bells: Mutex<Vec<Doorbell>>,
}

impl Lost {
    /// Adds a queue that is to hear of it.
    pub(super) fn join(&self, bell: Doorbell) {
        self.bells().push(bell);
    }

    /// A queue is lost: every other one is woken.
    pub(super) fn declare(&self) {
        // Release: pairs with the look after the bell, though the bell itself is a system call on either side.
        self.flag.store(true, Ordering::Release);
        self.bells().iter().for_each(Doorbell::ring);
    }

    /// Whether one was.
    pub fn is(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    fn bells(&self) -> MutexGuard<'_, Vec<Doorbell>> {
        // Pushed to and read only.
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
