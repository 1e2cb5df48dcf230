//! What a request does after the device found PI that does not match; [`diagnose`](super::super::diagnose) draws it.
#![forbid(unsafe_code)]

use super::{DeviceQueue, Request, UNTOUCHED, metadata};
use crate::io::Ring;
use crate::store::device::diagnose::{Look, Stage, examine, first_half, from_tuples, look, renumber};
use crate::store::{Completion, Io, IoError, PiFault};
use integrity::Tag;
use std::ops::Range;
use std::sync::atomic::Ordering;

impl DeviceQueue {
    pub(super) fn recovered(&mut self, slot: usize, well: bool) {
        let request = &self.requests[slot];
        if well && (request.again || request.stage != Stage::Only) {
            self.store.counters.recovered.fetch_add(1, Ordering::Relaxed);
            let Io { op, offset, bytes, .. } = request.io;
            self.log.log(log::Level::Warn, || {
                let disk = self.store.way.path().display();
                format!(
                    "{disk}: {op:?} of {bytes} bytes at byte {offset}: the device found PI that did not match, and not \
                     when it was tried again"
                )
            });
        }
    }

    /// The device did not take a write's PI: was it wrong already when it was sent?
    pub(super) fn write_refused(
        &mut self,
        slot: usize,
        tag: Option<Tag>,
        ring: &mut Ring,
        done: &mut Vec<Completion>,
    ) {
        let guest = &self.store.convert.guest;
        let io = &self.requests[slot].io;
        let wrong = io.buffer.as_ref().and_then(|lease| {
            let (data, metadata) = lease.parts();
            examine(guest, data, metadata, io.offset / guest.interval() as u64, io.offset).err()
        });
        match wrong {
            Some(fault) => self.end(slot, Err(IoError::Mismatch(fault)), done),
            None => self.again(slot, tag, ring, done),
        }
    }

    /// What was read unchecked: what is wrong with it? If nothing is, it went wrong on its way, or another has written
    /// meanwhile. Where our own look is as good as the device's it is the guest's; else the device is asked again.
    pub(super) fn unchecked(&mut self, slot: usize, ring: &mut Ring, done: &mut Vec<Completion>) {
        let device = &self.store.convert.device;
        let Request { io, window, scratch, again, .. } = &self.requests[slot];
        let number = self.number(io.offset, false);
        let on_device = self.store.way.device_interval(number);
        let found = match (&io.buffer, scratch) {
            (Some(lease), Some(scratch)) => {
                let (data, metadata) =
                    (&lease.parts().0[window.clone()], scratch.pi(metadata(device, window)));
                look(device, data, metadata, number, on_device, io.offset)
            }
            _ => Look::Unsure,
        };
        match found {
            Look::Wrong(fault) => self.end(slot, Err(IoError::Mismatch(fault)), done),
            Look::Right => {
                self.renumber(slot, number);
                let result = self.deliver(slot).map_err(IoError::Mismatch);
                self.recovered(slot, result.is_ok());
                self.end(slot, result, done);
            }
            Look::Unsure if *again => self.search(slot, window.clone(), ring, done),
            Look::Unsure => self.again(slot, None, ring, done),
        }
    }

    /// Gives the tuples of a read, which are right in the device's numbers, those of the disk, the first of which is `number`.
    fn renumber(&mut self, slot: usize, number: u64) {
        let device = &self.store.convert.device;
        let Request { window, scratch: Some(scratch), .. } = &mut self.requests[slot] else { return };
        renumber(device, scratch.pi_mut(metadata(device, window)), number);
    }

    /// Does everything once more, from the copy that is right; the second time is the last.
    pub(super) fn again(
        &mut self,
        slot: usize,
        tag: Option<Tag>,
        ring: &mut Ring,
        done: &mut Vec<Completion>,
    ) {
        let request = &mut self.requests[slot];
        if std::mem::replace(&mut request.again, true) {
            let fault = PiFault { tag, ..PiFault::default() };
            return self.end(slot, Err(IoError::Mismatch(fault)), done);
        }
        let whole = 0..request.io.buffer.as_ref().map_or(0, |lease| lease.len());
        self.begin(slot, Stage::Only, whole, ring, done);
    }

    pub(super) fn search(
        &mut self,
        slot: usize,
        range: Range<usize>,
        ring: &mut Ring,
        done: &mut Vec<Completion>,
    ) {
        let half = first_half(&range, self.block());
        self.begin(slot, Stage::Search(range), half, ring, done);
    }

    /// The smallest piece that a search reads.
    pub(super) fn block(&self) -> usize {
        self.store.geometry.logical_block as usize
    }

    pub(super) fn what_the_tuples_say(
        &mut self,
        slot: usize,
        range: &Range<usize>,
        tag: Option<Tag>,
    ) -> PiFault {
        let device = &self.store.convert.device;
        let Request { io, scratch, .. } = &self.requests[slot];
        let offset = io.offset + range.start as u64;
        let first = self.store.way.device_interval(offset / device.interval() as u64);
        let left = scratch.as_ref().map_or(&[][..], |scratch| scratch.pi(metadata(device, range)));
        let fault = from_tuples(device, left, UNTOUCHED, first, offset);
        PiFault { tag: tag.or(fault.tag), ..fault }
    }
}
