//! What an operator can say about a disk's store, and the ways in: a look at it, and opening it.

use crate::limit::Limit;
use crate::store::device::{
    Convert, DeviceStore, Format, Found, Namespace, Unusable, Wish, block_shape, is_namespace, look,
    namespace_shape, trial,
};
use crate::store::file::{FileStore, plain_capabilities};
use crate::store::lock::Access;
use crate::store::medium::{Direct, Medium, SECTOR};
use crate::store::null::{NullStore, PREFIX};
use crate::store::sidecar::{Pair, SidecarStore, default_path, name_user};
use crate::store::{Capabilities, Geometry, Store, StoreError};
use integrity::Guard;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a disk's PI is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PiSource {
    /// In `PATH.pi` if that exists; else in the device itself, if it keeps PI and all that takes is there; else there is
    /// none.
    #[default]
    Auto,
    /// There is none, even where `PATH.pi` exists: what is written then does not match it any more. (A device's own PI is
    /// then the kernel's to make.)
    None,
    /// In the device itself.
    Device,
    /// In this file or another device.
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
    /// What the guest is to get of a device's own PI.
    pub wish: Wish,
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
            wish: Wish::default(),
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
            PiSource::None | PiSource::Device => None,
            PiSource::Sidecar(path) => Some(path.clone()),
        }
    }

    fn access(&self) -> Access {
        if self.read_only { Access::Shared } else { Access::Exclusive }
    }

    /// What the guest gets of a device's PI.
    fn convert(&self, device: integrity::Profile) -> Result<Convert, StoreError> {
        let refused = |why| StoreError::DevicePi { path: self.path.clone(), why };
        Convert::new(device, &self.wish).map_err(refused)
    }

    /// The device's own PI, if it is to be used.
    fn device_pi(&self, medium: &Medium) -> Result<Option<(Format, Convert)>, StoreError> {
        if !matches!(self.pi, PiSource::Auto | PiSource::Device) {
            return Ok(None);
        }
        let wanted = self.pi == PiSource::Device;
        let why = match usable(medium) {
            // Metadata that nobody checks is used where it is asked for only.
            Ok(Some(format)) if wanted || format.profile.guard() != Guard::None => {
                return Ok(Some((format, self.convert(format.profile)?)));
            }
            Ok(Some(_)) => return Ok(None),
            Ok(None) if !wanted => return Ok(None),
            Ok(None) => "pi=device, but this keeps no PI".to_owned(),
            Err(Unusable::Lacking(why)) => why,
            Err(Unusable::Failed(why)) => {
                return Err(StoreError::DevicePi { path: self.path.clone(), why });
            }
        };
        if wanted {
            return Err(StoreError::DevicePi { path: self.path.clone(), why });
        }
        let name = self.path.display().to_string();
        // A guest decides how often its disk is opened.
        Limit::of(&name, "device", module_path!()).log(log::Level::Info, || {
            format!("{name}: the device keeps PI, which is left to the kernel: {why}")
        });
        Ok(None)
    }
}

/// The PI of a device, if it keeps any and I/O with it has been seen to work.
///
/// # Errors
/// Why PI that is there cannot be used.
pub(crate) fn usable(medium: &Medium) -> Result<Option<Format>, Unusable> {
    match look(medium) {
        Found::Nothing => Ok(None),
        Found::Unusable(why) => Err(Unusable::Lacking(why)),
        Found::Format(format) => trial(medium, &format).map(|()| Some(format)),
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
    /// Who keeps its PI.
    pub keeper: Keeper,
}

/// Who keeps a disk's PI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// Nobody: there is none.
    Nobody,
    /// A sidecar.
    Sidecar,
    /// The device itself, by the kernel's block layer, which makes PI where the daemon does not.
    Device,
    /// The NVMe namespace, by passthrough.
    Namespace,
    /// A null disk, which pretends.
    Null,
}

impl std::fmt::Display for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Keeper::Nobody => "nobody",
            Keeper::Sidecar => "sidecar",
            Keeper::Device => "device",
            Keeper::Namespace => "passthrough",
            Keeper::Null => "null",
        })
    }
}

/// Looks at a disk that is to be announced. Takes no lock and changes nothing, so it works while another daemon
/// serves the disk, as before a migration ends.
///
/// # Errors
/// [`StoreError`]: the disk could not be opened like this.
pub fn probe(spec: &StoreSpec) -> Result<Probe, StoreError> {
    let StoreSpec { read_only, discard, .. } = *spec;
    let found = |(geometry, capabilities), keeper| Probe { geometry, capabilities, keeper };
    if let Some(null) = spec.null() {
        let null = null?;
        return Ok(found((null.geometry(), null.capabilities()), Keeper::Null));
    }
    if let Some(sidecar) = spec.sidecar() {
        let pair = Pair::open(&spec.path, &sidecar, Access::Shared, spec.direct, Direct::Off, false)?;
        let capabilities = pair.capabilities(read_only, discard);
        check_writable(spec, &pair.data)?;
        check_writable(spec, &pair.pi.medium)?;
        return Ok(found((pair.geometry(), capabilities), Keeper::Sidecar));
    }
    if is_namespace(&spec.path) {
        let namespace = namespace(spec, Access::Shared)?;
        let convert = spec.convert(namespace.profile)?;
        return Ok(found(namespace_shape(&namespace, &convert, read_only, discard), Keeper::Namespace));
    }
    let data = Medium::open(&spec.path, Access::Shared, spec.direct, SECTOR)?;
    data.check_size()?;
    check_writable(spec, &data)?;
    if let Some((_, convert)) = spec.device_pi(&data)? {
        return Ok(found(block_shape(&data, &convert, read_only, discard), Keeper::Device));
    }
    let capabilities = plain_capabilities(&data, read_only, discard);
    let geometry = Geometry { bytes: data.bytes, logical_block: data.sector, physical_block: data.physical };
    Ok(found((geometry, capabilities), Keeper::Nobody))
}

/// Opens an NVMe namespace for passthrough.
fn namespace(spec: &StoreSpec, access: Access) -> Result<Namespace, StoreError> {
    if matches!(spec.pi, PiSource::None) {
        let why = "pi=none, but passthrough is for a namespace's PI; without it, serve the block device (/dev/nvmeXnY)";
        return Err(StoreError::DevicePi { path: spec.path.clone(), why: why.to_owned() });
    }
    Namespace::open(&spec.path, access)
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
    let StoreSpec { read_only, discard, .. } = *spec;
    if let Some(null) = spec.null() {
        return Ok(Arc::new(null?));
    }
    if let Some(sidecar) = spec.sidecar() {
        return Ok(Arc::new(SidecarStore::open(spec, &sidecar, owner)?));
    }
    let access = spec.access();
    if is_namespace(&spec.path) {
        let namespace = namespace(spec, access)?;
        namespace.lock(access)?;
        let convert = spec.convert(namespace.profile)?;
        return Ok(Arc::new(DeviceStore::namespace(namespace, convert, read_only, discard)));
    }
    let sidecar = default_path(&spec.path);
    let data =
        Medium::open(&spec.path, access, spec.direct, SECTOR).map_err(|error| name_user(error, &sidecar))?;
    data.check_size()?;
    data.lock(access, |process| crate::store::sidecar::user_of(&sidecar, process))?;
    if let Some((format, convert)) = spec.device_pi(&data)? {
        return Ok(Arc::new(DeviceStore::block(data, format, convert, read_only, discard)));
    }
    Ok(Arc::new(FileStore::new(data, read_only, discard)))
}
