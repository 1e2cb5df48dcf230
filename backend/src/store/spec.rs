//! What an operator can say about a disk's store, and the ways in: a look at it, and opening it.

use crate::store::file::{FileStore, plain_capabilities};
use crate::store::lock::Access;
use crate::store::medium::{Direct, Medium, SECTOR};
use crate::store::null::{NullStore, PREFIX};
use crate::store::sidecar::{Pair, SidecarStore, default_path, name_user};
use crate::store::{Capabilities, Geometry, Store, StoreError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a disk's PI is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PiSource {
    /// In `PATH.pi` if that exists; else there is none.
    #[default]
    Auto,
    /// There is none, even where `PATH.pi` exists: what is written then does not match it any more.
    None,
    /// In this file or device.
    Sidecar(PathBuf),
}

/// What is kept so that data and sidecar agree after a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrashMode {
    /// A log of writes: everything agrees, and what was flushed is there.
    #[default]
    Log,
    /// A bitmap of regions: whatever does not agree in them is given new PI, so rot in that time is not seen.
    Bitmap,
    /// Nothing: what was being written may not match.
    Off,
}

impl std::str::FromStr for CrashMode {
    type Err = UnknownCrashMode;

    fn from_str(text: &str) -> Result<Self, UnknownCrashMode> {
        match text {
            "log" => Ok(CrashMode::Log),
            "bitmap" => Ok(CrashMode::Bitmap),
            "off" => Ok(CrashMode::Off),
            _ => Err(UnknownCrashMode),
        }
    }
}

/// What a [`CrashMode`] is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log, bitmap or off")]
pub struct UnknownCrashMode;

/// A disk's store, as the operator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSpec {
    /// The image file or block device, or `null:SIZE[:GUARD[:INTERVAL]]`.
    pub path: PathBuf,
    /// Where its PI is.
    pub pi: PiSource,
    /// Whether it is only read; then other readers may have it open too, and nothing at all is written.
    pub read_only: bool,
    /// Whether the page cache is bypassed.
    pub direct: Direct,
    /// Whether discards are passed on, where the medium can.
    pub discard: bool,
    /// Bytes of memory for the sidecar's blocks.
    pub cache_bytes: usize,
    /// What is kept for a crash, with a sidecar.
    pub crash: CrashMode,
}

impl StoreSpec {
    /// Memory for the sidecar's blocks by default: with tuples of 8 bytes for 512 it covers 2 GiB of data.
    pub const CACHE_BYTES: usize = 32 << 20;

    /// The disk at `path` with every default: PI if `PATH.pi` exists, writable, discards on.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            pi: PiSource::Auto,
            read_only: false,
            direct: Direct::Auto,
            discard: true,
            cache_bytes: Self::CACHE_BYTES,
            crash: CrashMode::default(),
        }
    }

    /// What follows `null:`, if it is a null disk.
    fn null(&self) -> Option<Result<NullStore, StoreError>> {
        let store = NullStore::parse(self.path.to_str()?.strip_prefix(PREFIX)?);
        Some(store.map(|store| if self.pi == PiSource::None { store.without_pi() } else { store }))
    }

    /// The sidecar's path, if there is to be one.
    pub(crate) fn sidecar(&self) -> Option<PathBuf> {
        match &self.pi {
            PiSource::Auto => Some(default_path(&self.path)).filter(|path| exists(path)),
            PiSource::None => None,
            PiSource::Sidecar(path) => Some(path.clone()),
        }
    }
}

/// Whether there is something at `path`; what cannot be told is there, so that opening it gives the reason.
fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

/// What a look at a store tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// The disk's shape.
    pub geometry: Geometry,
    /// What it can do.
    pub capabilities: Capabilities,
}

/// Looks at a disk that is to be announced. Takes no lock and changes nothing, so it works while another daemon
/// serves the disk, as before a migration ends.
///
/// # Errors
/// [`StoreError`]: the disk could not be opened like this.
pub fn probe(spec: &StoreSpec) -> Result<Probe, StoreError> {
    if let Some(null) = spec.null() {
        let null = null?;
        return Ok(Probe { geometry: null.geometry(), capabilities: null.capabilities() });
    }
    let probe = match spec.sidecar() {
        Some(sidecar) => {
            let pair = Pair::open(&spec.path, &sidecar, Access::Shared, spec.direct, Direct::Off, false)?;
            let capabilities = pair.capabilities(spec.read_only, spec.discard);
            check_writable(spec, &pair.data)?;
            check_writable(spec, &pair.pi.medium)?;
            Probe { geometry: pair.geometry(), capabilities }
        }
        None => {
            let data = Medium::open(&spec.path, Access::Shared, spec.direct, SECTOR)?;
            data.check_size()?;
            check_writable(spec, &data)?;
            let capabilities = plain_capabilities(&data, spec.read_only, spec.discard);
            let geometry =
                Geometry { bytes: data.bytes, logical_block: data.sector, physical_block: data.physical };
            Probe { geometry, capabilities }
        }
    };
    Ok(probe)
}

/// Says in time that a disk will not open for writing. Opening it so, to try, would be noticed (udev looks at a
/// device after every writer).
fn check_writable(spec: &StoreSpec, medium: &Medium) -> Result<(), StoreError> {
    if spec.read_only {
        return Ok(());
    }
    let writable = if medium.is_read_only_device() {
        Err(rustix::io::Errno::ROFS)
    } else {
        rustix::fs::access(&medium.path, rustix::fs::Access::WRITE_OK)
    };
    writable.map_err(StoreError::io(&medium.path, "cannot be written, and the disk's mode is not r"))
}

/// Opens a disk to serve it: takes the one-writer lock on the data and its sidecar, and marks the sidecar as in use
/// by `owner` (as in "domain 3 xvda (51712)").
///
/// A disk whose data may not match its PI is opened all the same, with a warning in the log;
/// [`Store::attach_report`] has it too.
///
/// # Errors
/// [`StoreError`], with the path, what is wrong with it, and what to do.
pub fn open(spec: &StoreSpec, owner: &str) -> Result<Arc<dyn Store>, StoreError> {
    if let Some(null) = spec.null() {
        return Ok(Arc::new(null?));
    }
    if let Some(sidecar) = spec.sidecar() {
        return Ok(Arc::new(SidecarStore::open(spec, &sidecar, owner)?));
    }
    let access = if spec.read_only { Access::Shared } else { Access::Exclusive };
    let sidecar = default_path(&spec.path);
    let data =
        Medium::open(&spec.path, access, spec.direct, SECTOR).map_err(|error| name_user(error, &sidecar))?;
    data.check_size()?;
    data.lock(access, |process| crate::store::sidecar::user_of(&sidecar, process))?;
    Ok(Arc::new(FileStore::new(data, spec.read_only, spec.discard)))
}
