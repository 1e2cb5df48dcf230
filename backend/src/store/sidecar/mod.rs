//! A plain file or block device with its protection information beside it, in a sidecar.
//!
//! ```text
//! queue threads                       shared                          maintenance thread
//!   request -> lock range (Ranges) ---------------+
//!           -> writes: announced, durably ----> Wal or Bitmap --- its thread -------------> sidecar
//!           -> data I/O                           |
//!           -> PI: read from, put into -------> Cache <--- dirty blocks, copied out --- Checkpoint -> sidecar
//!                     miss: the queue loads it    |
//!           -> unlock -> complete                 +--- flush: data, and what else makes it last
//!
//! after a crash: Pair::recover, before anything is served
//! ```
//!
//! The data stays an image that any tool can use. What the metadata says is only ever changed after the data's
//! write has succeeded, and while the range is locked: whoever reads gets the data of one write with the tuple of
//! that write. `docs/sidecar.md` is the format's specification.

mod attach;
mod bitmap;
mod cache;
mod checkpoint;
#[cfg(test)]
mod cut;
mod foreign;
mod grow;
mod header;
mod layout;
mod pifile;
mod queue;
mod record;
mod replay;
mod wal;
mod writeback;

pub use attach::AttachReport;
pub use header::{Closed, Header, HeaderError, Live, OwnerRecord};
pub use layout::{BLOCK, Layout, Piece};
pub use record::{Body, IntervalHash, Record, RecordError};
pub use replay::{Named, Recovered};

pub(crate) use foreign::foreign_tag;
pub(crate) use grow::grown_size;
pub(crate) use header::HEADERS;
pub(crate) use pifile::{PiFile, default_path, read_header, user_of, write_header};

use crate::io::Doorbell;
use crate::limit::Limit;
use crate::store::file::plain_capabilities;
use crate::store::inbox::Waiter;
use crate::store::lock::Access;
use crate::store::medium::{Direct, Medium, Stamp};
use crate::store::ranges::Ranges;
use crate::store::{Capabilities, CrashMode, Errno, Geometry, Store, StoreError, StoreQueue, StoreSpec};
use bitmap::Bitmap;
use cache::Cache;
use checkpoint::{Checkpoint, Maintenance, Scratch};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wal::Wal;
use writeback::Writeback;

/// How often a long recovery says how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// What is kept for a crash.
enum Safety {
    /// Nothing.
    Off,
    /// A log of writes.
    Log(Wal),
    /// A bitmap of regions.
    Bitmap(Bitmap),
}

impl Safety {
    fn new(mode: CrashMode, header: &Header, data: &Medium, sidecar: &Path) -> Result<Self, StoreError> {
        Ok(match mode {
            CrashMode::Off => Safety::Off,
            CrashMode::Bitmap => Safety::Bitmap(Bitmap::new(header, sidecar)?),
            CrashMode::Log => {
                // The medium may be another one than when the sidecar was made.
                let torn = header.non_atomic || header.profile.spec().interval > data.atomic_unit();
                Safety::Log(Wal::new(header, torn, sidecar)?)
            }
        })
    }

    /// Most intervals that a step of a write may have.
    fn most_intervals(&self) -> u64 {
        if let Safety::Log(wal) = self { wal.most_intervals() } else { u64::MAX }
    }

    /// What the header says of it while the disk is in use.
    fn header(&self, header: Header) -> Header {
        let (live, log_state) = match self {
            Safety::Off => (Live::Nothing, [0; 3]),
            Safety::Log(wal) => (Live::Log, wal.tail(wal.cut())),
            Safety::Bitmap(bitmap) => (Live::Bitmap, bitmap.header()),
        };
        Header { live, log_state, ..header }
    }
}

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
    safety: Safety,
    /// The header as it is on disk.
    header: Mutex<Header>,
    /// Whether holes can be made in the sidecar, as far as is known.
    holes: AtomicBool,
}

