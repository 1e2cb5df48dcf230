//! The store as one request sees it: directly or through a transaction, with the caller's permissions and
//! quotas. Every operation either does all of its work or none.
//!
//! Errors reveal nothing a caller may not know: what it may not touch, and what is missing where it may not
//! look, both read as EACCES.

use std::sync::Arc;

use super::ServerConfig;
use super::node::{Caller, Need, Node};
use super::store::Store;
use super::transaction::Transaction;
use super::watch::Reach;
use crate::wire::Code;
use crate::{Permission, path};

/// Something happened to a node: what watches fire for.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) path: String,
    pub(super) reach: Reach,
    /// The node before and after, and its parent at that time: a watcher that may read any of them is told.
    pub(super) old: Option<Arc<Node>>,
    pub(super) new: Option<Arc<Node>>,
    pub(super) parent: Option<Arc<Node>>,
}

pub(super) struct View<'a> {
    pub(super) store: &'a mut Store,
    pub(super) transaction: Option<&'a mut Transaction>,
    pub(super) caller: Caller,
    pub(super) config: &'a ServerConfig,
    /// What happened outside any transaction, in order.
    pub(super) changes: Vec<Change>,
}

impl View<'_> {
    pub(super) fn read(&mut self, path: &str) -> Result<Arc<Node>, Code> {
        self.node(path, Need::Read)
    }

    pub(super) fn write(&mut self, path: &str, value: &[u8]) -> Result<(), Code> {
        match self.node(path, Need::Write) {
            Ok(old) => {
                let new = Node { value: value.to_vec(), ..Node::clone(&old) };
                self.fits(&new)?;
                let new = self.put(path, new)?;
                self.changed(path, Reach::Ancestors, Some(old), Some(new));
                Ok(())
            }
            Err(Code::NotFound) => self.create(path, value),
            Err(code) => Err(code),
        }
    }

    pub(super) fn mkdir(&mut self, path: &str) -> Result<(), Code> {
        match self.node(path, Need::Write) {
            Ok(_) => Ok(()),
            Err(Code::NotFound) => self.create(path, b""),
            Err(code) => Err(code),
        }
    }

    /// Removes a subtree. What lies below fires only its own watches: those on ancestors hear of the top.
    pub(super) fn remove(&mut self, path: &str) -> Result<(), Code> {
        match self.node(path, Need::Write) {
            Ok(_) => {}
            Err(Code::NotFound) => {
                let parent = path::parent(path).ok_or(Code::NotFound)?;
                return self.get(parent)?.map(|_| ()).ok_or(Code::NotFound);
            }
            Err(code) => return Err(code),
        }
        let parent_path = path::parent(path).ok_or(Code::Invalid)?;
        let parent = self.get(parent_path)?.ok_or(Code::Io)?;
        let tree = self.subtree(path)?;
        let mut parent = Node::clone(&parent);
        parent.children.remove(path::leaf(path));
        self.put(parent_path, parent)?;
        for (at, node) in children_first(tree) {
            self.delete(&at)?;
            let reach = if at == path { Reach::Ancestors } else { Reach::Exact };
            self.changed(&at, reach, Some(node), None);
        }
        Ok(())
    }

    pub(super) fn permissions(&mut self, path: &str) -> Result<Vec<Permission>, Code> {
        Ok(self.node(path, Need::Read)?.permissions.clone())
    }

    pub(super) fn set_permissions(&mut self, path: &str, permissions: Vec<Permission>) -> Result<(), Code> {
        if !self.caller.is_privileged() && permissions.len() > self.config.permissions_per_node {
            return Err(Code::NoSpace);
        }
        let old = self.node(path, Need::Own)?;
        let owner = permissions.first().ok_or(Code::Invalid)?.domain;
        if !self.caller.is_privileged() && owner != old.owner() {
            return Err(Code::NotPermitted);
        }
        let new = Node { permissions, ..Node::clone(&old) };
        self.fits(&new)?;
        let new = self.put(path, new)?;
        self.changed(path, Reach::Ancestors, Some(old), Some(new));
        Ok(())
    }

    /// Creates a node and its missing parents. Each inherits its parent's permissions; what an unprivileged
    /// caller creates it owns.
    fn create(&mut self, path: &str, value: &[u8]) -> Result<(), Code> {
        let mut missing = vec![path];
        let (base, ancestor) = loop {
            let parent = missing.last().and_then(|path| path::parent(path)).ok_or(Code::NotFound)?;
            match self.get(parent)? {
                Some(node) => break (parent, node),
                None => missing.push(parent),
            }
        };
        let mut permissions = ancestor.permissions.clone();
        if !self.caller.is_privileged() {
            if self.owned() + missing.len() > self.config.nodes_per_domain {
                return Err(Code::NoSpace);
            }
            if let Some(owner) = permissions.first_mut() {
                owner.domain = self.caller.domain;
            }
        }
        let mut ancestor = Node::clone(&ancestor);
        if let Some(top) = missing.last() {
            ancestor.children.push(path::leaf(top));
        }
        // From the node itself upwards: each below the next.
        let mut below = None;
        let mut created = Vec::new();
        for &at in &missing {
            let mut node = Node { permissions: permissions.clone(), ..Node::closed() };
            match below {
                None => node.value = value.to_vec(),
                Some(child) => node.children.push(path::leaf(child)),
            }
            self.fits(&node)?;
            created.push((at, node));
            below = Some(at);
        }
        self.fits(&ancestor)?;
        self.put(base, ancestor)?;
        let mut new = None;
        for (at, node) in created.into_iter().rev() {
            new = Some(self.put(at, node)?);
        }
        self.changed(path, Reach::Ancestors, None, new);
        Ok(())
    }

    /// The node at `path`, if the caller may do with it what it needs to.
    fn node(&mut self, path: &str, need: Need) -> Result<Arc<Node>, Code> {
        match self.get(path)? {
            Some(node) if node.allows(self.caller, need) => Ok(node),
            Some(_) => Err(Code::Access),
            None => {
                // Whoever may write above may know, even where only the owner could go on.
                let need = if need == Need::Own { Need::Write } else { need };
                let mut at = path;
                while let Some(parent) = path::parent(at) {
                    if let Some(node) = self.get(parent)? {
                        let may_know = node.allows(self.caller, need);
                        return Err(if may_know { Code::NotFound } else { Code::Access });
                    }
                    at = parent;
                }
                Err(Code::NotFound)
            }
        }
    }

    /// `path` and all below it, parents before children.
    fn subtree(&mut self, path: &str) -> Result<Vec<(String, Arc<Node>)>, Code> {
        let mut found = Vec::new();
        let mut ahead = vec![path.to_owned()];
        while let Some(at) = ahead.pop() {
            let node = self.get(&at)?.ok_or(Code::Io)?;
            // The stack gives them back in the list's order.
            let children: Vec<String> = node.children.iter().map(|name| format!("{at}/{name}")).collect();
            ahead.extend(children.into_iter().rev());
            found.push((at, node));
        }
        Ok(found)
    }

    fn get(&mut self, path: &str) -> Result<Option<Arc<Node>>, Code> {
        self.may_touch(path)?;
        Ok(match &mut self.transaction {
            Some(transaction) => transaction.get(self.store, path),
            None => self.store.get(path),
        })
    }

    fn put(&mut self, path: &str, node: Node) -> Result<Arc<Node>, Code> {
        self.may_touch(path)?;
        match &mut self.transaction {
            Some(transaction) => transaction.set(self.store, path, Some(node)).ok_or(Code::Io),
            None => Ok(self.store.put(path, node)),
        }
    }

    fn delete(&mut self, path: &str) -> Result<(), Code> {
        self.may_touch(path)?;
        match &mut self.transaction {
            Some(transaction) => drop(transaction.set(self.store, path, None)),
            None => self.store.delete(path),
        }
        Ok(())
    }

    /// A transaction of an unprivileged caller holds so many nodes and no more. All of an operation's paths
    /// are read before the first is written, so it fails before it has changed anything.
    fn may_touch(&self, path: &str) -> Result<(), Code> {
        match &self.transaction {
            Some(transaction)
                if !self.caller.is_privileged()
                    && !transaction.has(path)
                    && transaction.len() >= self.config.nodes_per_transaction =>
            {
                Err(Code::NoSpace)
            }
            _ => Ok(()),
        }
    }

    fn fits(&self, node: &Node) -> Result<(), Code> {
        if !self.caller.is_privileged() && node.size() > self.config.node_size {
            return Err(Code::NoSpace);
        }
        Ok(())
    }

    fn owned(&self) -> usize {
        match &self.transaction {
            Some(transaction) => transaction.owned(self.store, self.caller.domain),
            None => self.store.owned(self.caller.domain),
        }
    }

    fn changed(&mut self, path: &str, reach: Reach, old: Option<Arc<Node>>, new: Option<Arc<Node>>) {
        match &mut self.transaction {
            Some(transaction) => transaction.fires(self.store, path, reach),
            None => {
                let parent = path::parent(path).and_then(|parent| self.store.get(parent));
                self.changes.push(Change { path: path.to_owned(), reach, old, new, parent });
            }
        }
    }
}

/// A subtree listed parents first, the other way: each node right behind the last below it, the order in which
/// xenstored removes them.
fn children_first<T>(tree: Vec<(String, T)>) -> Vec<(String, T)> {
    let mut ordered = Vec::with_capacity(tree.len());
    let mut above: Vec<(String, T)> = Vec::new();
    for (at, node) in tree {
        while let Some(done) = above.pop_if(|(ancestor, _)| !path::is_within(&at, ancestor)) {
            ordered.push(done);
        }
        above.push((at, node));
    }
    ordered.extend(above.into_iter().rev());
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtree_when_turned_over_then_children_come_before_their_parent_in_order() {
        let tree =
            ["/a", "/a/1", "/a/1/x", "/a/1/y", "/a/12", "/a/2", "/a/2/z"].map(|at| (at.to_owned(), ()));
        let ordered: Vec<String> = children_first(tree.into()).into_iter().map(|(at, ())| at).collect();
        assert_eq!(ordered, ["/a/1/x", "/a/1/y", "/a/1", "/a/12", "/a/2/z", "/a/2", "/a"]);
    }
}
