//! A limit to how much a guest can make the daemon log.

use std::time::{Duration, Instant};

/// Messages at once, before the limit bites.
const BURST: u32 = 20;
/// Time that earns one more.
const INTERVAL: Duration = Duration::from_secs(5);

/// Counts the messages of one disk.
#[derive(Debug)]
pub struct Quiet {
    left: u32,
    since: Instant,
    suppressed: u64,
}

impl Quiet {
    /// A full allowance.
    pub fn new(now: Instant) -> Self {
        Self { left: BURST, since: now, suppressed: 0 }
    }

    /// Whether a message may be logged now; if so, how many before it were not.
    pub fn allow(&mut self, now: Instant) -> Option<u64> {
        let earned = now.saturating_duration_since(self.since).as_secs() / INTERVAL.as_secs();
        if earned > 0 {
            self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(BURST)).min(BURST);
            self.since = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.suppressed))
            }
            None => {
                self.suppressed += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_when_too_many_then_are_counted_and_time_brings_them_back() {
        let start = Instant::now();
        let mut quiet = Quiet::new(start);
        let allowed = (0..100).filter(|_| quiet.allow(start).is_some()).count();
        assert_eq!(allowed, 20);
        assert_eq!(quiet.allow(start + INTERVAL), Some(80));
        assert_eq!(quiet.allow(start + INTERVAL), None);
    }
}
