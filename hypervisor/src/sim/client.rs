//! A process that is part of a domain: [`connect`] and the handle it gives.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use super::channel::{self, Channel};
use super::copier::SimCopier;
use super::table::GrantTable;
use super::wire::{self, MAX_PAGES, Packet, call};
use super::{Options, Usage};
use crate::counters::Counters;
use crate::memory::{Pages, Region};
use crate::{
    Access, Backend, Copier, Counted, DomId, Error, EventChannel, Frontend, GrantRef, Mapping, PAGE_SIZE,
    Port, Revoke, Shared, Statistics,
};

/// Connects to the broker of `dir` as the domain `domain`, with memory and grant table of the default
/// size. Several processes may be one domain.
///
/// # Errors
/// [`Error::System`] if no broker runs there; [`Error::Disconnected`].
pub fn connect(dir: &Path, domain: DomId) -> Result<Sim, Error> {
    connect_with(dir, domain, Options::default())
}

/// [`connect`], with sizes chosen. They are the first process's to choose; others of the same domain get
/// what it has.
///
/// # Errors
/// As [`connect`]; [`Error::Invalid`] for sizes out of range.
pub fn connect_with(dir: &Path, domain: DomId, options: Options) -> Result<Sim, Error> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(Error::system("making a socket"))?;
    let address =
        SocketAddrUnix::new(super::socket_path(dir)).map_err(Error::system("the broker's socket"))?;
    rustix::net::connect(&socket, &address).map_err(Error::system("connecting to the broker"))?;
    let link = Link { socket };
    let hello =
        [call::HELLO, u64::from(domain.0), options.memory_pages as u64, u64::from(options.grant_entries)];
    let mut answer = link.call(&hello)?;
    let pages = word(&answer, 1)? as usize;
    let channels = descriptor(&mut answer, 1)?;
    let memory = descriptor(&mut answer, 0)?;
    let handle = Handle {
        id: domain,
        memory: Region::new(memory.as_fd(), pages * PAGE_SIZE).map_err(Error::system("mapping memory"))?,
        channels: Region::new(channels.as_fd(), channel::REGION).map_err(Error::system("mapping memory"))?,
        link: Mutex::new(link),
        peers: Mutex::default(),
        counters: Counters::default(),
    };
    Ok(Sim { handle: Arc::new(handle) })
}

/// A domain's handle: both sides of the seam. Clones are the same connection, which ends with the last of
/// them and of everything made from them.
#[derive(Clone)]
pub struct Sim {
    handle: Arc<Handle>,
}

impl Sim {
    /// What is in use of a domain's, and by it: for tests that look for leaks.
    ///
    /// # Errors
    /// [`Error::Disconnected`].
    pub fn usage(&self, domain: DomId) -> Result<Usage, Error> {
        let answer = self.handle.call(&[call::USAGE, u64::from(domain.0)])?;
        Ok(Usage {
            granted: word(&answer, 0)? as usize,
            mapped: word(&answer, 1)? as usize,
            ports: word(&answer, 2)? as usize,
            bound: word(&answer, 3)? as usize,
            copiers: word(&answer, 4)? as usize,
        })
    }
}

/// What all that is made from a connection holds on to.
pub(super) struct Handle {
    id: DomId,
    memory: Region,
    channels: Region,
    link: Mutex<Link>,
    peers: Mutex<HashMap<DomId, Weak<Peer>>>,
    counters: Counters,
}

/// Another domain's memory and grant table, mapped once per process.
pub(super) struct Peer {
    pub(super) incarnation: u64,
    pub(super) memory: Region,
    pub(super) table: GrantTable,
    file: OwnedFd,
}

struct Link {
    socket: OwnedFd,
}

