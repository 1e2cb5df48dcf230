//! Xenstore: a client, and an embedded server for machines without Xen.
//!
//! Xenstore is Xen's small hierarchical database: paths to values, permissions per domain, transactions, and
//! watches that say when something changed. The wire is xen/include/public/io/xs_wire.h, the semantics are
//! docs/misc/xenstore.txt of Xen, and both ends here are held to what Xen's own xenstored does by one
//! conformance suite.
//!
//! ```text
//!   Client (clones share one connection)                    server::Server (one thread)
//!     request ──► writer ──► Endpoint (a descriptor) ──► frames ──► requests ──► store, transactions
//!     reply   ◄── slots  ◄─┐                                                          │
//!     Events  ◄── queue  ◄─┴ reader thread ◄───────────── output buffers ◄── watches ◄┘
//! ```
//!
//! The reader thread always reads, so watch events nobody fetches never hold up a reply.

#![forbid(unsafe_code)]

pub mod client;
mod error;
pub mod path;
mod permission;
pub mod server;
pub mod wire;

pub use client::{Client, ClientOptions, Events, Transaction, WatchEvent};
pub use error::{Error, Result};
pub use permission::{Access, Permission};
