//! How long to look for work before sleeping.
//!
//! A wake-up costs a guest two trips through the scheduler; looking a little longer costs a processor. The budget
//! adapts: a sleep that ended soon (spinning would have caught it) doubles it, a sleep that lasted shrinks it to
//! nothing, so an idle queue never spins. At most half of the machine's processors spin at one time, over all
//! queues of the daemon.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The first budget after a sleep that was short.
const FIRST: Duration = Duration::from_micros(8);
/// How many looks pass between two readings of the clock.
const LOOKS: u32 = 32;

/// Queues that spin now, in this process.
static SPINNING: AtomicUsize = AtomicUsize::new(0);

/// What a look for work came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// No work until the budget was spent.
    Nothing,
    /// There was work at once: no spinning was needed.
    AtOnce,
    /// Work came while the queue spun.
    Spun,
}

/// One queue's budget.
#[derive(Debug)]
pub(crate) struct Spin {
    budget: Duration,
    longest: Duration,
    seats: usize,
    /// Time spun so far.
    spent: Duration,
}

impl Spin {
    /// A budget that never exceeds `longest`.
    pub fn new(longest: Duration) -> Self {
        let seats = std::thread::available_parallelism().map_or(1, |n| n.get() / 2);
        Self { budget: Duration::ZERO, longest, seats, spent: Duration::ZERO }
    }

    /// Looks by `work` until it says yes or the budget is spent.
    pub fn look(&mut self, mut work: impl FnMut() -> bool) -> Look {
        if work() {
            return Look::AtOnce;
        }
        if self.budget.is_zero() || !take_seat(self.seats) {
            return Look::Nothing;
        }
        let start = Instant::now();
        let mut looks = 0;
        let found = loop {
            if work() {
                break Look::Spun;
            }
            looks += 1;
            if looks % LOOKS == 0 && start.elapsed() >= self.budget {
                break Look::Nothing;
            }
            std::hint::spin_loop();
        };
        SPINNING.fetch_sub(1, Ordering::Relaxed);
        self.spent += start.elapsed();
        found
    }

    /// How long it has spun so far.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// Learns from a sleep of length `slept`, which followed a look in vain.
    pub fn learn(&mut self, slept: Duration) {
        self.budget = if slept > self.longest {
            Duration::ZERO
        } else {
            (self.budget * 2).max(FIRST).min(self.longest)
        };
    }
}

fn take_seat(seats: usize) -> bool {
    // Relaxed: a limit, not a lock; nothing is published by it.
    SPINNING
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < seats).then_some(now + 1))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_after_a_long_sleep_is_nothing_and_after_short_ones_grows_to_its_limit() {
        let mut spin = Spin::new(Duration::from_micros(50));
        for _ in 0..10 {
            spin.learn(Duration::from_micros(5));
        }
        assert_eq!(spin.budget, Duration::from_micros(50));
        spin.learn(Duration::from_millis(1));
        assert_eq!(spin.budget, Duration::ZERO);
    }

    #[test]
    fn look_when_work_is_there_or_comes_says_whether_spinning_found_it() {
        // One seat whatever the machine: it is about the answer, not about the share.
        let mut spin =
            Spin { budget: Duration::from_secs(60), seats: usize::MAX, ..Spin::new(Duration::from_secs(60)) };
        assert_eq!(spin.look(|| true), Look::AtOnce);
        let mut looks = 0;
        let found = spin.look(|| {
            looks += 1;
            looks == 100
        });
        assert_eq!(found, Look::Spun);
        assert!(!spin.spent().is_zero());
    }

    #[test]
    fn look_when_the_budget_is_nothing_looks_once() {
        let mut looks = 0;
        let found = Spin::new(Duration::from_secs(1)).look(|| {
            looks += 1;
            false
        });
        assert_eq!((found, looks), (Look::Nothing, 1));
    }
}
