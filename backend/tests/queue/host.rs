//! The simulated hypervisor, whose event channels and copies a test can make fail as a whole.

use hypervisor::sim::Sim;
use hypervisor::{
    Backend, Copier, Copy, Counted, DomId, Error, EventChannel, GrantRef, Mapping, Port, Statistics,
};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What fails from now on, and how often it has.
#[derive(Default)]
pub struct Switches {
    pub channel: AtomicBool,
    pub unmask: AtomicBool,
    pub copies: AtomicBool,
    pub failed: AtomicUsize,
}

impl Switches {
    fn check(&self, switch: &AtomicBool) -> Result<(), Error> {
        if !switch.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        Err(Error::Invalid { what: "the test wants it so" })
    }
}

pub struct Host {
    pub sim: Arc<Sim>,
    pub switches: Arc<Switches>,
}

impl Counted for Host {
    fn statistics(&self) -> Statistics {
        self.sim.statistics()
    }
}

impl Backend for Host {
    fn map(&self, domain: DomId, refs: &[GrantRef]) -> Result<Mapping, Error> {
        self.sim.map(domain, refs)
    }

    fn copier(&self, domain: DomId) -> Result<Box<dyn Copier>, Error> {
        Ok(Box::new(Part { inner: self.sim.copier(domain)?, switches: Arc::clone(&self.switches) }))
    }

    fn bind(&self, domain: DomId, remote: Port) -> Result<Box<dyn EventChannel>, Error> {
        Ok(Box::new(Part { inner: self.sim.bind(domain, remote)?, switches: Arc::clone(&self.switches) }))
    }
}

struct Part<T> {
    inner: T,
    switches: Arc<Switches>,
}

impl Copier for Part<Box<dyn Copier>> {
    unsafe fn copy(&mut self, batch: &mut [Copy]) -> Result<(), Error> {
        self.switches.check(&self.switches.copies)?;
        // SAFETY: the caller's promise.
        unsafe { self.inner.copy(batch) }
    }
}

impl EventChannel for Part<Box<dyn EventChannel>> {
    fn port(&self) -> Port {
        self.inner.port()
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }

    fn notify(&self) -> Result<(), Error> {
        self.switches.check(&self.switches.channel)?;
        self.inner.notify()
    }

    fn acknowledge(&self) -> Result<bool, Error> {
        self.switches.check(&self.switches.channel)?;
        self.inner.acknowledge()
    }

    fn unmask(&self) -> Result<(), Error> {
        self.switches.check(&self.switches.channel)?;
        self.switches.check(&self.switches.unmask)?;
        self.inner.unmask()
    }
}
