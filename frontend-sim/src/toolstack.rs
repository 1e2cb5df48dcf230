//! What libxl does for a disk, for simulations: the nodes it writes, the states it waits for.
//!
//! ```text
//!   create_domain      /local/domain/<domid>, introduced
//!   attach             both directories, state 1; waits for the backend's InitWait
//!   Vbd::detach        online=0, state=5; waits for Closed; removes all of it
//! ```
//!
//! The nodes, their order and their permissions are those of `xl` with `backendtype=tap` (Xen 4.20).

use std::time::Duration;

use blkif::{Abi, XenbusState, names};
use hypervisor::DomId;
use xenstore::{Client, Permission, Transaction};

use crate::{Error, states};

/// A disk as an xl configuration has it.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// The guest.
    pub domain: DomId,
    /// Where the backend runs.
    pub backend_domain: DomId,
    /// The directory of backends: `vbd3` for `backendtype=tap`, `vbd` for `phy`.
    pub kind: String,
    /// The disk's name in the guest, such as `xvda`.
    pub vdev: String,
    /// `target=`; it may end with `?key=value&...`.
    pub target: String,
    /// `script=`, a path.
    pub script: String,
    /// Whether the guest may write.
    pub writable: bool,
    /// `discard-enable`; none: not written.
    pub discard: Option<bool>,
    /// `direct-io-safe`.
    pub direct_io_safe: bool,
    /// `protocol`, which libxl writes for PV guests.
    pub protocol: Option<Abi>,
}

impl DiskConfig {
    /// A writable disk of the guest `domain`, served from domain 0.
    pub fn new(domain: DomId, vdev: &str, target: &str) -> Self {
        Self {
            domain,
            backend_domain: DomId(0),
            kind: "vbd3".to_owned(),
            vdev: vdev.to_owned(),
            target: target.to_owned(),
            script: "/etc/xen/scripts/block-dix".to_owned(),
            writable: true,
            discard: Some(true),
            direct_io_safe: false,
            protocol: Some(Abi::native()),
        }
    }

    /// The device's number.
    ///
    /// # Errors
    /// [`Error::Request`] for a name that is not `xvd` and letters.
    pub fn device(&self) -> Result<u32, Error> {
        device_number(&self.vdev).ok_or(Error::Request("a disk's name is xvd and one or two letters"))
    }

    fn frontend_path(&self, device: u32) -> String {
        format!("/local/domain/{}/device/vbd/{device}", self.domain.0)
    }

    fn backend_path(&self, device: u32) -> String {
        format!("/local/domain/{}/backend/{}/{}/{device}", self.backend_domain.0, self.kind, self.domain.0)
    }

    fn backend_nodes(&self, frontend: &str) -> Vec<(&'static str, String)> {
        let flag = |set: bool| if set { "1" } else { "0" }.to_owned();
        let mut nodes = vec![
            (names::FRONTEND, frontend.to_owned()),
            // Of what libxl calls the format, tap's driver for raw.
            (names::PARAMS, format!("aio:{}", self.target)),
            (names::SCRIPT, self.script.clone()),
            (names::FRONTEND_ID, self.domain.0.to_string()),
            (names::ONLINE, flag(true)),
            (names::REMOVABLE, flag(false)),
            (names::BOOTABLE, flag(true)),
            (names::STATE, XenbusState::Initialising.to_string()),
            (names::DEV, self.vdev.clone()),
            (names::TYPE, self.kind.clone()),
            (names::MODE, if self.writable { "w" } else { "r" }.to_owned()),
            (names::DEVICE_TYPE, "disk".to_owned()),
        ];
        if self.direct_io_safe {
            nodes.push((names::DIRECT_IO_SAFE, flag(true)));
        }
        if let Some(discard) = self.discard {
            nodes.push((names::DISCARD_ENABLE, flag(discard)));
        }
        nodes.push(("specification", "xen".to_owned()));
        nodes
    }

    fn frontend_nodes(&self, device: u32, backend: &str) -> Vec<(&'static str, String)> {
        let mut nodes = vec![
            (names::BACKEND, backend.to_owned()),
            (names::BACKEND_ID, self.backend_domain.0.to_string()),
            (names::STATE, XenbusState::Initialising.to_string()),
            (names::VIRTUAL_DEVICE, device.to_string()),
            (names::DEVICE_TYPE, "disk".to_owned()),
            ("trusted", "1".to_owned()),
        ];
        if let Some(abi) = self.protocol {
            nodes.push((names::PROTOCOL, abi.name().to_owned()));
        }
        nodes
    }
}

