//! The thread that follows the backend's state.
//!
//! ```text
//!   Connected          the size may have changed: read it
//!   Closing            let what is in flight come back, then close
//!   Closed, gone, ..   online: close, start over, give every queue a new ring; else close for good
//! ```

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use blkif::XenbusState;
use hypervisor::Frontend as Hypervisor;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::frontend::handshake;
use crate::queue::{Link, Phase};
use crate::{ConnectOptions, Device, Disk, Error};

/// How often to look although nothing happened: a watch event can be lost to another user of the client.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) struct Control {
    pub(crate) device: Device,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) options: ConnectOptions,
    pub(crate) disk: Arc<Disk>,
    pub(crate) sectors: Arc<AtomicU64>,
    pub(crate) link: Arc<Link>,
}

impl Control {
    pub(crate) fn spawn(self) -> Result<JoinHandle<()>, Error> {
        let thread = thread::Builder::new().name("frontend-control".to_owned());
        thread.spawn(move || self.run()).map_err(Error::system("starting a thread"))
    }

    fn run(&self) {
        while !self.link.is_stopping() {
            match self.device.backend_state() {
                Ok(XenbusState::Connected) => self.resize(),
                Ok(state) => match self.leave(state) {
                    Ok(()) => {}
                    Err(Error::Closed) => return,
                    Err(error) => return self.give_up(&error),
                },
                // Xenstore is away; its client is coming back by itself. Requests flow without it.
                Err(error) => log::debug!("{}: {error}", self.device.path()),
            }
            self.doze();
        }
    }

    fn doze(&self) {
        let mut polled = [
            PollFd::from_borrowed_fd(self.device.events(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.link.control(), PollFlags::IN),
        ];
        let look = Timespec::try_from(LOOK).unwrap_or_default();
        let _ = poll(&mut polled, Some(&look));
        self.device.drain_events();
    }

    /// A backend may rewrite `sectors` while it is connected.
    fn resize(&self) {
        if let Ok(properties) = self.device.properties()
            && self.sectors.swap(properties.sectors.0, Relaxed) != properties.sectors.0
        {
            log::info!("{}: {} sectors now", self.device.path(), properties.sectors);
        }
    }

    /// The backend has left Connected: closes this end, and connects again if the device is to stay.
    fn leave(&self, state: XenbusState) -> Result<(), Error> {
        log::info!("{}: the backend is in state {state:?}", self.device.path());
        if state == XenbusState::Closing {
            self.drain();
        }
        let stays = self.options.reconnect && self.device.is_online();
        self.link.set_phase(if stays { Phase::Gone } else { Phase::Closed });
        // Not where the toolstack has removed the directory: writing would make it again.
        if !matches!(self.device.state()?, XenbusState::Closed | XenbusState::Unknown) {
            self.device.set_state(XenbusState::Closed)?;
        }
        if !stays {
            return Err(Error::Closed);
        }
        let stop = || self.link.is_stopping();
        let restartable = |state| matches!(state, XenbusState::Closed | XenbusState::InitWait);
        self.device.wait_backend_or("the backend to come back", self.options.patience, restartable, stop)?;
        let (disk, rings) = handshake(&self.device, &*self.hypervisor, &self.options, &stop)?;
        let smaller = disk.ring_order < self.disk.ring_order;
        let changed = if smaller { Some("ring size") } else { self.disk.differs(&disk) };
        if let Some(what) = changed {
            return Err(Error::Changed { what });
        }
        self.sectors.store(disk.sectors, Relaxed);
        self.device.set_state(XenbusState::Connected)?;
        self.link.reconnect(rings);
        log::info!("{}: connected again", self.device.path());
        Ok(())
    }

    /// The backend did not come back as it was.
    fn give_up(&self, error: &Error) {
        log::error!("{}: {error}", self.device.path());
        self.link.set_phase(Phase::Closed);
        if let Err(error) = self.device.set_state(XenbusState::Closed) {
            log::debug!("{}: closing: {error}", self.device.path());
        }
    }

    /// Lets responses come back from a backend that is closing; one that takes too long gets no more.
    fn drain(&self) {
        let started = Instant::now();
        while !self.link.is_idle() && !self.link.is_stopping() && started.elapsed() < self.options.patience {
            if !matches!(self.device.backend_state(), Ok(XenbusState::Closing)) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
