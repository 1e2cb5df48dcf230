//! Where the server is reached: the seam between the client and what carries the bytes.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// A way to reach xenstored: one descriptor that is read, written and polled. Opened again after a loss.
pub trait Endpoint: Send + Sync + 'static {
    /// Opens a connection.
    fn open(&self) -> io::Result<OwnedFd>;
    /// What it is, for messages.
    fn describe(&self) -> String;
    /// Whether a request may be written only when the one before it is answered.
    fn takes_turns(&self) -> bool {
        false
    }
}

impl Endpoint for Box<dyn Endpoint> {
    fn open(&self) -> io::Result<OwnedFd> {
        (**self).open()
    }

    fn takes_turns(&self) -> bool {
        (**self).takes_turns()
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

/// The kernel's own connection, `/dev/xen/xenbus`: the only way in a guest, and one in every domain. The same bytes
/// as on a socket; what is asked is asked as this domain.
#[derive(Clone, Debug)]
pub struct XenbusDevice(PathBuf);

impl XenbusDevice {
    /// The device at `path`.
    pub fn new(path: impl AsRef<Path>) -> XenbusDevice {
        XenbusDevice(path.as_ref().to_owned())
    }
}

impl Endpoint for XenbusDevice {
    fn open(&self) -> io::Result<OwnedFd> {
        OpenOptions::new().read(true).write(true).open(&self.0).map(OwnedFd::from)
    }

    /// Linux keeps the request that was written last to an open file, and hands xenstored its payload later, from there
    /// (drivers/xen/xenbus: xenbus_file_write, xenbus_dev_request_and_reply). One that is written meanwhile takes its
    /// place: the first is then asked with the second's path, and its answer is believed.
    fn takes_turns(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        self.0.display().to_string()
    }
}

/// What is at `path`: the kernel's device if it is one, else a socket, there already or to come.
pub fn at(path: impl AsRef<Path>) -> Box<dyn Endpoint> {
    let path = path.as_ref();
    let device = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_char_device());
    if device { Box::new(XenbusDevice::new(path)) } else { Box::new(UnixSocket::new(path)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_when_a_character_device_is_there_then_is_opened_as_one() {
        assert!(at("/dev/null").open().is_ok());
        assert_eq!(at("/dev/null").describe(), "/dev/null");
        assert!(at("/dev/null").takes_turns());
    }

    #[test]
    fn path_when_nothing_is_there_then_is_a_socket_to_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let endpoint = at(&path);
        assert!(endpoint.open().is_err());
        let _server = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(endpoint.open().is_ok());
        assert!(!endpoint.takes_turns());
    }
}
