//! How many requests a second, and what they cost this end.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::Limit;
use super::random::Random;
use crate::{Completion, Counters, Error, Frontend, Queue, Source, Submission};

/// Which requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads at random places.
    RandomRead,
    /// Writes at random places.
    RandomWrite,
    /// Reads one after the other.
    SequentialRead,
    /// Writes one after the other.
    SequentialWrite,
}

impl Access {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::RandomRead => "random-read",
            Self::RandomWrite => "random-write",
            Self::SequentialRead => "sequential-read",
            Self::SequentialWrite => "sequential-write",
        }
    }

    fn is_read(self) -> bool {
        matches!(self, Self::RandomRead | Self::SequentialRead)
    }

    fn is_random(self) -> bool {
        matches!(self, Self::RandomRead | Self::RandomWrite)
    }

    /// What is usual to measure: 4 KiB at random, 128 KiB in sequence.
    pub fn usual_bytes(self) -> usize {
        if self.is_random() { 4096 } else { 128 << 10 }
    }
}

impl FromStr for Access {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::RandomRead, Self::RandomWrite, Self::SequentialRead, Self::SequentialWrite];
        all.into_iter().find(|access| access.name() == name).ok_or(format!(
            "{name:?} is none of random-read, random-write, sequential-read, sequential-write"
        ))
    }
}

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct BenchOptions {
    /// Which requests.
    pub access: Access,
    /// Bytes of each.
    pub bytes: usize,
    /// How many in flight on each queue.
    pub depth: usize,
    /// How long, or how many.
    pub limit: Limit,
    /// Bytes of the disk to use, from its start; none: all.
    pub region: Option<u64>,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct BenchReport {
    /// What was asked for.
    pub options: BenchOptions,
    /// Queues used.
    pub queues: usize,
    /// The guard of the PI that was made and checked; none without DIX.
    pub dix: Option<integrity::Guard>,
    /// Requests done.
    pub requests: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// CPU time of the threads that sent them.
    pub cpu: Duration,
    /// CPU time of the whole process, which may have the backend in it.
    pub process_cpu: Duration,
    /// Notifications, events, wake-ups.
    pub counters: Counters,
}

impl BenchReport {
    /// Requests in a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// CPU time of the sending threads for one request, in nanoseconds.
    pub fn cpu_ns(&self) -> f64 {
        per(self.cpu.as_nanos() as f64, self.requests)
    }

    /// One line of JSON, for a program that runs several of these.
    pub fn json(&self) -> String {
        let Counters { notifications, events, wakeups, spins, .. } = self.counters;
        format!(
            concat!(
                r#"{{"bench":"{}","bytes":{},"depth":{},"queues":{},"dix":"{}","requests":{},"#,
                r#""seconds":{:.6},"requests_per_second":{:.1},"mib_per_second":{:.2},"#,
                r#""cpu_ns_per_request":{:.1},"process_cpu_ns_per_request":{:.1},"#,
                r#""notifications":{},"events":{},"wakeups":{},"spins":{}}}"#
            ),
            self.options.access.name(),
            self.options.bytes,
            self.options.depth,
            self.queues,
            self.dix.map_or("off", |guard| guard.name()),
            self.requests,
            self.elapsed.as_secs_f64(),
            self.rate(),
            self.rate() * self.options.bytes as f64 / (1 << 20) as f64,
            self.cpu_ns(),
            per(self.process_cpu.as_nanos() as f64, self.requests),
            notifications,
            events,
            wakeups,
            spins,
        )
    }
}

fn per(what: f64, requests: u64) -> f64 {
    what / requests.max(1) as f64
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BenchOptions { access, bytes, depth, .. } = self.options;
        let mib = self.rate() * bytes as f64 / (1 << 20) as f64;
        writeln!(f, "{} of {bytes} bytes, depth {depth}, {} queue(s)", access.name(), self.queues)?;
        writeln!(f, "{:.0} requests/s, {mib:.1} MiB/s, {} requests", self.rate(), self.requests)?;
        writeln!(f, "{:.0} ns of this end's CPU per request", self.cpu_ns())?;
        let Counters { notifications, events, wakeups, .. } = self.counters;
        write!(
            f,
            "per 1000 requests: {:.1} notifications, {:.1} events, {:.1} wake-ups",
            1000.0 * per(notifications as f64, self.requests),
            1000.0 * per(events as f64, self.requests),
            1000.0 * per(wakeups as f64, self.requests),
        )
    }
}