/// A disk with a sidecar.
pub(crate) struct SidecarStore {
    shared: Arc<Shared>,
    /// Run while the disk is open for writing.
    threads: Mutex<Option<Threads>>,
    report: Option<AttachReport>,
}

/// The maintenance thread, and the log's or bitmap's.
struct Threads {
    maintenance: JoinHandle<Result<(), Errno>>,
    safety: Option<JoinHandle<()>>,
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
        let mut pair = Pair::open(&spec.path, sidecar, access, spec.direct, direct_sidecar, true)?;
        pair.refuse_unrecovered(access)?;
        let mut report = AttachReport::of(&pair.pi, &pair.data, pair.data.stamp()?);
        if access == Access::Exclusive {
            let recovered = pair.recover(&mut said_now_and_then(&spec.path))?;
            if let Some(report) = &mut report {
                report.recovered = recovered;
            }
        }
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
        let mode = if spec.read_only { CrashMode::Off } else { spec.crash };
        let safety = Safety::new(mode, &pi.header, &data, sidecar)?;
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
            safety,
            header,
            holes: AtomicBool::new(true),
        });
        let store = Self { shared, threads: Mutex::new(None), report };
        if !spec.read_only {
            let Shared { safety, pi, .. } = &*store.shared;
            if let Safety::Bitmap(bitmap) = safety {
                // Before the header speaks of it.
                bitmap.clear(&pi.medium).map_err(StoreError::io(sidecar, "cannot write the bitmap"))?;
                pi.medium.sync().map_err(|errno| {
                    StoreError::io(sidecar, "cannot write the bitmap")(io::Error::from_raw_os_error(errno.0))
                })?;
            }
            store.write_header(|header| {
                safety.header(Header { clean: false, owner: owner_record(owner), ..header })
            })?;
            *store.threads.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Shared::start(&store.shared)?);
        }
        Ok(store)
    }

    fn write_header(&self, change: impl FnOnce(Header) -> Header) -> Result<(), StoreError> {
        let mut header = self.shared.header.lock().unwrap_or_else(PoisonError::into_inner);
        *header = self.shared.pi.write_header(change(header.clone()))?;
        Ok(())
    }

    /// Stops the threads after a last round that makes everything durable.
    fn stop(&self) -> Result<(), Errno> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Threads { maintenance, safety }) = threads else { return Ok(()) };
        self.shared.maintenance.stop();
        let result = maintenance.join().unwrap_or(Err(Errno(libc::EIO)));
        self.shared.stop_safety();
        match safety.map(JoinHandle::join) {
            Some(Err(_)) => Err(Errno(libc::EIO)),
            _ => result,
        }
    }
}

impl Shared {
    fn geometry(&self) -> Geometry {
        // Acquire: pairs with the Release in `grow`; the metadata of whatever is in range is there.
        Geometry { bytes: self.bytes.load(Ordering::Acquire), ..self.shape }
    }

    /// Has the log's or bitmap's thread end, once it has written what it was given.
    fn stop_safety(&self) {
        match &self.safety {
            Safety::Off => {}
            Safety::Log(wal) => wal.stop(),
            Safety::Bitmap(bitmap) => bitmap.stop(),
        }
    }

