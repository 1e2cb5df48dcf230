//! The server's one thread: sockets in, sockets out.
//!
//! ```text
//!   poll ──► accept ──► read ──► Core ──► write, and go on with requests that waited for room ──► poll
//! ```
//!
//! Nothing here waits but poll: sockets do not block, and a client that does not read only fills its own
//! output.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::core::{Core, Id};
use super::sockets::Sockets;

/// Bytes read from one client before the others have their turn.
const CHUNK: usize = 16 << 10;
/// Connections accepted on one socket before the others have their turn.
const ACCEPTS: usize = 32;
/// How long accepting rests after it failed, most likely for want of descriptors.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// What the thread and the handle share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    wake: OwnedFd,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) core: Core,
    pub(super) sockets: Sockets,
    pub(super) stopping: bool,
}

impl Shared {
    pub(super) fn new(core: Core, sockets: Sockets, wake: OwnedFd) -> Shared {
        Shared { state: Mutex::new(State { core, sockets, stopping: false }), wake }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the thread look at the state again.
    pub(super) fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// Serves until the state says stop.
pub(super) fn run(shared: &Shared) {
    let mut streams = BTreeMap::new();
    let mut resting = false;
    loop {
        let ready = wait(shared, &streams, resting);
        let mut state = shared.lock();
        if state.stopping {
            return;
        }
        let state = &mut *state;
        resting = false;
        for (domain, listener) in ready.listeners {
            resting |= accept(&mut streams, &mut state.core, domain, &listener).is_err();
        }
        for (id, found) in ready.clients {
            if let Some(stream) = streams.get_mut(&id) {
                read(&mut state.core, id, stream, found);
            }
        }
        streams.retain(|&id, stream| {
            let open = settle(state, id, stream);
            if !open {
                state.core.disconnect(id);
            }
            open
        });
    }
}

/// What poll found.
#[derive(Default)]
struct Ready {
    listeners: Vec<(u16, Arc<UnixListener>)>,
    clients: Vec<(Id, PollFlags)>,
}

fn wait(shared: &Shared, streams: &BTreeMap<Id, UnixStream>, resting: bool) -> Ready {
    let (listeners, wanted) = {
        let state = shared.lock();
        let listeners: Vec<_> = if resting { Vec::new() } else { state.sockets.listeners().collect() };
        let wanted: Vec<_> = streams.keys().map(|&id| wanted(&state.core, id)).collect();
        (listeners, wanted)
    };
    let mut polled = vec![PollFd::new(&shared.wake, PollFlags::IN)];
    polled.extend(listeners.iter().map(|(_, listener)| PollFd::new(listener, PollFlags::IN)));
    polled.extend(streams.values().zip(wanted).map(|(stream, wanted)| PollFd::new(stream, wanted)));
    if poll(&mut polled, resting.then_some(&REST)).is_err() {
        return Ready::default();
    }
    let found: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
    drop(polled);
    let _ = rustix::io::read(&shared.wake, &mut [0; 8]);
    let mut found = found.into_iter().skip(1);
    let mut is_ready = || found.next().unwrap_or(PollFlags::empty());
    Ready {
        listeners: listeners.into_iter().filter(|_| !is_ready().is_empty()).collect(),
        clients: streams.keys().map(|&id| (id, is_ready())).filter(|(_, found)| !found.is_empty()).collect(),
    }
}

fn wanted(core: &Core, id: Id) -> PollFlags {
    let mut wanted = PollFlags::empty();
    wanted.set(PollFlags::IN, core.wants_input(id));
    wanted.set(PollFlags::OUT, core.connections.get(&id).is_none_or(|client| client.output.waiting() > 0));
    wanted
}

fn accept(
    streams: &mut BTreeMap<Id, UnixStream>,
    core: &mut Core,
    domain: u16,
    listener: &UnixListener,
) -> std::io::Result<()> {
    for _ in 0..ACCEPTS {
        match listener.accept().and_then(|(stream, _)| stream.set_nonblocking(true).map(|()| stream)) {
            Ok(stream) => match core.connect(domain) {
                Some(id) => drop(streams.insert(id, stream)),
                None => log::debug!("domain {domain} has too many xenstore connections"),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => {
                log::warn!("accepting a xenstore client: {error}");
                return Err(error);
            }
        }
    }
    Ok(())
}

fn read(core: &mut Core, id: Id, stream: &mut UnixStream, found: PollFlags) {
    if !core.wants_input(id) {
        // Whoever is gone will not read what it left unread.
        if found.intersects(PollFlags::HUP | PollFlags::ERR) {
            core.disconnect(id);
        }
        return;
    }
    let mut buffer = [0; CHUNK];
    match stream.read(&mut buffer) {
        Ok(0) => core.disconnect(id),
        Ok(count) => core.receive(id, buffer.get(..count).unwrap_or_default()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        Err(_) => core.disconnect(id),
    }
}

/// Writes what a client will take; requests that waited for room go on as there is some. False: it is gone.
fn settle(state: &mut State, id: Id, stream: &UnixStream) -> bool {
    loop {
        // Before anybody can read the answer that says a domain has its socket.
        state.sockets.follow(&state.core.sockets);
        let Some(client) = state.core.connections.get_mut(&id) else {
            return false;
        };
        while client.output.waiting() > 0 {
            match send(stream, client.output.next(), SendFlags::NOSIGNAL) {
                Ok(count) => client.output.advance(count),
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        state.core.process(id);
        let waiting = state.core.connections.get(&id).map(|client| client.output.waiting());
        match waiting {
            None => return false,
            Some(0) => return true,
            Some(_) => {}
        }
    }
}
