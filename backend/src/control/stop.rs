//! Requests to stop: from signal handlers and other threads to the control thread.
//!
//! A socket pair: a signal handler can do little more than write a byte.

use rustix::fd::{AsFd, BorrowedFd};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Asks the daemon to stop.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<UnixStream>);

impl Stopper {
    /// Asks. Once a second or more has passed, asking again makes the daemon end without waiting for what hangs.
    pub fn stop(&self) {
        // A full socket has asked often enough.
        let _ = (&*self.0).write(&[0]);
    }

    /// Lets a signal ask.
    ///
    /// # Errors
    /// The handler cannot be installed.
    pub fn on_signal(&self, signal: i32) -> io::Result<()> {
        signal_hook::low_level::pipe::register(signal, self.0.try_clone()?).map(drop)
    }
}

/// The requests that came.
#[derive(Debug)]
pub(super) struct Stops {
    reader: UnixStream,
    writer: Stopper,
}

impl Stops {
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Self { reader, writer: Stopper(Arc::new(writer)) })
    }

    pub(super) fn stopper(&self) -> Stopper {
        self.writer.clone()
    }

    /// Whether it was asked for since the last look.
    pub(super) fn take(&mut self) -> bool {
        self.reader.read(&mut [0; 64]).unwrap_or(0) > 0
    }
}

impl AsFd for Stops {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
