//! A userspace Xen block backend that carries protection information end to end.
//!
//! ```text
//! guest ring -> copy slot once -> parse -> pair (DIX) -> admit (range, mode, limits)
//!   -> grant copy in (data + PI) -> verify or make PI -> submit
//!   -> completion -> verify -> grant copy out -> respond -> notify once
//! ```
//!
//! | module | idea |
//! |---|---|
//! | [`config`] | what an operator can say: a disk's target string, the daemon's file |
//! | [`control`] | the one control thread: xenstore watches, the xenbus life of each disk |
//! | [`queue`] | one thread per ring: the way of a request |
//! | [`io`] | what queues and stores share: the io_uring, the buffer pool, the doorbell |
//! | [`store`] | backing devices behind one trait: null, file, file with a PI sidecar |
//! | [`image`] | the sidecar's tools: protect, scrub, reseal |
//! | [`ublk`] | a disk as a block device of this machine |

// The tests' driver of a queue is shared with tests outside, and says `dixback`.
#[cfg(test)]
extern crate self as dixback;

pub mod bench;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod image;
pub mod io;
pub(crate) mod limit;
pub mod queue;
pub mod simhost;
pub mod store;
pub mod ublk;
