//! What can be wrong with what an operator wrote.

use std::path::PathBuf;

/// A disk's target string or the daemon's configuration does not say something that can be done.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No target at all: a disk without a medium.
    #[error("the target is empty: no medium")]
    NoTarget,
    /// Neither an absolute path nor `null:SIZE`.
    #[error("target {target:?} is neither an absolute path nor null:SIZE (images must be format=raw)")]
    Target {
        /// What was given.
        target: String,
    },
    /// A percent sign that starts none of the three escapes.
    #[error("{text:?}: a percent sign must be part of %3F (?), %26 (&) or %25 (%)")]
    Escape {
        /// Where it is.
        text: String,
    },
    /// A key that does not exist.
    #[error("disk key {key:?} does not exist; there are {allowed}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Those that do.
        allowed: String,
    },
    /// A key given twice.
    #[error("disk key {key:?} is given twice")]
    DoubledKey {
        /// The key.
        key: &'static str,
    },
    /// A key with a value it cannot have.
    #[error("disk key {key:?} cannot be {value:?}: {allowed}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What may be given.
        allowed: String,
    },
    /// Keys that contradict each other.
    #[error("disk keys contradict each other: {what}")]
    Contradiction {
        /// Which, and why.
        what: &'static str,
    },
    /// A node the toolstack writes, with a value that means nothing here.
    #[error("the backend's node {node:?} is {value:?}: {allowed}")]
    Node {
        /// The node.
        node: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// The daemon's configuration file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The daemon's configuration file is not what it should be.
    #[error("{}: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A setting of the daemon with a value it cannot have.
    #[error("setting {key:?}: {reason}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}