/// The number of `xvda`, ..., `xvdzz` (docs/man/xen-vbd-interface.7).
pub fn device_number(vdev: &str) -> Option<u32> {
    let letters = vdev.strip_prefix("xvd")?.as_bytes();
    let value = |letter: &u8| letter.is_ascii_lowercase().then(|| u32::from(letter - b'a'));
    let index = match letters {
        [only] => value(only)?,
        [first, second] => (value(first)? + 1) * 26 + value(second)?,
        _ => return None,
    };
    Some(if index < 16 { 202 << 8 | index << 4 } else { 1 << 28 | index << 8 })
}

/// Makes a domain's home in xenstore and introduces it. One that is there is left as it is.
///
/// # Errors
/// [`Error::Xenstore`].
pub fn create_domain(client: &Client, domain: DomId, name: &str) -> Result<(), Error> {
    let home = format!("/local/domain/{}", domain.0);
    client.transaction(|tx| {
        make(tx, &home, &[Permission::none(0), Permission::read(domain.0)])?;
        tx.write(&format!("{home}/name"), name)?;
        tx.write(&format!("{home}/domid"), domain.0.to_string())?;
        for child in ["device", "device/vbd"] {
            make(tx, &format!("{home}/{child}"), &[Permission::none(0), Permission::read(domain.0)])?;
        }
        Ok(())
    })?;
    if domain.0 != 0 && !client.is_introduced(domain.0)? {
        // A simulated domain has no xenstore ring, so frame and port mean nothing; 0 is no port, though.
        client.introduce(domain.0, 1, 1)?;
    }
    Ok(())
}

/// Takes a domain out of xenstore, its devices included.
///
/// # Errors
/// [`Error::Xenstore`].
pub fn destroy_domain(client: &Client, domain: DomId) -> Result<(), Error> {
    let gone = |result: xenstore::Result<()>| match result {
        Err(xenstore::Error::NotFound { .. }) => Ok(()),
        other => other,
    };
    gone(client.release(domain.0))?;
    gone(client.remove(&format!("/local/domain/{}", domain.0)))?;
    gone(client.remove(&format!("/libxl/{}", domain.0)))?;
    Ok(())
}

fn make(tx: &Transaction<'_>, path: &str, permissions: &[Permission]) -> xenstore::Result<()> {
    tx.mkdir(path)?;
    tx.set_permissions(path, permissions)
}

/// A disk there are nodes of.
#[derive(Clone, Debug)]
pub struct Vbd {
    client: Client,
    frontend: String,
    backend: String,
    libxl: String,
}

/// Makes a disk's nodes and waits until its backend offers it, as `xl block-attach` does.
///
/// # Errors
/// [`Error::Timeout`] if nobody serves the directory; [`Error::Backend`] if the backend cannot serve this
/// disk, with what it wrote about that; the nodes are removed then, as xl removes them.
pub fn attach(client: &Client, config: &DiskConfig, patience: Duration) -> Result<Vbd, Error> {
    let vbd = create(client, config)?;
    match vbd.wait_offered(patience) {
        Ok(()) => Ok(vbd),
        Err(error) => {
            if let Err(again) = vbd.remove() {
                log::warn!("{}: {again}", vbd.backend);
            }
            Err(error)
        }
    }
}

/// Makes a disk's nodes, all at once, and waits for nothing.
///
/// # Errors
/// [`Error::Xenstore`]; [`Error::Request`].
pub fn create(client: &Client, config: &DiskConfig) -> Result<Vbd, Error> {
    let device = config.device()?;
    let (frontend, backend) = (config.frontend_path(device), config.backend_path(device));
    let libxl = format!("/libxl/{}/device/vbd/{device}", config.domain.0);
    let (front, back) = (config.domain.0, config.backend_domain.0);
    let backend_nodes = config.backend_nodes(&frontend);
    let frontend_nodes = config.frontend_nodes(device, &backend);
    client.transaction(|tx| {
        make(tx, &frontend, &[Permission::none(front), Permission::read(back)])?;
        make(tx, &backend, &[Permission::none(back), Permission::read(front)])?;
        make(tx, &libxl, &[Permission::none(0)])?;
        tx.write(&format!("{libxl}/{}", names::FRONTEND), &frontend)?;
        tx.write(&format!("{libxl}/{}", names::BACKEND), &backend)?;
        for (name, value) in &frontend_nodes {
            tx.write(&format!("{frontend}/{name}"), value)?;
        }
        for (name, value) in &backend_nodes {
            tx.write(&format!("{backend}/{name}"), value)?;
            tx.write(&format!("{libxl}/{name}"), value)?;
        }
        Ok(())
    })?;
    let vbd = Vbd { client: client.clone(), frontend, backend, libxl };
    states::watch(client, &vbd.backend)?;
    Ok(vbd)
}

