//! Errors as the wire names them: the errno's name as text (xs_wire.h, xsd_errors).

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// An error a server answered with.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
            /// A name that xs_wire.h does not list.
            Unknown,
        }

        impl Code {
            /// The name on the wire. [`Code::Unknown`] is sent as EIO: a server sends only names it knows.
            pub const fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* Code::Unknown => "EIO" }
            }

            /// The code of a name, without its final NUL.
            pub fn from_name(name: &[u8]) -> Code {
                $(if name == $name.as_bytes() { return Code::$variant; })*
                Code::Unknown
            }
        }
    };
}

codes! {
    /// Malformed request.
    Invalid = "EINVAL",
    /// Permission denied.
    Access = "EACCES",
    /// Exists already.
    Exists = "EEXIST",
    /// Is a directory.
    IsDirectory = "EISDIR",
    /// No such node, watch or transaction.
    NotFound = "ENOENT",
    /// The server is out of memory.
    NoMemory = "ENOMEM",
    /// A quota is used up.
    NoSpace = "ENOSPC",
    /// The server failed inside.
    Io = "EIO",
    /// Not empty.
    NotEmpty = "ENOTEMPTY",
    /// The server does not know this request.
    Unsupported = "ENOSYS",
    /// Read-only.
    ReadOnly = "EROFS",
    /// A transaction inside a transaction.
    Busy = "EBUSY",
    /// A transaction met conflicting changes.
    Again = "EAGAIN",
    /// Connected already.
    IsConnected = "EISCONN",
    /// The answer does not fit a message.
    TooBig = "E2BIG",
    /// Not the owner, or not privileged.
    NotPermitted = "EPERM",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Code::Unknown => f.write_str("an unknown error"),
            code => f.write_str(code.name()),
        }
    }
}
