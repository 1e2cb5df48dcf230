//! The client: requests, transactions and watches over one connection, shared by its clones.

mod connection;
mod endpoint;
mod events;
mod link;
mod listing;
mod reader;
mod reply;
mod requests;
mod transaction;
mod watches;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

pub use endpoint::{Endpoint, UnixSocket, XenbusDevice, at};
pub use events::{Events, WatchEvent};
pub use transaction::Transaction;

use connection::Connection;
use link::Link;
use requests::Ask;
use watches::{Coalesce, Watch};

use crate::path;
use crate::wire::{Kind, PAYLOAD_MAX};
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

/// Longest token of a watch, in bytes: with it an event of the longest path still fits a message, and none
/// is lost for its length.
pub const TOKEN_MAX: usize = PAYLOAD_MAX - path::ABSOLUTE_MAX - 2;

/// A connection to xenstored. Clones share it, and threads may share it: requests of several threads are
/// on the way at once, where the [`Endpoint`] allows that.
///
/// When the server goes away the client connects again by itself and registers every watch anew, so each
/// fires once more; see [`ClientOptions::patience`] for requests meanwhile. Dropping the last clone ends it.
///
/// Paths are absolute, or relative to the caller's own `/local/domain/<domid>`. A path the protocol does not
/// allow is refused with [`Error::Invalid`] and never sent.
#[derive(Clone)]
pub struct Client {
    running: Arc<Running>,
}

/// The link and its reader thread; ends with the last clone of the client.
struct Running {
    link: Arc<Link>,
    reader: Option<JoinHandle<()>>,
}

impl Client {
    /// Connects to what is [`at`] `path`: the socket of xenstored or of the embedded server, or the kernel's device.
    pub fn connect(path: impl AsRef<Path>) -> Result<Client> {
        Client::connect_to(at(path), ClientOptions::default())
    }

