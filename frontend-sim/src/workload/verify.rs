//! Random verify: writes what can be recognised, and checks everything that is read.
//!
//! Every queue sends a mixture of reads, writes, flushes, barriers and, if asked, discards, of mixed sizes
//! and at depth, over one region that all of them share. See `model` for what a read may find.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Limit;
use super::model::{Model, Stamp, View};
use super::random::Random;
use crate::{Completion, Disk, Error, Frontend, Operation, Queue, Submission};

/// What to verify, and how.
#[derive(Clone, Copy, Debug)]
pub struct VerifyOptions {
    /// Everything follows from it, except the order in which requests complete.
    pub seed: u64,
    /// Where the region starts, in bytes.
    pub offset: u64,
    /// Bytes of the region; none: to the end of the disk, at most 256 MiB.
    pub bytes: Option<u64>,
    /// Largest request; none: the disk's.
    pub max_request: Option<usize>,
    /// Send discards.
    pub discard: bool,
    /// Send requests that overlap others in flight. Their outcome is old or new data, never a mixture within
    /// a block, which a plain file promises to nobody.
    pub overlap: bool,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { seed: 1, offset: 0, bytes: None, max_request: None, discard: false, overlap: true }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Reads, all of whose bytes were right.
    pub reads: u64,
    /// Writes, barriers among them.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Discards.
    pub discards: u64,
    /// Blocks read and found right.
    pub blocks: u64,
    /// Intervals read that carried an escape.
    pub escaped: u64,
}

impl VerifyReport {
    fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.flushes += other.flushes;
        self.discards += other.discards;
        self.blocks += other.blocks;
        self.escaped += other.escaped;
    }

    fn requests(&self) -> u64 {
        self.reads + self.writes + self.flushes + self.discards
    }
}

/// The knowledge of what was written, which outlives connections: verify, let the backend crash, verify again.
pub struct Verify {
    options: VerifyOptions,
    block: usize,
    max_blocks: usize,
    model: Mutex<Model>,
    discard: bool,
    barrier: bool,
    flush: bool,
}

/// The largest region by default: the model knows every block of it.
const REGION: u64 = 256 << 20;

