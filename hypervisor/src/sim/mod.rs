//! The hypervisor between ordinary processes: no Xen needed, the same semantics where they bite.
//!
//! ```text
//!   backend process                         frontend process
//!     Sim (domain 0) ----- broker.sock ------ Sim (domain 1)       control: maps, grants, ports
//!       |        |                              |        |
//!       |   domain 1's memory and grant table  -+        |         data: shared memory, no broker
//!       +------- words and eventfds of channels ---------+         notifications: no broker
//! ```
//!
//! A [`Broker`] is a thread of any process. It makes each domain's memory and grant table as memory files
//! when the domain's first process connects, hands them out, and is the only one to write grant entries.
//! The domain ends with its last process, killed or not: what it granted, allocated and mapped is taken
//! back. Its pages that others have mapped stay valid for them until they unmap.
//!
//! What is as on Xen: grants name one domain, may be read-only, and are refused with Xen's numbers; a page
//! that is mapped cannot be revoked; ports are bound by the domain they were allocated for, by one at a
//! time, and may be bound again when the other end has closed; events coalesce and stay masked from
//! acknowledge to unmask; nobody is told that a peer died. What is not: a copy makes a revocation wait
//! instead of fail, and processes are trusted not to write each other's memory behind the API's back.

mod broker;
mod channel;
mod client;
mod copier;
mod domain;
mod extents;
mod ports;
mod state;
mod table;
mod wire;

use std::path::{Path, PathBuf};

pub use broker::Broker;
pub use client::{Sim, connect, connect_with};

/// The sizes of a domain, chosen by its first process.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Pages of memory, allocated as they are touched. At most 2^24.
    pub memory_pages: usize,
    /// Entries of the grant table. At most 2^24.
    pub grant_entries: u32,
}

impl Default for Options {
    /// 1 GiB of memory, 64 Ki references.
    fn default() -> Self {
        Self { memory_pages: 1 << 18, grant_entries: 1 << 16 }
    }
}

/// What is in use of a domain's, and by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its pages granted and not taken back yet.
    pub granted: usize,
    /// Its grants that others have mapped, each as often as it is mapped. Counted even when the domain is
    /// gone, until they are unmapped.
    pub mapped: usize,
    /// Its ports, bound or not.
    pub ports: usize,
    /// Its ports that are bound to an open port of another.
    pub bound: usize,
    /// Copiers there are on its pages.
    pub copiers: usize,
}

/// Where the broker of a directory listens.
fn socket_path(dir: &Path) -> PathBuf {
    dir.join("broker.sock")
}
