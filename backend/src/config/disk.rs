//! A disk as its operator describes it: the `params` node that `target=` of an xl disk line becomes.
//!
//! ```text
//! [aio:]TARGET[?key=value[&key=value]...]        %3F, %26 and %25 stand for ? & %
//!
//! aio:/srv/vm1.img?pi=/srv/pi/vm1.pi&integrity=require&app-tag=0x1200/0xff00
//! ```

use super::{ConfigError, Setter, escape, keys};
use crate::queue::{AppTagRule, Integrity};
use crate::store::{CrashMode, Direct, PiSource};
use integrity::Guard;
use std::path::PathBuf;

/// What is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file or a block device.
    Path(PathBuf),
    /// Nothing, for measuring: the size and the PI it pretends to keep, as the null store reads them.
    Null(String),
}

/// A disk's target and keys. Keys not given are the daemon's to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// What is served.
    pub target: Target,
    /// `pi=auto|none|device|PATH`
    pub pi: PiSource,
    /// `integrity=off|auto|require`
    pub integrity: Integrity,
    /// `guard=`: what the PI found must be.
    pub guard: Option<Guard>,
    /// `interval=`: what the PI found must be, in bytes.
    pub interval: Option<u32>,
    /// `metadata-size=`: what the PI found must be, in bytes for each interval.
    pub metadata_size: Option<u16>,
    /// `sector-size=`: what the disk's logical block must be, in bytes.
    pub sector_size: Option<u32>,
    /// `app-tag=VALUE[/MASK]`
    pub app_tag: AppTagRule,
    /// `escape=allow|refuse`: whether a guest may write escapes although `integrity=require`.
    pub allow_escape: bool,
    /// `direct=auto|on|off`
    pub direct: Direct,
    /// `queues=`: most rings.
    pub queues: Option<u32>,
    /// `ring-order=`: largest ring, as a power of two of pages.
    pub ring_order: Option<u32>,
    /// `indirect=`: most segments of an indirect request; 0 to offer none.
    pub indirect: Option<u16>,
    /// `pool=`: bytes of data buffers of each queue.
    pub pool: Option<u64>,
    /// `discard=on|off`
    pub discard: Option<bool>,
    /// `cache=`: bytes of the sidecar kept in memory.
    pub cache: Option<u64>,
    /// `crash=log|bitmap|off`: what is kept for a crash.
    pub crash: Option<CrashMode>,
}

impl DiskSpec {
    /// A disk with every key left out.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            pi: PiSource::default(),
            integrity: Integrity::default(),
            guard: None,
            interval: None,
            metadata_size: None,
            sector_size: None,
            app_tag: AppTagRule::default(),
            allow_escape: false,
            direct: Direct::default(),
            queues: None,
            ring_order: None,
            indirect: None,
            pool: None,
            discard: None,
            cache: None,
            crash: None,
        }
    }

    /// Reads a target string.
    ///
    /// # Errors
    /// The first thing in it that cannot be, by name, with what can.
    pub fn parse(params: &str) -> Result<Self, ConfigError> {
        let (target, keys) = match params.split_once('?') {
            Some((target, keys)) => (target, Some(keys)),
            None => (params, None),
        };
        let mut spec = Self::new(parse_target(target)?);
        let mut given: Vec<&'static str> = Vec::new();
        for pair in keys.into_iter().flat_map(|keys| keys.split('&')) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = keys::find(&escape::decode(name)?)?;
            if given.contains(&key.name) {
                return Err(ConfigError::DoubledKey { key: key.name });
            }
            given.push(key.name);
            let value = escape::decode(value)?;
            (key.set)(&mut spec, &value).ok_or_else(|| ConfigError::BadValue {
                key: key.name,
                value: value.into_owned(),
                allowed: key.allowed.to_owned(),
            })?;
        }
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let contradiction = |what| Err(ConfigError::Contradiction { what });
        if self.integrity == Integrity::Require && self.pi == PiSource::None {
            return contradiction("integrity=require needs PI, pi=none forbids it");
        }
        if self.integrity == Integrity::Off && self.app_tag != AppTagRule::Guest {
            return contradiction("app-tag= checks PI, integrity=off forbids it");
        }
        if self.pi == PiSource::None
            && (self.guard.is_some() || self.interval.is_some() || self.metadata_size.is_some())
        {
            return contradiction("guard=, interval= and metadata-size= describe PI, pi=none forbids it");
        }
        Ok(())
    }
}

fn parse_target(text: &str) -> Result<Target, ConfigError> {
    let text = text.strip_prefix("aio:").unwrap_or(text);
    if text.is_empty() {
        return Err(ConfigError::NoTarget);
    }
    let wrong = || ConfigError::Target { target: text.to_owned() };
    if let Some(null) = text.strip_prefix("null:") {
        return Ok(Target::Null(null.to_owned()));
    }
    let path = escape::decode(text)?;
    // A NUL ends a path for the kernel: what would be opened is not what is written here.
    if !path.starts_with('/') || path.contains('\0') {
        return Err(wrong());
    }
    Ok(Target::Path(PathBuf::from(&*path)))
}

/// Puts a key's value into the spec; none where it cannot be that.
pub(super) type Set = Setter<DiskSpec>;
