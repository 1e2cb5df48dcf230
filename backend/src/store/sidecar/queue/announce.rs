//! What has to be durable before a step of a write or discard is done, and what is said when it is over.

use super::SidecarQueue;
use crate::store::Op;
use crate::store::inbox::Waiter;
use crate::store::sidecar::Safety;
use crate::store::sidecar::bitmap::Marked;
use crate::store::sidecar::wal::Appended;
use std::sync::Arc;

/// What is to be said when a step is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    /// Nothing.
    No,
    /// That its record in the log is.
    Record(u64),
    /// That its regions of the bitmap are not used by it any more.
    Regions,
}

impl SidecarQueue {
    /// Announces the present step; true if there is nothing to wait for.
    pub(super) fn announce(&mut self, slot: usize) -> bool {
        let shared = &*self.shared;
        let (interval, entry) = (shared.pi.layout.interval(), shared.pi.layout.entry());
        let request = &mut self.requests[slot];
        let (first, count) = (request.first, request.count);
        let inbox = &self.inbox;
        let waiter = || Waiter { inbox: Arc::clone(inbox), slot };
        let appended = match &shared.safety {
            Safety::Off => return true,
            Safety::Bitmap(bitmap) => {
                return match bitmap.mark(first * interval, count * interval, waiter) {
                    Marked::Now => {
                        request.announced = Announced::Regions;
                        true
                    }
                    Marked::Wait => {
                        request.announced = Announced::Regions;
                        false
                    }
                    Marked::Failed(error) => {
                        request.error.get_or_insert(error);
                        true
                    }
                };
            }
            Safety::Log(wal) => match &request.io.buffer {
                Some(lease) => {
                    let (data, metadata) = lease.parts();
                    // All within the lease, which is as long as the request.
                    let from = (first - request.io.offset / interval) as usize;
                    let range = |size: usize| from * size..(from + count as usize) * size;
                    let (data, metadata) = (&data[range(interval as usize)], &metadata[range(entry)]);
                    wal.write(first, data, metadata, &mut self.hashes, waiter)
                }
                None => wal.discard(first, count, waiter),
            },
        };
        match appended {
            Appended::Queued(sequence) => {
                request.announced = Announced::Record(sequence);
                false
            }
            Appended::Full { checkpoint } => {
                if checkpoint {
                    shared.maintenance.kick(true);
                }
                false
            }
            Appended::Failed(error) => {
                request.error.get_or_insert(error);
                true
            }
        }
    }

    /// The present step is over, for better or worse. True if it has failed in a way that may not be told yet: a
    /// [`Wake::Retired`](crate::store::inbox::Wake::Retired) will come.
    pub(super) fn over(&mut self, slot: usize) -> bool {
        let shared = &*self.shared;
        let request = &mut self.requests[slot];
        let announced = std::mem::replace(&mut request.announced, Announced::No);
        match (announced, &shared.safety) {
            (Announced::Record(sequence), Safety::Log(wal)) => {
                // The record of a discard that failed would take the PI of data that is there with it in a crash.
                let failed = request.error.is_some();
                if failed && request.io.op == Op::Discard {
                    wal.disown(sequence, Waiter { inbox: Arc::clone(&self.inbox), slot });
                    shared.maintenance.kick(true);
                    return true;
                }
                if wal.close(sequence, failed) {
                    shared.maintenance.kick(true);
                }
            }
            (Announced::Regions, Safety::Bitmap(bitmap)) => {
                let interval = shared.pi.layout.interval();
                bitmap.release(request.first * interval, request.count * interval);
            }
            _ => {}
        }
        false
    }
}
