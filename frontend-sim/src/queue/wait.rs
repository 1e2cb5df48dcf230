//! Waiting for responses: look for a while, then sleep on the event channel.
//!
//! Sleeping and being woken costs far more than a fast request takes, so it is worth looking for about as
//! long as requests have been taking, and not at all where they take longer than looking is allowed to.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Queue;
use crate::{Error, Polling};

/// Looks between two looks at the clock.
const LOOKS: u32 = 32;

/// Waits after which a queue whose waits are too long for spinning tries it again.
const RETRY: u32 = 64;

/// How long to look.
pub(super) struct Waiter {
    polling: Polling,
    timeout: Option<Duration>,
    /// What a wait lasts, in nanoseconds: an average in which the last eighth counts as much as all before.
    average: u64,
    slept: u32,
}

impl Waiter {
    pub(super) fn new(polling: Polling, timeout: Option<Duration>) -> Self {
        Self { polling, timeout, average: 0, slept: 0 }
    }

    fn budget(&mut self) -> Duration {
        match self.polling {
            Polling::Off => Duration::ZERO,
            Polling::Always => Duration::MAX,
            Polling::Adaptive(limit) => {
                let limit_ns = limit.as_nanos() as u64;
                self.slept += 1;
                if self.average <= limit_ns || self.slept.is_multiple_of(RETRY) {
                    return limit;
                }
                Duration::ZERO
            }
        }
    }

    fn note(&mut self, waited: Duration) {
        // Clipped, so that one pause of seconds is forgotten after a few waits.
        let ns = waited.as_nanos().min(10_000_000) as u64;
        self.average = (self.average * 7 + ns) / 8;
    }
}

impl Queue {
    /// Waits until at least one request is done.
    pub(super) fn wait(&mut self) -> Result<(), Error> {
        self.reap()?;
        if !self.done.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let spun = self.spin(started)?;
        if spun {
            self.counters.spins += 1;
        } else {
            self.sleep(started)?;
        }
        self.waiter.note(started.elapsed());
        Ok(())
    }

    fn spin(&mut self, started: Instant) -> Result<bool, Error> {
        let budget = self.waiter.budget();
        while started.elapsed() < budget {
            for _ in 0..LOOKS {
                std::hint::spin_loop();
                self.reap()?;
                if !self.done.is_empty() {
                    return Ok(true);
                }
            }
            self.check()?;
            self.overdue(started)?;
        }
        Ok(false)
    }

    fn sleep(&mut self, started: Instant) -> Result<(), Error> {
        loop {
            // Armed for one response: a request with DIX has its two published together.
            if !self.ring.front.arm(1) {
                self.doze(started)?;
                self.check()?;
            }
            self.reap()?;
            if !self.done.is_empty() {
                return Ok(());
            }
            self.overdue(started)?;
        }
    }

    /// Sleeps until an event, or a word from the control thread.
    fn doze(&mut self, started: Instant) -> Result<(), Error> {
        let left = self.waiter.timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let left = left.map(|left| Timespec::try_from(left).unwrap_or_default());
        let mut polled = [
            PollFd::from_borrowed_fd(self.ring.event.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.link.wake(self.number), PollFlags::IN),
        ];
        match poll(&mut polled, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::system("waiting for an event")(error)),
        }
        self.counters.wakeups += 1;
        self.link.clear_wake(self.number);
        if self.ring.event.acknowledge()? {
            self.counters.events += 1;
            self.ring.event.unmask()?;
        }
        Ok(())
    }

    fn overdue(&self, started: Instant) -> Result<(), Error> {
        match self.waiter.timeout {
            Some(timeout) if started.elapsed() >= timeout => {
                Err(Error::Timeout { what: "a response", waited: timeout })
            }
            _ => Ok(()),
        }
    }
}
