//! What an operator can say: a disk's target string, the daemon's file.
//!
//! ```text
//! xl disk line, target=...  -> params node -> DiskSpec \
//! mode, discard-enable, ...  -> nodes       ----------- -> DiskNodes -> control: what is opened and offered
//! /etc/dixback/dixback.toml, command line -> DaemonConfig --------/
//! ```
//!
//! Everything here ends in a value or in a [`ConfigError`] that names the key and what it may be.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions)
)]

mod daemon;
mod disk;
mod error;
pub mod escape;
mod keys;
mod nodes;
#[cfg(test)]
mod tests;
pub mod units;

pub use daemon::{DaemonConfig, SAMPLE};
pub use disk::{DiskSpec, Target};
pub use error::ConfigError;
pub use keys::table as disk_keys;
pub use nodes::DiskNodes;

/// Puts a value, given as text, into a `T`; none where it cannot be that.
type Setter<T> = fn(&mut T, &str) -> Option<()>;
