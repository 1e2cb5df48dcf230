//! Flushes of one disk without PI: one fdatasync at a time, whatever queues they come from.
//!
//! ```text
//! a flush comes -- nobody syncs: its queue leads the round, of all that wait --> fdatasync -> the whole round is told
//!               -- somebody does: it waits ----------------------------------------------+-> who waits longest leads
//! ```
//!
//! One at a time, for the kernel tells a failure to one caller only: of two at once the other would believe that what was
//! lost is durable. After a failure every later flush fails too. And a guest that sends flushes only costs the medium no
//! more than one at a time.
//!
//! Whoever leads has a flush of its own in the round, so it does not go before the round has ended.
#![forbid(unsafe_code)]

use crate::store::Errno;
use crate::store::inbox::Waiter;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Flushes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// A round is under way, or somebody was told to lead the next.
    running: bool,
    waiting: Vec<Waiter>,
    broken: Option<Errno>,
}

/// What a flush is to do.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Lead a round, of these.
    Lead(Vec<Waiter>),
    /// Wait to be told, of the end or to lead.
    Wait,
    /// Nothing can be made durable any more.
    Failed(Errno),
}

/// What follows a round.
#[derive(Debug, Default)]
pub(crate) struct Next {
    /// Who leads the next round.
    pub(crate) leader: Option<Waiter>,
    /// Who is not to wait any longer, as nothing can be made durable any more.
    pub(crate) failed: Vec<Waiter>,
}

impl Flushes {
    /// A flush comes: of everything that was answered before.
    pub(crate) fn join(&self, waiter: Waiter) -> Turn {
        let mut state = self.lock();
        if let Some(error) = state.broken {
            return Turn::Failed(error);
        }
        state.waiting.push(waiter);
        if std::mem::replace(&mut state.running, true) {
            return Turn::Wait;
        }
        Turn::Lead(std::mem::take(&mut state.waiting))
    }

    /// The caller was told to lead the next round: of these.
    pub(crate) fn lead(&self) -> Vec<Waiter> {
        std::mem::take(&mut self.lock().waiting)
    }

    /// A round has ended.
    pub(crate) fn end(&self, result: Result<(), Errno>) -> Next {
        let mut state = self.lock();
        if let Err(error) = result {
            (state.broken, state.running) = (Some(error), false);
            return Next { leader: None, failed: std::mem::take(&mut state.waiting) };
        }
        let leader = state.waiting.first().cloned();
        state.running = leader.is_some();
        Next { leader, failed: Vec::new() }
    }

    /// Why nothing can be made durable any more, if that is so.
    pub(crate) fn broken(&self) -> Option<Errno> {
        self.lock().broken
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of it is whole before anything that could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Doorbell;
    use crate::store::inbox::Inbox;
    use std::sync::Arc;

    fn waiters() -> impl Fn(usize) -> Waiter {
        let inbox = Arc::new(Inbox::new(Doorbell::new().unwrap()));
        move |slot| Waiter { inbox: Arc::clone(&inbox), slot }
    }

    fn slots(waiters: &[Waiter]) -> Vec<usize> {
        waiters.iter().map(|waiter| waiter.slot).collect()
    }

    #[test]
    fn flushes_when_one_is_under_way_then_share_the_next_round_and_never_the_present_one() {
        let (flushes, waiter) = (Flushes::default(), waiters());
        let Turn::Lead(round) = flushes.join(waiter(1)) else { panic!() };
        assert_eq!(slots(&round), [1]);
        for slot in [2, 3] {
            assert!(matches!(flushes.join(waiter(slot)), Turn::Wait));
        }
        assert_eq!(flushes.end(Ok(())).leader.unwrap().slot, 2);
        // Between its being told and its leading another comes.
        assert!(matches!(flushes.join(waiter(4)), Turn::Wait));
        assert_eq!(slots(&flushes.lead()), [2, 3, 4]);
        assert!(flushes.end(Ok(())).leader.is_none());
        assert!(matches!(flushes.join(waiter(5)), Turn::Lead(_)));
    }

    #[test]
    fn flushes_when_one_failed_then_all_that_wait_and_all_that_come_fail() {
        let (flushes, waiter) = (Flushes::default(), waiters());
        assert!(matches!(flushes.join(waiter(1)), Turn::Lead(_)));
        assert!(matches!(flushes.join(waiter(2)), Turn::Wait));
        let next = flushes.end(Err(Errno(libc::EIO)));
        assert_eq!((next.leader.is_none(), slots(&next.failed)), (true, vec![2]));
        assert!(matches!(flushes.join(waiter(3)), Turn::Failed(Errno(libc::EIO))));
        assert_eq!(flushes.broken(), Some(Errno(libc::EIO)));
    }
}
