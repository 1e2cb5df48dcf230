//! Starting and stopping a queue's thread.

use crate::io::{Doorbell, PAGE, Pool, Ring, RingError};
use crate::limit::Limit;
use crate::queue::active::Table;
use crate::queue::engine::{Engine, Failure, Link, Work};
use crate::queue::indirect::Indirect;
use crate::queue::protect::Rules;
use crate::queue::spin::Spin;
use crate::queue::{Counters, Disk, Stats};
use blkif::{BackRing, DixLimits, Limits, Pairing, SharedMemory, Start};
use hypervisor::{DomId, GrantRef, Port};
use integrity::Profile;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// Submission entries of a queue's io_uring; more are handed in as they come.
const SUBMISSIONS: u32 = 256;

/// A queue's resources, the operator's to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of private data buffers, besides their metadata.
    pub pool_bytes: usize,
    /// Longest time to spin for work before events are armed; zero to never spin.
    pub spin: Duration,
    /// A processor to keep the thread on.
    pub cpu: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { pool_bytes: 4 << 20, spin: Duration::from_micros(50), cpu: None }
    }
}

/// Bytes of buffers that a queue with `pool_bytes` has for data, PI and segment pages; the pool is enlarged to hold the
/// largest request.
pub fn buffer_bytes(pool_bytes: usize, profile: Option<&Profile>, max_indirect: u16) -> usize {
    let (data, per_page) = pool_shape(pool_bytes, profile, max_indirect);
    Pool::footprint(data, per_page) + Indirect::footprint(max_indirect)
}

/// Bytes of data of a queue's pool, and of metadata for each of its pages.
fn pool_shape(pool_bytes: usize, profile: Option<&Profile>, max_indirect: u16) -> (usize, usize) {
    let largest = usize::from(max_indirect).max(blkif::MAX_SEGMENTS) * PAGE;
    (pool_bytes.max(largest), profile.map_or(0, |profile| profile.metadata_len(PAGE)))
}

/// Everything a queue needs.
pub struct Setup {
    /// The frontend's domain.
    pub domain: DomId,
    /// The queue's number within the disk.
    pub index: usize,
    /// The ring's pages.
    pub refs: Vec<GrantRef>,
    /// The frontend's event channel.
    pub port: Port,
    /// The ring's layout.
    pub abi: blkif::Abi,
    /// Where to begin.
    pub start: Start,
    /// Whether the frontend negotiated DIX.
    pub dix: bool,
    /// Largest number of segments of an indirect request; 0 where they were not offered.
    pub max_indirect: u16,
    /// The disk.
    pub disk: Arc<Disk>,
    /// Resources.
    pub settings: Settings,
    /// Rung when the queue fails on its own; [`QueueHandle::failure`] then tells why.
    pub failed: Doorbell,
}