    /// Connects to any endpoint.
    pub fn connect_to(endpoint: impl Endpoint, options: ClientOptions) -> Result<Client> {
        let name = endpoint.describe();
        let failed = |source| Error::Io { context: format!("connecting to xenstored at {name}"), source };
        let failing = |errno: rustix::io::Errno| failed(errno.into());
        let descriptor = endpoint.open().map_err(failed)?;
        let connection = Arc::new(Connection::new(descriptor, endpoint.takes_turns()).map_err(failing)?);
        let events = Events::new().map_err(failing)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failing)?;
        let link = Arc::new(Link::new(Box::new(endpoint), options, events, wake, connection.clone()));
        let reader = std::thread::Builder::new()
            .name("xenstore-reader".to_owned())
            .spawn({
                let link = link.clone();
                move || reader::run(&link, connection)
            })
            .map_err(failed)?;
        Ok(Client { running: Arc::new(Running { link, reader: Some(reader) }) })
    }

    /// The value at `path`.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        requests::read(self.link(), path)
    }

    /// The value at `path` as text; [`Error::Invalid`] if it is not UTF-8.
    pub fn read_string(&self, path: &str) -> Result<String> {
        requests::read_string(self.link(), path)
    }

    /// Writes `value`, creating the node and missing parents.
    pub fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<()> {
        requests::write(self.link(), path, value.as_ref())
    }

    /// Creates a node and missing parents; one that exists is left as it is.
    pub fn mkdir(&self, path: &str) -> Result<()> {
        requests::mkdir(self.link(), path)
    }

    /// Removes a node and all below it. Removing what is not there succeeds if its parent exists.
    pub fn remove(&self, path: &str) -> Result<()> {
        requests::remove(self.link(), path)
    }

    /// The names of a node's children, in the server's order, however many they are. [`Error::Again`] if a
    /// list too long for one message changed under every try to read it.
    pub fn directory(&self, path: &str) -> Result<Vec<String>> {
        listing::directory(self.link(), path)
    }

    /// The permissions of a node; the first entry names its owner.
    pub fn permissions(&self, path: &str) -> Result<Vec<Permission>> {
        requests::permissions(self.link(), path)
    }

    /// Sets the permissions of a node; the first entry names its owner, which only a privileged caller may
    /// change.
    pub fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<()> {
        requests::set_permissions(self.link(), path, permissions)
    }

    /// The home directory of a domain, `/local/domain/<domid>`.
    pub fn domain_path(&self, domain: u16) -> Result<String> {
        reply::string(self.about_domain(Kind::GetDomainPath, domain)?)
    }

    /// Whether a domain is introduced to xenstore. Privileged callers only.
    pub fn is_introduced(&self, domain: u16) -> Result<bool> {
        reply::truth(&self.about_domain(Kind::IsDomainIntroduced, domain)?)
    }

    /// Introduces a domain: xenstored connects to its ring page, in frame `frame`, and to its event channel
    /// `port`; the embedded server opens the domain's socket and needs neither. Privileged callers only.
    pub fn introduce(&self, domain: u16, frame: u64, port: u32) -> Result<()> {
        let payload = format!("{domain}\0{frame}\0{port}\0");
        self.link().ask(Kind::Introduce, "", &[payload.as_bytes()]).map(drop)
    }

    /// Ends what [`Client::introduce`] began.
    pub fn release(&self, domain: u16) -> Result<()> {
        self.about_domain(Kind::Release, domain).map(drop)
    }

    /// Runs `body` in a transaction and commits it; an error from `body` aborts it. On a conflict everything
    /// is tried again after a growing pause, up to [`ClientOptions::transaction_attempts`] times, so `body`
    /// must have no effect of its own that may not be repeated. When the connection is lost under the commit
    /// the outcome is [`Error::Disconnected`] and unknown.
    pub fn transaction<T>(&self, body: impl FnMut(&Transaction<'_>) -> Result<T>) -> Result<T> {
        transaction::run(self.link(), body)
    }

    /// Watches `path` and all below it, or `@introduceDomain` or `@releaseDomain`. The watch fires once at
    /// once. Every event is queued, however slowly they are fetched. Without a connection the watch is
    /// registered as soon as there is one.
    pub fn watch(&self, path: &str, token: &str) -> Result<()> {
        self.register(path, token, Coalesce::Nothing)
    }

    /// As [`Client::watch`], but an event equal to one still queued is dropped: whoever fetches that one sees
    /// the newest state anyway. For watches whose paths tell where to look.
    pub fn watch_coalesced(&self, path: &str, token: &str) -> Result<()> {
        self.register(path, token, Coalesce::Equal)
    }

    /// As [`Client::watch`], but at most one event of it is queued, whatever changed below: it names the watched
    /// path. For watches on what a guest may write, who can make new names below without end (XSA-349).
    pub fn watch_whole(&self, path: &str, token: &str) -> Result<()> {
        self.register(path, token, Coalesce::Whole)
    }

    /// Drops a watch. Afterwards no event of it is handed out, queued ones included.
    pub fn unwatch(&self, path: &str, token: &str) -> Result<()> {
        self.link().unwatch(path, token)
    }

    /// The queue of events of all watches, shared by all clones.
    pub fn events(&self) -> &Events {
        &self.link().events
    }

    fn register(&self, path: &str, token: &str, coalesce: Coalesce) -> Result<()> {
        path::any(path)?;
        if token.contains('\0') || token.len() > TOKEN_MAX {
            return Err(Error::Invalid {
                path: path.to_owned(),
                reason: "the token has a NUL or is too long",
            });
        }
        self.link().watch(Watch { path: path.to_owned(), token: token.to_owned(), coalesce })
    }

    fn about_domain(&self, kind: Kind, domain: u16) -> Result<Vec<u8>> {
        let number = domain.to_string();
        self.link().ask(kind, "", &[number.as_bytes(), b"\0"]).map_err(|error| match error {
            Error::NotFound { .. } => Error::NotFound { path: format!("domain {domain}") },
            error => error,
        })
    }

    fn link(&self) -> &Link {
        &self.running.link
    }
}

impl Ask for Link {
    fn ask(&self, kind: Kind, path: &str, payload: &[&[u8]]) -> Result<Vec<u8>> {
        Link::ask(self, kind, path, payload)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.link().endpoint.describe()).finish()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.link.stop();
        if let Some(reader) = self.reader.take() {
            // It only ends; a panic in it was reported by its own message.
            let _ = reader.join();
        }
    }
}
