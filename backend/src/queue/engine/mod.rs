//! The way of a request, batch by batch.
//!
//! ```text
//! turn:  consume   ring -> pair -> admit -> place (a buffer of the pool)
//!        fetch     one grant copy for the batch's writes; PI checked or made on the private bytes
//!        start     the store gets each I/O with its buffer
//!        enter     one io_uring call hands in what the store queued; completions come back
//!        finish    reads: PI checked, one grant copy for the batch; every request answered
//!        publish   one store of rsp_prod, at most one notification; it waits while the ring has more, for a batch at most
//! ```
//!
//! A request that finds no buffer, or a barrier that finds others under way, is *held*; while anything is held the
//! ring is left alone, so the order of the ring is kept and a small pool only slows its own queue.

mod consume;
mod fetch;
mod finish;
mod idle;

use crate::io::{Doorbell, Pool, Ring};
use crate::limit::Limit;
use crate::queue::active::Table;
use crate::queue::copies::Copies;
use crate::queue::indirect::Indirect;
use crate::queue::protect::Rules;
use crate::queue::spin::Spin;
use crate::queue::{Counters, Disk};
use crate::store::{Completion, Errno, Io, StoreQueue};
use blkif::{BackRing, Pairing, SharedMemory};
use hypervisor::{Copier, EventChannel};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Requests taken in one turn: few enough that the frontend works on the first answers while the next are made (with 32
/// the two take turns, and sleep between them), enough to spread the cost of each call. With PI, 8 requests of a page
/// are 16 copies, which is what gntdev hands to the hypervisor at a time.
const BATCH: usize = 8;
/// Data taken in one turn: it stays in the second-level cache from the copy to the check.
const BATCH_BYTES: u64 = 512 << 10;
/// The longest sleep. Nothing depends on it: events, completions and the doorbell all end a sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

/// Events in a row that brought no slot, as no frontend sends them for long: from then on the channel stays masked for a
/// while each time. A guest that only sends events would keep a processor of the host busy (XSA-332).
const VAIN_EVENTS: u32 = 16;
/// How long.
const VAIN_PAUSE: Duration = Duration::from_millis(1);

/// What this queue polls in its io_uring.
const EVENT: u64 = 0;
const BELL: u64 = 1;
/// The end of that.
const CANCEL: u64 = 2;

/// What the control thread shares with the queue's thread.
#[derive(Debug)]
pub(crate) struct Link {
    /// Set to make the queue stop.
    pub stop: AtomicBool,
    /// Wakes the queue: to stop, or to go on with what waited for another queue.
    pub bell: Doorbell,
    pub counters: Counters,
}

/// Why a queue ended by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the frontend broke the ring: {0}")]
    Ring(#[from] blkif::RingError),
    #[error("io_uring_enter: {0}")]
    Kernel(#[source] io::Error),
    #[error("event channel: {0}")]
    Event(#[from] hypervisor::Error),
    #[error("another queue of the disk failed with requests under way, and these may wait for them")]
    Lost,
}

/// One queue, owned by its thread.
pub(crate) struct Engine {
    // Fields drop in this order: the kernel and the store let go of buffers before the pool unmaps them.
    pub uring: Ring,
    pub store: Box<dyn StoreQueue>,
    pub pool: Pool,
    pub ring: BackRing<SharedMemory>,
    pub pairing: Pairing,
    pub channel: Box<dyn EventChannel>,
    pub copier: Box<dyn Copier>,
    pub disk: Arc<Disk>,
    pub rules: Option<Rules>,
    /// Whether the store may lose a completed write until a flush.
    pub volatile: bool,
    pub link: Arc<Link>,
    pub table: Table,
    pub indirect: Indirect,
    pub spin: Spin,
    pub work: Work,
    /// Mismatches of the guest's PI.
    pub guest_log: Arc<Limit>,
    /// Requests refused, which is told at debug only.
    pub refusal_log: Arc<Limit>,
    pub medium_log: Arc<Limit>,
    pub host_log: Arc<Limit>,
}

/// What is in the engine's hands between the steps of a turn. All of it keeps its memory.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Taken, and waiting for a buffer or, a barrier, for the others to end.
    held: VecDeque<u32>,
    /// A barrier is under way: nothing else is taken.
    barrier: bool,
    /// Placed in this turn, not started.
    fresh: Vec<u32>,
    /// Bytes of data placed in this turn.
    fresh_bytes: u64,
    /// Reads whose data is being copied out.
    outgoing: Vec<u32>,
    done: Vec<Completion>,
    copies: Copies,
    /// Half a pair is visible: the ring is armed for the whole.
    half_pair: bool,
    /// The queue cannot go on; what is under way is still answered.
    broken: Option<Failure>,
    /// An event was acknowledged: the channel is masked until this queue sleeps.
    masked: bool,
    /// Events since a slot was taken.
    vain_events: u32,
    event_polled: bool,
    event_due: bool,
    /// Requests answered in this turn.
    answered: usize,
    /// The frontend asked to be notified of what was published.
    owed: bool,
    /// Requests answered since then.
    unannounced: usize,
}

impl Engine {
    /// Works until told to stop, and drained. The ring then stands at its last response.
    pub fn run(&mut self) -> Result<(), Failure> {
        let result = self.serve();
        if self.work.owed {
            self.notify();
        }
        self.forget_channel();
        result
    }

    fn serve(&mut self) -> Result<(), Failure> {
        // Whoever was here before may have left requests and a frontend that waits: look at once, and tell it once.
        self.channel.notify()?;
        self.listen();
        loop {
            if self.stopping() {
                self.store.hurry();
            }
            if self.turn()? {
                continue;
            }
            if self.stopping() && self.table.is_empty() {
                return self.work.broken.take().map_or(Ok(()), Err);
            }
            if self.stopping() && self.disk.lost.is() {
                return Err(self.work.broken.take().unwrap_or(Failure::Lost));
            }
            self.idle()?;
        }
    }

    /// One batch through all steps; whether anything was done.
    fn turn(&mut self) -> Result<bool, Failure> {
        let mut worked = self.consume();
        self.fetch();
        self.start();
        self.uring.submit(None).map_err(Failure::Kernel)?;
        worked |= self.reap();
        if std::mem::take(&mut self.work.event_due) {
            self.link.counters.events.add(1);
            let acknowledged = self.channel.acknowledge();
            let heard = self.heard(acknowledged).unwrap_or(false);
            self.work.masked |= heard;
            // While nothing is taken an event may well be about a slot.
            self.work.vain_events = self.work.vain_events.saturating_add((heard && self.accepts()).into());
        }
        worked |= self.finish();
        worked |= self.publish();
        self.link.counters.turns.add(1);
        self.link.counters.submits.set(self.uring.submits());
        Ok(worked)
    }

    /// Publishes the turn's responses, and notifies the frontend if it asked for that. A backend that is faster than its
    /// guest finds one request a turn: as long as the ring has the next, they share a notification, up to a batch of
    /// them. Whether a notification is owed, or was.
    fn publish(&mut self) -> bool {
        let answered = std::mem::take(&mut self.work.answered);
        self.work.owed |= self.ring.publish();
        if !self.work.owed {
            return false;
        }
        // A turn without answers counts as well, so that this ends.
        self.work.unannounced += answered.max(1);
        let want = if self.work.half_pair { 2 } else { 1 };
        let more = self.accepts() && self.ring.unconsumed().is_ok_and(|n| n >= want);
        if !more || self.work.unannounced >= BATCH {
            self.notify();
        }
        true
    }

    fn notify(&mut self) {
        (self.work.owed, self.work.unannounced) = (false, 0);
        self.link.counters.notifications.add(1);
        let notified = self.channel.notify();
        self.heard(notified);
    }

    /// What the event channel gave. If it failed, the queue stops, but the store may have requests under way that
    /// must not outlive it: they are waited for.
    fn heard<T>(&mut self, result: Result<T, hypervisor::Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.work.broken.get_or_insert(error.into());
                None
            }
        }
    }

    fn stopping(&self) -> bool {
        self.work.broken.is_some() || self.link.stop.load(Ordering::Relaxed)
    }

    /// Whether the ring may be looked at for more.
    fn accepts(&self) -> bool {
        self.work.held.is_empty() && !self.work.barrier && !self.stopping()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.table.is_empty() {
            return;
        }
        // Only after a panic, here or on another queue, or if io_uring itself failed, are requests left. What is here goes back to the pool. What
        // the store has, the kernel may still work on, and nobody can wait for it any more: its buffers (the pool keeps
        // its memory while a lease is out) and the store's own stay where they are, for good.
        let done = self.work.done.drain(..).filter_map(|completion| completion.buffer);
        for lease in self.table.leases().chain(done) {
            self.pool.give_back(lease);
        }
        std::mem::forget(std::mem::replace(&mut self.store, Box::new(Gone)));
        self.disk.lost.declare();
    }
}

/// In the place of a store's queue that is left to the kernel.
struct Gone;

impl StoreQueue for Gone {
    fn submit(&mut self, io: Io, _: &mut Ring, done: &mut Vec<Completion>) {
        done.push(Completion { id: io.id, buffer: io.buffer, result: Err(Errno(libc::EIO).into()) });
    }

    fn complete(&mut self, _: u64, _: i32, _: &mut Ring, _: &mut Vec<Completion>) {}

    fn resume(&mut self, _: &mut Ring, _: &mut Vec<Completion>) {}
}
