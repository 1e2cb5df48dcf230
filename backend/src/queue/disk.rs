//! What all queues of a disk share: its store, and the operator's rules about PI.

use crate::queue::Lost;
use crate::store::Store;
use integrity::{AppTag, Profile};
use std::sync::Arc;

/// A disk key `integrity=`: what the operator wants of PI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Integrity {
    /// No PI at all, neither offered nor made.
    Off,
    /// PI wherever the store keeps it: offered to the guest, made by the daemon for requests that come without.
    #[default]
    Auto,
    /// PI from the guest or no service: unflagged reads and writes are refused.
    Require,
}

impl std::fmt::Display for Integrity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Integrity::Off => "off",
            Integrity::Auto => "auto",
            Integrity::Require => "require",
        })
    }
}

/// A disk key `app-tag=`: who owns the application tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppTagRule {
    /// The guest: stored as sent.
    #[default]
    Guest,
    /// The operator: a guest's tag that differs is refused.
    Operator(AppTag),
}

/// A disk as its queues see it. Immutable while the frontend is connected.
pub struct Disk {
    /// Its name in logs: domain, device, path.
    pub name: String,
    /// The backing device.
    pub store: Arc<dyn Store>,
    /// The PI in use, from the store, or none where the store has none or `integrity=off`.
    pub profile: Option<Profile>,
    /// The operator's wish.
    pub integrity: Integrity,
    /// Who owns the application tag.
    pub app_tag: AppTagRule,
    /// Whether a guest may write escapes although `integrity=require` (disk key `escape=allow`).
    pub allow_escape: bool,
    /// Whether writes and discards are refused.
    pub read_only: bool,
    /// Whether discards are offered.
    pub discard: bool,
    /// Whether a queue of it was lost, with requests under way.
    pub lost: Lost,
}

impl Disk {
    /// The unit of requests in bytes, `sector-size` on the wire: the larger of the store's logical block and the
    /// protection interval, so that PI never needs a read before a write.
    pub fn block(&self) -> u32 {
        let interval = self.profile.map_or(0, |profile| profile.spec().interval);
        self.store.geometry().logical_block.max(interval)
    }
}
