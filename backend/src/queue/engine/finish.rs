//! The last steps: completions come back, reads are checked and copied out, and every request is answered.

use super::{BELL, Engine};
use crate::io::Owner;
use crate::queue::active::Stage;
use crate::queue::admit::Kind;
use crate::queue::protect::status_of;
use crate::store::{Completion, IoError, Op};
use blkif::Status;
use hypervisor::Direction;
use integrity::Tag;

impl Engine {
    /// Takes the io_uring's completions; whether there were any.
    pub(super) fn reap(&mut self) -> bool {
        let (mut any, mut bell_rang) = (false, false);
        while let Some((user_data, result)) = self.uring.reap() {
            any = true;
            match Owner::of(user_data) {
                (Owner::Store, value) => {
                    self.store.complete(value, result, &mut self.uring, &mut self.work.done);
                }
                (Owner::Queue, BELL) => bell_rang = true,
                (Owner::Queue, _) => {
                    self.work.event_polled = false;
                    self.work.event_due = true;
                }
            }
        }
        if bell_rang {
            self.link.bell.quiet();
            // Not only on the way to sleep: a queue that is kept awake must hear the next ring too.
            self.listen();
            self.store.resume(&mut self.uring, &mut self.work.done);
        }
        any
    }

    /// Answers what the store has completed; whether there was anything.
    pub(super) fn finish(&mut self) -> bool {
        if self.work.done.is_empty() {
            return false;
        }
        self.work.copies.clear();
        // A barrier's write, started here, may complete at once, so the list is looked at until it stays empty.
        while !self.work.done.is_empty() {
            let mut done = std::mem::take(&mut self.work.done);
            for completion in done.drain(..) {
                self.completed(completion);
            }
            if self.work.done.is_empty() {
                self.work.done = done;
                break;
            }
        }
        self.run_copies();
        let mut outgoing = std::mem::take(&mut self.work.outgoing);
        for name in outgoing.drain(..) {
            let active = &self.table[name];
            let status = match self.work.copies.fault(&active.place) {
                None => Status::Okay,
                Some((gref, status)) => {
                    self.link.counters.grant_errors.add(1);
                    let disk = &self.disk.name;
                    self.refusal_log
                        .log(log::Level::Debug, || format!("{disk}: grant {gref} of a read: {status}"));
                    Status::Error
                }
            };
            self.answer(name, status);
        }
        self.work.outgoing = outgoing;
        true
    }

    /// Takes one completion: answers it, starts its next stage, or adds it to the copies out.
    fn completed(&mut self, completion: Completion) {
        let name = completion.id;
        let active = &mut self.table[name];
        if completion.buffer.is_some() {
            active.lease = completion.buffer;
        }
        if let Err(error) = completion.result {
            self.failed(name, error);
            return;
        }
        if active.stage == Stage::FlushFirst {
            active.stage = Stage::Only;
            self.submit(name, Op::Write { fua: true });
            return;
        }
        let (Kind::Read, Some(lease)) = (active.kind, &active.lease) else {
            self.answer(name, Status::Okay);
            return;
        };
        if let Some(rules) = &self.rules {
            match rules.check_medium(lease, active.offset) {
                Ok(escaped) => active.escaped = escaped as u64,
                Err(fault) => {
                    fault.count(
                        &self.link.counters.medium_guard_mismatches,
                        &self.link.counters.medium_application_mismatches,
                        &self.link.counters.medium_reference_mismatches,
                    );
                    let disk = &self.disk.name;
                    self.medium_log.log(log::Level::Error, || {
                        format!("{disk}: what the medium holds does not match its PI: {fault}")
                    });
                    self.answer(name, fault.status());
                    return;
                }
            }
        }
        let copies = &mut self.work.copies;
        let start = copies.len();
        copies.add(&active.segments, lease.len(), lease.data_ptr(), Direction::ToGuest);
        if active.payload.is_some() {
            copies.add(&active.metadata, lease.metadata_len(), lease.metadata_ptr(), Direction::ToGuest);
        }
        active.place = start..copies.len();
        self.work.outgoing.push(name);
    }

