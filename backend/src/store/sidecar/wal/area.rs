//! The log's area as a ring of batches: where the next batch goes, which records are open, what can be retired.
//!
//! ```text
//!      tail                          head
//! |     | batch | batch | batch .. |  free          | slack |      a batch lies in one piece; the slack before the
//!         oldest live record                                       area's end belongs to the batch that did not fit
//! ```
//!
//! A record is *open* from its making until what it announces is over and its metadata is in the cache. Nothing of or
//! behind an open record is retired, for a later checkpoint than the one under way writes its metadata.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

/// What a batch's place and length is a multiple of.
pub(super) const PAGE: u64 = 4096;

/// A batch that is, or is being, written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Batch {
    first: u64,
    last: u64,
    at: u64,
    /// With the slack before the area's end, if it began anew at the start.
    bytes: u64,
    /// Where the head was before it.
    head: u64,
}

/// The ring.
#[derive(Debug)]
pub(super) struct Area {
    bytes: u64,
    epoch: u64,
    head: u64,
    used: u64,
    /// The first record that is in no batch yet.
    unplaced: u64,
    /// Whether each record is over, from `base` on.
    over: VecDeque<bool>,
    /// The oldest open record, or the next one to be made.
    base: u64,
    /// Records that are not retired, of what failed.
    failed: Vec<u64>,
    batches: VecDeque<Batch>,
}

