//! The broker: one thread that waits for calls of all processes and serves them one by one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};

use super::state::State;
use super::{Usage, wire};
use crate::{DomId, Error};

/// Keeps the domains of one directory. Dropping it ends the calls; what is mapped stays mapped, and copies
/// and notifications between processes that are connected go on.
pub struct Broker {
    state: Arc<Mutex<State>>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    socket: PathBuf,
    /// Locked as long as this broker lives.
    _lock: File,
}

impl Broker {
    /// Starts a broker on `dir`, in a thread of this process. `dir` is made if it is not there.
    ///
    /// # Errors
    /// [`Error::System`], among others if another broker runs on `dir`.
    pub fn start(dir: &Path) -> Result<Self, Error> {
        let failed = || Error::system("starting the broker");
        std::fs::create_dir_all(dir).map_err(failed())?;
        let lock = File::create(dir.join("broker.lock")).map_err(failed())?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(Error::system("locking broker.lock"))?;
        let socket = super::socket_path(dir);
        // A socket left behind by a broker that was killed: the lock says that it is.
        let _ = std::fs::remove_file(&socket);
        let listener = listen_at(&socket).map_err(failed())?;
        let state = Arc::new(Mutex::new(State::new().map_err(failed())?));
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let stop = Arc::new(eventfd(0, flags).map_err(Error::system("starting the broker"))?);
        let service = Service { state: Arc::clone(&state), listener, stop: Arc::clone(&stop) };
        let thread = thread::Builder::new().name("sim-broker".to_owned()).spawn(move || service.run());
        Ok(Self { state, stop, thread: Some(thread.map_err(failed())?), socket, _lock: lock })
    }

    /// What is in use of a domain's, and by it: for tests that look for leaks.
    pub fn usage(&self, domain: DomId) -> Usage {
        lock(&self.state).usage(domain)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, 64)?;
    Ok(socket)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Service {
    state: Arc<Mutex<State>>,
    listener: OwnedFd,
    stop: Arc<OwnedFd>,
}

impl Service {
    fn run(self) {
        let mut connections: Vec<(u64, OwnedFd)> = Vec::new();
        let mut next = 0;
        loop {
            let ready = match wait(self.stop.as_fd(), self.listener.as_fd(), &connections) {
                Ok(ready) => ready,
                Err(error) => {
                    log::error!("the broker stops: {error}");
                    break;
                }
            };
            if ready.stop {
                break;
            }
            // From the back: removing one leaves the indexes of those before it.
            for index in ready.connections.into_iter().rev() {
                let (number, socket) = &connections[index];
                if !self.serve(*number, socket.as_fd()) {
                    lock(&self.state).leave(*number);
                    connections.remove(index);
                }
            }
            if ready.listener
                && let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC)
            {
                next += 1;
                connections.push((next, socket));
            }
        }
    }

    /// Serves one call. `false` when the connection has ended.
    fn serve(&self, number: u64, socket: BorrowedFd<'_>) -> bool {
        let Ok(Some(packet)) = wire::receive(socket) else { return false };
        let mut state = lock(&self.state);
        wire::send_answer(socket, state.serve(number, &packet.words)).is_ok()
    }
}

struct Ready {
    stop: bool,
    listener: bool,
    connections: Vec<usize>,
}

fn wait(stop: BorrowedFd<'_>, listener: BorrowedFd<'_>, connections: &[(u64, OwnedFd)]) -> io::Result<Ready> {
    let mut polled = vec![PollFd::from_borrowed_fd(stop, PollFlags::IN)];
    polled.push(PollFd::from_borrowed_fd(listener, PollFlags::IN));
    polled.extend(connections.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::IN)));
    rustix::io::retry_on_intr(|| poll(&mut polled, None))?;
    let ready = |index: usize| !polled[index].revents().is_empty();
    Ok(Ready {
        stop: ready(0),
        listener: ready(1),
        connections: (0..connections.len()).filter(|index| ready(index + 2)).collect(),
    })
}
