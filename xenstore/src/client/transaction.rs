//! Transactions: reads and writes that happen at once or not at all.
//!
//! ```text
//!   start ──► body ──(Ok)──► commit ──► done
//!     ▲         └──(Err)──► abort       │ EAGAIN
//!     └────────── growing pause ◄───────┘
//! ```

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::link::{Link, pause};
use super::requests::{self, Ask};
use super::{listing, reply};
use crate::wire::Kind;
use crate::{Error, Permission, Result};

/// Pauses between tries. A conflict means somebody else got through, so the first retry need not wait long.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A transaction under way: the same requests as [`Client`](crate::Client), seen by others only after the
/// commit. It belongs to the connection it was started on and fails with it.
pub struct Transaction<'a> {
    link: &'a Link,
    connection: Arc<Connection>,
    id: u32,
    ended: Cell<bool>,
}

pub(super) fn run<T>(link: &Link, mut body: impl FnMut(&Transaction<'_>) -> Result<T>) -> Result<T> {
    for tries in 0..link.options.transaction_attempts {
        if tries > 0 {
            std::thread::sleep(jittered(pause(tries - 1, FIRST_PAUSE, LONGEST_PAUSE)));
        }
        let transaction = Transaction::start(link)?;
        // A body that fails drops the transaction, which aborts it.
        let outcome = body(&transaction).and_then(|value| transaction.end(b"T\0").map(|()| value));
        match outcome {
            Err(Error::Again) => {}
            outcome => return outcome,
        }
    }
    Err(Error::Again)
}

/// Between half of `pause` and all of it, so that two who conflicted once need not do so in step.
fn jittered(pause: Duration) -> Duration {
    let half = pause / 2;
    let share = u32::from(RandomState::new().build_hasher().finish().to_le_bytes()[0]);
    half + half * share / 255
}

impl<'a> Transaction<'a> {
    fn start(link: &'a Link) -> Result<Transaction<'a>> {
        let connection = link.connection()?;
        let answer = link.ask_on(&connection, Kind::TransactionStart, 0, "", &[b"\0"])?;
        let id = reply::transaction(answer)?;
        Ok(Transaction { link, connection, id, ended: Cell::new(false) })
    }

    fn end(&self, how: &[u8]) -> Result<()> {
        self.ended.set(true);
        self.link.ask_on(&self.connection, Kind::TransactionEnd, self.id, "", &[how]).map(drop)
    }

    /// As [`Client::read`](crate::Client::read).
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        requests::read(self, path)
    }

    /// As [`Client::read_string`](crate::Client::read_string).
    pub fn read_string(&self, path: &str) -> Result<String> {
        requests::read_string(self, path)
    }

    /// As [`Client::write`](crate::Client::write).
    pub fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<()> {
        requests::write(self, path, value.as_ref())
    }

    /// As [`Client::mkdir`](crate::Client::mkdir).
    pub fn mkdir(&self, path: &str) -> Result<()> {
        requests::mkdir(self, path)
    }

    /// As [`Client::remove`](crate::Client::remove).
    pub fn remove(&self, path: &str) -> Result<()> {
        requests::remove(self, path)
    }

    /// As [`Client::directory`](crate::Client::directory).
    pub fn directory(&self, path: &str) -> Result<Vec<String>> {
        listing::directory(self, path)
    }

    /// As [`Client::permissions`](crate::Client::permissions).
    pub fn permissions(&self, path: &str) -> Result<Vec<Permission>> {
        requests::permissions(self, path)
    }

    /// As [`Client::set_permissions`](crate::Client::set_permissions).
    pub fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<()> {
        requests::set_permissions(self, path, permissions)
    }
}

impl Ask for Transaction<'_> {
    fn ask(&self, kind: Kind, path: &str, payload: &[&[u8]]) -> Result<Vec<u8>> {
        self.link.ask_on(&self.connection, kind, self.id, path, payload)
    }
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.ended.get()
            && let Err(error) = self.end(b"F\0")
        {
            log::debug!("aborting a xenstore transaction: {error}");
        }
    }
}
