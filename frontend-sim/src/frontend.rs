//! A connected device: the handshake in its order, the queues, and the way out.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use blkif::{FrontendNodes, XenbusState};
use hypervisor::Frontend as Hypervisor;
use xenstore::Client;

use crate::control::Control;
use crate::disk::Choice;
use crate::queue::{Link, Phase};
use crate::{ConnectOptions, Counters, Device, Disk, Error, Queue, Ring};

/// A connected virtual disk.
///
/// Dropping it closes the device without waiting for the backend; [`disconnect`](Self::disconnect) waits.
pub struct Frontend {
    device: Device,
    disk: Arc<Disk>,
    sectors: Arc<AtomicU64>,
    options: ConnectOptions,
    link: Arc<Link>,
    queues: Vec<Queue>,
    control: Option<JoinHandle<()>>,
}

impl Frontend {
    /// Connects to the device whose frontend directory is `path`, and follows the backend's state from then
    /// on in a thread of its own, which takes the watch events of `client`: give each device a client of
    /// its own.
    ///
    /// # Errors
    /// [`Error::Timeout`] or [`Error::Backend`] if the backend does not take part; [`Error::NoDix`];
    /// [`Error::Negotiation`], [`Error::Profile`] for nodes that make no sense; [`Error::Xenstore`],
    /// [`Error::Hypervisor`].
    pub fn connect(
        hypervisor: &Arc<dyn Hypervisor>,
        client: &Client,
        path: &str,
        options: ConnectOptions,
    ) -> Result<Self, Error> {
        let device = Device::open(client, path)?;
        let (disk, rings) = handshake(&device, &**hypervisor, &options, &|| false)?;
        let disk = Arc::new(disk);
        let link = Arc::new(Link::new(rings.len())?);
        let mut queues = Vec::with_capacity(rings.len());
        for (number, ring) in rings.into_iter().enumerate() {
            queues.push(Queue::new(
                Arc::clone(hypervisor),
                device.backend_domain(),
                ring,
                Arc::clone(&link),
                number,
                Arc::clone(&disk),
                &options,
            )?);
        }
        device.set_state(XenbusState::Connected)?;
        let sectors = Arc::new(AtomicU64::new(disk.sectors));
        let control = Control {
            device: device.clone(),
            hypervisor: Arc::clone(hypervisor),
            options: options.clone(),
            disk: Arc::clone(&disk),
            sectors: Arc::clone(&sectors),
            link: Arc::clone(&link),
        };
        let control = control.spawn()?;
        Ok(Self { device, disk, sectors, options, link, queues, control: Some(control) })
    }

    /// What was negotiated.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The disk's size now, in sectors of 512 bytes: the backend may have changed it since.
    pub fn sectors(&self) -> u64 {
        self.sectors.load(Relaxed)
    }

    /// The device in xenstore.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The queues.
    pub fn queues_mut(&mut self) -> &mut [Queue] {
        &mut self.queues
    }

    /// One queue. Panics if there is none of that number; there is always a first.
    pub fn queue(&mut self, number: usize) -> &mut Queue {
        &mut self.queues[number]
    }

    /// Counters of all queues together.
    pub fn counters(&self) -> Counters {
        self.queues.iter().map(Queue::counters).fold(Counters::default(), |sum, one| sum + one)
    }

    /// Whether requests flow: not while the backend is gone, and never after the device was closed.
    pub fn is_connected(&self) -> bool {
        self.link.phase() == Phase::Connected
    }

    /// Whether the device is closed for good.
    pub fn is_closed(&self) -> bool {
        self.link.phase() == Phase::Closed
    }

    /// Connections made since the first, each after the backend had gone and come back.
    pub fn reconnections(&self) -> u64 {
        self.link.generation()
    }

    /// Closes the device and waits until the backend has let go of it. The toolstack's nodes stay, so
    /// that it can be connected again.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the backend does not; [`Error::Xenstore`].
    pub fn disconnect(mut self) -> Result<(), Error> {
        self.end_control();
        if self.link.phase() == Phase::Closed {
            return Ok(());
        }
        self.link.set_phase(Phase::Closed);
        self.device.set_state(XenbusState::Closing)?;
        let patience = self.options.patience;
        let stops = |state| !matches!(state, XenbusState::Initialised | XenbusState::Connected);
        self.device.wait_backend("the backend to close", patience, stops)?;
        self.device.set_state(XenbusState::Closed)?;
        let gone =
            |state| matches!(state, XenbusState::Closed | XenbusState::Unknown | XenbusState::InitWait);
        self.device.wait_backend("the backend to be closed", patience, gone)?;
        Ok(())
    }

    fn end_control(&mut self) {
        self.link.stop();
        if let Some(control) = self.control.take() {
            // It only ends; a panic in it was reported by its own message.
            let _ = control.join();
        }
    }
}

impl Drop for Frontend {
    fn drop(&mut self) {
        self.end_control();
        if self.link.phase() != Phase::Closed {
            self.link.set_phase(Phase::Closed);
            if let Err(error) = self.device.set_state(XenbusState::Closed) {
                log::debug!("{}: closing: {error}", self.device.path());
            }
        }
    }
}

/// The handshake of blkif.h, from wherever this end's state is to the backend's Connected. This end's state is
/// Initialised then.
pub(crate) fn handshake(
    device: &Device,
    hypervisor: &dyn Hypervisor,
    options: &ConnectOptions,
    stop: &dyn Fn() -> bool,
) -> Result<(Disk, Vec<Ring>), Error> {
    let patience = options.patience;
    if matches!(
        device.backend_state()?,
        XenbusState::Initialised | XenbusState::Connected | XenbusState::Closing
    ) {
        // Left by a frontend that died, whose rings the backend still serves. What a crash kernel does.
        device.set_state(XenbusState::Closing)?;
        let stops = |state| !matches!(state, XenbusState::Initialised | XenbusState::Connected);
        device.wait_backend_or("the backend to leave an old connection", patience, stops, stop)?;
        device.set_state(XenbusState::Closed)?;
        let left = |state| state != XenbusState::Closing;
        device.wait_backend_or("the backend to leave an old connection", patience, left, stop)?;
    }
    if device.state()? != XenbusState::Initialising {
        // Left by an earlier connection. A backend that is Closed and online starts over when it sees this.
        device.set_state(XenbusState::Initialising)?;
    }
    let offered = |state| state == XenbusState::InitWait;
    device.wait_backend_or("the backend's offer (InitWait)", patience, offered, stop)?;
    let choice = Choice::of(&device.offer()?, options)?;
    let rings = (0..choice.queues)
        .map(|_| Ring::new(hypervisor, device.backend_domain(), choice.ring_order, options.abi))
        .collect::<Result<Vec<_>, _>>()?;
    device.publish(&FrontendNodes {
        abi: options.abi,
        rings: rings.iter().map(Ring::nodes).collect(),
        persistent: false,
        dix: choice.dix.is_some(),
        large_sector: false,
    })?;
    device.set_state(XenbusState::Initialised)?;
    let decided = |state| !matches!(state, XenbusState::InitWait | XenbusState::Initialised);
    let state = device.wait_backend_or("the backend to connect", patience, decided, stop)?;
    if state != XenbusState::Connected {
        let message = device.backend_error();
        device.set_state(XenbusState::Closed)?;
        return Err(Error::Backend { state, message });
    }
    Ok((Disk::new(&device.properties()?, &choice, options.abi), rings))
}