impl Verify {
    /// For a disk, of which nothing is known until [`fill`](Self::fill).
    ///
    /// # Errors
    /// [`Error::Request`] for a region that is empty, beyond the disk or not whole blocks.
    pub fn new(options: VerifyOptions, disk: &Disk) -> Result<Self, Error> {
        let block = disk.block();
        let left = disk.bytes().saturating_sub(options.offset);
        let bytes = options.bytes.unwrap_or(left.min(REGION)) / block as u64 * block as u64;
        if bytes == 0 || bytes > left || !options.offset.is_multiple_of(block as u64) {
            return Err(Error::Request("the region is whole blocks of the disk"));
        }
        let max = options.max_request.unwrap_or(disk.max_bytes()).min(disk.max_bytes());
        let blocks = (bytes / block as u64) as usize;
        Ok(Self {
            options,
            block,
            max_blocks: (max / block).clamp(1, blocks),
            model: Mutex::new(Model::new(options.seed, blocks, block)),
            discard: options.discard && disk.discard.is_some(),
            barrier: disk.barrier,
            flush: disk.flush,
        })
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sector(&self, block: usize) -> u64 {
        (self.options.offset + (block * self.block) as u64) / 512
    }

    /// Writes the whole region once.
    ///
    /// # Errors
    /// The first request that failed.
    pub fn fill(&self, queue: &mut Queue) -> Result<VerifyReport, Error> {
        self.sweep(queue, false)
    }

    /// Reads the whole region and checks it.
    ///
    /// # Errors
    /// The first request that failed; [`Error::Data`] for a block that is not as it should be.
    pub fn check(&self, queue: &mut Queue) -> Result<VerifyReport, Error> {
        self.sweep(queue, true)
    }

    fn sweep(&self, queue: &mut Queue, read: bool) -> Result<VerifyReport, Error> {
        let mut worker = Worker::new(self);
        let blocks = self.model().blocks();
        let mut next = 0;
        worker.drive(queue, |worker, queue| {
            if next == blocks {
                return Ok(false);
            }
            let count = self.max_blocks.min(blocks - next);
            if read {
                worker.read(queue, next, count, 0)?;
            } else {
                worker.write(queue, Operation::Write, next, count, 0)?;
            }
            next += count;
            Ok(true)
        })?;
        if !read {
            queue.flush()?;
        }
        Ok(worker.report)
    }

    /// Sends random requests over all queues at once, each in a thread of its own, up to the limit, then
    /// waits for all of them and flushes.
    ///
    /// # Errors
    /// The first request that failed; [`Error::Data`] for a block that is not as it should be.
    pub fn run(&self, frontend: &mut Frontend, limit: Limit) -> Result<VerifyReport, Error> {
        let failed = AtomicBool::new(false);
        let queues = frontend.queues_mut();
        let part = limit.of(queues.len());
        let results: Vec<Result<VerifyReport, Error>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..)
                .zip(queues)
                .map(|(number, queue)| {
                    let failed = &failed;
                    scope.spawn(move || {
                        let result = self.worker(queue, number, part, failed);
                        if result.is_err() {
                            failed.store(true, Relaxed);
                        }
                        result
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a worker does not panic")).collect()
        });
        let mut report = VerifyReport::default();
        for result in results {
            report.add(&result?);
        }
        frontend.queue(0).flush()?;
        Ok(report)
    }

    fn worker(
        &self,
        queue: &mut Queue,
        number: u64,
        limit: Limit,
        failed: &AtomicBool,
    ) -> Result<VerifyReport, Error> {
        let mut worker = Worker::new(self);
        let mut random = Random::new(self.options.seed.wrapping_add(number));
        let started = Instant::now();
        worker.drive(queue, |worker, queue| {
            let sent = worker.report.requests() + worker.flights.len() as u64;
            if limit.is_reached(sent, started) || failed.load(Relaxed) {
                return Ok(false);
            }
            worker.random(queue, &mut random)?;
            Ok(true)
        })?;
        Ok(worker.report)
    }
}

/// One queue's requests in flight.
struct Worker<'a> {
    verify: &'a Verify,
    flights: HashMap<u64, Flight>,
    next: u64,
    report: VerifyReport,
    buffer: Vec<u8>,
}

enum Flight {
    Read { first: usize, view: View },
    Write { first: usize, count: usize, stamp: Stamp, discard: bool },
    Flush,
}

impl<'a> Worker<'a> {
    fn new(verify: &'a Verify) -> Self {
        Self {
            verify,
            flights: HashMap::new(),
            next: 0,
            report: VerifyReport::default(),
            buffer: vec![0; verify.max_blocks * verify.block],
        }
    }

    /// Keeps the queue full with what `send` sends, until it sends no more and all has come back. All comes
    /// back after a failure too, so that the queue can be used further.
    fn drive(
        &mut self,
        queue: &mut Queue,
        send: impl FnMut(&mut Self, &mut Queue) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let result = self.drive_on(queue, send);
        if result.is_err() {
            while let Ok(Some(_)) = queue.complete() {}
        }
        result
    }

    fn drive_on(
        &mut self,
        queue: &mut Queue,
        mut send: impl FnMut(&mut Self, &mut Queue) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let mut more = true;
        loop {
            while more && queue.free() > 0 {
                more = send(self, queue)?;
            }
            let Some(completion) = queue.complete()? else { return Ok(()) };
            self.done(completion)?;
            while let Some(completion) = queue.poll()? {
                self.done(completion)?;
            }
        }
    }

