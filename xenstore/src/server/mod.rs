//! The embedded server: xenstored's semantics in one thread, for machines without Xen.
//!
//! A client of its socket is dom0, privileged. A client of `<socket>.<domid>` is that domain: its
//! permissions, its quotas, its relative paths.

use std::path::{Path, PathBuf};

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
    /// Serves dom0 at `socket`, with an empty store. A stale socket file is replaced; a live server's is not.
    pub fn start(socket: impl AsRef<Path>, config: ServerConfig) -> Result<ServerHandle> {
        let _ = (socket, config);
        Err(Error::Disconnected)
    }
}

/// A running server; dropping it stops the server and removes its sockets.
#[derive(Debug)]
pub struct ServerHandle {
    socket: PathBuf,
}

impl ServerHandle {
    /// Where dom0 connects.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Introduces a domain: opens its socket and fires `@introduceDomain`. The wire's INTRODUCE does the same.
    pub fn introduce(&self, domain: u16) -> Result<()> {
        let _ = domain;
        Err(Error::Disconnected)
    }

    /// Ends a domain: disconnects its clients, removes its socket, the nodes it owns and its entries in
    /// others' permissions, and fires `@releaseDomain`. The wire's RELEASE does the same.
    pub fn release(&self, domain: u16) -> Result<()> {
        let _ = domain;
        Err(Error::Disconnected)
    }

    /// Whether a domain is introduced.
    pub fn is_introduced(&self, domain: u16) -> bool {
        let _ = domain;
        false
    }

    /// A domain's home directory, `/local/domain/<domid>`.
    pub fn domain_path(&self, domain: u16) -> String {
        format!("/local/domain/{domain}")
    }

    /// Where a domain connects, `<socket>.<domid>`; opened if it is not yet.
    pub fn domain_socket(&self, domain: u16) -> Result<PathBuf> {
        let _ = domain;
        Err(Error::Disconnected)
    }

    /// Stops the server: every client is disconnected, the store is gone.
    pub fn stop(self) {}
}
