//! Where the server is reached: the seam between the client and what carries the bytes.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// A way to reach xenstored: one descriptor that is read, written and polled. Opened again after a loss.
pub trait Endpoint: Send + Sync + 'static {
    /// Opens a connection.
    fn open(&self) -> io::Result<OwnedFd>;
    /// What it is, for messages.
    fn describe(&self) -> String;
}

impl Endpoint for Box<dyn Endpoint> {
    fn open(&self) -> io::Result<OwnedFd> {
        (**self).open()
    }

    fn describe(&self) -> String {
        (**self).describe()
    }
}

/// A unix socket.
#[derive(Clone, Debug)]
pub struct UnixSocket(PathBuf);

impl UnixSocket {
    /// The socket at `path`.
    pub fn new(path: impl AsRef<Path>) -> UnixSocket {
        UnixSocket(path.as_ref().to_owned())
    }

    /// Where Xen's own tools look: `XENSTORED_PATH`, else `socket` in `XENSTORED_RUNDIR`, else in
    /// `/run/xenstored`.
    pub fn of_environment() -> UnixSocket {
        let path = match (std::env::var_os("XENSTORED_PATH"), std::env::var_os("XENSTORED_RUNDIR")) {
            (Some(path), _) => PathBuf::from(path),
            (None, Some(folder)) => Path::new(&folder).join("socket"),
            (None, None) => PathBuf::from("/run/xenstored/socket"),
        };
        UnixSocket(path)
    }
}

impl Endpoint for UnixSocket {
    fn open(&self) -> io::Result<OwnedFd> {
        UnixStream::connect(&self.0).map(OwnedFd::from)
    }

    fn describe(&self) -> String {
        self.0.display().to_string()
    }
}
