//! The baseline: a bare io_uring loop on the same file, with no guest, no ring and no PI.

use crate::bench::workload::Workload;
use crate::io::{Lease, Owner, Pool, Ring};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a loop reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// Requests completed.
    pub requests: u64,
    /// In this time.
    pub elapsed: Duration,
    /// With this much time on a processor, all threads that worked for it.
    pub cpu: Duration,
}

impl Rate {
    /// Requests per second.
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// Nanoseconds on a processor for each request.
    pub fn cpu_ns(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.requests.max(1) as f64
    }
}

/// Opens a file as the daemon's file store does: without the page cache where the filesystem allows it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.clone().custom_flags(libc::O_DIRECT).open(path).or_else(|_| options.open(path))
}

/// Keeps `workload` going for `limit` over the first `bytes` of `file`. Nothing else is to run in this process.
pub(super) fn run(file: &File, bytes: u64, workload: Workload, limit: Duration) -> io::Result<Rate> {
    let mut ring = Ring::new(256).map_err(io::Error::other)?;
    let mut pool = Pool::new(workload.depth * workload.block, 0)?;
    ring.enable()?;
    ring.register(&pool);
    let mut places = workload.places(bytes);
    let mut flying: Vec<Option<Lease>> = (0..workload.depth).map(|_| None).collect();
    let fd = file.as_raw_fd();
    let start = |slot: usize, lease: Lease, offset: u64, ring: &mut Ring, flying: &mut [Option<Lease>]| {
        let user_data = Owner::Store.user_data(slot as u64);
        if workload.write {
            ring.write(fd, &lease, 0, offset, user_data);
        } else {
            ring.read(fd, &lease, 0, offset, user_data);
        }
        flying[slot] = Some(lease);
    };
    for slot in 0..workload.depth {
        let lease = pool.take(workload.block, 0).ok_or_else(|| io::Error::other("the pool is too small"))?;
        start(slot, lease, places.next(), &mut ring, &mut flying);
    }
    let (begin, cpu) = (Instant::now(), super::cpu::of_this_process()?);
    let (mut requests, mut left) = (0, workload.depth);
    let mut free: Vec<usize> = Vec::with_capacity(workload.depth);
    let mut leases: Vec<Lease> = Vec::with_capacity(workload.depth);
    let (mut over, mut failed) = (false, None);
    while left > 0 {
        ring.submit(Some(Duration::from_secs(1)))?;
        while let Some((user_data, result)) = ring.reap() {
            if usize::try_from(result).ok() != Some(workload.block) {
                // What else is under way is waited for: its buffers are the kernel's until then.
                over = true;
                failed = Some(match result {
                    0.. => io::ErrorKind::UnexpectedEof.into(),
                    errno => io::Error::from_raw_os_error(-errno),
                });
            }
            free.push(Owner::of(user_data).1 as usize);
        }
        over |= begin.elapsed() >= limit;
        requests += free.len() as u64;
        for slot in free.drain(..) {
            let Some(lease) = flying[slot].take() else { continue };
            if over {
                leases.push(lease);
                left -= 1;
                continue;
            }
            start(slot, lease, places.next(), &mut ring, &mut flying);
        }
    }
    let rate = Rate { requests, elapsed: begin.elapsed(), cpu: super::cpu::of_this_process()? - cpu };
    for lease in leases {
        pool.give_back(lease);
    }
    failed.map_or(Ok(rate), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workload;

    #[test]
    fn loop_when_the_file_ends_early_waits_for_what_is_under_way_and_fails() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let file = open(file.path()).unwrap();
        let read = workload::ALL[0];
        let rate = run(&file, 1 << 20, read, Duration::ZERO).unwrap();
        assert_eq!(rate.requests, read.depth as u64);
        let error = run(&file, 1 << 40, read, Duration::from_secs(60)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
