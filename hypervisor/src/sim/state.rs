//! What the broker knows, and the calls that change it.

use std::collections::{BTreeSet, HashMap};
use std::io;

use super::Usage;
use super::domain::Domain;
use super::ports::Channels;
use super::wire::{Answer, MAX_PAGES, TEXTS, call};
use crate::{DomId, Error, GrantRef, Port, PortFault};

/// Domains, connections, channels.
pub(super) struct State {
    channels: Channels,
    /// Every life of a domain that something is left of.
    domains: HashMap<u64, Domain>,
    /// The present life of each domain.
    living: HashMap<DomId, u64>,
    members: HashMap<u64, Member>,
    next: u64,
}

/// One process of a domain, and what ends with it.
struct Member {
    domain: DomId,
    incarnation: u64,
    shares: HashMap<u64, Vec<GrantRef>>,
    mappings: HashMap<u64, (u64, Vec<GrantRef>)>,
    copiers: BTreeSet<(u64, usize)>,
    ports: BTreeSet<Port>,
}

/// The most a domain can be asked to have, of pages and of entries.
const LARGEST: u64 = 1 << 24;

impl State {
    /// No domains.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            channels: Channels::new()?,
            domains: HashMap::new(),
            living: HashMap::new(),
            members: HashMap::new(),
            next: 1,
        })
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Serves one call of a connection.
    pub(super) fn serve(&mut self, connection: u64, words: &[u64]) -> Result<Answer<'_>, Error> {
        let (&name, arguments) = words.split_first().ok_or(Error::Invalid { what: TEXTS[7] })?;
        let one = arguments.first().copied().unwrap_or(0);
        let two = arguments.get(1).copied().unwrap_or(0);
        let three = arguments.get(2).copied().unwrap_or(0);
        if name == call::HELLO {
            return self.hello(connection, DomId(one as u16), two, three);
        }
        if !self.members.contains_key(&connection) {
            return Err(Error::Invalid { what: TEXTS[7] });
        }
        match name {
            call::SHARE => self.share(connection, DomId(one as u16), two, three != 0),
            call::REVOKE => self.revoke(connection, one, two),
            call::RELEASE => self.release(connection, one),
            call::MAP => {
                let numbers = arguments.get(2..).unwrap_or_default();
                self.map(connection, DomId(one as u16), two, numbers)
            }
            call::UNMAP => self.unmap(connection, one),
            call::PEER => self.peer(DomId(one as u16)),
            call::COPIER => self.copier(connection, DomId(one as u16), two),
            call::COPIER_END => self.copier_end(connection, one, two as usize),
            call::ALLOCATE => self.allocate(connection, DomId(one as u16)),
            call::BIND => self.bind(connection, DomId(one as u16), Port(two as u32)),
            call::CLOSE => self.close(connection, Port(one as u32)),
            call::USAGE => {
                let usage = self.usage(DomId(one as u16));
                let words = [usage.granted, usage.mapped, usage.ports, usage.bound, usage.copiers];
                Ok(Answer::words(words.map(|count| count as u64).to_vec()))
            }
            _ => Err(Error::Invalid { what: TEXTS[7] }),
        }
    }

    fn member(&mut self, connection: u64) -> &mut Member {
        self.members.get_mut(&connection).expect("`serve` lets nobody else in")
    }

    /// The domain a connection belongs to; it lives as long as one of its connections.
    fn own(&mut self, connection: u64) -> &mut Domain {
        let incarnation = self.member(connection).incarnation;
        self.domains.get_mut(&incarnation).expect("a domain with a member")
    }

    fn alive(&mut self, incarnation: u64) -> Option<&mut Domain> {
        self.domains.get_mut(&incarnation).filter(|domain| domain.members > 0)
    }

    fn hello(&mut self, connection: u64, id: DomId, pages: u64, entries: u64) -> Result<Answer<'_>, Error> {
        if self.members.contains_key(&connection) {
            return Err(Error::Invalid { what: TEXTS[7] });
        }
        if !(1..=LARGEST).contains(&pages) || !(16..=LARGEST).contains(&entries) {
            return Err(Error::Invalid { what: TEXTS[8] });
        }
        let incarnation = match self.living.get(&id) {
            Some(incarnation) => *incarnation,
            None => {
                let domain =
                    Domain::new(id, pages, entries as u32).map_err(Error::system("making a domain"))?;
                let incarnation = self.number();
                self.domains.insert(incarnation, domain);
                self.living.insert(id, incarnation);
                incarnation
            }
        };
        self.members.insert(
            connection,
            Member {
                domain: id,
                incarnation,
                shares: HashMap::new(),
                mappings: HashMap::new(),
                copiers: BTreeSet::new(),
                ports: BTreeSet::new(),
            },
        );
        let domain = self.domains.get_mut(&incarnation).expect("living");
        domain.members += 1;
        Ok(Answer::with(vec![incarnation, domain.pages], &domain.memory, &self.channels.file))
    }

    fn share(
        &mut self,
        connection: u64,
        with: DomId,
        pages: u64,
        readonly: bool,
    ) -> Result<Answer<'_>, Error> {
        if pages == 0 || pages > MAX_PAGES as u64 {
            return Err(Error::Invalid { what: TEXTS[5] });
        }
        let (first, refs) = self.own(connection).grant(with, pages, readonly)?;
        let share = self.number();
        let mut words = vec![share, first];
        words.extend(refs.iter().map(|gref| u64::from(gref.0)));
        self.member(connection).shares.insert(share, refs);
        Ok(Answer::words(words))
    }

    fn revoke(&mut self, connection: u64, share: u64, index: u64) -> Result<Answer<'_>, Error> {
        let refs = self.member(connection).shares.get(&share);
        let gref = refs.and_then(|refs| refs.get(index as usize)).copied();
        let gref = gref.ok_or(Error::Invalid { what: TEXTS[6] })?;
        self.own(connection).revoke(gref)?;
        Ok(Answer::words(Vec::new()))
    }

    fn release(&mut self, connection: u64, share: u64) -> Result<Answer<'_>, Error> {
        if let Some(refs) = self.member(connection).shares.remove(&share) {
            self.own(connection).release(refs);
        }
        Ok(Answer::words(Vec::new()))
    }

    fn map(
        &mut self,
        connection: u64,
        id: DomId,
        incarnation: u64,
        numbers: &[u64],
    ) -> Result<Answer<'_>, Error> {
        let who = self.member(connection).domain;
        let mapping = self.number();
        let domain = self.alive(incarnation).ok_or(Error::NoDomain { domain: id })?;
        let mut words = vec![mapping];
        let mut refs = Vec::with_capacity(numbers.len());
        for number in numbers {
            let gref = GrantRef(*number as u32);
            match domain.map(who, gref) {
                Ok(frame) => {
                    words.push(frame);
                    refs.push(gref);
                }
                Err(status) => {
                    domain.unmap(&refs);
                    return Err(Error::Grant { domain: domain.id, gref, status });
                }
            }
        }
        self.member(connection).mappings.insert(mapping, (incarnation, refs));
        Ok(Answer::words(words))
    }

    fn unmap(&mut self, connection: u64, mapping: u64) -> Result<Answer<'_>, Error> {
        if let Some((incarnation, refs)) = self.member(connection).mappings.remove(&mapping) {
            self.unmap_of(incarnation, &refs);
        }
        Ok(Answer::words(Vec::new()))
    }

    fn unmap_of(&mut self, incarnation: u64, refs: &[GrantRef]) {
        if let Some(domain) = self.domains.get_mut(&incarnation) {
            domain.unmap(refs);
        }
        self.bury(incarnation);
    }

    /// Forgets a dead domain that nothing is mapped of.
    fn bury(&mut self, incarnation: u64) {
        let left = |domain: &Domain| domain.members > 0 || domain.mapped() > 0;
        if self.domains.get(&incarnation).is_some_and(|domain| !left(domain)) {
            self.domains.remove(&incarnation);
        }
    }

    fn peer(&mut self, id: DomId) -> Result<Answer<'_>, Error> {
        let incarnation = *self.living.get(&id).ok_or(Error::NoDomain { domain: id })?;
        let domain = self.domains.get(&incarnation).expect("living");
        let words = vec![incarnation, domain.pages, u64::from(domain.table.entries())];
        Ok(Answer::with(words, &domain.memory, &domain.table_file))
    }

    fn copier(&mut self, connection: u64, id: DomId, incarnation: u64) -> Result<Answer<'_>, Error> {
        let domain = self.alive(incarnation).ok_or(Error::NoDomain { domain: id })?;
        let slot = domain.add_copier().ok_or(Error::NoSpace { what: "copiers of the domain" })?;
        self.member(connection).copiers.insert((incarnation, slot));
        Ok(Answer::words(vec![slot as u64]))
    }

    fn copier_end(&mut self, connection: u64, incarnation: u64, slot: usize) -> Result<Answer<'_>, Error> {
        if self.member(connection).copiers.remove(&(incarnation, slot))
            && let Some(domain) = self.domains.get_mut(&incarnation)
        {
            domain.remove_copier(slot);
        }
        Ok(Answer::words(Vec::new()))
    }

    fn allocate(&mut self, connection: u64, remote: DomId) -> Result<Answer<'_>, Error> {
        let id = self.member(connection).domain;
        let channel = self.channels.allocate(id, remote).map_err(Error::system("making a channel"))?;
        let channel = channel.ok_or(Error::NoSpace { what: "event channels" })?;
        self.open_port(connection, channel, 0)
    }

    fn bind(&mut self, connection: u64, id: DomId, port: Port) -> Result<Answer<'_>, Error> {
        let me = self.member(connection).domain;
        let incarnation = self.living.get(&id).ok_or(Error::NoDomain { domain: id })?;
        let refused = |fault| Error::Port { domain: id, port, fault };
        let theirs = self.domains.get(incarnation).and_then(|domain| domain.ports.get(&port)).copied();
        let (channel, end) = theirs.ok_or(refused(PortFault::Closed))?;
        let end = self.channels.bind(channel, end, me).map_err(refused)?;
        self.open_port(connection, channel, end)
    }

    /// Numbers an open end: the lowest port that is free, from 1, as Xen does.
    fn open_port(&mut self, connection: u64, channel: usize, end: usize) -> Result<Answer<'_>, Error> {
        let ports = &mut self.own(connection).ports;
        let port = (1..).map(Port).find(|port| !ports.contains_key(port)).expect("fewer ports than numbers");
        ports.insert(port, (channel, end));
        self.member(connection).ports.insert(port);
        let (own, other) = self.channels.events(channel, end);
        Ok(Answer::with(vec![u64::from(port.0), channel as u64, end as u64], own, other))
    }

    fn close(&mut self, connection: u64, port: Port) -> Result<Answer<'_>, Error> {
        if self.member(connection).ports.remove(&port)
            && let Some((channel, end)) = self.own(connection).ports.remove(&port)
        {
            self.channels.close(channel, end);
        }
        Ok(Answer::words(Vec::new()))
    }

    /// A connection has ended, with or without its process: so does all it had.
    pub(super) fn leave(&mut self, connection: u64) {
        if !self.members.contains_key(&connection) {
            return;
        }
        for port in self.member(connection).ports.clone() {
            let _ = self.close(connection, port);
        }
        for (incarnation, slot) in self.member(connection).copiers.clone() {
            let _ = self.copier_end(connection, incarnation, slot);
        }
        let member = self.members.remove(&connection).expect("looked up above");
        for (incarnation, refs) in member.mappings.into_values() {
            self.unmap_of(incarnation, &refs);
        }
        let Some(domain) = self.domains.get_mut(&member.incarnation) else { return };
        domain.release(member.shares.into_values().flatten());
        domain.members -= 1;
        if domain.members == 0 {
            domain.die();
            self.living.remove(&member.domain);
            self.bury(member.incarnation);
        }
    }

    /// What is in use of a domain's, over all its lives.
    pub(super) fn usage(&self, id: DomId) -> Usage {
        let mut usage = Usage::default();
        for domain in self.domains.values().filter(|domain| domain.id == id) {
            usage.granted += domain.granted();
            usage.mapped += domain.mapped();
            usage.ports += domain.ports.len();
            usage.bound +=
                domain.ports.values().filter(|(channel, _)| self.channels.is_bound(*channel)).count();
            usage.copiers += domain.copiers();
        }
        usage
    }
}
