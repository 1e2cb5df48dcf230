//! Logging that a guest cannot turn into a flood.

use std::time::{Duration, Instant};

/// Lines allowed in each period.
const LINES: u32 = 10;
/// Whose lines these are, in the log.
const TARGET: &str = "dixback::queue";
const PERIOD: Duration = Duration::from_secs(10);

/// Lets a few lines through in each period, and then says how many it kept back.
#[derive(Debug)]
pub(crate) struct Limit {
    since: Instant,
    lines: u32,
}

impl Limit {
    /// A fresh limit.
    pub fn new() -> Self {
        Self { since: Instant::now(), lines: 0 }
    }

    /// Logs what `line` makes at `level`, if it may.
    pub fn log(&mut self, level: log::Level, line: impl FnOnce() -> String) {
        if !log::log_enabled!(level) {
            return;
        }
        if self.since.elapsed() > PERIOD {
            if self.lines > LINES {
                log::log!(target: TARGET, level, "{} similar lines were left out", self.lines - LINES);
            }
            *self = Self::new();
        }
        self.lines += 1;
        if self.lines <= LINES {
            log::log!(target: TARGET, level, "{}", line());
        }
    }
}
