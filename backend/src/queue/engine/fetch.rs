//! The second and third steps: data comes in, its PI is checked or made, and the store gets the batch.

use super::Engine;
use crate::queue::active::Stage;
use crate::queue::admit::Kind;
use crate::store::{Io, Op};
use blkif::Status;
use hypervisor::Direction;

impl Engine {
    /// Copies the data of the batch's writes in, and checks or makes their PI.
    pub(super) fn fetch(&mut self) {
        let work = &mut self.work;
        work.copies.clear();
        for &name in &work.fresh {
            let active = &mut self.table[name];
            active.place = 0..0;
            if active.kind == Kind::Read {
                continue;
            }
            if let Some(lease) = &active.lease {
                let start = work.copies.len();
                work.copies.add(&active.segments, lease.len(), lease.data_ptr(), Direction::FromGuest);
                if active.payload.is_some() {
                    work.copies.add(
                        &active.metadata,
                        lease.metadata_len(),
                        lease.metadata_ptr(),
                        Direction::FromGuest,
                    );
                }
                active.place = start..work.copies.len();
            }
        }
        self.run_copies();
        let mut fresh = std::mem::take(&mut self.work.fresh);
        fresh.retain(|&name| match self.fetched(name) {
            Ok(()) => true,
            Err(status) => {
                self.answer(name, status);
                false
            }
        });
        self.work.fresh = fresh;
    }

    /// What becomes of a request after its copies: its PI is right or made, or it is answered with a status.
    fn fetched(&mut self, name: u32) -> Result<(), Status> {
        let active = &mut self.table[name];
        let (Some(lease), false) = (&mut active.lease, active.kind == Kind::Read) else {
            return Ok(());
        };
        if let Some((gref, status)) = self.work.copies.fault(&active.place) {
            self.link.counters.grant_errors.add(1);
            let disk = &self.disk.name;
            self.refusal_log.log(log::Level::Debug, || format!("{disk}: grant {gref} of a write: {status}"));
            return Err(Status::Error);
        }
        let Some(rules) = &self.rules else { return Ok(()) };
        if active.payload.is_none() {
            rules.make(lease, active.offset);
            return Ok(());
        }
        match rules.check_guest(lease, active.offset) {
            Ok(escaped) => {
                active.escaped = escaped as u64;
                Ok(())
            }
            Err(fault) => {
                fault.count(
                    &self.link.counters.guest_guard_mismatches,
                    &self.link.counters.guest_application_mismatches,
                    &self.link.counters.guest_reference_mismatches,
                );
                let disk = &self.disk.name;
                self.guest_log.log(log::Level::Warn, || {
                    format!("{disk}: the guest's PI of a write does not match, nothing was written: {fault}")
                });
                Err(fault.status())
            }
        }
    }

    /// Hands the batch to the store.
    pub(super) fn start(&mut self) {
        let mut fresh = std::mem::take(&mut self.work.fresh);
        for &name in &fresh {
            let active = &mut self.table[name];
            let op = match active.kind {
                Kind::Read => Op::Read,
                Kind::Write => Op::Write { fua: false },
                Kind::Barrier | Kind::Flush if active.bytes == 0 => Op::Flush,
                Kind::Barrier | Kind::Flush if self.volatile => {
                    active.stage = Stage::FlushFirst;
                    Op::Flush
                }
                Kind::Barrier | Kind::Flush => Op::Write { fua: true },
                Kind::Discard { .. } => Op::Discard,
            };
            self.submit(name, op);
        }
        fresh.clear();
        self.work.fresh = fresh;
        self.work.fresh_bytes = 0;
    }

    pub(super) fn submit(&mut self, name: u32, op: Op) {
        let active = &mut self.table[name];
        let io = match op {
            Op::Flush => Io { id: name, op, offset: 0, bytes: 0, buffer: None },
            Op::Discard => Io { id: name, op, offset: active.offset, bytes: active.bytes, buffer: None },
            Op::Read | Op::Write { .. } => {
                Io { id: name, op, offset: active.offset, bytes: active.bytes, buffer: active.lease.take() }
            }
        };
        self.store.submit(io, &mut self.uring, &mut self.work.done);
    }
}
