//! The device in xenstore: both ends' nodes and states, and the single steps of the handshake.
//!
//! [`Frontend`](crate::Frontend) takes the steps in their order; a hostile test takes them in any.

use std::os::fd::AsFd;
use std::time::Duration;

use blkif::{FrontendNodes, Properties, Transport, XenbusState, names};
use hypervisor::DomId;
use xenstore::Client;

use crate::{Error, states};

/// A virtual disk's directories in xenstore.
#[derive(Clone)]
pub struct Device {
    client: Client,
    path: String,
    backend: String,
    backend_domain: DomId,
}

impl Device {
    /// Finds the device whose frontend directory is `path`, such as `/local/domain/1/device/vbd/51712`.
    /// It takes the watch events of `client` as they come, so give each device a client of its own.
    ///
    /// # Errors
    /// [`Error::Xenstore`] where the directory, or `backend` and `backend-id` in it, is not there.
    pub fn open(client: &Client, path: &str) -> Result<Self, Error> {
        let backend = client.read_string(&format!("{path}/{}", names::BACKEND))?;
        let id = client.read_string(&format!("{path}/{}", names::BACKEND_ID))?;
        let Ok(id) = id.parse() else { return Err(Error::Request("backend-id is no domain's number")) };
        let device =
            Self { client: client.clone(), path: path.to_owned(), backend, backend_domain: DomId(id) };
        states::watch(client, &device.backend)?;
        Ok(device)
    }

    /// The client, for nodes of any kind.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The frontend's directory.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The backend's directory.
    pub fn backend_path(&self) -> &str {
        &self.backend
    }

    /// The backend's domain.
    pub fn backend_domain(&self) -> DomId {
        self.backend_domain
    }

    fn backend_node(&self, name: &str) -> String {
        format!("{}/{name}", self.backend)
    }

    /// A node of the backend's; none also where it cannot be read.
    pub fn read_backend(&self, name: &str) -> Option<Vec<u8>> {
        self.client.read(&self.backend_node(name)).ok()
    }

    /// The backend's state; `Unknown` when it is gone or makes no sense.
    ///
    /// # Errors
    /// [`Error::Xenstore`] when xenstore itself is gone.
    pub fn backend_state(&self) -> Result<XenbusState, Error> {
        states::read(&self.client, &self.backend)
    }

    /// Whether the toolstack means the device to stay.
    pub fn is_online(&self) -> bool {
        self.read_backend(names::ONLINE).is_some_and(|value| value == b"1")
    }

    /// What the backend or its script wrote into xenstore about a failure.
    pub fn backend_error(&self) -> Option<String> {
        states::error(&self.client, &self.backend)
    }

    /// This end's state, as it stands in xenstore; `Unknown` when the directory is gone.
    ///
    /// # Errors
    /// [`Error::Xenstore`] when xenstore itself is gone.
    pub fn state(&self) -> Result<XenbusState, Error> {
        states::read(&self.client, &self.path)
    }

    /// Sets this end's state, whatever it was.
    ///
    /// # Errors
    /// [`Error::Xenstore`].
    pub fn set_state(&self, state: XenbusState) -> Result<(), Error> {
        log::debug!("{}: state {state:?}", self.path);
        self.write(names::STATE, state.name())
    }

    /// Writes any node of this end's directory, by its name there.
    ///
    /// # Errors
    /// [`Error::Xenstore`].
    pub fn write(&self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        Ok(self.client.write(&format!("{}/{name}", self.path), value)?)
    }

    /// What the backend offers; to be read in its state InitWait.
    ///
    /// # Errors
    /// [`Error::Negotiation`].
    pub fn offer(&self) -> Result<Transport, Error> {
        Ok(Transport::parse(&|name| self.read_backend(name))?)
    }

    /// What the disk is; to be read in the backend's state Connected.
    ///
    /// # Errors
    /// [`Error::Negotiation`].
    pub fn properties(&self) -> Result<Properties, Error> {
        Ok(Properties::parse(&|name| self.read_backend(name))?)
    }

    /// Writes this end's choice, all of it in one transaction, without what an earlier connection left.
    ///
    /// # Errors
    /// [`Error::Xenstore`].
    pub fn publish(&self, nodes: &FrontendNodes) -> Result<(), Error> {
        let nodes = nodes.nodes();
        self.client.transaction(|transaction| {
            for name in transaction.directory(&self.path)? {
                if is_negotiated(&name) {
                    transaction.remove(&format!("{}/{name}", self.path))?;
                }
            }
            nodes
                .iter()
                .try_for_each(|(name, value)| transaction.write(&format!("{}/{name}", self.path), value))
        })?;
        Ok(())
    }

    /// Waits until the backend is in a state that is `wanted`, and gives it.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Xenstore`].
    pub fn wait_backend(
        &self,
        what: &'static str,
        patience: Duration,
        wanted: impl Fn(XenbusState) -> bool,
    ) -> Result<XenbusState, Error> {
        self.wait_backend_or(what, patience, wanted, || false)
    }

    /// [`wait_backend`](Self::wait_backend), given up with [`Error::Closed`] when `stop` says so.
    pub(crate) fn wait_backend_or(
        &self,
        what: &'static str,
        patience: Duration,
        wanted: impl Fn(XenbusState) -> bool,
        stop: impl Fn() -> bool,
    ) -> Result<XenbusState, Error> {
        states::wait(&self.client, &self.backend, what, patience, wanted, stop)
    }

    /// The descriptor that becomes readable when the backend's state may have changed.
    pub(crate) fn events(&self) -> std::os::fd::BorrowedFd<'_> {
        self.client.events().as_fd()
    }

    /// Takes all events there are.
    pub(crate) fn drain_events(&self) {
        while self.client.events().try_next().is_some() {}
    }
}

/// Whether a node is one that [`Device::publish`] writes.
fn is_negotiated(name: &str) -> bool {
    let fixed = [
        names::MULTI_QUEUE_NUM_QUEUES,
        names::RING_PAGE_ORDER,
        names::EVENT_CHANNEL,
        names::FEATURE_PERSISTENT,
        names::FEATURE_DATA_INTEGRITY,
        names::DATA_INTEGRITY_VERSION,
        names::FEATURE_LARGE_SECTOR_SIZE,
    ];
    fixed.contains(&name) || name.starts_with(names::RING_REF) || name.starts_with(names::QUEUE)
}
