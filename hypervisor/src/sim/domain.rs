//! One domain, as the broker knows it: its memory, its grants, who has them mapped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, fallocate};

use super::extents::Extents;
use super::table::{COPIERS, Entry, FIRST_REFERENCE, GrantTable, memory_file};
use crate::{DomId, Error, GrantRef, GrantStatus, PAGE_SIZE, Port};

/// One life of a domain.
pub(super) struct Domain {
    pub(super) id: DomId,
    /// Processes connected as this domain.
    pub(super) members: usize,
    pub(super) memory: OwnedFd,
    pub(super) pages: u64,
    pub(super) table_file: OwnedFd,
    pub(super) table: GrantTable,
    /// Its ports: which end of which channel each is.
    pub(super) ports: BTreeMap<Port, (usize, usize)>,
    frames: Extents,
    free_references: Vec<GrantRef>,
    next_reference: u32,
    /// Frames behind references that are not free.
    granted: HashMap<GrantRef, u64>,
    mapped: HashMap<GrantRef, usize>,
    /// Given back by the domain while in use by others.
    deferred: Vec<GrantRef>,
    copiers: BTreeSet<usize>,
}

impl Domain {
    /// An empty domain.
    pub(super) fn new(id: DomId, pages: u64, entries: u32) -> io::Result<Self> {
        let (table_file, table) = GrantTable::create(entries)?;
        Ok(Self {
            id,
            members: 0,
            memory: memory_file("dixback-sim-memory", pages as usize * PAGE_SIZE)?,
            pages,
            table_file,
            table,
            ports: BTreeMap::new(),
            frames: Extents::new(pages),
            free_references: Vec::new(),
            next_reference: FIRST_REFERENCE,
            granted: HashMap::new(),
            mapped: HashMap::new(),
            deferred: Vec::new(),
            copiers: BTreeSet::new(),
        })
    }

    /// Grants `count` new pages; gives the first frame and the references.
    pub(super) fn grant(
        &mut self,
        with: DomId,
        count: u64,
        readonly: bool,
    ) -> Result<(u64, Vec<GrantRef>), Error> {
        let unused = u64::from(self.table.entries().saturating_sub(self.next_reference));
        if self.free_references.len() as u64 + unused < count {
            return Err(Error::NoSpace { what: "grant references" });
        }
        let first = self.frames.take(count).ok_or(Error::NoSpace { what: "memory of the domain" })?;
        let refs: Vec<GrantRef> = (first..first + count)
            .map(|frame| {
                // Those given back last are given out first, as in Linux: stale uses of one meet a
                // stranger's page soon, not in production.
                let gref = self.free_references.pop().unwrap_or_else(|| {
                    self.next_reference += 1;
                    GrantRef(self.next_reference - 1)
                });
                self.granted.insert(gref, frame);
                self.table.set(gref, Entry::permit(with, frame as u32, readonly));
                gref
            })
            .collect();
        Ok((first, refs))
    }

    /// Takes back the grant of one page; page and reference stay the domain's.
    pub(super) fn revoke(&mut self, gref: GrantRef) -> Result<(), Error> {
        if self.mapped.contains_key(&gref) {
            return Err(Error::Busy { gref });
        }
        let entry = self.table.invalidate(gref);
        if self.quiesce() {
            return Ok(());
        }
        self.table.set(gref, entry);
        Err(Error::Busy { gref })
    }

    /// Takes grants and their pages back, those in use when that use ends.
    pub(super) fn release(&mut self, refs: impl IntoIterator<Item = GrantRef>) {
        self.deferred.extend(refs);
        self.reap();
    }

    fn reap(&mut self) {
        let (busy, mut idle): (Vec<_>, Vec<_>) =
            self.deferred.drain(..).partition(|gref| self.mapped.contains_key(gref));
        self.deferred = busy;
        if idle.is_empty() {
            return;
        }
        for gref in &idle {
            self.table.invalidate(*gref);
        }
        if !self.quiesce() {
            self.deferred.append(&mut idle);
            return;
        }
        let mut frames: Vec<u64> = idle.iter().filter_map(|gref| self.granted.remove(gref)).collect();
        self.free_references.extend(idle);
        frames.sort_unstable();
        for run in frames.chunk_by(|one, next| one + 1 == *next) {
            self.clear(run[0], run.len() as u64);
            run.iter().for_each(|frame| self.frames.give(*frame));
        }
    }

    /// Makes frames read as zeros again, and their memory the host's.
    fn clear(&self, first: u64, count: u64) {
        let page = PAGE_SIZE as u64;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = fallocate(&self.memory, flags, first * page, count * page) {
            log::warn!("{}: frames {first}+{count} keep their content: {error}", self.id);
        }
    }

    fn quiesce(&self) -> bool {
        self.table.quiesce(self.copiers.iter().copied())
    }

    /// Notes that `who` maps the page, read-write, and gives its frame.
    pub(super) fn map(&mut self, who: DomId, gref: GrantRef) -> Result<u64, GrantStatus> {
        let entry = self.table.entry(gref)?;
        let status = entry.check(who, true);
        if !status.is_okay() {
            return Err(status);
        }
        if u64::from(entry.frame) >= self.pages {
            return Err(GrantStatus::BAD_PAGE);
        }
        self.table.set(gref, entry.in_use(true));
        *self.mapped.entry(gref).or_default() += 1;
        Ok(u64::from(entry.frame))
    }

    /// Notes that mappings have ended.
    pub(super) fn unmap(&mut self, refs: &[GrantRef]) {
        for gref in refs {
            let Some(count) = self.mapped.get_mut(gref) else { continue };
            *count -= 1;
            if *count == 0 {
                self.mapped.remove(gref);
                if let Ok(entry) = self.table.entry(*gref) {
                    self.table.set(*gref, entry.in_use(false));
                }
            }
        }
        self.reap();
    }

    /// A slot for one more copier.
    pub(super) fn add_copier(&mut self) -> Option<usize> {
        let slot = (0..COPIERS).find(|slot| !self.copiers.contains(slot))?;
        self.copiers.insert(slot);
        Some(slot)
    }

    /// Frees a copier's slot, even of one that was killed inside a batch.
    pub(super) fn remove_copier(&mut self, slot: usize) {
        if self.copiers.remove(&slot) {
            self.table.slot(slot).store(0, std::sync::atomic::Ordering::SeqCst);
        }
    }

    /// The domain's last process has gone: nothing of it can be reached any more, except what is mapped.
    pub(super) fn die(&mut self) {
        self.table.set_dead();
        for gref in self.granted.drain().map(|(gref, _)| gref) {
            self.table.invalidate(gref);
        }
        self.deferred.clear();
    }

    /// Pages granted.
    pub(super) fn granted(&self) -> usize {
        self.granted.len()
    }

    /// Grants mapped, each as often as it is.
    pub(super) fn mapped(&self) -> usize {
        self.mapped.values().sum()
    }

    /// Copiers.
    pub(super) fn copiers(&self) -> usize {
        self.copiers.len()
    }
}
