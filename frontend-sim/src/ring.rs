//! One ring of the frontend's: its pages, shared, and its event channel, allocated.

use std::sync::Arc;

use blkif::{Abi, FrontRing, RingNodes, SharedMemory};
use hypervisor::{Access, DomId, EventChannel, Frontend, PAGE_SIZE, Shared};

use crate::Error;

/// A new ring, with nothing on it, that no backend knows yet.
pub struct Ring {
    /// The ring.
    pub front: FrontRing<SharedMemory>,
    /// Its pages, for their references; the ring itself holds them too.
    pub pages: Arc<Shared>,
    /// Its channel.
    pub event: Box<dyn EventChannel>,
}

impl Ring {
    #[expect(unsafe_code, reason = "shared pages become a ring's memory here, and only here")]
    /// Makes a ring of 2^`order` pages for a backend in domain `backend`.
    ///
    /// # Errors
    /// [`Error::Hypervisor`] when pages, references or ports are used up.
    pub fn new(hypervisor: &dyn Frontend, backend: DomId, order: u32, abi: Abi) -> Result<Self, Error> {
        let pages = Arc::new(hypervisor.share(backend, 1 << order, Access::ReadWrite)?);
        // SAFETY: the pages stay mapped as long as one Arc of them lives, and `SharedMemory` holds one;
        // `Shared` makes no references to them, and nothing else writes here.
        let memory = unsafe { SharedMemory::new(pages.base(), pages.len(), Arc::clone(&pages)) };
        let front = FrontRing::init(memory, abi)?;
        let event = hypervisor.allocate(backend)?;
        debug_assert_eq!(pages.len(), (1 << order) * PAGE_SIZE);
        Ok(Self { front, pages, event })
    }

    /// What the backend is told of it.
    pub fn nodes(&self) -> RingNodes {
        RingNodes {
            refs: self.pages.refs().iter().map(|gref| blkif::GrantRef(gref.0)).collect(),
            port: self.event.port().0,
        }
    }
}
