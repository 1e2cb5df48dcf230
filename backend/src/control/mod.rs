//! The one control thread: xenstore watches, the xenbus life of each disk.
//!
//! ```text
//! Daemon   poll: xenstore events, helpers' and queues' doorbell, stop requests
//!   Vbd    one disk: Tree -> View -> Machine -> Step -> effects          (one look per round, however much happened)
//!     helper thread   probe | open store, start queues | stop queues, close store | the same, and record
//! ```
//!
//! The thread never waits for a disk: what may block is a helper's work, one helper per disk. It waits for xenstored,
//! which is trusted, and never inside a transaction that a guest can make fail.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions)
)]

mod announce;
mod claim;
mod connection;
mod daemon;
mod error;
mod helper;
mod host;
mod id;
mod limits;
mod machine;
mod plan;
mod presence;
mod quiet;
mod record;
mod resume;
mod rundir;
mod service;
pub mod status;
mod stop;
mod tree;
mod vbd;

pub use daemon::{Daemon, own_domain};
pub use error::ControlError;
pub(crate) use plan::{Plan, store_spec};
pub use rundir::RunDirError;
pub use service::Service;
pub use stop::Stopper;
