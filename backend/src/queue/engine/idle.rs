//! Between turns: a look for more work, then sleep until an event, a completion or the doorbell.

use super::{BELL, CANCEL, EVENT, Engine, Failure, LONGEST_SLEEP, VAIN_EVENTS, VAIN_PAUSE};
use crate::io::Owner;
use crate::queue::spin::Look;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Engine {
    /// Looks for work a little longer, then sleeps until an event, a completion or the doorbell.
    pub(super) fn idle(&mut self) -> Result<(), Failure> {
        let accepts = self.accepts();
        let want = if self.work.half_pair { 2 } else { 1 };
        let (ring, uring, stop) = (&mut self.ring, &mut self.uring, &self.link.stop);
        let stopping = self.work.broken.is_some();
        let found = self.spin.look(|| {
            uring.ready()
                || accepts && ring.unconsumed().map_or(true, |n| n >= want)
                || !stopping && stop.load(Ordering::Relaxed)
        });
        // Fits for centuries.
        self.link.counters.spin_ns.set(self.spin.spent().as_nanos() as u64);
        if found != Look::Nothing && (accepts || self.uring.ready()) {
            self.link.counters.spins_won.add(u64::from(found == Look::Spun));
            return Ok(());
        }
        if std::mem::take(&mut self.work.masked) {
            if self.work.vain_events > VAIN_EVENTS && !self.stopping() {
                std::thread::sleep(VAIN_PAUSE);
            }
            // After the work and before the last look at the ring: what was notified meanwhile is delivered now.
            self.link.counters.unmasks.add(1);
            let unmasked = self.channel.unmask();
            if self.heard(unmasked).is_none() {
                return Ok(());
            }
        }
        if accepts && self.ring.arm(want) {
            return Ok(());
        }
        // A queue that stops wants nothing more of the frontend, and a channel that failed would be ready without end.
        if !self.work.event_polled && !self.stopping() {
            self.uring.poll(self.channel.as_fd().as_raw_fd(), Owner::Queue.user_data(EVENT));
            self.work.event_polled = true;
        }
        let before = Instant::now();
        self.uring.submit(Some(LONGEST_SLEEP)).map_err(Failure::Kernel)?;
        self.spin.learn(before.elapsed());
        self.link.counters.wakeups.add(1);
        self.link.counters.submits.set(self.uring.submits());
        Ok(())
    }

    /// Takes the event channel out of the io_uring. The kernel takes an io_uring down after its descriptor is closed, in
    /// its own time, and until then what is polled stays open: on Xen the channel's port stays bound, and the next run of
    /// the daemon, or the frontend's next connection, may not have it.
    pub(super) fn forget_channel(&mut self) {
        if self.work.event_polled {
            self.uring.cancel(Owner::Queue.user_data(EVENT), Owner::Queue.user_data(CANCEL));
        }
        while self.work.event_polled && self.uring.submit(Some(LONGEST_SLEEP)).is_ok() {
            // Of the store's nothing comes any more, or, after a failure, nothing that anybody waits for.
            while let Some((user_data, _)) = self.uring.reap() {
                self.work.event_polled &= Owner::of(user_data) != (Owner::Queue, EVENT);
            }
        }
    }

    /// Makes the io_uring watch the doorbell. From the start to the end of the queue it does.
    pub(super) fn listen(&mut self) {
        self.uring.poll(self.link.bell.as_fd().as_raw_fd(), Owner::Queue.user_data(BELL));
    }
}