impl Link {
    fn call(&self, words: &[u64]) -> Result<Packet, Error> {
        let gone = |_| Error::Disconnected;
        wire::send(self.socket.as_fd(), words, &[]).map_err(gone)?;
        let packet = wire::receive(self.socket.as_fd()).map_err(gone)?.ok_or(Error::Disconnected)?;
        wire::open_answer(packet)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing inside is left half-changed by a panic: one packet out, one in.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn word(packet: &Packet, index: usize) -> Result<u64, Error> {
    packet.words.get(index).copied().ok_or(Error::Disconnected)
}

fn descriptor(packet: &mut Packet, index: usize) -> Result<OwnedFd, Error> {
    if index < packet.descriptors.len() {
        return Ok(packet.descriptors.swap_remove(index));
    }
    Err(Error::Disconnected)
}

impl Handle {
    /// The domain this process is part of.
    pub(super) fn id(&self) -> DomId {
        self.id
    }

    /// The words of all event channels.
    pub(super) fn channels(&self) -> &Region {
        &self.channels
    }

    /// What this handle counts.
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    fn call(&self, words: &[u64]) -> Result<Packet, Error> {
        lock(&self.link).call(words)
    }

    /// Tells the broker that something is given up. If the broker is gone, so is what it knew of it.
    pub(super) fn forget(&self, words: &[u64]) {
        if let Err(error) = self.call(words) {
            log::debug!("giving something back to the broker: {error}");
        }
    }

    /// The domain's memory and grant table, as of its present life.
    fn peer(&self, domain: DomId) -> Result<Arc<Peer>, Error> {
        let mut peers = lock(&self.peers);
        if let Some(peer) = peers.get(&domain).and_then(Weak::upgrade)
            && !peer.table.is_dead()
        {
            return Ok(peer);
        }
        let mut answer = self.call(&[call::PEER, u64::from(domain.0)])?;
        let (pages, entries) = (word(&answer, 1)? as usize, word(&answer, 2)? as u32);
        let table = descriptor(&mut answer, 1)?;
        let file = descriptor(&mut answer, 0)?;
        let mapping = || Error::system("mapping a domain's memory");
        let peer = Arc::new(Peer {
            incarnation: word(&answer, 0)?,
            memory: Region::new(file.as_fd(), pages * PAGE_SIZE).map_err(mapping())?,
            table: GrantTable::attach(table.as_fd(), entries).map_err(mapping())?,
            file,
        });
        peers.insert(domain, Arc::downgrade(&peer));
        Ok(peer)
    }

    fn channel(self: &Arc<Self>, words: &[u64]) -> Result<Box<dyn EventChannel>, Error> {
        let mut answer = self.call(words)?;
        let other = descriptor(&mut answer, 1)?;
        let own = descriptor(&mut answer, 0)?;
        self.counters.channels_opened.add(1);
        Ok(Box::new(Channel {
            handle: Arc::clone(self),
            port: Port(word(&answer, 0)? as u32),
            channel: word(&answer, 1)? as usize,
            end: word(&answer, 2)? as usize,
            own,
            other,
        }))
    }
}

impl Counted for Sim {
    fn statistics(&self) -> Statistics {
        self.handle.counters.snapshot()
    }
}

/// Ring pages mapped. The order of the fields is the order of the drop: unmapped here, then said so.
struct Mapped {
    _pages: Pages,
    _grants: MappedGrants,
}

struct MappedGrants {
    handle: Arc<Handle>,
    mapping: u64,
    pages: u64,
}

impl Drop for MappedGrants {
    fn drop(&mut self) {
        self.handle.counters.unmapped.add(self.pages);
        self.handle.forget(&[call::UNMAP, self.mapping]);
    }
}

impl Backend for Sim {
    fn map(&self, domain: DomId, refs: &[GrantRef]) -> Result<Mapping, Error> {
        if refs.is_empty() || refs.len() > MAX_PAGES {
            return Err(Error::Invalid { what: wire::TEXTS[5] });
        }
        let peer = self.handle.peer(domain)?;
        let mut words = vec![call::MAP, u64::from(domain.0), peer.incarnation];
        words.extend(refs.iter().map(|gref| u64::from(gref.0)));
        let answer = self.handle.call(&words)?;
        // From here on dropping `grants` gives them back.
        let grants = MappedGrants {
            handle: Arc::clone(&self.handle),
            mapping: word(&answer, 0)?,
            pages: refs.len() as u64,
        };
        self.handle.counters.mapped.add(grants.pages);
        let frames = answer.words.get(1..).ok_or(Error::Disconnected)?;
        let pages = Pages::new(peer.file.as_fd(), frames).map_err(Error::system("mapping grants"))?;
        let (base, len) = (pages.base(), pages.len());
        // SAFETY: `Pages` keeps just these bytes mapped, as a mapping nothing makes a reference to.
        Ok(unsafe { Mapping::new(base, len, Mapped { _pages: pages, _grants: grants }) })
    }

    fn copier(&self, domain: DomId) -> Result<Box<dyn Copier>, Error> {
        let peer = self.handle.peer(domain)?;
        let answer = self.handle.call(&[call::COPIER, u64::from(domain.0), peer.incarnation])?;
        let slot = word(&answer, 0)? as usize;
        let counters = self.handle.counters.copier();
        Ok(Box::new(SimCopier { handle: Arc::clone(&self.handle), peer, slot, counters }))
    }

    fn bind(&self, domain: DomId, remote: Port) -> Result<Box<dyn EventChannel>, Error> {
        self.handle.channel(&[call::BIND, u64::from(domain.0), u64::from(remote.0)])
    }
}

/// Grants of one `share`.
struct Granted {
    handle: Arc<Handle>,
    share: u64,
}

impl Revoke for Granted {
    fn revoke(&self, index: usize) -> Result<(), Error> {
        self.handle.call(&[call::REVOKE, self.share, index as u64]).map(drop)
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        self.handle.forget(&[call::RELEASE, self.share]);
    }
}

impl Frontend for Sim {
    fn domain(&self) -> DomId {
        self.handle.id
    }

    fn share(&self, with: DomId, pages: usize, access: Access) -> Result<Shared, Error> {
        let readonly = u64::from(access == Access::ReadOnly);
        let answer = self.handle.call(&[call::SHARE, u64::from(with.0), pages as u64, readonly])?;
        let granted = Granted { handle: Arc::clone(&self.handle), share: word(&answer, 0)? };
        let start = word(&answer, 1)? as usize * PAGE_SIZE;
        let refs: Box<[GrantRef]> = answer.words[2..].iter().map(|gref| GrantRef(*gref as u32)).collect();
        assert!(start + refs.len() * PAGE_SIZE <= self.handle.memory.len(), "frames of this domain");
        let base = NonNull::new(self.handle.memory.base().wrapping_add(start)).expect("not the null page");
        // SAFETY: inside this domain's memory (checked), which `granted` keeps mapped through the handle;
        // the broker gave these frames to nobody else.
        Ok(unsafe { Shared::new(base, refs, Box::new(granted)) })
    }

    fn allocate(&self, remote: DomId) -> Result<Box<dyn EventChannel>, Error> {
        self.handle.channel(&[call::ALLOCATE, u64::from(remote.0)])
    }
}
