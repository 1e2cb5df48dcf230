//! The crate's error: what a request ended in, with the path it was about.

use std::io;

use crate::wire::Code;

/// A result whose error is this crate's.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request, a connection or the embedded server failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ENOENT: no such node, or no such watch or transaction.
    #[error("{path}: not in xenstore")]
    NotFound {
        /// What the request was about.
        path: String,
    },
    /// EACCES: the permissions of the node, or of its nearest existing parent, forbid it.
    #[error("{path}: xenstore permission denied")]
    Access {
        /// What the request was about.
        path: String,
    },
    /// EEXIST: this watch (path and token) is registered already.
    #[error("{path}: exists already in xenstore")]
    Exists {
        /// What the request was about.
        path: String,
    },
    /// ENOSPC: a quota of the calling domain is used up.
    #[error("{path}: xenstore quota exceeded")]
    Quota {
        /// What the request was about.
        path: String,
    },
    /// EAGAIN: the transaction met conflicting changes, as often as it was tried.
    #[error("xenstore transaction conflicts with other changes")]
    Again,
    /// The request is malformed: refused here, before it reached the wire, or by the server with EINVAL.
    #[error("{path:?}: {reason}")]
    Invalid {
        /// The path as it was given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The request, or a listing's answer, does not fit one message (E2BIG, or refused here).
    #[error("{path}: too long for a xenstore message")]
    TooBig {
        /// What the request was about.
        path: String,
    },
    /// Any other error the server named.
    #[error("{path}: xenstored answered {code}")]
    Refused {
        /// What the request was about.
        path: String,
        /// The server's word.
        code: Code,
    },
    /// There is no connection now: the server went away. The client goes on trying to come back; a request
    /// that changes something may or may not have been carried out.
    #[error("no connection to xenstored")]
    Disconnected,
    /// The server answered something the protocol does not allow.
    #[error("xenstore protocol violation: {0}")]
    Protocol(String),
    /// The operating system refused something: connecting, binding, starting a thread.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// The error a server's answer stands for; `path` is what the request was about.
    pub(crate) fn from_code(code: Code, path: &str) -> Error {
        let path = path.to_owned();
        match code {
            Code::NotFound => Error::NotFound { path },
            Code::Access => Error::Access { path },
            Code::Exists => Error::Exists { path },
            Code::NoSpace => Error::Quota { path },
            Code::Again => Error::Again,
            Code::Invalid => Error::Invalid { path, reason: "refused by xenstored (EINVAL)" },
            Code::TooBig => Error::TooBig { path },
            code => Error::Refused { path, code },
        }
    }

    /// Whether the node (or watch, or transaction) is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. })
    }
}
