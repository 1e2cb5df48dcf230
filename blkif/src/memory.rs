//! The seam to the bytes two domains share.
//!
//! Ring code asks for nothing but this trait, so what a model checker runs is the ring code itself.

use std::sync::atomic::Ordering;

/// One of the four indexes at the ring's start, (ring.h, `DEFINE_RING_TYPES`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Index {
    /// `req_prod`: how far requests are published. The frontend's.
    RequestProducer,
    /// `req_event`: the backend wants an event when `req_prod` passes this. The backend's.
    RequestEvent,
    /// `rsp_prod`: how far responses are published. The backend's.
    ResponseProducer,
    /// `rsp_event`: the frontend wants an event when `rsp_prod` passes this. The frontend's.
    ResponseEvent,
}

impl Index {
    /// Its place in the ring's memory, in bytes.
    pub const fn offset(self) -> usize {
        match self {
            Index::RequestProducer => 0,
            Index::RequestEvent => 4,
            Index::ResponseProducer => 8,
            Index::ResponseEvent => 12,
        }
    }
}

/// A ring's memory, which the other side may change at any moment.
///
/// Values cross as little-endian words of the wire, in the machine's own order here. Every call
/// touches each word exactly once. Offsets are multiples of 4; implementations panic where an access
/// leaves the memory: ring code computes offsets from masked indexes, never from shared bytes.
pub trait RingMemory {
    /// Bytes in all.
    fn size(&self) -> usize;

    /// Loads an index.
    fn load(&self, index: Index, order: Ordering) -> u32;

    /// Stores an index.
    fn store(&self, index: Index, value: u32, order: Ordering);

    /// A full barrier: no access passes it in either direction, a store before it included
    /// (`xen_mb`, smp_mb, a SeqCst fence).
    fn barrier(&self);

    /// Copies words out, from the byte offset on.
    fn read(&self, offset: usize, words: &mut [u32]);

    /// Copies words in, from the byte offset on.
    fn write(&self, offset: usize, words: &[u32]);
}
