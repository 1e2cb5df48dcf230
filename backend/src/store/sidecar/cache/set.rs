//! One set of the cache: sixteen frames, and who waits for one.
#![forbid(unsafe_code)]

use super::Counters;
use crate::store::Errno;
use crate::store::inbox::{Waiter, Wake};
use std::sync::atomic::Ordering;

pub(super) const WAYS: usize = 16;
/// Most frames of a set that may hold what is not on disk, so that reads find a frame even while the disk takes nothing.
const UNWRITTEN: usize = WAYS - 2;
/// The tag of a frame that holds no block. No disk has so many blocks.
pub(super) const EMPTY: u64 = u64::MAX;

pub(super) struct Set {
    pub(super) tags: [u64; WAYS],
    pub(super) states: [State; WAYS],
    /// Where the clock stands.
    hand: u8,
    /// Who found nothing to evict, and for which block.
    pub(super) starved: Vec<(u64, Waiter)>,
    /// Who wants to make a frame dirty when too many are, and which block.
    pub(super) throttled: Vec<(u64, Waiter)>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) loading: bool,
    pub(super) dirty: bool,
    pub(super) writing: bool,
    /// Used since the clock passed.
    pub(super) used: bool,
    pub(super) pins: u32,
    /// Who waits for the load.
    pub(super) waiters: Vec<Waiter>,
}

impl State {
    pub(super) fn evictable(&self) -> bool {
        !(self.loading || self.dirty || self.writing) && self.pins == 0
    }
}

impl Set {
    pub(super) fn new() -> Self {
        let (tags, states) = ([EMPTY; WAYS], Default::default());
        Self { tags, states, hand: 0, starved: Vec::new(), throttled: Vec::new() }
    }

    pub(super) fn find(&self, block: u64) -> Option<usize> {
        self.tags.iter().position(|tag| *tag == block)
    }

    /// Finds a frame for another block: an empty one, or the first that the clock finds unused.
    pub(super) fn evict(&mut self, counters: &Counters) -> Option<usize> {
        // Twice round: the first time may do no more than take the marks away.
        for _ in 0..2 * WAYS {
            let way = usize::from(self.hand);
            self.hand = (self.hand + 1) % WAYS as u8;
            let state = &mut self.states[way];
            if !state.evictable() {
                continue;
            }
            if self.tags[way] == EMPTY {
                return Some(way);
            }
            if !std::mem::take(&mut state.used) {
                counters.evictions.fetch_add(1, Ordering::Relaxed);
                self.tags[way] = EMPTY;
                return Some(way);
            }
        }
        None
    }

    /// Whether a frame of another block than the one in `way` would be one too many that is not on disk.
    pub(super) fn has_too_much_unwritten_beside(&self, way: Option<usize>) -> bool {
        let unwritten = |state: &State| state.dirty || state.writing;
        !way.is_some_and(|way| unwritten(&self.states[way]))
            && self.states.iter().filter(|state| unwritten(state)).count() >= UNWRITTEN
    }

    /// Everybody who waits until less is dirty tries again, or gets the reason why it cannot be written.
    pub(super) fn tell_throttled(&mut self, error: Option<Errno>) {
        for (block, waiter) in self.throttled.drain(..) {
            waiter.post(Wake::Block { block, pinned: false, error }, None);
        }
    }

    /// If a frame can be had, everybody who waits for one tries again.
    pub(super) fn tell_starved(&mut self) {
        if !self.starved.is_empty() && self.states.iter().any(State::evictable) {
            for (block, waiter) in self.starved.drain(..) {
                waiter.post(Wake::Block { block, pinned: false, error: None }, None);
            }
        }
    }
}
