//! The wire: a header of four 32-bit words in the machine's byte order, then at most 4096 bytes of payload.
//!
//! Source: xen/include/public/io/xs_wire.h. Both directions use it; both ends here parse with [`Frames`].

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions)]

mod code;
mod frame;

pub use code::Code;
pub use frame::{Frames, Header, Message, Oversized, encode};

/// Largest payload of one message, in bytes (XENSTORE_PAYLOAD_MAX).
pub const PAYLOAD_MAX: usize = 4096;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// What a message is (enum xsd_sockmsg_type).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Kind { $($(#[$doc])* $name = $value,)* }

        impl Kind {
            /// All kinds, for tests and fuzzing.
            pub const ALL: &[Kind] = &[$(Kind::$name),*];

            /// The number on the wire.
            pub const fn number(self) -> u32 {
                match self { $(Kind::$name => $value,)* }
            }

            /// The kind a number stands for, if any.
            pub const fn from_number(number: u32) -> Option<Kind> {
                match number { $($value => Some(Kind::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// Commands to the daemon itself.
    Control = 0,
    /// List the children of a node.
    Directory = 1,
    /// Read a value.
    Read = 2,
    /// Read a node's permissions.
    GetPerms = 3,
    /// Register a watch.
    Watch = 4,
    /// Drop a watch.
    Unwatch = 5,
    /// Begin a transaction.
    TransactionStart = 6,
    /// Commit or abort a transaction.
    TransactionEnd = 7,
    /// A domain's store connection begins.
    Introduce = 8,
    /// A domain's store connection ends.
    Release = 9,
    /// The home directory of a domain.
    GetDomainPath = 10,
    /// Write a value.
    Write = 11,
    /// Create a node.
    Mkdir = 12,
    /// Remove a node and all below it.
    Rm = 13,
    /// Set a node's permissions.
    SetPerms = 14,
    /// From the server: a watch fired.
    WatchEvent = 15,
    /// From the server: the request failed.
    Error = 16,
    /// Whether a domain is introduced.
    IsDomainIntroduced = 17,
    /// A suspended domain goes on.
    Resume = 18,
    /// A domain acts for another.
    SetTarget = 19,
    /// Drop all watches and transactions of this connection.
    ResetWatches = 21,
    /// List a part of a node's children.
    DirectoryPart = 22,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions)]
mod tests;