impl Area {
    /// An empty area of so many bytes.
    pub(super) fn new(bytes: u64, epoch: u64) -> Self {
        let (over, failed, batches) = (VecDeque::new(), Vec::new(), VecDeque::new());
        Self {
            bytes: bytes / PAGE * PAGE,
            epoch,
            head: 0,
            used: 0,
            unplaced: 1,
            over,
            base: 1,
            failed,
            batches,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The sequence number of the next record.
    pub(super) fn next(&self) -> u64 {
        self.base + self.over.len() as u64
    }

    /// The oldest record that is open, or the next one: what is older is over.
    pub(super) fn first_open(&self) -> u64 {
        self.base
    }

    /// The oldest record that is not retired, or the next one to be placed.
    pub(super) fn first_live(&self) -> u64 {
        self.batches.front().map_or(self.unplaced, |batch| batch.first)
    }

    /// Bytes from the oldest live record to the newest.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// A record is made.
    pub(super) fn open(&mut self) -> u64 {
        let sequence = self.next();
        self.over.push_back(false);
        sequence
    }

    /// What a record announced is over.
    pub(super) fn close(&mut self, sequence: u64) {
        let index = sequence.checked_sub(self.base).and_then(|index| usize::try_from(index).ok());
        if let Some(over) = index.and_then(|index| self.over.get_mut(index)) {
            *over = true;
        }
        while self.over.front() == Some(&true) {
            self.over.pop_front();
            self.base += 1;
        }
    }

    /// The same, but what it announced has failed: its interval may well be as before.
    pub(super) fn fail(&mut self, sequence: u64) {
        self.failed.push(sequence);
        self.close(sequence);
    }

    /// Up to where, at most `cut`, records speak of what was done: a mark that covered one of what failed would forbid
    /// what is there.
    pub(super) fn done_before(&self, cut: u64) -> u64 {
        self.failed.iter().copied().fold(cut, u64::min)
    }

    /// Where a batch goes, and how much is left unused before the area's end.
    fn next_place(&self, bytes: u64) -> (u64, u64) {
        if self.head + bytes > self.bytes { (0, self.bytes - self.head) } else { (self.head, 0) }
    }

    /// Whether a batch of so many bytes has room and leaves `reserve`.
    pub(super) fn fits(&self, bytes: u64, reserve: u64) -> bool {
        self.used + self.next_place(bytes).1 + bytes + reserve <= self.bytes
    }

    /// Finds the place for all records that have none, in a batch of so many bytes that [`fits`](Self::fits).
    pub(super) fn place(&mut self, bytes: u64) -> u64 {
        debug_assert!(bytes.is_multiple_of(PAGE) && self.fits(bytes, 0));
        let (at, slack) = self.next_place(bytes);
        let (first, last) = (self.unplaced, self.next() - 1);
        self.batches.push_back(Batch { first, last, at, bytes: slack + bytes, head: self.head });
        (self.head, self.unplaced) = (at + bytes, last + 1);
        self.used += slack + bytes;
        at
    }

    /// The newest batch could not be written: neither it nor what came after it was ever recorded. Their numbers are not
    /// used again, for what of them has reached the medium must not pass for what follows a shorter batch in its place.
    pub(super) fn take_back(&mut self) {
        let Some(batch) = self.batches.pop_back() else { return };
        self.used -= batch.bytes;
        self.head = batch.head;
        self.unplaced = self.next();
        for sequence in batch.first..self.unplaced {
            self.close(sequence);
        }
    }

    /// Whether retiring everything that is over would free anything.
    pub(super) fn retirable(&self) -> bool {
        self.batches.front().is_some_and(|batch| batch.last < self.base)
    }

    /// Where the log starts once all batches are retired that end before the record `cut`: epoch, sequence number of
    /// the first live record, its place.
    pub(super) fn tail(&self, cut: u64) -> [u64; 3] {
        match self.batches.iter().find(|batch| batch.last >= cut) {
            Some(batch) => [self.epoch, batch.first, batch.at],
            None => [self.epoch, self.unplaced, self.head],
        }
    }

    /// Frees them.
    pub(super) fn retire(&mut self, cut: u64) {
        while let Some(batch) = self.batches.front().filter(|batch| batch.last < cut) {
            self.used -= batch.bytes;
            self.batches.pop_front();
        }
        let first = self.first_live();
        self.failed.retain(|failed| *failed >= first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch of `records` records; gives its place.
    fn batch(area: &mut Area, records: u64, pages: u64) -> u64 {
        for _ in 0..records {
            area.open();
        }
        assert!(area.fits(pages * PAGE, 0));
        area.place(pages * PAGE)
    }

    #[test]
    fn place_when_the_end_is_reached_begins_anew_and_the_slack_is_freed_with_the_batch() {
        let mut area = Area::new(8 * PAGE, 7);
        assert_eq!(batch(&mut area, 2, 3), 0);
        assert_eq!(batch(&mut area, 1, 3), 3 * PAGE);
        assert!(area.fits(2 * PAGE, 0) && !area.fits(3 * PAGE, 0));
        area.close(1);
        area.close(2);
        assert!(area.retirable());
        assert_eq!(area.tail(3), [7, 3, 3 * PAGE]);
        area.retire(3);
        assert!(area.fits(3 * PAGE, 0) && !area.fits(3 * PAGE, 1) && !area.fits(4 * PAGE, 0));
        assert_eq!(batch(&mut area, 1, 3), 0);
        assert_eq!(area.used(), 8 * PAGE);
        area.close(4);
        area.retire(area.first_open());
        assert_eq!(area.used(), 8 * PAGE, "an open record keeps what is behind it");
        area.close(3);
        area.retire(area.first_open());
        assert_eq!((area.used(), area.tail(5)), (0, [7, 5, 3 * PAGE]));
    }

    #[test]
    fn take_back_when_a_batch_failed_leaves_the_area_as_it_was_but_for_the_numbers() {
        for pages in [1, 3] {
            let mut area = Area::new(8 * PAGE, 7);
            batch(&mut area, 2, 3);
            batch(&mut area, 1, 2);
            area.close(1);
            area.close(2);
            area.retire(3);
            let state = |area: &Area| (area.head, area.used, area.first_live(), area.first_open());
            let (before, next) = (state(&area), area.next());
            if pages == 3 {
                // It goes round the end, over what was retired.
                assert_eq!(batch(&mut area, 3, 3), 5 * PAGE);
                area.take_back();
                assert_eq!((state(&area), area.next()), (before, next + 3));
            }
            batch(&mut area, 3, pages);
            let (next, pending) = (area.next(), area.open());
            // A mark is over as soon as it is made.
            area.close(pending - 1);
            area.take_back();
            assert_eq!((state(&area), area.next()), (before, next + 1));
            area.close(3);
            assert_eq!((area.first_open(), area.unplaced), (next + 1, next + 1));
        }
        let mut area = Area::new(8 * PAGE, 7);
        for _ in 0..2 {
            batch(&mut area, 1, 3);
        }
        area.close(1);
        area.retire(2);
        let head = area.head;
        assert_eq!(batch(&mut area, 1, 3), 0);
        area.take_back();
        assert_eq!((area.head, area.used), (head, 3 * PAGE));
    }

    #[test]
    fn ring_when_used_at_random_never_puts_a_batch_over_a_live_one() {
        let mut seed = 1u64;
        let mut random = |end: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % end
        };
        let mut area = Area::new(16 * PAGE, 1);
        let mut open: Vec<u64> = Vec::new();
        let mut live: Vec<(u64, u64, u64)> = Vec::new();
        let mut placed = 0;
        for _ in 0..20_000 {
            match random(3) {
                0 => {
                    let bytes = (random(5) + 1) * PAGE;
                    if area.fits(bytes, 0) {
                        let count = random(3) + 1;
                        open.extend((0..count).map(|_| area.open()));
                        let at = area.place(bytes);
                        assert!(at + bytes <= area.bytes());
                        for (_, start, end) in &live {
                            assert!(at + bytes <= *start || *end <= at, "over a live batch");
                        }
                        live.push((area.next() - 1, at, at + bytes));
                        placed += 1;
                    }
                }
                1 if !open.is_empty() => {
                    let index = random(open.len() as u64) as usize;
                    area.close(open.swap_remove(index));
                }
                _ => {
                    let cut = area.first_open();
                    let [_, first, at] = area.tail(cut);
                    area.retire(cut);
                    live.retain(|(last, _, _)| *last >= cut);
                    if let Some((last, start, _)) = live.first() {
                        assert!(first <= *last && at == *start, "the tail is the oldest live batch");
                    }
                }
            }
        }
        assert!(placed > 1000);
    }
}
