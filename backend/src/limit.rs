//! Logging that a guest cannot turn into a flood, neither by many requests nor by many connections.
//!
//! A limit belongs to a disk and a subject, by name, and outlives a connection by as long as it remembers anything:
//! a guest that closes and comes again finds it as it left it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines allowed in each period.
const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(10);

/// All limits in use, and those that remember lines.
static LIMITS: Mutex<BTreeMap<(String, &str), Arc<Limit>>> = Mutex::new(BTreeMap::new());

/// Lets a few lines through in each period, and then says how many it kept back.
#[derive(Debug)]
pub(crate) struct Limit {
    /// Whose lines these are.
    disk: String,
    /// Where they come from, in the log.
    target: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    since: Instant,
    lines: u32,
}

impl State {
    fn new() -> Self {
        Self { since: Instant::now(), lines: 0 }
    }
}

impl Limit {
    /// The limit on what is said of `disk` about `subject`.
    pub fn of(disk: &str, subject: &'static str, target: &'static str) -> Arc<Self> {
        let mut limits = lock(&LIMITS);
        limits.retain(|_, limit| Arc::strong_count(limit) > 1 || !limit.is_over());
        let limit = || Self { disk: disk.to_owned(), target, state: Mutex::new(State::new()) };
        Arc::clone(limits.entry((disk.to_owned(), subject)).or_insert_with(|| Arc::new(limit())))
    }

    /// Logs what `line` makes at `level`, if it may.
    pub fn log(&self, level: log::Level, line: impl FnOnce() -> String) {
        let (disk, target) = (&self.disk, self.target);
        if !log::log_enabled!(target: target, level) {
            return;
        }
        let mut state = lock(&self.state);
        if state.since.elapsed() > PERIOD {
            if state.lines > LINES {
                log::log!(target: target, level, "{disk}: {} similar lines were left out", state.lines - LINES);
            }
            *state = State::new();
        }
        state.lines = state.lines.saturating_add(1);
        if state.lines <= LINES {
            drop(state);
            log::log!(target: target, level, "{}", line());
        }
    }

    /// Whether it remembers nothing that would count.
    fn is_over(&self) -> bool {
        lock(&self.state).since.elapsed() > PERIOD
    }
}

/// Numbers, each valid by itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_when_its_disk_comes_again_then_remembers_and_another_disk_has_its_own() {
        let limit = Limit::of("a disk of this test", "subject", "test");
        lock(&limit.state).lines = LINES;
        drop(limit);
        assert_eq!(lock(&Limit::of("a disk of this test", "subject", "test").state).lines, LINES);
        for (disk, subject) in [("a disk of this test", "other"), ("another disk of this test", "subject")] {
            assert_eq!(lock(&Limit::of(disk, subject, "test").state).lines, 0);
        }
        assert!(!Limit::of("a disk of this test", "subject", "test").is_over());
    }
}