    fn start(shared: &Arc<Self>) -> Result<Threads, StoreError> {
        let failed = |doing| StoreError::io::<io::Error>(&shared.pi.medium.path, doing);
        let own = Arc::clone(shared);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let safety = match &shared.safety {
            Safety::Off => None,
            Safety::Bitmap(_) => Some(thread("dixback-bitmap").spawn(move || {
                if let Safety::Bitmap(bitmap) = &own.safety {
                    bitmap.run(&own.pi.medium);
                }
            })),
            Safety::Log(wal) => {
                let staging = wal.staging().map_err(failed("no memory for its log"))?;
                Some(thread("dixback-log").spawn(move || {
                    if let Safety::Log(wal) = &own.safety {
                        wal.run(&own.pi.medium, staging);
                    }
                }))
            }
        };
        let safety = safety.transpose().map_err(failed("cannot start its thread"))?;
        let own = Arc::clone(shared);
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let maintenance = thread("dixback-pi").spawn(move || {
            // Its io_uring belongs to the thread that makes it.
            let scratch = match Writeback::new() {
                Ok(writeback) => Scratch { writeback, blocks: Vec::new(), idle: Vec::new() },
                Err(error) => {
                    let _ = tell.send(Err(error));
                    return Err(Errno(libc::EIO));
                }
            };
            let _ = tell.send(Ok(()));
            let checkpoint = Checkpoint {
                data: &own.data,
                pi: &own.pi,
                header: &own.header,
                safety: &own.safety,
                cache: &own.cache,
                maintenance: &own.maintenance,
            };
            checkpoint.run(scratch)
        });
        let started = maintenance.and_then(|thread| {
            let gone = |_| io::Error::other("the thread went away");
            told.recv().map_err(gone).and_then(|result| result).map(|()| thread)
        });
        match started {
            Ok(maintenance) => Ok(Threads { maintenance, safety }),
            Err(error) => {
                // The other one would keep the disk open, and locked.
                shared.stop_safety();
                safety.map(JoinHandle::join);
                Err(failed("cannot start its maintenance thread")(error))
            }
        }
    }
}

/// Has the log say how far a recovery is, if it takes long.
fn said_now_and_then(disk: &Path) -> impl FnMut(u64, u64) {
    let mut said = Instant::now();
    move |done, total| {
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            let percent = u128::from(done) * 100 / u128::from(total.max(1));
            log::info!("{}: making good what a crash left: {percent}%", disk.display());
        }
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
        let mut header = self.shared.header.lock().unwrap_or_else(PoisonError::into_inner);
        let after = grown_size(data, header.data_bytes, shape.logical_block)?;
        if after <= header.data_bytes {
            return Ok(bytes.load(Ordering::Acquire));
        }
        if capabilities.read_only {
            return Err(StoreError::ReadOnlyGrowth { path: data.path.clone() });
        }
        *header = pi.write_header(grow::lengthen(data, &pi.medium, &header, after)?)?;
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
        if let Safety::Log(wal) = &self.shared.safety
            && (wal.retirable() || wal.used() > 0)
        {
            // A queue went with requests under way: what became of them, the next one to open the disk finds out.
            return Err(io::Error::other("its log is still needed"));
        }
        let data = &self.shared.data;
        // Its size and times too, for they are compared at the next open.
        data.file.sync_all()?;
        let closed = Closed::of(data.stamp().map_err(io::Error::other)?);
        self.write_header(|header| Header {
            clean: true,
            closed,
            live: Live::Nothing,
            log_state: [0; 3],
            ..header
        })
        .map_err(io::Error::other)
    }

    fn attach_report(&self) -> Option<&AttachReport> {
        self.report.as_ref()
    }

    fn statistics(&self) -> Vec<(&'static str, u64)> {
        let Shared { cache, ranges, maintenance, safety, .. } = &*self.shared;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut all = vec![
            ("metadata_cache_blocks", cache.frames() as u64),
            ("metadata_dirty_blocks", cache.dirty() as u64),
            ("metadata_loads", count(&cache.counters.loads)),
            ("metadata_evictions", count(&cache.counters.evictions)),
            ("metadata_cache_waits", count(&cache.counters.starvations)),
            ("metadata_checkpoints", count(&maintenance.rounds)),
            ("range_waits", ranges.waits()),
        ];
        match safety {
            Safety::Off => {}
            Safety::Log(wal) => all.extend([
                ("log_batches", count(&wal.batches)),
                ("log_bytes", wal.used()),
                ("log_waits", count(&wal.stalls)),
            ]),
            Safety::Bitmap(bitmap) => all.push(("bitmap_regions", bitmap.dirty())),
        }
        all
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
