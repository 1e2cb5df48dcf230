//! The embedded server: xenstored's semantics in one thread, for machines without Xen.
//!
//! A client of its socket is dom0, privileged. A client of `<socket>.<domid>` is that domain: its
//! permissions, its quotas, its relative paths.

mod connection;
mod core;
mod dispatch;
mod node;
mod output;
mod request;
mod serve;
mod sockets;
mod store;
mod transaction;
mod view;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};

use self::core::Core;
use self::serve::Shared;
use self::sockets::Sockets;
use crate::{Error, Result};

/// What one domain may use. Privileged clients (dom0) are not limited by quotas, only by the wire. The
/// defaults are xenstored's own.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Nodes a domain may own.
    pub nodes_per_domain: usize,
    /// Watches a domain may hold.
    pub watches_per_domain: usize,
    /// Transactions a domain may have open at once.
    pub transactions_per_domain: usize,
    /// Nodes one transaction of a domain may touch.
    pub nodes_per_transaction: usize,
    /// Bytes of one node of a domain: value, children's names and permissions.
    pub node_size: usize,
    /// Entries in a node's permissions a domain may set.
    pub permissions_per_node: usize,
    /// Longest path of a domain, in bytes, not counting `/local/domain/<domid>/`.
    pub path_length: usize,
    /// Connections one domain may hold, dom0 included.
    pub connections_per_domain: usize,
    /// Bytes waiting for a client that does not read them before it is disconnected. Any client.
    pub output_limit: usize,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            nodes_per_domain: 1000,
            watches_per_domain: 128,
            transactions_per_domain: 10,
            nodes_per_transaction: 1024,
            node_size: 2048,
            permissions_per_node: 5,
            path_length: 2048,
            connections_per_domain: 256,
            output_limit: 4 << 20,
        }
    }
}

/// The embedded server.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Serves dom0 at `socket`, with the tree xenstored begins with. A stale socket file is replaced; where a
    /// live server listens this fails.
    pub fn start(socket: impl AsRef<Path>, config: ServerConfig) -> Result<ServerHandle> {
        let socket = socket.as_ref();
        let failed = |source| failure(socket, source);
        let sockets = Sockets::open_base(socket).map_err(failed)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = wake.map_err(|errno| failed(errno.into()))?;
        let shared = Arc::new(Shared::new(Core::new(config), sockets, wake));
        let thread = std::thread::Builder::new()
            .name("xenstore-server".to_owned())
            .spawn({
                let shared = shared.clone();
                move || serve::run(&shared)
            })
            .map_err(failed)?;
        Ok(ServerHandle { socket: socket.to_owned(), shared, thread: Some(thread) })
    }
}

/// A running server; dropping it stops the server and removes its sockets.
#[derive(Debug)]
pub struct ServerHandle {
    socket: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl ServerHandle {
    /// Where dom0 connects.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Introduces a domain: opens its socket and fires `@introduceDomain`. The wire's INTRODUCE does the same.
    /// A domain introduced already stays as it is.
    pub fn introduce(&self, domain: u16) -> Result<()> {
        self.domain_socket(domain)?;
        self.shared.lock().core.introduce(domain);
        self.shared.wake();
        Ok(())
    }

    /// Ends a domain: disconnects its clients, removes its socket, the nodes it owns and its entries in
    /// others' permissions, and fires `@releaseDomain`. The wire's RELEASE does the same.
    /// [`Error::NotFound`] if it is not introduced; [`Error::Invalid`] for dom0.
    pub fn release(&self, domain: u16) -> Result<()> {
        let path = self.domain_path(domain);
        if domain == 0 {
            return Err(Error::Invalid { path, reason: "dom0 cannot be released" });
        }
        let mut state = self.shared.lock();
        let released = state.core.release(domain);
        let state = &mut *state;
        state.sockets.follow(&state.core.sockets);
        self.shared.wake();
        if released { Ok(()) } else { Err(Error::NotFound { path }) }
    }

    /// Whether a domain is introduced.
    pub fn is_introduced(&self, domain: u16) -> bool {
        self.shared.lock().core.introduced.contains(&domain)
    }

    /// A domain's home directory, `/local/domain/<domid>`.
    pub fn domain_path(&self, domain: u16) -> String {
        request::home(domain)
    }

    /// Where a domain connects, `<socket>.<domid>`; opened if it is not yet, which does not introduce the
    /// domain. Dom0's is [`ServerHandle::socket`].
    pub fn domain_socket(&self, domain: u16) -> Result<PathBuf> {
        let mut state = self.shared.lock();
        let path = state.sockets.path(domain);
        state.sockets.open(domain).map_err(|source| failure(&path, source))?;
        state.core.sockets.insert(domain);
        self.shared.wake();
        Ok(path)
    }

    /// Stops the server: every client is disconnected, the store is gone.
    pub fn stop(self) {}
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // It only ends; a panic in it was reported by its own message.
            let _ = thread.join();
        }
    }
}

fn failure(socket: &Path, source: io::Error) -> Error {
    Error::Io { context: format!("serving xenstore at {}", socket.display()), source }
}

#[cfg(test)]
mod tests;