/// Measures, over all queues at once, each in a thread of its own. With DIX, PI is made for every write and
/// checked on every read, on a copy; without, the data stays where it is, as in a guest's page cache. Writes
/// overwrite the disk.
///
/// # Errors
/// The first request that failed; [`Error::Request`] for options that do not fit the disk.
pub fn bench(frontend: &mut Frontend, options: BenchOptions) -> Result<BenchReport, Error> {
    let disk = frontend.disk();
    let dix = disk.dix.map(|profile| profile.guard());
    let region = options.region.unwrap_or(u64::MAX).min(disk.bytes());
    if options.bytes == 0 || options.bytes > disk.max_bytes() || !options.bytes.is_multiple_of(disk.block()) {
        return Err(Error::Request("a request is whole blocks, and as long as this disk allows"));
    }
    if region < options.bytes as u64 {
        return Err(Error::Request("the region is at least one request"));
    }
    let queues = frontend.queues_mut();
    if queues.iter().any(|queue| queue.depth() < options.depth) || options.depth == 0 {
        return Err(Error::Request("the queues are not that deep"));
    }
    let count = queues.len();
    let before: Vec<Counters> = queues.iter().map(|queue| queue.counters()).collect();
    let (started, process_cpu) = (Instant::now(), cpu_time(ClockId::ProcessCPUTime));
    let results: Vec<Result<(u64, Duration), Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(queues.iter_mut())
            .map(|(number, queue)| {
                let limit = options.limit.of(count);
                scope.spawn(move || Runner::new(queue, &options, region, number).run(limit))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a runner does not panic")).collect()
    });
    let elapsed = started.elapsed();
    let (mut requests, mut cpu) = (0, Duration::ZERO);
    for result in results {
        let (done, spent) = result?;
        requests += done;
        cpu += spent;
    }
    let counters = queues.iter().zip(before).map(|(queue, before)| queue.counters() - before);
    Ok(BenchReport {
        options,
        queues: count,
        dix,
        requests,
        elapsed,
        cpu,
        process_cpu: cpu_time(ClockId::ProcessCPUTime) - process_cpu,
        counters: counters.fold(Counters::default(), |sum, one| sum + one),
    })
}

fn cpu_time(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

struct Runner<'a> {
    queue: &'a mut Queue,
    options: &'a BenchOptions,
    data: Vec<u8>,
    random: Random,
    /// Places in the region.
    places: u64,
    next: u64,
    /// Writes need their bytes copied, because buffers do not stay.
    copied: bool,
}

impl<'a> Runner<'a> {
    fn new(queue: &'a mut Queue, options: &'a BenchOptions, region: u64, number: u64) -> Self {
        let mut random = Random::new(number + 1);
        let data: Vec<u8> = (0..options.bytes / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        let copied = !queue.fill(&data);
        let places = region / options.bytes as u64;
        Self { queue, options, data, random, places, next: places / 7 * number, copied }
    }

    fn run(mut self, limit: Limit) -> Result<(u64, Duration), Error> {
        let started = Instant::now();
        let cpu = cpu_time(ClockId::ThreadCPUTime);
        let (mut sent, mut done) = (0, 0);
        let mut scratch = vec![0; self.options.bytes];
        loop {
            while self.queue.in_flight() < self.options.depth && !limit.is_reached(sent, started) {
                self.send()?;
                sent += 1;
            }
            let Some(completion) = self.queue.complete()? else { break };
            finish(completion, &mut scratch)?;
            done += 1;
            while let Some(completion) = self.queue.poll()? {
                finish(completion, &mut scratch)?;
                done += 1;
            }
        }
        Ok((done, cpu_time(ClockId::ThreadCPUTime) - cpu))
    }

    fn send(&mut self) -> Result<(), Error> {
        let place = if self.options.access.is_random() {
            self.random.below(self.places)
        } else {
            self.next += 1;
            self.next % self.places
        };
        let sector = place * self.options.bytes as u64 / 512;
        let submission = if self.options.access.is_read() {
            Submission::read(sector, self.options.bytes)
        } else {
            let write = Submission::write(sector, &self.data);
            if self.copied { write } else { Submission { source: Source::Placed(&self.data), ..write } }
        };
        self.queue.submit(&submission)
    }
}

fn finish(mut completion: Completion<'_>, scratch: &mut [u8]) -> Result<(), Error> {
    if completion.is_protected() && completion.operation() == crate::Operation::Read {
        return completion.read_into(scratch).map(drop);
    }
    completion.check()
}
