//! Event channels: a word per end in memory everybody shares, and an eventfd that is written only when a
//! sleeper has to be woken.
//!
//! ```text
//!   notify       other end: PENDING set; was it neither PENDING nor MASKED before: write its eventfd
//!   acknowledge  eventfd read; MASKED set, PENDING cleared
//!   unmask       MASKED cleared; is it PENDING: write the own eventfd
//! ```
//!
//! The three bits are what Xen's event channels do: a notification of a pending channel changes nothing, a
//! masked one is remembered, and one to an end that is not open is lost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, SeqCst};

use super::client::Handle;
use super::wire::call;
use crate::memory::Region;
use crate::{Error, EventChannel, Port};

/// Channels of all domains together.
pub(super) const CHANNELS: usize = 4096;

/// Bytes of the memory that holds the words.
pub(super) const REGION: usize = CHANNELS * CHANNEL;

/// A cache line per end: the two ends are written by different processes.
const END: usize = 64;
const CHANNEL: usize = 2 * END;

const PENDING: u32 = 1;
const MASKED: u32 = 2;
const OPEN: u32 = 4;

/// The word of one end.
pub(super) fn word(region: &Region, channel: usize, end: usize) -> &AtomicU32 {
    assert!(channel < CHANNELS && end < 2);
    region.word32(channel * CHANNEL + end * END)
}

/// Opens an end, with an event already pending or without; the broker's alone.
pub(super) fn open(word: &AtomicU32, event: &OwnedFd, pending: bool) {
    drain(event);
    word.store(OPEN | if pending { PENDING } else { 0 }, SeqCst);
    if pending {
        signal(event);
    }
}

/// Closes an end; the broker's alone.
pub(super) fn close(word: &AtomicU32) {
    word.store(0, SeqCst);
}

/// Takes what an eventfd holds. `true` if it held anything.
fn drain(event: &OwnedFd) -> bool {
    rustix::io::read(event, &mut [0; 8]).is_ok()
}

/// Makes an eventfd readable. It cannot fail short of a count of 2^64: the descriptor is ours.
fn signal(event: &OwnedFd) {
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

/// One end, in the process that opened it.
pub(super) struct Channel {
    pub(super) handle: Arc<Handle>,
    pub(super) port: Port,
    pub(super) channel: usize,
    pub(super) end: usize,
    pub(super) own: OwnedFd,
    pub(super) other: OwnedFd,
}

impl EventChannel for Channel {
    fn port(&self) -> Port {
        self.port
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }

    fn notify(&self) -> Result<(), Error> {
        let word = word(self.handle.channels(), self.channel, 1 - self.end);
        let mut seen = word.load(Acquire);
        while seen & OPEN != 0 {
            // Even a notification that changes nothing is a write of the word: what was done before it is
            // then visible to whoever acknowledges (Release), as it is after Xen's hypercall.
            match word.compare_exchange_weak(seen, seen | PENDING, AcqRel, Acquire) {
                Ok(_) => {
                    if seen & (PENDING | MASKED) == 0 {
                        signal(&self.other);
                    }
                    break;
                }
                Err(now) => seen = now,
            }
        }
        self.handle.counters().notified.add(1);
        Ok(())
    }

    fn acknowledge(&self) -> Result<bool, Error> {
        if !drain(&self.own) {
            return Ok(false);
        }
        let word = word(self.handle.channels(), self.channel, self.end);
        // What comes later than this exchange finds MASKED without PENDING and is remembered; what came
        // earlier is this very event, and its ring stores are visible from here (Acquire).
        let _ = word.fetch_update(AcqRel, Acquire, |seen| Some((seen | MASKED) & !PENDING));
        self.handle.counters().events.add(1);
        Ok(true)
    }

    fn unmask(&self) -> Result<(), Error> {
        let seen = word(self.handle.channels(), self.channel, self.end).fetch_and(!MASKED, AcqRel);
        if seen & MASKED != 0 && seen & PENDING != 0 {
            signal(&self.own);
        }
        Ok(())
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.handle.counters().channels_closed.add(1);
        self.handle.forget(&[call::CLOSE, u64::from(self.port.0)]);
    }
}
