//! One queue of a store, with a ring, a pool and a doorbell of its own, as the daemon's queue thread has them.

use dixback::io::{Doorbell, Lease, Owner, PAGE, Pool, Ring};
use dixback::store::{Completion, Errno, Io, Op, Store, StoreQueue};
use integrity::Profile;
use io_uring::{opcode, types};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No single request takes longer, unless it is lost.
const HANG: Duration = Duration::from_secs(120);

/// A queue. Made and used by one thread.
pub struct Driver {
    queue: Option<Box<dyn StoreQueue>>,
    ring: Ring,
    pool: Pool,
    bell: Doorbell,
    done: Vec<Completion>,
    profile: Option<Profile>,
    next: u32,
    finished: HashMap<u32, Completion>,
    pending: usize,
}

impl Driver {
    pub fn new(store: &Arc<dyn Store>) -> Self {
        let profile = store.capabilities().profile;
        let per_page = profile.map_or(1, |p| p.metadata_size() * PAGE.div_ceil(p.interval()));
        let pool = Pool::new(8 << 20, per_page).unwrap();
        let mut ring = Ring::new(64).unwrap();
        ring.enable().unwrap();
        ring.register(&pool);
        let bell = Doorbell::new().unwrap();
        let queue = Some(Arc::clone(store).queue(bell.clone()).unwrap());
        let (done, finished) = (Vec::new(), HashMap::new());
        let mut driver = Self { queue, ring, pool, bell, done, profile, next: 0, finished, pending: 0 };
        driver.watch();
        driver
    }

    /// Waits for the bell in the ring, as the daemon does: a bell that is not rung is a hang here, too.
    fn watch(&mut self) {
        let entry =
            opcode::PollAdd::new(types::Fd(self.bell.as_fd().as_raw_fd()), libc::POLLIN as u32).build();
        // SAFETY: the entry names no memory.
        unsafe { self.ring.push(&entry.user_data(Owner::Queue.user_data(0))) }
    }

    /// A buffer for a request.
    pub fn buffer(&mut self, bytes: usize) -> Lease {
        self.pool
            .take(bytes, self.profile.map_or(0, |p| p.metadata_len(bytes)))
            .expect("the pool is large enough")
    }

    /// Starts a request.
    pub fn start(&mut self, op: Op, offset: u64, bytes: u64, buffer: Option<Lease>) -> u32 {
        self.next += 1;
        self.pending += 1;
        let io = Io { id: self.next, op, offset, bytes, buffer };
        self.queue.as_mut().unwrap().submit(io, &mut self.ring, &mut self.done);
        self.collect();
        self.next
    }

    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The requests that have ended and were not asked for.
    pub fn finished(&mut self) -> Vec<Completion> {
        self.pending -= self.finished.len();
        self.finished.drain().map(|(_, completion)| completion).collect()
    }

    /// Hands everything to the kernel and takes what comes back, waiting for something if `wait` and nothing is there.
    pub fn turn(&mut self, wait: bool) {
        let wait = wait && self.finished.is_empty();
        self.ring.submit(wait.then_some(Duration::from_secs(5))).unwrap();
        while let Some((user_data, result)) = self.ring.reap() {
            let queue = self.queue.as_mut().unwrap();
            match Owner::of(user_data) {
                (Owner::Store, value) => queue.complete(value, result, &mut self.ring, &mut self.done),
                (Owner::Queue, _) => {
                    self.bell.quiet();
                    queue.resume(&mut self.ring, &mut self.done);
                    self.watch();
                }
            }
        }
        self.collect();
    }

    fn collect(&mut self) {
        for completion in self.done.drain(..) {
            let before = self.finished.insert(completion.id, completion);
            assert!(before.is_none(), "a request ended twice");
        }
    }

    /// Waits for one request.
    pub fn wait(&mut self, id: u32) -> Completion {
        let start = Instant::now();
        loop {
            if let Some(completion) = self.finished.remove(&id) {
                self.pending -= 1;
                return completion;
            }
            assert!(start.elapsed() < HANG, "request {id} hangs");
            self.turn(true);
        }
    }

    /// Tells the queue that it is about to end.
    pub fn hurry(&mut self) {
        self.queue.as_mut().unwrap().hurry();
    }

    pub fn give_back(&mut self, lease: Lease) {
        self.pool.give_back(lease);
    }

    /// Writes data with the PI that it should have, application tag `tag`.
    pub fn write(&mut self, offset: u64, data: &[u8], tag: u16, fua: bool) -> Result<(), Errno> {
        let mut lease = self.buffer(data.len());
        let (to, metadata) = lease.parts_mut();
        to.copy_from_slice(data);
        if let Some(profile) = self.profile {
            metadata.fill(0);
            profile.generate(to, metadata, offset / profile.interval() as u64, tag);
        }
        let id = self.start(Op::Write { fua }, offset, data.len() as u64, Some(lease));
        let completion = self.wait(id);
        self.give_back(completion.buffer.unwrap());
        completion.result.map_err(|error| error.errno())
    }

    /// Reads data and metadata.
    pub fn read(&mut self, offset: u64, bytes: usize) -> Result<(Vec<u8>, Vec<u8>), Errno> {
        let mut lease = self.buffer(bytes);
        lease.parts_mut().0.fill(0xA5);
        lease.parts_mut().1.fill(0xA5);
        let id = self.start(Op::Read, offset, bytes as u64, Some(lease));
        let completion = self.wait(id);
        let lease = completion.buffer.unwrap();
        let (data, metadata) = lease.parts();
        let result = completion.result.map(|()| (data.to_vec(), metadata.to_vec()));
        let result = result.map_err(|error| error.errno());
        self.give_back(lease);
        result
    }

    pub fn discard(&mut self, offset: u64, bytes: u64) -> Result<(), Errno> {
        let id = self.start(Op::Discard, offset, bytes, None);
        self.wait(id).result.map_err(|error| error.errno())
    }

    pub fn flush(&mut self) -> Result<(), Errno> {
        let id = self.start(Op::Flush, 0, 0, None);
        self.wait(id).result.map_err(|error| error.errno())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Requests may be under way into the pool: leave everything where it is.
            std::mem::forget(self.queue.take());
            return;
        }
        assert_eq!(self.pending, 0, "a driver went before its requests had ended");
    }
}
