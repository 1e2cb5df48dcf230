//! The table that orders overlapping requests of one disk, whatever queue they come from.
//!
//! A read holds its range shared, a write or a discard exclusively, from before the data I/O until the protection
//! information is where it belongs. Ranges are counted in units (4 KiB, or the interval if that is larger); unit
//! `u` is held in lane `u % LANES`, so distinct units may share a lane, which costs an unneeded wait now and then
//! and never correctness. Eight lanes share an atomic word, so a request of 32 KiB takes one or two steps.
//!
//! ```text
//! lane: WRITER 1 bit | WAITED 1 bit | readers 6 bits        word: eight lanes
//!
//! acquire --- nobody waits, all lanes taken ---------------------------> held             (no lock)
//!    |  conflict: what was taken is given back
//!    v
//!  [mutex] behind an earlier waiter, or still in conflict (the lane is marked WAITED) ---> in the list: parked
//!
//! release --- no lane was marked ---------------------------------------> done             (no lock)
//!    |  a marked lane became free
//!    v
//!  [mutex] walk the list in order of arrival: take the lanes for every waiter that can have them all, tell it
//! ```
//!
//! **No wake-up is lost.** A waiter in the list either found a lane in conflict and marked it in the same atomic
//! step, so that the holder that frees the lane sees the mark and walks the list (after the waiter entered it: both
//! happen under the mutex); or it is behind an earlier waiter, and when that one is given its lanes, the same walk
//! goes on to this one and marks. By induction from the head, every waiter is reached by some release to come.
//!
//! **No deadlock**: a request takes all its lanes or none; a parked one holds nothing.
//!
//! **No starvation**: waiters are served in order of arrival where they overlap, and while anybody waits, newcomers
//! pass through the mutex, where they queue behind any waiter they overlap. Only a request already past the
//! `waiting` look can slip in, once per thread.

#[cfg(all(loom, test))]
use loom::sync::{
    Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};
use std::collections::VecDeque;
#[cfg(not(all(loom, test)))]
use std::sync::{
    Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

#[cfg(test)]
mod tests;

/// The lowest bit of every lane.
const ONES: u64 = 0x0101_0101_0101_0101;
const READERS: u64 = 0x3F * ONES;
const WAITED: u64 = 0x40 * ONES;
const WRITER: u64 = 0x80 * ONES;
const LANES_PER_WORD: u32 = 8;

/// Lanes of a disk's table: a prime, so that units a power of two apart (as a file system's group headers are) do
/// not meet in one lane; 64 KiB of memory, far more units than are in flight.
const LANES: u32 = 65_521;

/// A range of units, as the table holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Lane of the first unit.
    first: u32,
    /// How many lanes, going round the table's end.
    count: u32,
    exclusive: bool,
}

/// The table. `T` is a waiter's name.
pub(crate) struct Ranges<T> {
    words: Box<[AtomicU64]>,
    lanes: u32,
    unit_shift: u32,
    /// Length of `list`, to be looked at without the mutex.
    waiting: AtomicUsize,
    list: Mutex<VecDeque<(Span, T)>>,
    /// How often somebody had to wait.
    waits: std::sync::atomic::AtomicU64,
}

/// How many lanes were taken before one that is held otherwise.
struct Conflict(u32);

impl<T> Ranges<T> {
    /// A table with units of `unit` bytes, a power of two.
    pub(crate) fn new(unit: u32) -> Self {
        Self::with_lanes(unit, LANES)
    }

