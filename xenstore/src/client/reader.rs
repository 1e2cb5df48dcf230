//! The reader thread: reads answers and events as they come, and connects again after a loss.
//!
//! It never waits for anybody who uses the client: answers go into a slot of their own, events into an
//! unbounded queue.

use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::connection::{Connection, wait_for};
use super::link::{Link, pause};
use super::reply;
use super::watches::Watch;
use crate::wire::{self, Frames, Kind, Message};
use crate::{Error, Result};

/// Bytes per read: a handful of the largest messages.
const CHUNK: usize = 16 << 10;
/// Pauses between tries to connect: short, as a restart is; growing, as an absence is.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Runs until the link stops.
pub(super) fn run(link: &Link, connection: Arc<Connection>) {
    let mut reader = Reader { link, connection, frames: Frames::new() };
    let mut tries = 0;
    loop {
        let since = Instant::now();
        let lost = reader.read_on();
        // A server that only hangs up is no more worth hurrying for than one that is not there.
        if since.elapsed() >= LONGEST_PAUSE {
            tries = 0;
        }
        reader.connection.close();
        link.publish(None);
        if link.is_stopping() {
            return;
        }
        log::warn!("{}: {lost}; connecting again", link.endpoint.describe());
        reader = match reconnect(link, &mut tries) {
            Some(reader) => reader,
            None => return,
        };
    }
}

/// Tries until there is a connection on which every watch is registered, or the link stops.
fn reconnect<'a>(link: &'a Link, tries: &mut u32) -> Option<Reader<'a>> {
    loop {
        let mut polled = [PollFd::new(&link.wake, PollFlags::IN)];
        wait_for(&mut polled, Some(pause(*tries, FIRST_PAUSE, LONGEST_PAUSE)));
        drain(link);
        if link.is_stopping() {
            return None;
        }
        *tries = tries.saturating_add(1);
        match connect(link) {
            Ok(reader) => {
                log::info!("{}: connected again", link.endpoint.describe());
                return Some(reader);
            }
            Err(error) => log::debug!("{}: {error}", link.endpoint.describe()),
        }
    }
}

fn connect(link: &Link) -> Result<Reader<'_>> {
    let failed = |source| Error::Io { context: "connecting".to_owned(), source };
    let descriptor = link.endpoint.open().map_err(failed)?;
    let connection =
        Connection::new(descriptor, link.endpoint.takes_turns()).map_err(|errno| failed(errno.into()))?;
    let mut reader = Reader { link, connection: Arc::new(connection), frames: Frames::new() };
    let _registration = link.registration.lock().unwrap_or_else(PoisonError::into_inner);
    let watches = link.watches().all();
    for watch in &watches {
        reader.register(watch)?;
    }
    link.publish(Some(reader.connection.clone()));
    Ok(reader)
}

fn drain(link: &Link) {
    let _ = rustix::io::read(&link.wake, &mut [0; 8]);
}

struct Reader<'a> {
    link: &'a Link,
    connection: Arc<Connection>,
    frames: Frames,
}

impl Reader<'_> {
    /// Dispatches messages until there can be no more; says why.
    fn read_on(&mut self) -> Error {
        loop {
            let outcome = self.next(None).and_then(|message| self.dispatch(message));
            if let Err(error) = outcome {
                return error;
            }
        }
    }

    /// Registers a watch again. A refusal is logged and is no reason to drop the connection.
    fn register(&mut self, watch: &Watch) -> Result<()> {
        let deadline = Instant::now() + self.link.options.reply_timeout;
        let number = self.connection.number();
        let payload: [&[u8]; 4] = [watch.path.as_bytes(), b"\0", watch.token.as_bytes(), b"\0"];
        let request = wire::encode(Kind::Watch, number, 0, &payload)
            .map_err(|_| Error::TooBig { path: watch.path.clone() })?;
        self.connection.send(&request, deadline)?;
        loop {
            let message = self.next(Some(deadline))?;
            if message.kind() == Some(Kind::WatchEvent) || message.header.request != number {
                self.dispatch(message)?;
                continue;
            }
            return match reply::payload(message, Kind::Watch, &watch.path) {
                Ok(_) => Ok(()),
                Err(Error::Protocol(what)) => Err(Error::Protocol(what)),
                Err(error) => {
                    log::error!("watch on {} could not be registered again: {error}", watch.path);
                    Ok(())
                }
            };
        }
    }

    /// The next whole message.
    fn next(&mut self, deadline: Option<Instant>) -> Result<Message> {
        let mut buffer = [0; CHUNK];
        loop {
            match self.frames.next_message() {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(oversized) => return Err(Error::Protocol(oversized.to_string())),
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(Error::Disconnected);
            }
            let mut polled = [
                PollFd::from_borrowed_fd(self.connection.as_fd(), PollFlags::IN),
                PollFd::new(&self.link.wake, PollFlags::IN),
            ];
            wait_for(&mut polled, left);
            if !polled[1].revents().is_empty() {
                drain(self.link);
                if self.link.is_stopping() || self.connection.is_broken() {
                    return Err(Error::Disconnected);
                }
            }
            match self.connection.read(&mut buffer) {
                Ok(0) => return Err(Error::Disconnected),
                Ok(count) => self.frames.push(buffer.get(..count).unwrap_or_default()),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => {
                    return Err(Error::Io { context: "reading".to_owned(), source: errno.into() });
                }
            }
        }
    }

    fn dispatch(&self, message: Message) -> Result<()> {
        if message.kind() == Some(Kind::WatchEvent) {
            let mut event = reply::event(&message.payload)?;
            let coalesce = self.link.watches().coalesce(&mut event);
            self.link.events.push(event, coalesce);
        } else {
            self.connection.answer(message);
        }
        Ok(())
    }
}
