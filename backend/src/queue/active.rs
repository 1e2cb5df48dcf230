//! The requests a queue has taken and not yet answered.

use crate::io::Lease;
use crate::queue::admit::Kind;
use arrayvec::ArrayVec;
use blkif::{MAX_SEGMENTS, Segment, Status, wire};
use std::ops::Range;

/// What a request waits for in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The one I/O that it is.
    Only,
    /// The flush before its data; then the data, with FUA.
    FlushFirst,
}

/// One request under way. Its memory is reused, so that the normal way allocates nothing.
#[derive(Debug)]
pub(crate) struct Active {
    /// The data slot's id.
    pub id: u64,
    /// The operation byte its response must carry.
    pub echo: u8,
    /// The payload slot's id, when the request came with the guest's PI.
    pub payload: Option<u64>,
    pub kind: Kind,
    pub stage: Stage,
    /// Bytes on the disk.
    pub offset: u64,
    pub bytes: u64,
    /// The guest's data pages, in order.
    pub segments: Vec<Segment>,
    /// The guest's metadata pages.
    pub metadata: ArrayVec<Segment, MAX_SEGMENTS>,
    /// The private buffer, while the queue and not the store has it.
    pub lease: Option<Lease>,
    /// Its copies in the batch being built.
    pub place: Range<usize>,
    /// Intervals that carried an escape.
    pub escaped: u64,
}

impl Active {
    fn new() -> Self {
        Self {
            id: 0,
            echo: 0,
            payload: None,
            kind: Kind::Read,
            stage: Stage::Only,
            offset: 0,
            bytes: 0,
            segments: Vec::with_capacity(MAX_SEGMENTS),
            metadata: ArrayVec::new(),
            lease: None,
            place: 0..0,
            escaped: 0,
        }
    }

    /// Whether the request moves data.
    pub fn has_data(&self) -> bool {
        self.bytes > 0 && !self.kind.is_discard()
    }

    /// The responses for `status`: the data slot's, and the payload slot's after it.
    pub fn responses(&self, status: Status) -> impl Iterator<Item = blkif::Response> + use<> {
        let data = blkif::Response { id: self.id, operation: self.echo, status: status.for_data() };
        let payload = self.payload.map(|id| blkif::Response { id, operation: wire::OP_INTEGRITY, status });
        [Some(data), payload].into_iter().flatten()
    }
}

/// A fixed number of [`Active`] requests, named by small numbers.
#[derive(Debug)]
pub(crate) struct Table {
    all: Vec<Active>,
    free: Vec<u32>,
}

impl Table {
    /// Room for `size` requests.
    pub fn new(size: u32) -> Self {
        Self { all: (0..size).map(|_| Active::new()).collect(), free: (0..size).rev().collect() }
    }

    /// A place for a request; none while all are in use.
    pub fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Gives a place back; its buffer has gone back before.
    pub fn give_back(&mut self, name: u32) {
        debug_assert!(self[name].lease.is_none(), "a request that still owns its buffer");
        debug_assert!(!self.free.contains(&name), "a request answered twice");
        self.free.push(name);
    }

    /// Takes every buffer that is here, for a queue that ends by a failure.
    pub fn leases(&mut self) -> impl Iterator<Item = Lease> + '_ {
        self.all.iter_mut().filter_map(|active| active.lease.take())
    }

    /// How many requests are under way.
    pub fn len(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::ops::Index<u32> for Table {
    type Output = Active;
    fn index(&self, name: u32) -> &Active {
        &self.all[name as usize]
    }
}

impl std::ops::IndexMut<u32> for Table {
    fn index_mut(&mut self, name: u32) -> &mut Active {
        &mut self.all[name as usize]
    }
}
