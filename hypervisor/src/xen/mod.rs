//! Xen, through the devices Linux has for it; no Xen library, no hypercall of our own.
//!
//! ```text
//!   Backend::map       /dev/xen/gntdev    MAP_GRANT_REF, mmap       drop: munmap, UNMAP_GRANT_REF
//!   Backend::copier    /dev/xen/gntdev    GRANT_COPY, a status per segment
//!   Backend::bind      /dev/xen/evtchn    BIND_INTERDOMAIN          one descriptor per channel; drop: close
//!   Frontend::share    /dev/xen/gntalloc  ALLOC_GREF, mmap          drop: DEALLOC_GREF, munmap
//!   Frontend::allocate /dev/xen/evtchn    BIND_UNBOUND_PORT
//! ```
//!
//! What only Xen does: a page that the other domain has mapped can be revoked, and Linux keeps it back until that
//! mapping ends, so `Busy` is never said; why a port was refused is not known (evtchn says EINVAL for all reasons);
//! a copier of a domain that is gone is made, and its copies are refused one by one.

mod channel;
mod copier;
mod device;
mod grants;
mod pages;
mod uapi;

use std::sync::Arc;

use self::channel::Channel;
use self::copier::XenCopier;
use self::device::Device;
use crate::counters::Counters;
use crate::{
    Access, Backend, Copier, Counted, DomId, Error, EventChannel, Frontend, GrantRef, Mapping, Port, Shared,
    Statistics,
};

/// Opens the devices, as the domain `domain`: the number only labels this end, Xen knows who calls.
///
/// A guest that only shares needs no gntdev and a backend no gntalloc, so one of the two may be missing until it is
/// used.
///
/// # Errors
/// [`Error::Device`], naming the device and what is probably the matter.
pub fn open(domain: DomId) -> Result<Xen, Error> {
    device::EVTCHN.open()?;
    let (gntdev, gntalloc) = (Device::open(&device::GNTDEV), Device::open(&device::GNTALLOC));
    match (gntdev, gntalloc) {
        (Err(error), Err(_)) => Err(error),
        (gntdev, gntalloc) => Ok(Xen {
            domain,
            gntdev: gntdev.ok().map(Arc::new),
            gntalloc: gntalloc.ok().map(Arc::new),
            counters: Arc::default(),
        }),
    }
}

/// This domain on Xen.
pub struct Xen {
    domain: DomId,
    gntdev: Option<Arc<Device>>,
    gntalloc: Option<Arc<Device>>,
    counters: Arc<Counters>,
}

impl Xen {
    fn gntdev(&self) -> Result<Arc<Device>, Error> {
        device::opened(&self.gntdev, &device::GNTDEV)
    }

    fn gntalloc(&self) -> Result<Arc<Device>, Error> {
        device::opened(&self.gntalloc, &device::GNTALLOC)
    }
}

impl Counted for Xen {
    fn statistics(&self) -> Statistics {
        self.counters.snapshot()
    }
}

impl Backend for Xen {
    fn map(&self, domain: DomId, refs: &[GrantRef]) -> Result<Mapping, Error> {
        grants::map(self.gntdev()?, domain, refs, &self.counters)
    }

    fn copier(&self, domain: DomId) -> Result<Box<dyn Copier>, Error> {
        Ok(Box::new(XenCopier::new(self.gntdev()?, domain, Arc::clone(&self.counters))))
    }

    fn bind(&self, domain: DomId, remote: Port) -> Result<Box<dyn EventChannel>, Error> {
        Ok(Box::new(Channel::bind(domain, remote, &self.counters)?))
    }
}

impl Frontend for Xen {
    fn domain(&self) -> DomId {
        self.domain
    }

    fn share(&self, with: DomId, pages: usize, access: Access) -> Result<Shared, Error> {
        pages::share(self.gntalloc()?, with, pages, access)
    }

    fn allocate(&self, remote: DomId) -> Result<Box<dyn EventChannel>, Error> {
        Ok(Box::new(Channel::allocate(remote, &self.counters)?))
    }
}

#[cfg(test)]
mod tests;
