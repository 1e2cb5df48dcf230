//! What the daemon tells of itself, and takes orders by: a unix socket in its run directory.
//!
//! ```text
//! dixback list | stat | resize --ask()--> socket: one line of JSON --> the control thread's poll (server)
//!                              <--------- one line of JSON, end  <--- Report, or how the order ended
//! ```
//!
//! Names are in snake_case; sizes are in bytes and times in seconds. Readers ignore names that they do not know, so a new
//! daemon may say more.

mod client;
mod server;

pub use client::{AskError, ask};
pub(super) use server::{ClientId, Server};

use crate::queue::Stats;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The socket of the daemon that has this run directory. Only its own user may connect to it.
pub fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("socket")
}

/// What the daemon can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// What there is.
    Status,
    /// Take in what this disk has grown by; the frontend is told.
    Resize {
        /// The disk, by [`DiskReport::id`].
        disk: String,
    },
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What there is.
    Status(Box<Report>),
    /// The size that the frontend was told before, and is told now, in bytes.
    Resized {
        /// Before.
        before: u64,
        /// Now.
        after: u64,
    },
    /// It could not be done.
    Failed(String),
}

/// A daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// For how long it runs.
    pub uptime: f64,
    /// The domain it runs in.
    pub domain: u16,
    /// The kinds it serves.
    pub kinds: Vec<String>,
    /// Whether it is about to end.
    pub stopping: bool,
    /// Queue threads.
    pub threads: Share,
    /// Bytes of buffers.
    pub buffers: Share,
    /// Its disks.
    pub disks: Vec<DiskReport>,
}

/// How much of something limited is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// In use.
    pub used: u64,
    /// The most there may be.
    pub limit: u64,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskReport {
    /// `KIND/DOMAIN/DEVICE`.
    pub id: String,
    /// The guest.
    pub domain: u16,
    /// The guest's name, if it has one.
    pub guest: Option<String>,
    /// The device's number in the guest.
    pub device: u32,
    /// The device's name in the guest, as in xvda, if it was given.
    pub vdev: Option<String>,
    /// Where it is in its life, in a word.
    pub state: String,
    /// The backend's state in xenstore, in a word.
    pub backend: String,
    /// The frontend's.
    pub frontend: String,
    /// Why the disk cannot be served or its last connection was refused or lost; none once one is made.
    pub reason: Option<String>,
    /// The data, once it was looked at.
    pub target: Option<String>,
    /// The disk's size.
    pub bytes: Option<u64>,
    /// The guest's logical block.
    pub sector_size: Option<u32>,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// The PI that it carries, if any.
    pub pi: Option<PiReport>,
    /// The connection, if there is one.
    pub connection: Option<ConnectionReport>,
    /// Connections made since the disk was found.
    pub connections: u64,
    /// What was counted on all of them.
    pub totals: Stats,
}

/// A disk's PI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PiReport {
    /// The profile, in short.
    pub profile: String,
    /// The guard.
    pub guard: String,
    /// Bytes of data that a tuple protects.
    pub interval: u32,
    /// Bytes of metadata for each interval.
    pub metadata_size: u16,
    /// 0, 1 or 3.
    pub pi_type: u8,
    /// Where it is kept, if apart from the data.
    pub kept_in: Option<String>,
    /// `integrity=`.
    pub integrity: String,
    /// `app-tag=`, as value and mask, if it is the operator's.
    pub app_tag: Option<(u16, u16)>,
}

/// Who makes and checks PI on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PiMode {
    /// Nobody.
    None,
    /// The daemon: the guest speaks no DIX.
    Made,
    /// The guest, and the daemon checks it.
    EndToEnd,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// For how long it is.
    pub uptime: f64,
    /// Who makes and checks PI.
    pub pi: PiMode,
    /// The layout of the rings' entries.
    pub abi: String,
    /// Whether the frontend asked for grants to stay mapped, which is never done.
    pub persistent: bool,
    /// Largest number of segments of an indirect request; 0: none are offered.
    pub max_indirect: u16,
    /// Whether discards are offered.
    pub discard: bool,
    /// The rings.
    pub queues: Vec<QueueReport>,
    /// Counters and gauges of the store.
    pub store: BTreeMap<String, u64>,
    /// Why some of the disk may not match its PI, found when it was opened.
    pub attach_report: Option<String>,
}

/// A ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueReport {
    /// Pages of the ring.
    pub ring_pages: usize,
    /// The frontend's event channel.
    pub port: u32,
    /// What was counted on it.
    pub counters: Stats,
}

impl DiskReport {
    /// Whether an operator's word names this disk: its id, `GUEST`, `GUEST/DEVICE`, or the path of its data. A guest is a
    /// name or a number, and so is a device.
    pub fn is_named(&self, word: &str) -> bool {
        let guest = |word: &str| word == self.domain.to_string() || Some(word) == self.guest.as_deref();
        let device = |word: &str| word == self.device.to_string() || Some(word) == self.vdev.as_deref();
        let both = |(first, second)| guest(first) && device(second);
        word == self.id
            || guest(word)
            || word.rsplit_once('/').is_some_and(both)
            || Some(word) == self.target.as_deref()
    }

    /// What it is to a person: the guest and the device.
    pub fn title(&self) -> String {
        let guest = self.guest.clone().unwrap_or_else(|| self.domain.to_string());
        let device = self.vdev.clone().unwrap_or_else(|| self.device.to_string());
        format!("{guest}/{device}")
    }
}

#[cfg(test)]
mod tests;