    fn random(&mut self, queue: &mut Queue, random: &mut Random) -> Result<(), Error> {
        if self.verify.flush && random.one_in(64) {
            let tag = self.note(Flight::Flush);
            return queue.submit(&Submission::flush().tagged(tag));
        }
        let (first, count) = self.place(random);
        // Data that starts inside a page makes segments cut intervals; the longest request has no room for
        // that.
        let room = queue.disk().max_bytes() - count * self.verify.block;
        let first_sector = if random.one_in(4) && room >= 4096 { random.below(8) as u8 } else { 0 };
        match random.below(100) {
            0..50 => self.read(queue, first, count, first_sector),
            50..52 if self.verify.discard => self.discard(queue, first, count),
            52..54 if self.verify.barrier => {
                self.write(queue, Operation::WriteBarrier, first, count, first_sector)
            }
            _ => self.write(queue, Operation::Write, first, count, first_sector),
        }
    }

    /// A random run of blocks; clear of others in flight, unless overlaps are wanted or there is no room.
    fn place(&self, random: &mut Random) -> (usize, usize) {
        let model = self.verify.model();
        loop {
            // Small ones mostly, large ones sometimes.
            let most = if random.one_in(4) { self.verify.max_blocks } else { self.verify.max_blocks.min(8) };
            let count = 1 + random.below(most as u64) as usize;
            let first = random.below((model.blocks() - count + 1) as u64) as usize;
            if self.verify.options.overlap || !model.is_busy(first, count) {
                return (first, count);
            }
        }
    }

    fn note(&mut self, flight: Flight) -> u64 {
        self.next += 1;
        self.flights.insert(self.next, flight);
        self.next
    }

    fn read(&mut self, queue: &mut Queue, first: usize, count: usize, first_sector: u8) -> Result<(), Error> {
        let view = self.verify.model().read_submitted(first, count);
        let tag = self.note(Flight::Read { first, view });
        let read = Submission::read(self.verify.sector(first), count * self.verify.block);
        queue.submit(&Submission { poison: true, first_sector, ..read.tagged(tag) })
    }

    fn write(
        &mut self,
        queue: &mut Queue,
        operation: Operation,
        first: usize,
        count: usize,
        first_sector: u8,
    ) -> Result<(), Error> {
        let data = &mut self.buffer[..count * self.verify.block];
        let stamp = {
            let mut model = self.verify.model();
            let stamp = model.write_submitted(first, count, false);
            model.content(first, stamp, data);
            stamp
        };
        self.next += 1;
        self.flights.insert(self.next, Flight::Write { first, count, stamp, discard: false });
        let write = Submission::write(self.verify.sector(first), data).tagged(self.next);
        let mut write = Submission { first_sector, ..write };
        if write.pages() <= blkif::MAX_SEGMENTS {
            // Others cannot be indirect.
            write.operation = operation;
        }
        queue.submit(&write)
    }

    fn discard(&mut self, queue: &mut Queue, first: usize, count: usize) -> Result<(), Error> {
        let stamp = self.verify.model().write_submitted(first, count, true);
        let tag = self.note(Flight::Write { first, count, stamp, discard: true });
        let sectors = (count * self.verify.block / 512) as u64;
        queue.submit(&Submission::discard(self.verify.sector(first), sectors).tagged(tag))
    }

    fn done(&mut self, mut completion: Completion<'_>) -> Result<(), Error> {
        let flight = self.flights.remove(&completion.tag()).expect("a tag given out once");
        match flight {
            Flight::Read { first, view } => {
                let data = &mut self.buffer[..completion.bytes()];
                let checked = completion.read_into(data)?;
                self.verify.model().read_completed(first, &view, data)?;
                self.report.reads += 1;
                self.report.blocks += (data.len() / self.verify.block) as u64;
                self.report.escaped += checked.escaped as u64;
            }
            Flight::Write { first, count, stamp, discard } => {
                completion.check()?;
                self.verify.model().write_completed(first, count, stamp);
                if discard {
                    self.report.discards += 1;
                } else {
                    self.report.writes += 1;
                }
            }
            Flight::Flush => {
                completion.check()?;
                self.report.flushes += 1;
            }
        }
        Ok(())
    }
}