    /// Answers a request that the store could not do.
    fn failed(&mut self, name: u32, error: IoError) {
        let active = &self.table[name];
        let (kind, offset, bytes) = (active.kind, active.offset, active.bytes);
        let disk = &self.disk.name;
        let status = match error {
            IoError::Kernel(errno) => {
                self.link.counters.medium_errors.add(1);
                self.medium_log.log(log::Level::Error, || {
                    format!("{disk}: {kind:?} of {bytes} bytes at byte {offset} failed: {errno}")
                });
                if errno.0 == libc::EOPNOTSUPP { Status::Unsupported } else { Status::Error }
            }
            IoError::Mismatch(fault) => {
                let counters = &self.link.counters;
                let counter = match fault.tag {
                    Some(Tag::Guard) => &counters.medium_guard_mismatches,
                    Some(Tag::Application) => &counters.medium_application_mismatches,
                    Some(Tag::Reference) => &counters.medium_reference_mismatches,
                    None => &counters.medium_errors,
                };
                counter.add(1);
                let interval = self.rules.map(|rules| rules.profile().interval() as u64);
                let place = fault.offset.zip(interval).map(|(at, interval)| at / interval);
                let place = place.map_or(String::new(), |interval| format!("interval {interval}, "));
                self.medium_log.log(log::Level::Error, || {
                    format!(
                        "{disk}: {kind:?} of {bytes} bytes at byte {offset}: PI does not match below, {place}{fault}"
                    )
                });
                fault.tag.map_or(Status::Error, status_of)
            }
        };
        self.answer(name, status);
    }

    pub(super) fn run_copies(&mut self) {
        let copies = &mut self.work.copies;
        if copies.len() == 0 {
            return;
        }
        self.link.counters.copy_calls.add(1);
        self.link.counters.copies.add(copies.len() as u64);
        // SAFETY: every copy was added from a lease that this engine holds, and goes back to the pool only after.
        if let Err(error) = unsafe { copies.run(&mut *self.copier) } {
            self.copy_failed(&error);
        }
    }

    pub(super) fn copy_failed(&mut self, error: &hypervisor::Error) {
        let disk = &self.disk.name;
        self.host_log.log(log::Level::Error, || format!("{disk}: a batch of grant copies failed: {error}"));
    }

    /// Answers a request and forgets it. Its grants were used by copies only, so nothing of them is held.
    pub(super) fn answer(&mut self, name: u32, status: Status) {
        let active = &mut self.table[name];
        if let Some(lease) = active.lease.take() {
            self.pool.give_back(lease);
        }
        if active.kind == Kind::Barrier {
            self.work.barrier = false;
        }
        for response in active.responses(status) {
            self.ring.respond(&response);
        }
        let counters = &self.link.counters;
        if status == Status::Okay {
            match active.kind {
                Kind::Read => {
                    counters.reads.add(1);
                    counters.read_bytes.add(active.bytes);
                }
                Kind::Barrier | Kind::Flush if active.bytes == 0 => counters.flushes.add(1),
                Kind::Discard { .. } => {
                    counters.discards.add(1);
                    counters.discarded_bytes.add(active.bytes);
                }
                Kind::Write | Kind::Barrier | Kind::Flush => {
                    counters.writes.add(1);
                    counters.written_bytes.add(active.bytes);
                }
            }
            if active.kind == Kind::Barrier {
                counters.barriers.add(1);
            }
            if active.payload.is_some() {
                counters.dix_requests.add(1);
            } else if self.rules.is_some() && active.has_data() {
                counters.daemon_requests.add(1);
            }
            if active.escaped != 0 {
                counters.escaped_intervals.add(active.escaped);
            }
        } else {
            counters.errors.add(1);
        }
        self.table.give_back(name);
        self.work.answered += 1;
    }
}
