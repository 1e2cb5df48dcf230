//! A plain file or block device with its protection information beside it, in a sidecar.
//!
//! ```text
//! queue threads                       shared                          maintenance thread
//!   request -> lock range (Ranges) ---------------+
//!           -> data I/O                           |
//!           -> PI: read from, put into -------> Cache <--- dirty blocks, copied out --- Checkpoint -> sidecar
//!                     miss: the queue loads it    |
//!           -> unlock -> complete                 +--- flush: data, blocks, sidecar
//! ```
//!
//! The data stays an image that any tool can use. What the metadata says is only ever changed after the data's
//! write has succeeded, and while the range is locked: whoever reads gets the data of one write with the tuple of
//! that write. `docs/sidecar.md` is the format's specification.

mod attach;
mod cache;
mod checkpoint;
mod grow;
mod header;
mod layout;
mod pifile;
mod queue;
mod record;

pub use attach::AttachReport;
pub use header::{Closed, Header, HeaderError, OwnerRecord};
pub use layout::{BLOCK, Layout, Piece};
pub use record::{Body, IntervalHash, Record, RecordError};

pub(crate) use grow::grown_size;
pub(crate) use pifile::{PiFile, default_path, read_header, user_of, write_header};

use crate::io::Doorbell;
use crate::limit::Limit;
use crate::store::file::plain_capabilities;
use crate::store::inbox::Waiter;
use crate::store::lock::Access;
use crate::store::medium::{Direct, Medium, Stamp};
use crate::store::ranges::Ranges;
use crate::store::{Capabilities, Errno, Geometry, Store, StoreError, StoreQueue, StoreSpec};
use cache::Cache;
use checkpoint::{Checkpoint, Maintenance, Scratch};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// What the queues and the maintenance thread share.
struct Shared {
    data: Medium,
    pi: PiFile,
    /// The disk's shape, but for its size, which may grow.
    shape: Geometry,
    bytes: AtomicU64,
    capabilities: Capabilities,
    ranges: Ranges<Waiter>,
    cache: Cache,
    maintenance: Maintenance,
    /// Whether holes can be made in the sidecar, as far as is known.
    holes: AtomicBool,
}

/// A disk with a sidecar.
pub(crate) struct SidecarStore {
    shared: Arc<Shared>,
    /// The header as it is on disk.
    header: Mutex<Header>,
    /// Runs while the disk is open for writing.
    thread: Mutex<Option<JoinHandle<Result<(), Errno>>>>,
    report: Option<AttachReport>,
}

/// A disk with its sidecar, opened for one or the other purpose.
pub(crate) struct Pair {
    pub(crate) data: Medium,
    pub(crate) pi: PiFile,
}

impl Pair {
    /// Opens both. With `locked`, takes both locks, the data's first, so that a refusal names the disk.
    pub(crate) fn open(
        path: &Path,
        sidecar: &Path,
        access: Access,
        direct: Direct,
        direct_sidecar: Direct,
        locked: bool,
    ) -> Result<Self, StoreError> {
        // A first look, for the interval and for errors that are the sidecar's.
        let interval =
            PiFile::open(sidecar, path, Access::Shared, Direct::Off, false)?.header.profile.spec().interval;
        let data = Medium::open(path, access, direct, interval).map_err(|error| name_user(error, sidecar))?;
        if locked {
            data.lock(access, |process| user_of(sidecar, process))?;
        }
        data.check_size()?;
        let pi = PiFile::open(sidecar, path, access, direct_sidecar, locked)?;
        if pi.header.profile.spec().interval != interval {
            return Err(StoreError::NotADisk {
                path: sidecar.to_owned(),
                found: "changing while it is opened",
            });
        }
        pi.check_data(&data)?;
        Ok(Self { data, pi })
    }

    /// The disk's shape.
    pub(crate) fn geometry(&self) -> Geometry {
        let logical_block = self.data.sector.max(self.pi.header.profile.spec().interval);
        let bytes = self.pi.header.data_bytes / u64::from(logical_block) * u64::from(logical_block);
        Geometry { bytes, logical_block, physical_block: self.data.physical.max(logical_block) }
    }

    /// What it can do.
    pub(crate) fn capabilities(&self, read_only: bool, discard: bool) -> Capabilities {
        let profile = Some(self.pi.header.profile);
        Capabilities { profile, ..plain_capabilities(&self.data, read_only, discard) }
    }
}

impl SidecarStore {
    /// Opens a disk to serve it: takes the locks, compares data and sidecar, marks the header as in use.
    pub(crate) fn open(spec: &StoreSpec, sidecar: &Path, owner: &str) -> Result<Self, StoreError> {
        let access = if spec.read_only { Access::Shared } else { Access::Exclusive };
        // Whether the sidecar is read around the page cache is no matter of the operator's: it has its own cache.
        let direct_sidecar = if spec.direct == Direct::Off { Direct::Off } else { Direct::Auto };
        let pair = Pair::open(&spec.path, sidecar, access, spec.direct, direct_sidecar, true)?;
        let report = AttachReport::of(&pair.pi, &pair.data, pair.data.stamp()?);
        if let Some(report) = &report {
            // A guest decides how often its disk is opened.
            let limit = Limit::of(&spec.path.display().to_string(), "attach", module_path!());
            limit.log(log::Level::Warn, || report.to_string());
        }
        let (geometry, capabilities) = (pair.geometry(), pair.capabilities(spec.read_only, spec.discard));
        let unit = pair.pi.header.profile.spec().interval.max(BLOCK as u32);
        let cache =
            Cache::new(spec.cache_bytes).map_err(StoreError::io(sidecar, "no memory for its cache"))?;
        let Pair { data, pi } = pair;
        let header = Mutex::new(pi.header.clone());
        let shared = Arc::new(Shared {
            data,
            pi,
            shape: geometry,
            bytes: AtomicU64::new(geometry.bytes),
            capabilities,
            ranges: Ranges::new(unit),
            cache,
            maintenance: Maintenance::default(),
            holes: AtomicBool::new(true),
        });
        let thread = if spec.read_only { None } else { Some(Shared::start(&shared)?) };
        let store = Self { shared, header, thread: Mutex::new(thread), report };
        if !spec.read_only {
            store.write_header(|header| Header { clean: false, owner: owner_record(owner), ..header })?;
        }
        Ok(store)
    }

