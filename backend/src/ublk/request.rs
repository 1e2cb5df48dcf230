//! What is done with one request of a ublk device, before and after the store has it: copies, PI, the answer.

use crate::io::Owner;
use crate::store::{Completion, IoError};
use crate::ublk::queue::{Engine, has_data};
use ::ublk::{Operation, Request};
use std::io;

impl Engine {
    /// Copies a write's data and PI in, and checks or makes the PI; false: the request has been answered.
    pub(super) fn fill(&mut self, tag: u16, request: &Request) -> bool {
        let Some(lease) = &mut self.slots[usize::from(tag)].lease else { return true };
        let with_pi = request.integrity && self.rules.is_some();
        let (data, metadata) = lease.parts_mut();
        let mut copied = self.queue.read_data(tag, data);
        if with_pi {
            copied = copied.and_then(|()| self.queue.read_integrity(tag, metadata));
        }
        if let Err(error) = copied {
            self.copy_failed(tag, &error);
            return false;
        }
        let Some(rules) = &self.rules else { return true };
        if !with_pi {
            rules.make(lease, request.offset);
            return true;
        }
        match rules.check_guest(lease, request.offset) {
            Ok(escaped) => {
                self.link.counters.escaped_intervals.add(escaped as u64);
                true
            }
            Err(fault) => {
                let counters = &self.link.counters;
                fault.count(
                    &counters.guest_guard_mismatches,
                    &counters.guest_application_mismatches,
                    &counters.guest_reference_mismatches,
                );
                let disk = &self.disk.name;
                self.refusal_log.log(log::Level::Warn, || {
                    format!("{disk}: a write's PI does not match its data: {fault}")
                });
                self.answer(tag, -libc::EILSEQ);
                false
            }
        }
    }

    /// Zeroes, with their PI.
    pub(super) fn zero(&mut self, tag: u16, offset: u64) {
        let Some(lease) = &mut self.slots[usize::from(tag)].lease else { return };
        lease.parts_mut().0.fill(0);
        if let Some(rules) = &self.rules {
            rules.make(lease, offset);
        }
    }

    /// Answers what the store has completed; whether there was anything.
    pub(super) fn finish(&mut self) -> bool {
        if self.work.done.is_empty() {
            return false;
        }
        let mut done = std::mem::take(&mut self.work.done);
        for completion in done.drain(..) {
            self.completed(completion);
        }
        self.work.done = done;
        true
    }

    fn completed(&mut self, completion: Completion) {
        self.work.started -= 1;
        // The store gives back the number it was given, which was a tag.
        let tag = u16::try_from(completion.id).unwrap_or(u16::MAX);
        let slot = &mut self.slots[usize::from(tag)];
        slot.lease = completion.buffer;
        let Some(request) = slot.request else { return debug_assert!(false, "a completion of nothing") };
        if let Err(error) = completion.result {
            return self.failed(tag, &request, error);
        }
        if request.operation == Operation::Read
            && let Err(errno) = self.deliver(tag, &request)
        {
            return self.answer(tag, -errno);
        }
        self.answer(tag, if has_data(request.operation) { done_bytes(&request) } else { 0 });
    }

    /// Checks what the medium gave and copies it out; an error number if it cannot be given.
    fn deliver(&mut self, tag: u16, request: &Request) -> Result<(), i32> {
        let Some(lease) = &self.slots[usize::from(tag)].lease else { return Err(libc::EIO) };
        let counters = &self.link.counters;
        if let Some(rules) = &self.rules {
            match rules.check_medium(lease, request.offset) {
                Ok(escaped) => counters.escaped_intervals.add(escaped as u64),
                Err(fault) => {
                    fault.count(
                        &counters.medium_guard_mismatches,
                        &counters.medium_application_mismatches,
                        &counters.medium_reference_mismatches,
                    );
                    let disk = &self.disk.name;
                    self.medium_log.log(log::Level::Error, || {
                        format!("{disk}: what the medium holds does not match its PI: {fault}")
                    });
                    return Err(libc::EILSEQ);
                }
            }
        }
        let (data, metadata) = lease.parts();
        let mut copied = self.queue.write_data(tag, data);
        if request.integrity && self.rules.is_some() {
            copied = copied.and_then(|()| self.queue.write_integrity(tag, metadata));
        }
        copied.map_err(|error| {
            self.tell_copy(&error);
            libc::EIO
        })
    }

    fn failed(&mut self, tag: u16, request: &Request, error: IoError) {
        self.link.counters.medium_errors.add(1);
        let (disk, errno) = (&self.disk.name, error.errno());
        self.medium_log.log(log::Level::Error, || {
            let why = match error {
                IoError::Kernel(errno) => errno.to_string(),
                IoError::Mismatch(fault) => format!("the PI does not match: {fault}"),
            };
            let Request { operation, offset, bytes, .. } = request;
            format!("{disk}: {operation:?} of {bytes} bytes at byte {offset} failed: {why}")
        });
        self.answer(tag, -errno.0);
    }

    pub(super) fn refuse(&mut self, tag: u16, errno: i32, why: &str) {
        self.link.counters.refused.add(1);
        let (disk, request) = (&self.disk.name, self.slots[usize::from(tag)].request);
        self.refusal_log.log(log::Level::Warn, || format!("{disk}: {request:?} is refused: {why}"));
        self.answer(tag, -errno);
    }

    fn copy_failed(&mut self, tag: u16, error: &io::Error) {
        self.tell_copy(error);
        self.answer(tag, -libc::EIO);
    }

    fn tell_copy(&mut self, error: &io::Error) {
        let disk = &self.disk.name;
        self.medium_log
            .log(log::Level::Error, || format!("{disk}: a request's data cannot be copied: {error}"));
    }

    /// Answers a tag's request and offers the tag again.
    fn answer(&mut self, tag: u16, result: i32) {
        let slot = &mut self.slots[usize::from(tag)];
        if let Some(lease) = slot.lease.take() {
            self.pool.give_back(lease);
        }
        let request = slot.request.take();
        let entry = self.queue.commit(tag, result).user_data(Owner::Queue.user_data(tag.into()));
        // SAFETY: the entry names no memory.
        unsafe { self.uring.push(&entry) }
        let (Some(request), counters) = (request, &self.link.counters) else { return };
        if result < 0 {
            return counters.errors.add(1);
        }
        match request.operation {
            Operation::Read => {
                counters.reads.add(1);
                counters.read_bytes.add(request.bytes);
            }
            Operation::Write | Operation::WriteZeroes => {
                counters.writes.add(1);
                counters.written_bytes.add(request.bytes);
            }
            Operation::Discard => {
                counters.discards.add(1);
                counters.discarded_bytes.add(request.bytes);
            }
            Operation::Flush | Operation::Other(_) => counters.flushes.add(1),
        }
        if request.integrity {
            counters.dix_requests.add(1);
        } else if self.rules.is_some() && has_data(request.operation) {
            counters.daemon_requests.add(1);
        }
    }
}

/// A whole request as a commit says it; no request is longer than its field.
fn done_bytes(request: &Request) -> i32 {
    i32::try_from(request.bytes).unwrap_or(i32::MAX)
}
