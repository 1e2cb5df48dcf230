//! Event channels: evtchn, one descriptor each.
//!
//! The kernel masks a channel when it delivers an event and unmasks it when its port is written (lateeoi), which is
//! what [`EventChannel`] wants. An event that comes meanwhile stays pending in Xen and is delivered then.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::device::EVTCHN;
use super::uapi::{BindInterdomain, BindUnboundPort, Notify, call};
use crate::counters::Counters;
use crate::{DomId, Error, EventChannel, Port, PortFault};

/// One end.
pub(super) struct Channel {
    device: OwnedFd,
    port: Port,
    counters: Arc<Counters>,
}

impl Channel {
    /// Binds another domain's port.
    pub(super) fn bind(domain: DomId, remote: Port, counters: &Arc<Counters>) -> Result<Self, Error> {
        let device = EVTCHN.open()?;
        let mut bind = BindInterdomain { remote_domain: domain.0.into(), remote_port: remote.0 };
        // SAFETY: no counts, no pointers.
        let port = unsafe { call(&device, &mut bind) }.map_err(|errno| match errno {
            Errno::SRCH => Error::NoDomain { domain },
            Errno::INVAL => Error::Port { domain, port: remote, fault: PortFault::Refused },
            errno => Error::system("binding an event channel")(errno),
        })?;
        Ok(Self::new(device, port, counters))
    }

    /// A port another domain can bind.
    pub(super) fn allocate(remote: DomId, counters: &Arc<Counters>) -> Result<Self, Error> {
        let device = EVTCHN.open()?;
        let mut bind = BindUnboundPort { remote_domain: remote.0.into() };
        // SAFETY: no counts, no pointers.
        let port = unsafe { call(&device, &mut bind) }.map_err(|errno| match errno {
            Errno::SRCH => Error::NoDomain { domain: remote },
            Errno::NOSPC => Error::NoSpace { what: "event channels" },
            errno => Error::system("allocating an event channel")(errno),
        })?;
        Ok(Self::new(device, port, counters))
    }

    fn new(device: OwnedFd, port: u32, counters: &Arc<Counters>) -> Self {
        counters.channels_opened.add(1);
        Self { device, port: Port(port), counters: Arc::clone(counters) }
    }
}

impl EventChannel for Channel {
    fn port(&self) -> Port {
        self.port
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    fn notify(&self) -> Result<(), Error> {
        // SAFETY: no counts, no pointers.
        unsafe { call(&self.device, &mut Notify { port: self.port.0 }) }
            .map_err(Error::system("notifying an event channel"))?;
        self.counters.notified.add(1);
        Ok(())
    }

    fn acknowledge(&self) -> Result<bool, Error> {
        // The only port of this descriptor, and masked until it is written: there is never more than one.
        let mut port = [0; 4];
        loop {
            match rustix::io::read(&self.device, &mut port) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(false),
                Ok(_) => {
                    self.counters.events.add(1);
                    return Ok(true);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::system("reading an event channel")(errno)),
            }
        }
    }

    fn unmask(&self) -> Result<(), Error> {
        rustix::io::write(&self.device, &self.port.0.to_ne_bytes())
            .map(drop)
            .map_err(Error::system("unmasking an event channel"))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // Closing the descriptor closes the port.
        self.counters.channels_closed.add(1);
    }
}
