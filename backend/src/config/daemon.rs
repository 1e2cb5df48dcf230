//! The daemon's own settings: a TOML file, every key optional, and what the command line sets over it.

use super::{ConfigError, units};
use crate::store::CrashMode;
use serde::{Deserialize, Deserializer};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file with every key at its default, as `dixback run --help` shows it.
pub const SAMPLE: &str = include_str!("../../../packaging/dixback.toml");

/// The daemon's settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DaemonConfig {
    /// Kinds of backend directories to serve.
    pub kinds: Vec<String>,
    /// The script's file name by which a device is claimed; empty to claim all.
    pub script: String,
    /// xenstored's socket.
    pub xenstore: PathBuf,
    /// The hypervisor, as [`hypervisor::open`] takes it.
    pub hypervisor: String,
    /// This domain's number; none to ask xenstore.
    pub domain: Option<u16>,
    /// Where the lock and the restart records are.
    pub run_dir: PathBuf,
    /// The least important messages to log.
    #[serde(deserialize_with = "level")]
    pub log: log::LevelFilter,
    /// Most queue threads.
    pub threads: u32,
    /// Most bytes of buffers for data, PI and segments, of all queues together.
    #[serde(deserialize_with = "size")]
    pub pool_total: u64,
    /// Most queues of a disk.
    pub queues: u32,
    /// Largest ring of a disk, as a power of two of pages.
    pub ring_order: u32,
    /// Most segments of an indirect request; 0 to offer none.
    pub indirect: u16,
    /// Bytes of data buffers of each queue.
    #[serde(deserialize_with = "size")]
    pub pool: u64,
    /// Longest time a queue spins for work.
    #[serde(deserialize_with = "duration")]
    pub spin: Duration,
    /// What is kept for a crash, of a disk with a sidecar.
    #[serde(deserialize_with = "crash")]
    pub crash: CrashMode,
    /// How long a frontend may take to answer when the toolstack wants its disk back.
    #[serde(deserialize_with = "duration")]
    pub detach_grace: Duration,
    /// After how long a stop says what it waits for.
    #[serde(deserialize_with = "duration")]
    pub stop_notice: Duration,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        let processors =
            std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(4));
        let xenstore = std::env::var_os("XENSTORED_PATH").map_or_else(|| SOCKET.into(), PathBuf::from);
        Self {
            kinds: vec!["vbd3".to_owned()],
            script: "block-dix".to_owned(),
            xenstore,
            hypervisor: "xen".to_owned(),
            domain: None,
            run_dir: PathBuf::from("/run/dixback"),
            log: log::LevelFilter::Info,
            threads: 256,
            pool_total: 1 << 30,
            queues: processors.min(4),
            ring_order: 4,
            indirect: 256,
            pool: 4 << 20,
            spin: Duration::from_micros(50),
            crash: CrashMode::default(),
            detach_grace: Duration::from_secs(5),
            stop_notice: Duration::from_secs(10),
        }
    }
}

/// Where Xen's own xenstored listens.
const SOCKET: &str = "/run/xenstored/socket";

impl DaemonConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or is not what it should be; the message says where.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })
    }

    /// Checks what no single setting shows.
    ///
    /// # Errors
    /// [`ConfigError::Setting`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, reason: &str| Err(ConfigError::Setting { key, reason: reason.to_owned() });
        let plain = |kind: &String| {
            let sound = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            !kind.is_empty() && kind.chars().all(sound)
        };
        if self.kinds.is_empty() || !self.kinds.iter().all(plain) {
            return wrong("kinds", "at least one, each of letters, digits, - and _ only");
        }
        if self.script.contains('/') {
            return wrong("script", "a file name, without its directory");
        }
        if self.threads == 0 {
            return wrong("threads", "at least 1");
        }
        if !(1..=64).contains(&self.queues) {
            return wrong("queues", "1 to 64");
        }
        if self.ring_order > 4 {
            return wrong("ring-order", "0 to 4");
        }
        if self.indirect > 256 || (1..11).contains(&self.indirect) {
            return wrong("indirect", "0 (none) or 11 to 256");
        }
        if !(1 << 20..=1 << 30).contains(&self.pool) {
            return wrong("pool", "1MiB to 1GiB");
        }
        if self.pool_total < self.pool {
            return wrong("pool-total", "at least one queue's pool");
        }
        if self.spin > Duration::from_millis(10) {
            return wrong("spin", "at most 10ms");
        }
        if self.stop_notice.is_zero() {
            return wrong("stop-notice", "more than 0");
        }
        Ok(())
    }
}

/// A number of bytes, or a string with a unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match Written::deserialize(deserializer)? {
        Written::Number(bytes) => Ok(bytes),
        Written::Text(text) => units::size(&text).ok_or_else(|| serde::de::Error::custom(units::SIZE_FORM)),
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    units::duration(&text).ok_or_else(|| serde::de::Error::custom(units::DURATION_FORM))
}

fn crash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CrashMode, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<log::LevelFilter, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom("one of off, error, warn, info, debug, trace"))
}
