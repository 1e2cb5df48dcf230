//! One client, as the server sees it: no descriptor here, only bytes in and bytes out.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::node::Caller;
use super::output::Output;
use super::transaction::Transaction;
use super::watch::Watch;
use crate::wire::Frames;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) caller: Caller,
    pub(super) frames: Frames,
    pub(super) output: Output,
    /// In the order they were registered in, which is the order they fire in.
    pub(super) watches: Vec<Watch>,
    pub(super) transactions: BTreeMap<u32, Transaction>,
    /// The number the next transaction gets, if it is free.
    pub(super) next_transaction: u32,
}

impl Connection {
    pub(super) fn new(caller: Caller, output_limit: usize) -> Connection {
        Connection {
            caller,
            frames: Frames::new(),
            output: Output::new(output_limit),
            watches: Vec::new(),
            transactions: BTreeMap::new(),
            next_transaction: 1,
        }
    }

    /// Opens a transaction and gives its number, which is never 0.
    pub(super) fn begin(&mut self) -> u32 {
        loop {
            let id = self.next_transaction;
            self.next_transaction = id.wrapping_add(1).max(1);
            if let Entry::Vacant(free) = self.transactions.entry(id) {
                free.insert(Transaction::default());
                return id;
            }
        }
    }
}
