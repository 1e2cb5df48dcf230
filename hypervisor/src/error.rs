//! The crate's one error.

use std::fmt;
use std::io;

use crate::{DomId, GrantRef, GrantStatus, Port};

/// Why the hypervisor, or the way to it, refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A grant could not be mapped.
    #[error("grant {gref} of {domain}: {status}")]
    Grant {
        /// The domain that granted it.
        domain: DomId,
        /// The first reference that was refused.
        gref: GrantRef,
        /// Why.
        status: GrantStatus,
    },
    /// No such domain, or it is gone.
    #[error("{domain}: no such domain")]
    NoDomain {
        /// The domain asked for.
        domain: DomId,
    },
    /// An entry of a copy batch leaves its page, so nothing of the batch was done.
    #[error("copy {index} of the batch crosses a page")]
    InvalidCopy {
        /// Its place in the batch.
        index: usize,
    },
    /// An event channel could not be bound.
    #[error("port {port} of {domain}: {fault}")]
    Port {
        /// The domain that allocated the port.
        domain: DomId,
        /// The port, as numbered there.
        port: Port,
        /// Why.
        fault: PortFault,
    },
    /// The page is mapped by the other domain, so its grant cannot be taken back yet.
    #[error("grant {gref} is in use by the other domain")]
    Busy {
        /// The reference.
        gref: GrantRef,
    },
    /// A table or the domain's memory is full.
    #[error("out of {what}")]
    NoSpace {
        /// What there is no more of.
        what: &'static str,
    },
    /// The caller asked for something meaningless.
    #[error("{what}")]
    Invalid {
        /// What is wrong.
        what: &'static str,
    },
    /// The hypervisor's other end is gone (of the simulation: the broker).
    #[error("the hypervisor's control connection is gone")]
    Disconnected,
    /// No hypervisor of that name.
    #[error("{spec:?} names no hypervisor (xen, or sim:DIR)")]
    Spec {
        /// What was asked for.
        spec: String,
    },
    /// A device of the kernel's cannot be used.
    #[error("{device}: {source}: {hint}")]
    Device {
        /// Its path.
        device: &'static str,
        /// What is probably the matter.
        hint: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// Wraps a failed system call; for `map_err`.
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what, source: source.into() }
    }
}

/// Why a port could not be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortFault {
    /// The port is free: never allocated, or closed.
    Closed,
    /// It was allocated for another domain.
    NotYours,
    /// It is bound already.
    Bound,
    /// The hypervisor refused without saying why (evtchn gives EINVAL for all of these).
    Refused,
}

impl fmt::Display for PortFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "not allocated",
            Self::NotYours => "allocated for another domain",
            Self::Bound => "already bound",
            Self::Refused => "refused",
        })
    }
}
