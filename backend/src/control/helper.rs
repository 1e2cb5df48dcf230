//! Helper threads: what may block for long happens there, and the control thread hears of it by a doorbell.
//!
//! ```text
//! control thread --start(id, work)--> a thread of that work's own
//!       ^                                 opens, closes, flushes; may take seconds
//!       +--- doorbell, finished() <-------+
//! ```
//!
//! A disk has one helper at most, which the machine sees to, so a guest that toggles its states costs one thread,
//! and no more often than that thread finishes.

use super::id::DiskId;
use crate::io::Doorbell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// What a helper does.
type Work<T> = Box<dyn FnOnce() -> T + Send>;

/// Where helpers are started and report.
pub struct Helpers<T> {
    bell: Doorbell,
    sender: Sender<(DiskId, Option<T>)>,
    receiver: Receiver<(DiskId, Option<T>)>,
}

impl<T: Send + 'static> Helpers<T> {
    /// Helpers that ring `bell`.
    pub fn new(bell: Doorbell) -> Self {
        let (sender, receiver) = channel();
        Self { bell, sender, receiver }
    }

    /// Starts one. Without a thread to spare the work is done here and now: late, but done.
    pub fn start(&self, id: DiskId, work: impl FnOnce() -> T + Send + 'static) {
        let place: Arc<Mutex<Option<Work<T>>>> = Arc::new(Mutex::new(Some(Box::new(work))));
        let run = {
            let (place, bell, sender, id) =
                (Arc::clone(&place), self.bell.clone(), self.sender.clone(), id.clone());
            move || {
                let Some(work) = place.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
                let outcome = catch_unwind(AssertUnwindSafe(work)).ok();
                // The receiver is gone only when the daemon is.
                let _ = sender.send((id, outcome));
                bell.ring();
            }
        };
        // No slash: evtchn names what it makes in /proc/irq after the thread that binds, and the kernel warns.
        let name = format!("d{}-{}", id.domain, id.device);
        if let Err(error) = std::thread::Builder::new().name(name).spawn(run.clone()) {
            log::warn!("{id}: no helper thread: {error}; every disk waits for this one now");
            run();
        }
    }

    /// What has finished since the last look: the disk, and what came of it or none if the helper panicked.
    pub fn finished(&self) -> impl Iterator<Item = (DiskId, Option<T>)> {
        self.receiver.try_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    #[test]
    fn helper_when_it_finishes_or_panics_then_rings_and_reports() {
        let bell = Doorbell::new().unwrap();
        let helpers = Helpers::new(bell.clone());
        let id = DiskId::new("vbd3", "1", "51712").unwrap();
        for (work, expected) in [(false, Some(7)), (true, None)] {
            helpers.start(id.clone(), move || if work { panic!("on purpose") } else { 7 });
            poll(&mut [PollFd::new(&bell, PollFlags::IN)], None).unwrap();
            bell.quiet();
            assert_eq!(helpers.finished().collect::<Vec<_>>(), [(id.clone(), expected)]);
        }
    }
}
