//! The crate's error, and what a single request can come to.

use std::io;
use std::time::Duration;

use blkif::{Status, XenbusState};
use integrity::Mismatch;

/// Why the disk, or a request, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request was answered, but not with what was asked for.
    #[error("{operation} of {bytes} bytes at sector {sector}: {failure}")]
    Failed {
        /// What was asked.
        operation: &'static str,
        /// Its first sector, of 512 bytes.
        sector: u64,
        /// How much of it.
        bytes: usize,
        /// What came of it.
        failure: Failure,
    },
    /// Xenstore.
    #[error(transparent)]
    Xenstore(#[from] xenstore::Error),
    /// Grants and event channels.
    #[error(transparent)]
    Hypervisor(#[from] hypervisor::Error),
    /// A node of the backend is missing or makes no sense.
    #[error("the backend's nodes: {0}")]
    Negotiation(#[from] blkif::NegotiationError),
    /// The backend's protection information is of no known kind.
    #[error("the backend's protection information: {0}")]
    Profile(#[from] integrity::ProfileError),
    /// The backend put an impossible index on the ring.
    #[error("the backend broke the ring: {0}")]
    Ring(#[from] blkif::RingError),
    /// The backend answered what was not asked.
    #[error("the backend broke the protocol: {0}")]
    Response(#[from] blkif::ResponseError),
    /// Likewise, seen from the request.
    #[error("the backend broke the protocol: {what} (id {id:#x})")]
    Protocol {
        /// What it did.
        what: &'static str,
        /// The response's id.
        id: u64,
    },
    /// A grant is still in use by the backend after the response; Linux's blkfront disables such a disk for
    /// good (XSA-396).
    #[error("the backend still holds {gref} after the response")]
    GrantHeld {
        /// The first such reference.
        gref: hypervisor::GrantRef,
    },
    /// The backend went into a state in which it serves nobody.
    #[error("the backend is in state {state:?} ({state}){}", reason(.message))]
    Backend {
        /// Which.
        state: XenbusState,
        /// What it wrote into xenstore about it.
        message: Option<String>,
    },
    /// The backend did not do in time what it must.
    #[error("waited {waited:?} for {what}")]
    Timeout {
        /// For what.
        what: &'static str,
        /// How long.
        waited: Duration,
    },
    /// DIX was required, and the backend does not offer it.
    #[error("the backend offers no protection information (version 1), and it is required")]
    NoDix,
    /// After it came back the disk is not the one it was, so requests cannot be sent again.
    #[error("the disk came back with another {what}")]
    Changed {
        /// What is different.
        what: &'static str,
    },
    /// The device was closed, from here or by the backend.
    #[error("the device is closed")]
    Closed,
    /// Every buffer of the queue is in use; complete something first.
    #[error("the queue is full")]
    Full,
    /// The request cannot be made.
    #[error("{0}")]
    Request(&'static str),
    /// What was read is not what was written.
    #[error("data: {0}")]
    Data(String),
    /// A system call, or a file of the caller's.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

fn reason(message: &Option<String>) -> String {
    message.as_ref().map(|message| format!(": {message}")).unwrap_or_default()
}

impl Error {
    /// Wraps a failed system call or file operation; for `map_err`.
    pub(crate) fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::System { what, source: source.into() }
    }

    /// What a request came to, if that is what this error is.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Failed { failure, .. } => Some(*failure),
            _ => None,
        }
    }
}

/// What a request came to, if not to what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The backend refused it or could not do it.
    #[error("the backend says {data:?}{}", payload_text(.payload))]
    Status {
        /// The status of the request.
        data: Status,
        /// The status of its payload slot, which names the tag that did not match.
        payload: Option<Status>,
    },
    /// The backend delivered, but data and protection information do not match here.
    #[error("protection information does not match: {0}")]
    Mismatch(#[from] Mismatch),
}

fn payload_text(payload: &Option<Status>) -> String {
    payload.map(|status| format!(", of the protection information {status:?}")).unwrap_or_default()
}
