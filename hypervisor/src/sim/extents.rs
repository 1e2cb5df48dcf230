//! Which frames of a domain's memory are free: ranges, joined when neighbours become free.

use std::collections::BTreeMap;

/// Free ranges, by first frame.
pub(super) struct Extents {
    free: BTreeMap<u64, u64>,
}

impl Extents {
    /// Frames `0..frames`, all free.
    pub(super) fn new(frames: u64) -> Self {
        Self { free: BTreeMap::from([(0, frames)]) }
    }

    /// Takes the first run of `count` frames that are free side by side.
    pub(super) fn take(&mut self, count: u64) -> Option<u64> {
        let (first, len) =
            self.free.iter().map(|(first, len)| (*first, *len)).find(|(_, len)| *len >= count)?;
        self.free.remove(&first);
        if len > count {
            self.free.insert(first + count, len - count);
        }
        Some(first)
    }

    /// Gives one frame back.
    pub(super) fn give(&mut self, frame: u64) {
        let (mut first, mut len) = (frame, 1);
        if let Some(next) = self.free.remove(&(frame + 1)) {
            len += next;
        }
        if let Some((before, run)) = self.free.range_mut(..frame).next_back()
            && *before + *run == frame
        {
            first = *before;
            len += *run;
        }
        self.free.insert(first, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn take_when_frames_were_given_back_in_any_order_then_they_are_one_run_again() {
        let mut extents = Extents::new(8);
        assert_eq!(extents.take(3), Some(0));
        assert_eq!(extents.take(5), Some(3));
        assert_eq!(extents.take(1), None);
        for frame in [4, 6, 5, 0, 7, 2, 1, 3] {
            extents.give(frame);
        }
        assert_eq!(extents.take(8), Some(0));
    }

    #[test]
    fn take_when_only_short_runs_are_free_then_none() {
        let mut extents = Extents::new(4);
        assert_eq!(extents.take(4), Some(0));
        extents.give(0);
        extents.give(2);
        assert_eq!(extents.take(2), None);
        assert_eq!(extents.take(1), Some(0));
    }
}
