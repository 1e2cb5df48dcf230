//! What to do with a disk: fill it, read it, prove it, measure it.

mod bench;
mod copy;
mod model;
mod random;
mod verify;

use std::time::{Duration, Instant};

pub use bench::{Access, BenchOptions, BenchReport, bench};
pub use copy::{copy_in, copy_out};
pub use verify::{Verify, VerifyOptions, VerifyReport};

/// How much of something to do: whatever is reached first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Requests, of all queues together.
    pub requests: Option<u64>,
    /// Time.
    pub time: Option<Duration>,
}

impl Limit {
    /// So many requests.
    pub fn requests(requests: u64) -> Self {
        Self { requests: Some(requests), time: None }
    }

    /// So long.
    pub fn time(time: Duration) -> Self {
        Self { requests: None, time: Some(time) }
    }

    /// One queue's part of it.
    fn of(self, queues: usize) -> Self {
        Self { requests: self.requests.map(|requests| requests.div_ceil(queues as u64)), ..self }
    }

    fn is_reached(&self, requests: u64, started: Instant) -> bool {
        self.requests.is_some_and(|limit| requests >= limit)
            // The clock is looked at every so often only.
            || (requests.is_multiple_of(16) && self.time.is_some_and(|limit| started.elapsed() >= limit))
    }
}

/// Told how many bytes are done, of how many.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);