    fn write_header(&self, change: impl FnOnce(Header) -> Header) -> Result<(), StoreError> {
        let mut header = self.header.lock().unwrap_or_else(PoisonError::into_inner);
        *header = self.shared.pi.write_header(change(header.clone()))?;
        Ok(())
    }

    /// Stops the maintenance thread after a last round that makes everything durable.
    fn stop(&self) -> Result<(), Errno> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return Ok(()) };
        self.shared.maintenance.stop();
        thread.join().unwrap_or(Err(Errno(libc::EIO)))
    }
}

impl Shared {
    fn geometry(&self) -> Geometry {
        // Acquire: pairs with the Release in `grow`; the metadata of whatever is in range is there.
        Geometry { bytes: self.bytes.load(Ordering::Acquire), ..self.shape }
    }

    fn start(shared: &Arc<Self>) -> Result<JoinHandle<Result<(), Errno>>, StoreError> {
        let own = Arc::clone(shared);
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("dixback-pi".to_owned()).spawn(move || {
            // Its io_uring belongs to the thread that makes it.
            let scratch = match Scratch::new() {
                Ok(scratch) => scratch,
                Err(error) => {
                    let _ = tell.send(Err(error));
                    return Err(Errno(libc::EIO));
                }
            };
            let _ = tell.send(Ok(()));
            let checkpoint = Checkpoint {
                data: &own.data,
                sidecar: &own.pi.medium,
                layout: own.pi.layout,
                cache: &own.cache,
                maintenance: &own.maintenance,
            };
            checkpoint.run(scratch)
        });
        let started = thread.and_then(|thread| {
            let gone = |_| io::Error::other("the thread went away");
            told.recv().map_err(gone).and_then(|result| result).map(|()| thread)
        });
        started.map_err(StoreError::io(&shared.pi.medium.path, "cannot start its maintenance thread"))
    }
}

/// Puts the sidecar's word on who uses a disk into a refusal that does not know.
pub(crate) fn name_user(error: StoreError, sidecar: &Path) -> StoreError {
    match error {
        StoreError::InUse { path, by } => {
            StoreError::InUse { by: user_of(sidecar, None).unwrap_or(by), path }
        }
        error => error,
    }
}

/// This process as the owner of a disk.
pub(crate) fn owner_record(text: &str) -> OwnerRecord {
    OwnerRecord { text: text.to_owned(), host: pifile::host_name(), process: std::process::id() }
}

impl Closed {
    pub(crate) fn of(stamp: Stamp) -> Self {
        Self { bytes: stamp.bytes, modified: stamp.modified }
    }
}

impl Store for SidecarStore {
    fn geometry(&self) -> Geometry {
        self.shared.geometry()
    }

    fn grow(&self) -> Result<u64, StoreError> {
        let Shared { data, pi, bytes, shape, capabilities, .. } = &*self.shared;
        // Held throughout: nobody else writes a header, or grows the disk, meanwhile.
        let mut header = self.header.lock().unwrap_or_else(PoisonError::into_inner);
        let after = grown_size(data, header.data_bytes, shape.logical_block)?;
        if after <= header.data_bytes {
            return Ok(bytes.load(Ordering::Acquire));
        }
        if capabilities.read_only {
            return Err(StoreError::ReadOnlyGrowth { path: data.path.clone() });
        }
        *header = pi.write_header(grow::lengthen(&pi.medium, &header, after)?)?;
        bytes.store(after, Ordering::Release);
        Ok(after)
    }

    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities
    }

    fn queue(self: Arc<Self>, doorbell: Doorbell) -> io::Result<Box<dyn StoreQueue>> {
        Ok(Box::new(queue::SidecarQueue::new(Arc::clone(&self.shared), doorbell)))
    }

    fn close(&self) -> io::Result<()> {
        if self.shared.capabilities.read_only {
            return Ok(());
        }
        self.stop().map_err(|Errno(errno)| io::Error::from_raw_os_error(errno))?;
        let data = &self.shared.data;
        // Its size and times too, for they are compared at the next open.
        data.file.sync_all()?;
        let closed = Closed::of(data.stamp().map_err(io::Error::other)?);
        self.write_header(|header| Header { clean: true, closed, ..header }).map_err(io::Error::other)
    }

    fn attach_report(&self) -> Option<&AttachReport> {
        self.report.as_ref()
    }

    fn statistics(&self) -> Vec<(&'static str, u64)> {
        let Shared { cache, ranges, maintenance, .. } = &*self.shared;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("metadata_cache_blocks", cache.frames() as u64),
            ("metadata_dirty_blocks", cache.dirty() as u64),
            ("metadata_loads", count(&cache.counters.loads)),
            ("metadata_evictions", count(&cache.counters.evictions)),
            ("metadata_cache_waits", count(&cache.counters.starvations)),
            ("metadata_checkpoints", count(&maintenance.rounds)),
            ("range_waits", ranges.waits()),
        ]
    }
}

impl Drop for SidecarStore {
    /// Without a close the header stays as it is, in use; what was acknowledged is written all the same.
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            log::error!("{}: its last writes' PI is lost: {}", self.shared.pi.medium.path.display(), error);
        }
    }
}
