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

/// Kinds whose directories libxl's own daemon in a driver domain deletes, after running the removal script.
const DELETED_BY_LIBXL: [&str; 2] = ["vbd", "qdisk"];

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
    /// Whether a directory of this kind is the backend's to delete once the toolstack is done with the disk: in a
    /// driver domain nobody else does; in dom0 libxl deletes it, after running the removal script.
    pub fn deletes(&self, kind: &str) -> bool {
        self.domain != 0 && !DELETED_BY_LIBXL.contains(&kind)
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
