//! A transaction: what it has seen and what it would change.
//!
//! The first access to a path notes the node as it is outside; from then on the transaction has its own
//! view of it. The commit fails if anything it saw has changed since, be it that a node appeared or went.
//! That is xenstored's rule: two transactions that both add a child to one node conflict, as each has read
//! the list of children.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::Node;
use super::store::Store;
use super::view::Change;
use super::watch::Reach;
use crate::path::parent;
use crate::wire::Code;

#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// In the order of first access: the order events come in after the commit.
    accessed: Vec<Accessed>,
    by_path: HashMap<String, usize>,
    /// By how much this transaction changes the number of nodes each domain owns.
    owned: HashMap<u16, isize>,
}

#[derive(Debug)]
struct Accessed {
    path: String,
    original: Option<Arc<Node>>,
    current: Option<Arc<Node>>,
    modified: bool,
    fires: Option<Reach>,
}

impl Transaction {
    /// How many paths it has touched.
    pub(super) fn len(&self) -> usize {
        self.accessed.len()
    }

    /// Whether `path` is among them.
    pub(super) fn has(&self, path: &str) -> bool {
        self.by_path.contains_key(path)
    }

    pub(super) fn get(&mut self, store: &Store, path: &str) -> Option<Arc<Node>> {
        self.access(store, path).current.clone()
    }

    /// Sets the node at `path`, or removes it.
    pub(super) fn set(&mut self, store: &mut Store, path: &str, node: Option<Node>) -> Option<Arc<Node>> {
        let node = node.map(|mut node| {
            node.generation = store.next_generation();
            Arc::new(node)
        });
        let accessed = self.access(store, path);
        accessed.modified = true;
        let old = std::mem::replace(&mut accessed.current, node.clone());
        if let Some(old) = old {
            *self.owned.entry(old.owner()).or_default() -= 1;
        }
        if let Some(node) = &node {
            *self.owned.entry(node.owner()).or_default() += 1;
        }
        node
    }

    /// Remembers that watches fire for `path` after the commit; the wider reach wins.
    pub(super) fn fires(&mut self, store: &Store, path: &str, reach: Reach) {
        let accessed = self.access(store, path);
        if accessed.fires != Some(Reach::Ancestors) {
            accessed.fires = Some(reach);
        }
    }

    /// How many nodes a domain would own after the commit.
    pub(super) fn owned(&self, store: &Store, domain: u16) -> usize {
        let delta = self.owned.get(&domain).copied().unwrap_or(0);
        store.owned(domain).saturating_add_signed(delta)
    }

    /// Carries the changes over into the store, or changes nothing and says why.
    pub(super) fn commit(self, store: &mut Store) -> Result<Vec<Change>, Code> {
        let generation = |node: Option<&Arc<Node>>| node.map(|node| node.generation);
        let conflict = |accessed: &Accessed| {
            generation(accessed.original.as_ref()) != generation(store.get(&accessed.path).as_ref())
        };
        if self.accessed.iter().any(conflict) {
            return Err(Code::Again);
        }
        let mut changes = Vec::new();
        for accessed in self.accessed.into_iter().filter(|accessed| accessed.modified) {
            let new = match accessed.current {
                Some(node) => Some(store.put(&accessed.path, Arc::unwrap_or_clone(node))),
                None => {
                    store.delete(&accessed.path);
                    None
                }
            };
            if let Some(reach) = accessed.fires {
                // xenstored does not look at the parent of what a transaction removed.
                let parent = new.as_ref().and_then(|_| store.get(parent(&accessed.path)?));
                changes.push(Change { path: accessed.path, reach, old: accessed.original, new, parent });
            }
        }
        Ok(changes)
    }

    fn access(&mut self, store: &Store, path: &str) -> &mut Accessed {
        let at = match self.by_path.get(path) {
            Some(&at) => at,
            None => {
                let original = store.get(path);
                let current = original.clone();
                let path = path.to_owned();
                self.by_path.insert(path.clone(), self.accessed.len());
                self.accessed.push(Accessed { path, original, current, modified: false, fires: None });
                self.accessed.len() - 1
            }
        };
        &mut self.accessed[at]
    }
}