/// Why a queue could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The kernel gives no ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The hypervisor refused the ring's pages or its event channel.
    #[error("{0}")]
    Hypervisor(#[from] hypervisor::Error),
    /// What the frontend shared is no ring.
    #[error("{0}")]
    Protocol(#[from] blkif::RingError),
    /// A resource of this process.
    #[error("{what}: {source}")]
    Resource {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// How a queue ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Every response up to here is published; a fresh run attaches here.
    pub rsp_prod: u32,
    /// Whether the ring is drained and sound, so that it may be attached again.
    pub resumable: bool,
    /// What it counted from its start to its end.
    pub stats: Stats,
}

/// A running queue, held by the control thread. Dropping it stops it.
pub struct QueueHandle {
    link: Arc<Link>,
    failure: Arc<OnceLock<String>>,
    /// Gives `rsp_prod`, and whether the ring may be attached again.
    thread: Option<JoinHandle<(u32, bool)>>,
}

impl QueueHandle {
    /// Maps the ring, binds the event channel and starts the thread.
    ///
    /// # Errors
    /// [`QueueError`]; nothing stays mapped or bound.
    pub fn start(hypervisor: &dyn hypervisor::Backend, setup: Setup) -> Result<Self, QueueError> {
        let resource = |what| move |source| QueueError::Resource { what, source };
        let bell = Doorbell::new().map_err(resource("a doorbell"))?;
        let link = Arc::new(Link { stop: AtomicBool::new(false), bell, counters: Counters::default() });
        let engine = engine(hypervisor, &setup, &link)?;
        setup.disk.lost.join(link.bell.clone());
        let failure = Arc::new(OnceLock::new());
        let body = {
            let failure = Arc::clone(&failure);
            move || body(engine, &setup, &failure)
        };
        let thread =
            std::thread::Builder::new().name("queue".into()).spawn(body).map_err(resource("a thread"))?;
        Ok(Self { link, failure, thread: Some(thread) })
    }

    /// Stops consuming, drains what is in flight, publishes every response, unmaps and unbinds.
    pub fn stop(mut self) -> Stopped {
        self.request_stop();
        self.join()
    }

    /// Tells the queue to stop, without waiting: a disk stops all its queues at once, then joins each.
    pub fn request_stop(&self) {
        self.link.stop.store(true, Ordering::Relaxed);
        self.link.bell.ring();
    }

    /// Why the queue ended by itself, if it did.
    pub fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        self.link.counters.read()
    }

    fn join(&mut self) -> Stopped {
        let ended = self.thread.take().and_then(|thread| thread.join().ok());
        let (rsp_prod, resumable) = ended.unwrap_or((0, false));
        // After the thread's end: what it did while it drained counts.
        Stopped { rsp_prod, resumable, stats: self.stats() }
    }
}

impl Drop for QueueHandle {
    fn drop(&mut self) {
        self.request_stop();
        self.join();
    }
}

/// Everything the thread will own, made where errors can still be told.
fn engine(
    hypervisor: &dyn hypervisor::Backend,
    setup: &Setup,
    link: &Arc<Link>,
) -> Result<Engine, QueueError> {
    let resource = |what| move |source| QueueError::Resource { what, source };
    let mapping = hypervisor.map(setup.domain, &setup.refs)?;
    let (base, len) = (mapping.base(), mapping.len());
    // SAFETY: the mapping keeps these bytes mapped, goes with the ring, and nothing else refers to them.
    let memory = unsafe { SharedMemory::new(base, len, mapping) };
    let ring = BackRing::attach(memory, setup.abi, setup.start)?;
    let rules = Rules::of(&setup.disk);
    let dix = rules.as_ref().filter(|_| setup.dix).map(|rules| {
        let spec = rules.profile().spec();
        DixLimits { interval: spec.interval, metadata_size: spec.metadata_size }
    });
    let limits = Limits { max_indirect: setup.max_indirect, dix };
    let profile = rules.as_ref().map(Rules::profile);
    let (bytes, per_page) = pool_shape(setup.settings.pool_bytes, profile, setup.max_indirect);
    let pool = Pool::new(bytes, per_page).map_err(resource("buffers"))?;
    let limit = |subject| Limit::of(&setup.disk.name, subject, "dixback::queue");
    Ok(Engine {
        uring: if setup.disk.store.wide_ring() { Ring::wide(SUBMISSIONS)? } else { Ring::new(SUBMISSIONS)? },
        store: Arc::clone(&setup.disk.store)
            .queue(link.bell.clone())
            .map_err(resource("a queue of the store"))?,
        pool,
        pairing: Pairing::new(limits),
        channel: hypervisor.bind(setup.domain, setup.port)?,
        copier: hypervisor.copier(setup.domain)?,
        disk: Arc::clone(&setup.disk),
        rules,
        volatile: setup.disk.store.capabilities().volatile_cache,
        link: Arc::clone(link),
        table: Table::new(ring.entries()),
        ring,
        indirect: Indirect::new(setup.max_indirect).map_err(resource("buffers"))?,
        spin: Spin::new(setup.settings.spin),
        work: Work::default(),
        guest_log: limit("guest"),
        refusal_log: limit("refusal"),
        medium_log: limit("medium"),
        host_log: limit("host"),
    })
}

/// The thread: works until stopped, then lets go of everything.
fn body(mut engine: Engine, setup: &Setup, failure: &OnceLock<String>) -> (u32, bool) {
    if let Some(cpu) = setup.settings.cpu {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
            log::warn!(
                "{}: queue {} cannot be kept on processor {cpu}: {error}",
                setup.disk.name,
                setup.index
            );
        }
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        engine.uring.enable().map_err(Failure::Kernel)?;
        engine.uring.register(&engine.pool);
        engine.run()
    }));
    let reason = match result {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure.to_string()),
        Err(_) => Some("an internal error; the log has it".to_owned()),
    };
    let stopped = (engine.ring.indexes().rsp_prod, reason.is_none() && engine.ring.unanswered() == 0);
    drop(engine);
    if let Some(reason) = reason {
        let _ = failure.set(format!("queue {}: {reason}", setup.index));
        setup.failed.ring();
    }
    stopped
}