/// The disk whose frontend directory is `path`.
///
/// # Errors
/// [`Error::Xenstore`] if there is none.
pub fn find(client: &Client, path: &str) -> Result<Vbd, Error> {
    let backend = client.read_string(&format!("{path}/{}", names::BACKEND))?;
    let relative = path.strip_prefix("/local/domain/").unwrap_or(path);
    let vbd = Vbd {
        client: client.clone(),
        frontend: path.to_owned(),
        backend,
        libxl: format!("/libxl/{relative}"),
    };
    states::watch(client, &vbd.backend)?;
    Ok(vbd)
}

impl Vbd {
    /// The frontend's directory.
    pub fn frontend(&self) -> &str {
        &self.frontend
    }

    /// The backend's directory.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// Waits until the backend offers the disk.
    ///
    /// # Errors
    /// As [`attach`].
    pub fn wait_offered(&self, patience: Duration) -> Result<(), Error> {
        let decided = |state| !matches!(state, XenbusState::Unknown | XenbusState::Initialising);
        let what = "a backend to offer the disk (InitWait)";
        let state = states::wait(&self.client, &self.backend, what, patience, decided, || false)?;
        // A disk that cannot be opened reaches InitWait all the same, with the reason beside it.
        let message = states::error(&self.client, &self.backend);
        let refused = matches!(state, XenbusState::Closing | XenbusState::Closed);
        if refused || message.is_some() {
            return Err(Error::Backend { state, message });
        }
        Ok(())
    }

    /// The backend's state now.
    ///
    /// # Errors
    /// [`Error::Xenstore`].
    pub fn backend_state(&self) -> Result<XenbusState, Error> {
        states::read(&self.client, &self.backend)
    }

    /// Asks the backend to let go, waits until it has, and removes the nodes, as `xl block-detach` does.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not let go; the nodes stay then.
    pub fn detach(&self, patience: Duration) -> Result<(), Error> {
        let closed = |state| matches!(state, XenbusState::Closed | XenbusState::Unknown);
        if !closed(self.backend_state()?) {
            self.client.transaction(|tx| {
                tx.write(&format!("{}/{}", self.backend, names::ONLINE), "0")?;
                tx.write(&format!("{}/{}", self.backend, names::STATE), XenbusState::Closing.name())
            })?;
            let what = "the backend to let go of the disk (Closed)";
            states::wait(&self.client, &self.backend, what, patience, closed, || false)?;
        }
        self.remove()
    }

    /// Removes the nodes without asking anybody, as `xl block-detach --force` does.
    ///
    /// # Errors
    /// [`Error::Xenstore`].
    pub fn remove(&self) -> Result<(), Error> {
        let watched = format!("{}/{}", self.backend, names::STATE);
        if let Err(error) = self.client.unwatch(&watched, &self.backend) {
            log::debug!("{watched}: {error}");
        }
        for path in [&self.frontend, &self.backend, &self.libxl] {
            match self.client.remove(path) {
                Ok(()) | Err(xenstore::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_number_when_named_then_is_xens() {
        assert_eq!(device_number("xvda"), Some(51712));
        assert_eq!(device_number("xvdb"), Some(51728));
        assert_eq!(device_number("xvdp"), Some(51712 + 15 * 16));
        assert_eq!(device_number("xvdq"), Some(1 << 28 | 16 << 8));
        assert_eq!(device_number("xvdaa"), Some(1 << 28 | 26 << 8));
        for wrong in ["", "xvd", "sda", "xvdA", "xvdaaa", "xvda1"] {
            assert_eq!(device_number(wrong), None, "{wrong}");
        }
    }
}
