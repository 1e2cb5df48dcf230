//! The server without its sockets: connections, domains and the store; bytes in, bytes out.
//!
//! ```text
//!   receive ──► Frames ──► dispatch ──► View (store, transaction) ──► changes ──► fire ──► outputs
//! ```
//!
//! Single-threaded: one request is carried out, its answer and its events queued, before the next is looked
//! at, whichever client it is from. That is the order clients may rely on.

use std::collections::{BTreeMap, BTreeSet};

use super::ServerConfig;
use super::connection::Connection;
use super::node::{Caller, Need, Node};
use super::store::{self, Store};
use super::view::{Change, View};
use super::watch::Reach;
use crate::wire::{Message, Oversized};

/// With this much unread, a client's further requests wait.
const BACKLOG: usize = 64 << 10;

/// A connection's number; never reused.
pub(super) type Id = u64;

#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: ServerConfig,
    pub(super) store: Store,
    pub(super) connections: BTreeMap<Id, Connection>,
    /// The domains introduced; dom0 always is.
    pub(super) introduced: BTreeSet<u16>,
    /// The domains that have a socket of their own.
    pub(super) sockets: BTreeSet<u16>,
    next_id: Id,
}

impl Core {
    pub(super) fn new(config: ServerConfig) -> Core {
        Core {
            config,
            store: Store::new(),
            connections: BTreeMap::new(),
            introduced: BTreeSet::from([0]),
            sockets: BTreeSet::new(),
            next_id: 1,
        }
    }

    /// A new client, unless its domain has too many already.
    pub(super) fn connect(&mut self, domain: u16) -> Option<Id> {
        let present = self.connections.values().filter(|connection| connection.caller.domain == domain);
        if present.count() >= self.config.connections_per_domain {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        let connection = Connection::new(Caller { domain }, self.config.output_limit);
        self.connections.insert(id, connection);
        Some(id)
    }

    /// A client is gone, with its watches and open transactions.
    pub(super) fn disconnect(&mut self, id: Id) {
        self.connections.remove(&id);
    }

    /// Takes a client's bytes. An oversized message costs it the connection.
    pub(super) fn receive(&mut self, id: Id, bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.frames.push(bytes);
        }
        self.process(id);
    }

    /// Carries out whole requests until there are no more, or too much is unread.
    pub(super) fn process(&mut self, id: Id) {
        loop {
            match self.next_request(id) {
                Ok(Some(request)) => self.dispatch(id, request),
                Ok(None) => return,
                Err(Oversized) => {
                    log::debug!("xenstore client {id} sent an oversized message");
                    return self.disconnect(id);
                }
            }
        }
    }

    /// Whether more may be read from a client now.
    pub(super) fn wants_input(&self, id: Id) -> bool {
        self.connections.get(&id).is_some_and(|connection| connection.output.waiting() <= BACKLOG)
    }

    fn next_request(&mut self, id: Id) -> Result<Option<Message>, Oversized> {
        match self.connections.get_mut(&id) {
            Some(connection) if connection.output.waiting() <= BACKLOG => connection.frames.next_message(),
            _ => Ok(None),
        }
    }

    /// A domain's store begins.
    pub(super) fn introduce(&mut self, domain: u16) {
        self.sockets.insert(domain);
        if self.introduced.insert(domain) {
            self.fire_special(store::INTRODUCE);
        }
    }

    /// A domain's store ends. Says whether it had begun.
    pub(super) fn release(&mut self, domain: u16) -> bool {
        self.sockets.remove(&domain);
        if !self.introduced.remove(&domain) {
            return false;
        }
        // Its own watches hear nothing of its end.
        self.connections.retain(|_, connection| connection.caller.domain != domain);
        for path in self.store.mentioning(domain) {
            self.forget(domain, &path);
        }
        self.fire_special(store::RELEASE);
        true
    }

    /// Removes a node a domain owned, or the domain from its permissions.
    fn forget(&mut self, domain: u16, path: &str) {
        let Some(node) = self.store.get(path) else {
            return;
        };
        if node.owner() == domain {
            let mut view = View {
                store: &mut self.store,
                transaction: None,
                caller: Caller { domain: 0 },
                config: &self.config,
                changes: Vec::new(),
            };
            let removed = view.remove(path);
            let changes = view.changes;
            self.fire_all(&changes);
            if removed.is_ok() {
                return;
            }
        }
        // What cannot go, the root and the special nodes, falls to dom0.
        let mut node = Node::clone(&node);
        if let Some(owner) = node.permissions.first_mut()
            && owner.domain == domain
        {
            owner.domain = 0;
        }
        let mut first = true;
        node.permissions.retain(|entry| std::mem::take(&mut first) || entry.domain != domain);
        self.store.put(path, node);
    }

    pub(super) fn fire_all(&mut self, changes: &[Change]) {
        for change in changes {
            self.fire(change);
        }
        // Not inside the loop: whoever is over must still not stop the others' events.
        self.connections.retain(|id, connection| {
            let over = connection.output.is_over();
            if over {
                log::debug!("xenstore client {id} does not read its events");
            }
            !over
        });
    }

    fn fire_special(&mut self, name: &str) {
        let new = self.store.get(name);
        let change = Change { path: name.to_owned(), reach: Reach::Exact, old: None, new, parent: None };
        self.fire_all(&[change]);
    }

    /// Tells every watch that hears of a change and whose owner may know.
    fn fire(&mut self, change: &Change) {
        if change.old.is_none() && change.new.is_none() {
            // Came and went inside one transaction.
            return;
        }
        let nodes = [&change.old, &change.new, &change.parent];
        for connection in self.connections.values_mut() {
            let caller = connection.caller;
            let mut watches =
                connection.watches.iter().filter(|watch| watch.hears(&change.path, change.reach)).peekable();
            if watches.peek().is_none() {
                continue;
            }
            if nodes.into_iter().flatten().any(|node| node.allows(caller, Need::Read)) {
                watches.for_each(|watch| connection.output.event(&watch.event(&change.path)));
            }
        }
    }

    /// Watches all connections of a domain hold.
    pub(super) fn watches_of(&self, domain: u16) -> usize {
        self.of_domain(domain).map(|connection| connection.watches.len()).sum()
    }

    /// Transactions all connections of a domain have open.
    pub(super) fn transactions_of(&self, domain: u16) -> usize {
        self.of_domain(domain).map(|connection| connection.transactions.len()).sum()
    }

    fn of_domain(&self, domain: u16) -> impl Iterator<Item = &Connection> {
        self.connections.values().filter(move |connection| connection.caller.domain == domain)
    }
}
