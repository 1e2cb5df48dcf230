//! The client: requests, transactions and watches over one connection, shared by its clones.

mod endpoint;
mod events;
mod transaction;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use endpoint::{Endpoint, UnixSocket};
pub use events::{Events, WatchEvent};
pub use transaction::Transaction;

use crate::{Error, Permission, Result};

/// How a client waits and retries.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long a request may go without an answer before the connection is given up and made anew.
    pub reply_timeout: Duration,
    /// How long a request that only reads, outside a transaction, waits for a lost connection to come back;
    /// it is then asked again. All other requests fail with [`Error::Disconnected`] at once.
    pub patience: Duration,
    /// How often a transaction is tried before [`Error::Again`] is handed to the caller.
    pub transaction_attempts: u32,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            reply_timeout: Duration::from_secs(30),
            patience: Duration::from_secs(2),
            transaction_attempts: 64,
        }
    }
}

/// A connection to xenstored. Clones share it, and threads may share it: requests of several threads are
/// on the way at once.
///
/// When the server goes away the client connects again by itself and registers every watch anew, so each
/// fires once more; see [`ClientOptions::patience`] for requests meanwhile. Dropping the last clone ends it.
///
/// Paths are absolute, or relative to the caller's own `/local/domain/<domid>`. A path the protocol does not
/// allow is refused with [`Error::Invalid`] and never sent.
#[derive(Clone, Debug)]
pub struct Client {
    events: Arc<Events>,
}

impl Client {
    /// Connects to the socket at `path`: xenstored's (`/run/xenstored/socket`) or the embedded server's.
    pub fn connect(path: impl AsRef<Path>) -> Result<Client> {
        Client::connect_to(UnixSocket::new(path), ClientOptions::default())
    }

    /// Connects to any endpoint.
    pub fn connect_to(endpoint: impl Endpoint, options: ClientOptions) -> Result<Client> {
        let _ = (endpoint, options);
        Err(Error::Disconnected)
    }

    /// The value at `path`.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        crate::path::node(path)?;
        Err(Error::from_code(crate::wire::Code::NotFound, path))
    }

    /// The value at `path` as text; [`Error::Protocol`] if it is not UTF-8.
    pub fn read_string(&self, path: &str) -> Result<String> {
        let _ = path;
        Err(Error::Disconnected)
    }

    /// Writes `value`, creating the node and missing parents.
    pub fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<()> {
        let _ = (path, value);
        Err(Error::Disconnected)
    }

    /// Creates a node and missing parents; one that exists is left as it is.
    pub fn mkdir(&self, path: &str) -> Result<()> {
        let _ = path;
        Err(Error::Disconnected)
    }

    /// Removes a node and all below it. Removing what is not there succeeds if its parent exists.
    pub fn remove(&self, path: &str) -> Result<()> {
        let _ = path;
        Err(Error::Disconnected)
    }

    /// The names of a node's children, in the server's order, however many they are.
    pub fn directory(&self, path: &str) -> Result<Vec<String>> {
        let _ = path;
        Err(Error::Disconnected)
    }

    /// The permissions of a node; the first entry names its owner.
    pub fn permissions(&self, path: &str) -> Result<Vec<Permission>> {
        let _ = path;
        Err(Error::Disconnected)
    }

    /// Sets the permissions of a node; the first entry names its owner.
    pub fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<()> {
        let _ = (path, permissions);
        Err(Error::Disconnected)
    }

    /// The home directory of a domain, `/local/domain/<domid>`.
    pub fn domain_path(&self, domain: u16) -> Result<String> {
        let _ = domain;
        Err(Error::Disconnected)
    }

    /// Whether a domain is introduced to xenstore.
    pub fn is_introduced(&self, domain: u16) -> Result<bool> {
        let _ = domain;
        Err(Error::Disconnected)
    }

    /// Runs `body` in a transaction and commits it; an error from `body` aborts it. On a conflict everything
    /// is tried again after a growing pause, up to [`ClientOptions::transaction_attempts`] times, so `body`
    /// must have no effect of its own that may not be repeated.
    pub fn transaction<T>(&self, body: impl FnMut(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let _ = body;
        Err(Error::Disconnected)
    }

    /// Watches `path` and all below it, or `@introduceDomain` or `@releaseDomain`. The watch fires once at
    /// once. Every event is queued, however slowly they are fetched.
    pub fn watch(&self, path: &str, token: &str) -> Result<()> {
        crate::path::any(path)?;
        let _ = token;
        Err(Error::Disconnected)
    }

    /// As [`Client::watch`], but an event equal to one still queued is dropped: whoever fetches that one sees
    /// the newest state anyway. For watches on what a guest may write.
    pub fn watch_coalesced(&self, path: &str, token: &str) -> Result<()> {
        let _ = (path, token);
        Err(Error::Disconnected)
    }

    /// Drops a watch. Afterwards no event of it is handed out, queued ones included.
    pub fn unwatch(&self, path: &str, token: &str) -> Result<()> {
        let _ = (path, token);
        Err(Error::Disconnected)
    }

    /// The queue of events of all watches, shared by all clones.
    pub fn events(&self) -> &Events {
        &self.events
    }
}
