//! All nodes by path, outside any transaction.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::Node;

/// The special watches have a node each, which holds their permissions. They are nobody's children.
pub(super) const INTRODUCE: &str = "@introduceDomain";
pub(super) const RELEASE: &str = "@releaseDomain";

#[derive(Debug)]
pub(super) struct Store {
    nodes: HashMap<String, Arc<Node>>,
    /// Nodes by owner.
    owned: HashMap<u16, usize>,
    generation: u64,
}

impl Store {
    /// The tree xenstored begins with.
    pub(super) fn new() -> Store {
        let mut store = Store { nodes: HashMap::new(), owned: HashMap::new(), generation: 0 };
        for (path, child) in
            [("/", "tool"), ("/tool", "xenstored"), ("/tool/xenstored", ""), (INTRODUCE, ""), (RELEASE, "")]
        {
            let mut node = Node::closed();
            if !child.is_empty() {
                node.children.push(child);
            }
            store.put(path, node);
        }
        store
    }

    pub(super) fn get(&self, path: &str) -> Option<Arc<Node>> {
        self.nodes.get(path).cloned()
    }

    /// Replaces or creates a node, which gets a new generation.
    pub(super) fn put(&mut self, path: &str, mut node: Node) -> Arc<Node> {
        node.generation = self.next_generation();
        *self.owned.entry(node.owner()).or_default() += 1;
        let node = Arc::new(node);
        if let Some(old) = self.nodes.insert(path.to_owned(), node.clone()) {
            self.disown(old.owner());
        }
        node
    }

    pub(super) fn delete(&mut self, path: &str) {
        if let Some(old) = self.nodes.remove(path) {
            self.disown(old.owner());
        }
    }

    pub(super) fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// How many nodes a domain owns.
    pub(super) fn owned(&self, domain: u16) -> usize {
        self.owned.get(&domain).copied().unwrap_or(0)
    }

    /// Every path at which `domain` is mentioned in the permissions, parents before children.
    pub(super) fn mentioning(&self, domain: u16) -> Vec<String> {
        let mentions = |node: &Node| node.permissions.iter().any(|entry| entry.domain == domain);
        let mut paths: Vec<String> =
            self.nodes.iter().filter(|(_, node)| mentions(node)).map(|(path, _)| path.clone()).collect();
        paths.sort();
        paths
    }

    fn disown(&mut self, domain: u16) {
        if let Some(count) = self.owned.get_mut(&domain) {
            *count -= 1;
            if *count == 0 {
                self.owned.remove(&domain);
            }
        }
    }
}

#[cfg(test)]
impl Store {
    /// Every node is listed by its parent and every listed child is there, and owners are counted right.
    pub(super) fn assert_whole(&self) {
        use crate::path::{leaf, parent};

        let mut owned = HashMap::new();
        for (path, node) in &self.nodes {
            *owned.entry(node.owner()).or_default() += 1;
            if let Some(parent) = parent(path) {
                let listed = self.nodes[parent].children.iter().filter(|name| *name == leaf(path)).count();
                assert_eq!(listed, 1, "{path} in its parent's list");
            }
            for name in node.children.iter() {
                let child = if path == "/" { format!("/{name}") } else { format!("{path}/{name}") };
                assert!(self.nodes.contains_key(&child), "{child} is listed but not there");
            }
        }
        assert_eq!(owned, self.owned);
    }
}
