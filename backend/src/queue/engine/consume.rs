//! The first step of a turn: requests are taken from the ring, admitted, and given what they need to start.

use super::{BATCH, BATCH_BYTES, Engine};
use crate::queue::active::Stage;
use crate::queue::admit::{Kind, admit};
use blkif::{Operation, Paired, Payload, Request, Segments, Status};

impl Engine {
    /// Takes requests from the ring and places them; whether there were any.
    pub(super) fn consume(&mut self) -> bool {
        let before = self.table.len();
        let answered = self.work.answered;
        while let Some(&name) = self.work.held.front() {
            if !self.place(name) {
                break;
            }
            self.work.held.pop_front();
        }
        let (mut slot, mut barrier, mut taken) = (Paired::NeedMore(1), None, 0);
        self.work.half_pair = false;
        while self.accepts()
            && barrier.is_none()
            && taken < BATCH
            && self.work.fresh_bytes < BATCH_BYTES
            && self.indirect.has_room()
        {
            match self.pairing.next_into(&mut self.ring, &mut slot) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.work.broken = Some(error.into());
                    break;
                }
            }
            match &slot {
                Paired::Single(request) => barrier = self.take(request, None),
                Paired::Pair { data, payload } => barrier = self.take(data, Some(payload)),
                Paired::Refused(refused) => self.refuse(refused),
                Paired::NeedMore(_) => {
                    self.work.half_pair = true;
                    break;
                }
            }
            taken += 1;
        }
        self.read_indirect();
        // A barrier is placed last: what came before it in this batch must be under way first.
        if let Some(name) = barrier {
            self.place_or_hold(name);
        }
        if taken > 0 {
            self.work.vain_events = 0;
        }
        self.link.counters.batches.add(u64::from(taken > 0));
        taken > 0
            || self.table.len() != before
            || self.work.answered != answered
            || !self.work.fresh.is_empty()
    }

    /// Answers what the parser refused.
    fn refuse(&mut self, refused: &blkif::Refused) {
        self.link.counters.refused.add(1);
        self.link.counters.errors.add(1);
        let name = &self.disk.name;
        self.refusal_log
            .log(log::Level::Debug, || format!("{name}: a request was refused: {}", refused.reason));
        for response in &refused.responses {
            self.ring.respond(response);
        }
        self.work.answered += 1;
    }

    /// Takes a parsed request into the table and places it; gives its name back if it is a barrier.
    fn take(&mut self, request: &Request, payload: Option<&Payload>) -> Option<u32> {
        let name = self.table.take()?;
        let active = &mut self.table[name];
        let (kind, bytes) = match request.operation {
            Operation::Read => (Kind::Read, 0),
            Operation::Write => (Kind::Write, 0),
            Operation::WriteBarrier => (Kind::Barrier, 0),
            Operation::Flush => (Kind::Flush, 0),
            // Checked by the parser to fit an offset.
            Operation::Discard { secure, sectors } => {
                (Kind::Discard { secure }, sectors.bytes().unwrap_or(u64::MAX))
            }
        };
        active.id = request.id;
        active.echo = request.echo;
        active.kind = kind;
        active.stage = Stage::Only;
        active.bytes = bytes;
        active.escaped = 0;
        active.segments.clear();
        active.metadata.clear();
        active.payload = payload.map(|payload| payload.id);
        if let Some(payload) = payload {
            active.metadata.clone_from(&payload.segments);
        }
        match &request.segments {
            Segments::Direct(segments) => {
                active.segments.extend_from_slice(segments);
                if kind.is_discard() {
                    return self.settle(name, request.sector, bytes);
                }
                let bytes = blkif::total_len(segments) as u64;
                self.settle(name, request.sector, bytes)
            }
            Segments::Indirect { count, pages } => {
                self.link.counters.indirect_requests.add(1);
                self.indirect.add(name, request.sector, *count, pages);
                None
            }
        }
    }

    /// Admits a request whose size is known, and places it unless it is a barrier, whose name it gives back.
    fn settle(&mut self, name: u32, sector: blkif::Sectors, bytes: u64) -> Option<u32> {
        let active = &mut self.table[name];
        let flagged = active.payload.is_some();
        match admit(&self.disk, active.kind, flagged, sector, bytes) {
            Ok(offset) => {
                (active.offset, active.bytes) = (offset, bytes);
                if active.kind.is_discard() {
                    let block = u64::from(self.disk.block());
                    let start = offset.next_multiple_of(block);
                    let end = (offset + bytes) / block * block;
                    (active.offset, active.bytes) = (start, end.saturating_sub(start));
                    if active.bytes == 0 {
                        self.answer(name, Status::Okay);
                        return None;
                    }
                }
                if active.kind == Kind::Barrier {
                    return Some(name);
                }
                self.place_or_hold(name);
            }
            Err(refused) => {
                self.link.counters.refused.add(1);
                let (disk, kind) = (&self.disk.name, active.kind);
                self.refusal_log.log(log::Level::Debug, || {
                    format!("{disk}: {kind:?} of {bytes} bytes at sector {sector} was refused: {refused}")
                });
                self.answer(name, refused.status());
            }
        }
        None
    }

    /// Copies the batch's indirect pages once, parses the copies, and places the requests.
    fn read_indirect(&mut self) {
        if self.indirect.is_empty() {
            return;
        }
        if let Err(error) = self.indirect.fetch(&mut *self.copier, &self.link.counters) {
            self.copy_failed(&error);
        }
        for index in 0..self.indirect.len() {
            let (name, sector) = self.indirect.named(index);
            let active = &mut self.table[name];
            let parsed = self.indirect.parse(index, self.pairing.limits(), &mut active.segments);
            let bytes = blkif::total_len(&active.segments);
            let checked = parsed.and_then(|()| {
                let payload = blkif::total_len(&active.metadata);
                match (active.payload, self.pairing.limits().dix) {
                    (Some(_), Some(dix)) => {
                        let needed = dix.metadata_len(sector, bytes)?;
                        if payload < needed {
                            return Err(blkif::Refusal::PayloadTooShort { needed, actual: payload }.into());
                        }
                        Ok(())
                    }
                    _ => Ok(()),
                }
            });
            match checked {
                Ok(()) => {
                    self.settle(name, sector, bytes as u64);
                }
                Err(reason) => {
                    self.link.counters.refused.add(1);
                    let disk = &self.disk.name;
                    self.refusal_log.log(log::Level::Debug, || {
                        format!("{disk}: an indirect request at sector {sector} was refused: {reason}")
                    });
                    self.answer(name, reason.status());
                }
            }
        }
        self.indirect.clear();
    }

    fn place_or_hold(&mut self, name: u32) {
        // Behind what is held already, so that a barrier keeps its place.
        if self.work.held.is_empty() {
            if self.place(name) {
                return;
            }
            self.link.counters.pool_waits.add(u64::from(self.table[name].kind != Kind::Barrier));
        }
        self.work.held.push_back(name);
    }

    /// Gives a request what it needs to start; false if it has to wait.
    fn place(&mut self, name: u32) -> bool {
        let alone = self.table.len() == 1;
        let active = &mut self.table[name];
        if active.kind == Kind::Barrier && !alone {
            return false;
        }
        if active.has_data() {
            let bytes = active.bytes as usize;
            let metadata = self.rules.as_ref().map_or(0, |rules| rules.profile().metadata_len(bytes));
            active.lease = self.pool.take(bytes, metadata);
            if active.lease.is_none() {
                return false;
            }
            self.work.fresh_bytes += active.bytes;
        }
        self.work.barrier |= active.kind == Kind::Barrier;
        self.work.fresh.push(name);
        true
    }
}