    fn with_lanes(unit: u32, lanes: u32) -> Self {
        Self {
            words: (0..lanes.div_ceil(LANES_PER_WORD)).map(|_| AtomicU64::new(0)).collect(),
            lanes,
            unit_shift: unit.ilog2(),
            waiting: AtomicUsize::new(0),
            list: Mutex::new(VecDeque::new()),
            waits: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// How often somebody had to wait, so far.
    pub(crate) fn waits(&self) -> u64 {
        self.waits.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The span of a range of bytes; none if it is empty or longer than the table.
    pub(crate) fn span(&self, offset: u64, bytes: u64, exclusive: bool) -> Option<Span> {
        let first = offset >> self.unit_shift;
        let last = offset.checked_add(bytes.checked_sub(1)?)? >> self.unit_shift;
        let (lanes, count) = (u64::from(self.lanes), last - first + 1);
        // Both fit: they are at most `lanes`, which is a u32.
        (count <= lanes).then(|| Span { first: (first % lanes) as u32, count: count as u32, exclusive })
    }

    /// Takes the span, or parks the caller under the name `who` makes: then `granted` will be called with that name
    /// by whoever frees the span, which is then held. Returns whether it is held now.
    pub(crate) fn acquire(&self, span: Span, who: impl FnOnce() -> T, granted: &mut impl FnMut(T)) -> bool {
        // Relaxed: this look is for fairness alone. Who misses a waiter overtakes it once.
        if self.waiting.load(Ordering::Relaxed) == 0 {
            match self.take(span, false) {
                Ok(()) => return true,
                Err(Conflict(taken)) => self.release(Span { count: taken, ..span }, granted),
            }
        }
        self.wait(span, who, granted)
    }

    #[cold]
    fn wait(&self, span: Span, who: impl FnOnce() -> T, granted: &mut impl FnMut(T)) -> bool {
        let mut list = lock(&self.list);
        let mut marked = false;
        if !list.iter().any(|(earlier, _)| self.conflict(earlier, &span)) {
            match self.take(span, true) {
                Ok(()) => return true,
                Err(Conflict(taken)) => marked = self.give_back(Span { count: taken, ..span }),
            }
        }
        list.push_back((span, who()));
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.waits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        drop(list);
        if marked {
            self.walk(granted);
        }
        false
    }

    /// Gives a span back and calls `granted` for every waiter that now holds its own.
    pub(crate) fn release(&self, span: Span, granted: &mut impl FnMut(T)) {
        if self.give_back(span) {
            self.walk(granted);
        }
    }

    /// Takes all lanes of the span; on a conflict, `mark`s the lanes in conflict and leaves the words before taken.
    fn take(&self, span: Span, mark: bool) -> Result<(), Conflict> {
        let mut taken = 0;
        for (word, lanes) in self.parts(span) {
            // Relaxed: a first guess, which the exchange checks.
            let mut seen = word.load(Ordering::Relaxed);
            loop {
                let conflict = in_conflict(seen, span.exclusive) & lanes;
                let wanted = match conflict {
                    0 if span.exclusive => seen | WRITER & lanes,
                    0 => seen + (ONES & lanes),
                    _ if !mark || seen & conflict == conflict => return Err(Conflict(taken)),
                    _ => seen | conflict,
                };
                // Acquire: what the last holder did happens before what this one does. A mark needs no order of its
                // own: the list it announces is under the mutex.
                match word.compare_exchange_weak(seen, wanted, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) if conflict == 0 => break,
                    Ok(_) => return Err(Conflict(taken)),
                    Err(now) => seen = now,
                }
            }
            taken += lanes.count_ones() / 8;
        }
        Ok(())
    }

    /// Gives all lanes of the span back; true if one that became free was marked.
    fn give_back(&self, span: Span) -> bool {
        let mut waited = false;
        for (word, lanes) in self.parts(span) {
            if span.exclusive {
                // Release: what this holder did happens before what the next one does.
                waited |= word.fetch_and(!lanes, Ordering::Release) & lanes & WAITED != 0;
                continue;
            }
            let mut seen = word.load(Ordering::Relaxed);
            loop {
                let left = seen - (ONES & lanes);
                // The last reader takes the mark away with its count: in between, a new waiter's mark could be lost.
                let freed = left & lanes & WAITED & !in_conflict(left, true);
                match word.compare_exchange_weak(seen, left & !freed, Ordering::Release, Ordering::Relaxed) {
                    Ok(_) => break waited |= freed != 0,
                    Err(now) => seen = now,
                }
            }
        }
        waited
    }

    /// Gives every waiter that can have them its lanes, in order of arrival.
    #[cold]
    fn walk(&self, granted: &mut impl FnMut(T)) {
        let mut list = lock(&self.list);
        let mut at = 0;
        while let Some((span, _)) = list.get(at) {
            let span = *span;
            if list.iter().take(at).any(|(earlier, _)| self.conflict(earlier, &span)) {
                at += 1;
                continue;
            }
            match self.take(span, true) {
                Ok(()) => {
                    if let Some((_, who)) = list.remove(at) {
                        self.waiting.fetch_sub(1, Ordering::Relaxed);
                        granted(who);
                    }
                }
                // Giving back may find a mark: a reader left meanwhile, and took this one for a reader that stays.
                Err(Conflict(taken)) if self.give_back(Span { count: taken, ..span }) => at = 0,
                Err(Conflict(_)) => at += 1,
            }
        }
    }

    /// Whether two spans share a lane and one of them is exclusive.
    fn conflict(&self, a: &Span, b: &Span) -> bool {
        let distance = |from: u32, to: u32| if to >= from { to - from } else { self.lanes - from + to };
        (a.exclusive || b.exclusive)
            && (distance(a.first, b.first) < a.count || distance(b.first, a.first) < b.count)
    }

    /// The span's words, each with all bits of the span's lanes in it.
    fn parts(&self, span: Span) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let end = (span.first + span.count).min(self.lanes);
        let mut round = span.count - (end - span.first);
        let (mut at, mut end) = (span.first, end);
        std::iter::from_fn(move || {
            if at == end {
                (at, end) = (0, std::mem::take(&mut round));
                if end == 0 {
                    return None;
                }
            }
            let lane = at % LANES_PER_WORD;
            let count = (LANES_PER_WORD - lane).min(end - at);
            let word = self.words.get((at / LANES_PER_WORD) as usize)?;
            at += count;
            Some((word, u64::MAX >> (64 - 8 * count) << (8 * lane)))
        })
    }
}

/// The WAITED bit of every lane that a reader (or, with `exclusive`, a writer) cannot have now. A reader cannot have
/// one with as many readers as it can count, either; it then waits for all of them.
fn in_conflict(word: u64, exclusive: bool) -> u64 {
    let writers = (word & WRITER) >> 1;
    // Adding to the readers' bits carries into the bit above, and no further.
    let add = if exclusive { READERS } else { ONES };
    writers | (((word & READERS) + add) & WAITED)
}

/// A panic elsewhere leaves the list whole: it is only pushed to and removed from.
#[cfg(not(all(loom, test)))]
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(all(loom, test))]
fn lock<T>(mutex: &Mutex<T>) -> loom::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
