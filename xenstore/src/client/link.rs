//! What a client's clones share: the present connection, the wanted watches, the events.
//!
//! ```text
//!   up ──(read fails, a writer gives up, no answer in time)──► down ──(reader thread: open, register)──► up
//! ```
//!
//! Two locks order watch changes against reconnecting: `registration` is held by whoever changes the set of
//! watches, answer included, and by the reader thread while it registers all of them on a new connection and
//! makes that the present one. So a watch is either in the set the reader registers, or registered on the
//! connection it published, never both, never neither. The reader takes it only after the old connection was
//! closed, which makes every holder come out of its wait. `watches` guards the list itself, briefly.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::reply;
use super::watches::{Watch, Watches};
use super::{ClientOptions, Endpoint, Events};
use crate::wire::Kind;
use crate::{Error, Result};

pub(super) struct Link {
    pub(super) endpoint: Box<dyn Endpoint>,
    pub(super) options: ClientOptions,
    pub(super) events: Events,
    pub(super) watches: Mutex<Watches>,
    pub(super) registration: Mutex<()>,
    /// Wakes the reader thread: to stop, or because a writer gave the connection up.
    pub(super) wake: OwnedFd,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    stopping: bool,
}

impl Link {
    pub(super) fn new(
        endpoint: Box<dyn Endpoint>,
        options: ClientOptions,
        events: Events,
        wake: OwnedFd,
        connection: Arc<Connection>,
    ) -> Link {
        Link {
            endpoint,
            options,
            events,
            watches: Mutex::default(),
            registration: Mutex::new(()),
            wake,
            state: Mutex::new(State { connection: Some(connection), stopping: false }),
            changed: Condvar::new(),
        }
    }

    /// The present connection.
    pub(super) fn connection(&self) -> Result<Arc<Connection>> {
        self.state().connection.clone().ok_or(Error::Disconnected)
    }

    /// Makes `connection` the present one, or says that there is none.
    pub(super) fn publish(&self, connection: Option<Arc<Connection>>) {
        self.state().connection = connection;
        self.changed.notify_all();
    }

    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.changed.notify_all();
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// The present connection, waiting until there is one and it is another than `lost`.
    fn reconnected(&self, lost: Option<&Arc<Connection>>, deadline: Instant) -> Result<Arc<Connection>> {
        let mut state = self.state();
        loop {
            match &state.connection {
                Some(now) if lost.is_none_or(|lost| !Arc::ptr_eq(now, lost)) => return Ok(now.clone()),
                _ => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.stopping {
                return Err(Error::Disconnected);
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Asks on `connection`, about `path`.
    pub(super) fn ask_on(
        &self,
        connection: &Connection,
        kind: Kind,
        transaction: u32,
        path: &str,
        payload: &[&[u8]],
    ) -> Result<Vec<u8>> {
        let answer = connection
            .request(kind, transaction, payload, self.options.reply_timeout, &self.wake)
            .map_err(|error| match error {
            Error::TooBig { .. } => Error::TooBig { path: path.to_owned() },
            error => error,
        })?;
        reply::payload(answer, kind, path)
    }

    /// Asks on the present connection; what only reads outlives a reconnect within the client's patience.
    pub(super) fn ask(&self, kind: Kind, path: &str, payload: &[&[u8]]) -> Result<Vec<u8>> {
        if !only_reads(kind) {
            return self.ask_on(&*self.connection()?, kind, 0, path, payload);
        }
        let mut lost: Option<Arc<Connection>> = None;
        let mut deadline = Instant::now() + self.options.patience;
        loop {
            let connection = self.reconnected(lost.as_ref(), deadline)?;
            match self.ask_on(&connection, kind, 0, path, payload) {
                Err(Error::Disconnected) if lost.is_none() => {
                    // The patience is for the loss, not for how long the first answer took.
                    deadline = Instant::now() + self.options.patience;
                    lost = Some(connection);
                }
                Err(Error::Disconnected) if Instant::now() < deadline => lost = Some(connection),
                outcome => return outcome,
            }
        }
    }

    /// Registers a watch, now or, without a connection, as soon as there is one.
    pub(super) fn watch(&self, watch: Watch) -> Result<()> {
        let _registration = self.registration.lock().unwrap_or_else(PoisonError::into_inner);
        if self.watches().contains(&watch.path, &watch.token) {
            return Err(Error::Exists { path: watch.path });
        }
        // Before asking: the first event may come right behind the answer.
        self.watches().insert(watch.clone());
        let Ok(connection) = self.connection() else {
            return Ok(());
        };
        let payload: [&[u8]; 4] = [watch.path.as_bytes(), b"\0", watch.token.as_bytes(), b"\0"];
        match self.ask_on(&connection, Kind::Watch, 0, &watch.path, &payload) {
            Ok(_) | Err(Error::Disconnected) => Ok(()),
            Err(error) => {
                self.watches().remove(&watch.path, &watch.token);
                // Xen 4.17 says E2BIG where later versions say ENOSPC; the request itself is never too long.
                match error {
                    Error::TooBig { path } => Err(Error::Quota { path }),
                    error => Err(error),
                }
            }
        }
    }

    /// Drops a watch and its queued events.
    pub(super) fn unwatch(&self, path: &str, token: &str) -> Result<()> {
        let _registration = self.registration.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.watches().contains(path, token) {
            return Err(Error::NotFound { path: path.to_owned() });
        }
        let outcome = match self.connection() {
            Ok(connection) => {
                let payload: [&[u8]; 4] = [path.as_bytes(), b"\0", token.as_bytes(), b"\0"];
                self.ask_on(&connection, Kind::Unwatch, 0, path, &payload)
            }
            Err(error) => Err(error),
        };
        let mut watches = self.watches();
        watches.remove(path, token);
        // The answer came behind the last event of this watch: all of them are in the queue by now.
        self.events.retain(|event| watches.wants(event));
        match outcome {
            Ok(_) | Err(Error::Disconnected) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn watches(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether asking twice is as good as once, whatever happened in between.
fn only_reads(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Read
            | Kind::Directory
            | Kind::DirectoryPart
            | Kind::GetPerms
            | Kind::GetDomainPath
            | Kind::IsDomainIntroduced
    )
}

/// How long to wait before the try after `tries` in vain: growing from `first` to `most`.
pub(super) fn pause(tries: u32, first: Duration, most: Duration) -> Duration {
    first.saturating_mul(1u32.checked_shl(tries).unwrap_or(u32::MAX)).min(most)
}
