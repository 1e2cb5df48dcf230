//! One connection: requests out, and a place for each answer to come to.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::wire::{self, Kind, Message};
use crate::{Error, Result};

/// A connection, until it breaks; the next one is another value.
#[derive(Debug)]
pub(super) struct Connection {
    descriptor: OwnedFd,
    /// One message is written whole before the next.
    writing: Mutex<()>,
    /// Held by whoever has a request under way, where there may be one only.
    turn: Option<Mutex<()>>,
    answers: Mutex<Answers>,
    /// A writer found it unusable; the reader thread takes it down.
    broken: AtomicBool,
}

#[derive(Debug, Default)]
struct Answers {
    next: u32,
    /// Who waits for which request. None once the connection is over.
    waiting: HashMap<u32, SyncSender<Message>>,
    closed: bool,
}

impl Connection {
    /// Over `descriptor`; with `turns`, requests of several threads go one after the other, each once the one before
    /// it is answered.
    pub(super) fn new(descriptor: OwnedFd, turns: bool) -> rustix::io::Result<Connection> {
        // Everything waits in poll, so that every wait has an end. The xenbus device ignores this for
        // writing, which it never holds up for long.
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(Connection {
            descriptor,
            writing: Mutex::new(()),
            turn: turns.then(Mutex::default),
            answers: Mutex::default(),
            broken: AtomicBool::new(false),
        })
    }

    /// A number for a request nobody waits for by [`Connection::request`].
    pub(super) fn number(&self) -> u32 {
        let mut answers = self.answers();
        answers.next = answers.next.wrapping_add(1);
        answers.next
    }

    /// Sends a request and waits for its answer. On [`Error::Disconnected`] the connection is of no use
    /// any more; `wake` tells the reader thread.
    pub(super) fn request(
        &self,
        kind: Kind,
        transaction: u32,
        payload: &[&[u8]],
        timeout: Duration,
        wake: &OwnedFd,
    ) -> Result<Message> {
        // Who waits for a turn has an end to it: the one whose turn it is gives up in its own time, and then the
        // connection is closed for all.
        let _turn = self.turn.as_ref().map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        let (number, answer) = self.expect()?;
        let deadline = Instant::now() + timeout;
        let outcome = match wire::encode(kind, number, transaction, payload) {
            Ok(message) => self.send(&message, deadline).and_then(|()| self.wait(&answer, deadline)),
            Err(wire::Oversized) => Err(Error::TooBig { path: String::new() }),
        };
        if let Err(Error::Disconnected) = outcome {
            self.give_up(wake);
        }
        self.answers().waiting.remove(&number);
        outcome
    }

    fn expect(&self) -> Result<(u32, Receiver<Message>)> {
        let mut answers = self.answers();
        if answers.closed {
            return Err(Error::Disconnected);
        }
        let (sender, receiver) = sync_channel(1);
        loop {
            answers.next = answers.next.wrapping_add(1);
            let number = answers.next;
            // After 2^32 requests numbers come round; one still waited for is passed over.
            if let std::collections::hash_map::Entry::Vacant(entry) = answers.waiting.entry(number) {
                entry.insert(sender);
                return Ok((number, receiver));
            }
        }
    }

    fn wait(&self, answer: &Receiver<Message>, deadline: Instant) -> Result<Message> {
        let left = deadline.saturating_duration_since(Instant::now());
        answer.recv_timeout(left).map_err(|error| {
            if error == RecvTimeoutError::Timeout {
                log::warn!("xenstored did not answer in time, connecting anew");
            }
            Error::Disconnected
        })
    }

    /// Writes a whole message.
    pub(super) fn send(&self, message: &[u8], deadline: Instant) -> Result<()> {
        let _whole = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = message;
        while !rest.is_empty() {
            match rustix::io::write(&self.descriptor, rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let left = deadline.checked_duration_since(Instant::now()).ok_or(Error::Disconnected)?;
                    let mut polled = [PollFd::new(&self.descriptor, PollFlags::OUT)];
                    wait_for(&mut polled, Some(left));
                }
                // What the device answers to a request it does not like at all; nothing was written.
                Err(Errno::INVAL) if rest.len() == message.len() => {
                    return Err(Error::TooBig { path: String::new() });
                }
                Err(_) => return Err(Error::Disconnected),
            }
        }
        Ok(())
    }

    /// Reads what is there. 0 bytes: the other end is gone.
    pub(super) fn read(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        rustix::io::read(&self.descriptor, buffer)
    }

    /// Hands an answer to whoever waits for it. Nobody: it came too late, or was never asked for.
    pub(super) fn answer(&self, message: Message) {
        let waiting = self.answers().waiting.remove(&message.header.request);
        match waiting {
            // The channel has room for one and gets one.
            Some(sender) => drop(sender.try_send(message)),
            None => log::debug!("xenstore answer to no request: number {}", message.header.request),
        }
    }

    /// Ends the connection for everyone: who waits gets [`Error::Disconnected`].
    pub(super) fn close(&self) {
        let mut answers = self.answers();
        answers.closed = true;
        answers.waiting.clear();
    }

    fn give_up(&self, wake: &OwnedFd) {
        self.broken.store(true, Ordering::Release);
        let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Polls; an interrupted or failed poll reads as "look again".
pub(super) fn wait_for(polled: &mut [PollFd<'_>], timeout: Option<Duration>) {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let _ = poll(polled, timeout.as_ref());
}
