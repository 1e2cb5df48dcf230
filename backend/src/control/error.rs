//! Why the daemon cannot start, or ends other than asked to. What is wrong with one disk is that disk's matter.

use super::rundir::RunDirError;
use crate::config::ConfigError;
use std::io;
use std::path::PathBuf;

/// Why the daemon cannot start or end well.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The run directory.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// Xenstore.
    #[error("{doing}: {source}")]
    Xenstore {
        /// What was being done.
        doing: &'static str,
        /// What xenstore said.
        source: xenstore::Error,
    },
    /// The node `domid` is no domain's number.
    #[error("xenstore says that this domain's number is {text:?}")]
    NoDomain {
        /// The node's value.
        text: String,
    },
    /// The kernel gives no io_uring, without which no disk can be served.
    #[error(transparent)]
    Ring(#[from] crate::io::RingError),
    /// Another daemon serves these disks.
    #[error(
        "the disks of kind {kind} are served by process {process}, with run directory {run_dir}; two daemons in a domain \
         need other kinds or scripts (--kind, --script)"
    )]
    Served {
        /// The kind.
        kind: String,
        /// The other daemon.
        process: u32,
        /// Its run directory.
        run_dir: String,
    },
    /// The status socket.
    #[error("{}: {source}", path.display())]
    Socket {
        /// Where it was to be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The hypervisor.
    #[error("hypervisor: {0}")]
    Hypervisor(#[from] hypervisor::Error),
    /// The kernel.
    #[error("{0}")]
    System(#[source] io::Error),
    /// Asked to stop a second time.
    #[error("not stopped cleanly: gave up waiting for {what}; their frontends must connect anew")]
    Hangs {
        /// Which disks.
        what: String,
    },
}

impl ControlError {
    /// For `map_err`.
    pub(super) fn xenstore(doing: &'static str) -> impl FnOnce(xenstore::Error) -> Self {
        move |source| Self::Xenstore { doing, source }
    }
}
