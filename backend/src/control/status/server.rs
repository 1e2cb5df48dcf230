//! The answering end: a part of the control thread's poll.
//!
//! Nothing here waits. A client is read from and written to as far as it goes; one that is slow, says too much or says
//! nothing loses its place after a while and costs nobody anything but one of the places.

use super::{Answer, Request};
use rustix::event::{PollFd, PollFlags};
use rustix::net::sockopt::socket_peercred;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Most clients at a time; others wait to be accepted.
const CLIENTS: usize = 16;
/// Longest request in bytes.
const REQUEST: usize = 4096;
/// How long a client may take to ask, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nobody is accepted after that failed: out of descriptors, say.
const PAUSE: Duration = Duration::from_secs(1);

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) struct ClientId(u64);

/// The socket, and who is on it.
#[derive(Debug)]
pub(in crate::control) struct Server {
    listener: UnixListener,
    path: PathBuf,
    clients: Vec<Client>,
    next: u64,
    paused: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    stream: UnixStream,
    turn: Turn,
}

/// Whose turn it is.
#[derive(Debug)]
enum Turn {
    /// The client's: to ask, before long.
    Asking { line: Vec<u8>, until: Instant },
    /// Ours: for as long as what it asked for takes.
    Ours,
    /// The client's: to take the answer, before long.
    Taking { line: Vec<u8>, sent: usize, until: Instant },
}

impl Server {
    /// Listens at `path`, in place of whoever did before: the run directory's lock says that nobody does now.
    pub(in crate::control) fn bind(path: PathBuf) -> io::Result<Self> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // Whoever was quick enough to connect before this line is told apart by his credentials.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path, clients: Vec::new(), next: 0, paused: None })
    }

    /// What to wait for.
    pub(in crate::control) fn polled(&self) -> impl Iterator<Item = PollFd<'_>> {
        let accepts = self.clients.len() < CLIENTS && self.paused.is_none();
        let listener = accepts.then(|| PollFd::new(&self.listener, PollFlags::IN));
        let clients = self.clients.iter().map(|client| {
            let events = match client.turn {
                Turn::Asking { .. } => PollFlags::IN,
                // That it went away is told unasked.
                Turn::Ours => PollFlags::empty(),
                Turn::Taking { .. } => PollFlags::OUT,
            };
            PollFd::new(&client.stream, events)
        });
        listener.into_iter().chain(clients)
    }

    /// When to look although nothing happened.
    pub(in crate::control) fn wakes(&self) -> Option<Instant> {
        self.clients.iter().filter_map(Client::until).chain(self.paused).min()
    }

    /// Takes in what was asked since the last look. Each of these is owed an [`answer`](Self::answer).
    pub(in crate::control) fn requests(&mut self) -> Vec<(ClientId, Request)> {
        let now = Instant::now();
        self.accept(now);
        let mut requests = Vec::new();
        self.clients.retain_mut(|client| client.go_on(now, &mut requests));
        requests
    }

    /// Answers. A client that went away meanwhile is none any more.
    pub(in crate::control) fn answer(&mut self, to: ClientId, answer: &Answer) {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == to) else { return };
        client.answer(answer);
        // Most answers fit the socket at once.
        let now = Instant::now();
        self.clients.retain_mut(|client| client.id != to || client.go_on(now, &mut Vec::new()));
    }

    #[cfg(test)]
    pub(super) fn clients(&self) -> Vec<ClientId> {
        self.clients.iter().map(|client| client.id).collect()
    }

    fn accept(&mut self, now: Instant) {
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
        }
        while self.clients.len() < CLIENTS && self.paused.is_none() {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    log::warn!("{}: {error}", self.path.display());
                    self.paused = Some(now + PAUSE);
                    return;
                }
            };
            if !is_ours(&stream) || stream.set_nonblocking(true).is_err() {
                continue;
            }
            self.next += 1;
            let turn = Turn::Asking { line: Vec::new(), until: now + PATIENCE };
            self.clients.push(Client { id: ClientId(self.next), stream, turn });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Client {
    fn until(&self) -> Option<Instant> {
        match &self.turn {
            Turn::Asking { until, .. } | Turn::Taking { until, .. } => Some(*until),
            Turn::Ours => None,
        }
    }

    fn answer(&mut self, answer: &Answer) {
        // Numbers, texts, and maps by text: there is nothing that cannot be written.
        let mut line = serde_json::to_vec(answer).unwrap_or_default();
        line.push(b'\n');
        self.turn = Turn::Taking { line, sent: 0, until: Instant::now() + PATIENCE };
    }

    /// Goes as far as it goes; false if the client is done with, one way or the other.
    fn go_on(&mut self, now: Instant, requests: &mut Vec<(ClientId, Request)>) -> bool {
        if self.until().is_some_and(|until| until <= now) {
            return false;
        }
        let went = match &mut self.turn {
            Turn::Asking { line, .. } => match read_line(&mut self.stream, line) {
                Ok(false) => Ok(true),
                Ok(true) => {
                    match serde_json::from_slice(line) {
                        Ok(request) => {
                            self.turn = Turn::Ours;
                            requests.push((self.id, request));
                        }
                        Err(error) => {
                            self.answer(&Answer::Failed(format!("not understood: {error}")));
                            return self.go_on(now, requests);
                        }
                    }
                    Ok(true)
                }
                Err(error) => Err(error),
            },
            // What it says now is not listened to.
            Turn::Ours => self.stream.read(&mut [0; 64]).map(|bytes| bytes > 0),
            Turn::Taking { line, sent, .. } => write_rest(&mut self.stream, line, sent).map(|done| !done),
        };
        went.unwrap_or_else(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

/// Reads up to the end of a line; whether that has come.
fn read_line(stream: &mut UnixStream, line: &mut Vec<u8>) -> io::Result<bool> {
    let mut bytes = [0; 512];
    while line.len() < REQUEST {
        let count = stream.read(&mut bytes)?;
        let read = bytes.get(..count).unwrap_or_default();
        if read.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(read);
        if read.contains(&b'\n') {
            return Ok(true);
        }
    }
    Err(ErrorKind::InvalidData.into())
}

/// Writes what is left; whether that was all.
fn write_rest(stream: &mut UnixStream, line: &[u8], sent: &mut usize) -> io::Result<bool> {
    while let Some(rest) = line.get(*sent..).filter(|rest| !rest.is_empty()) {
        *sent += stream.write(rest)?;
    }
    Ok(true)
}

/// Whether the one who connected is root, or who this process is.
fn is_ours(stream: &UnixStream) -> bool {
    socket_peercred(stream).is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}
