//! The simulated hypervisor, whose event channels and copies a test can make fail as a whole.

use hypervisor::sim::Sim;
use hypervisor::{
    Backend, Copier, Copy, Counted, DomId, Error, EventChannel, GrantRef, Mapping, Port, Shared, Statistics,
};
use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What fails from now on, and how often it has.
#[derive(Default)]
pub struct Switches {
    pub channel: AtomicBool,
    pub unmask: AtomicBool,
    pub copies: AtomicBool,
    pub failed: AtomicUsize,
    /// What the next channel has for a descriptor, in place of its own, and the other end of it.
    pub pipe: Mutex<Option<(PipeReader, PipeWriter)>>,
    /// How many such were still open somewhere when their channel was closed.
    pub kept_open: AtomicUsize,
    /// A ring, of which `rsp_prod` is noted with every notification from now on.
    pub ring: Mutex<Option<Arc<Shared>>>,
    /// What was noted.
    pub announced: Mutex<Vec<u32>>,
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
        Ok(Box::new(self.part(self.sim.copier(domain)?, None)))
    }

    fn bind(&self, domain: DomId, remote: Port) -> Result<Box<dyn EventChannel>, Error> {
        let pipe = self.switches.pipe.lock().unwrap().take();
        Ok(Box::new(self.part(self.sim.bind(domain, remote)?, pipe)))
    }
}

impl Host {
    fn part<T>(&self, inner: T, pipe: Option<(PipeReader, PipeWriter)>) -> Part<T> {
        Part { inner, pipe, switches: Arc::clone(&self.switches) }
    }
}

struct Part<T> {
    inner: T,
    pipe: Option<(PipeReader, PipeWriter)>,
    switches: Arc<Switches>,
}

impl<T> Drop for Part<T> {
    fn drop(&mut self) {
        let Some((reader, mut writer)) = self.pipe.take() else { return };
        drop(reader);
        // What can be written, somebody could read.
        let open = writer.write(b"x").is_ok();
        self.switches.kept_open.fetch_add(open.into(), Ordering::Relaxed);
    }
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
        self.pipe.as_ref().map_or_else(|| self.inner.as_fd(), |(reader, _)| reader.as_fd())
    }

    fn notify(&self) -> Result<(), Error> {
        self.switches.check(&self.switches.channel)?;
        if let Some(ring) = &*self.switches.ring.lock().unwrap() {
            let mut rsp_prod = [0; 4];
            ring.read(8, &mut rsp_prod);
            self.switches.announced.lock().unwrap().push(u32::from_ne_bytes(rsp_prod));
        }
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
