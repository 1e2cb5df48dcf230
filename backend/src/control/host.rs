//! What all disks share: the daemon's settings, its ways out, its limits.

use super::connection::{Opening, Resume};
use super::helper::Helpers;
use super::id::DiskId;
use super::limits::Caps;
use super::rundir::RunDir;
use super::vbd::Outcome;
use crate::config::DaemonConfig;
use crate::io::Doorbell;
use blkif::FrontendNodes;
use hypervisor::Backend;
use std::sync::Arc;
use xenstore::Client;

/// What all disks share.
pub struct Host {
    /// The settings.
    pub config: Arc<DaemonConfig>,
    /// Xenstore.
    pub client: Client,
    /// Grants and event channels.
    pub hypervisor: Arc<dyn Backend>,
    /// Helper threads.
    pub helpers: Helpers<Outcome>,
    /// Rung by helpers and by queues that failed.
    pub bell: Doorbell,
    /// Threads and buffers.
    pub caps: Arc<Caps>,
    /// The lock and the restart records.
    pub run_dir: RunDir,
    /// This domain.
    pub domain: u16,
    /// `/local/domain/<own>`.
    pub home: String,
    /// The daemon is about to end.
    pub stopping: bool,
}

impl Host {
    /// Whether this is a driver domain: the toolstack is in dom0, and cannot run a script here.
    pub fn is_driver_domain(&self) -> bool {
        self.domain != 0
    }

    /// The opening of a connection that a frontend chose.
    pub fn opening(
        &self,
        id: &DiskId,
        name: &str,
        frontend: FrontendNodes,
        resume: Option<Resume>,
    ) -> Opening {
        Opening {
            id: id.clone(),
            name: name.to_owned(),
            frontend,
            hypervisor: Arc::clone(&self.hypervisor),
            bell: self.bell.clone(),
            config: Arc::clone(&self.config),
            resume,
        }
    }
}
