//! A connection: an open store and the queues on it. Opening and closing may block and are a helper's work.
//!
//! ```text
//! open:   store (lock, replay) -> record deleted -> queues started, each maps and binds    any refusal undoes all
//! close:  all queues told to stop -> each joined: drained, unmapped, unbound -> store closed
//! ```

use super::id::DiskId;
use super::limits::Permit;
use super::plan::Plan;
use super::rundir::RunDir;
use super::status::{ConnectionReport, PiMode, QueueReport};
use crate::config::DaemonConfig;
use crate::io::Doorbell;
use crate::limit::Limit;
use crate::queue::{Disk, QueueHandle, Settings, Setup, Stats, Stopped};
use crate::store::{self, Store};
use blkif::{FrontendNodes, Properties, Sectors, Start};
use hypervisor::{Backend, DomId, GrantRef, Port};
use std::sync::Arc;
use std::time::Instant;

/// What opening needs, owned: it goes to another thread.
pub struct Opening {
    /// Which disk.
    pub id: DiskId,
    /// Its name in logs, and in the store's lock.
    pub name: String,
    /// What the frontend chose.
    pub frontend: FrontendNodes,
    /// Grants and event channels.
    pub hypervisor: Arc<dyn Backend>,
    /// Rung when a queue fails.
    pub bell: Doorbell,
    /// The daemon's settings.
    pub config: Arc<DaemonConfig>,
    /// A connection of another run to be taken up.
    pub resume: Option<Resume>,
}

/// Where another run left a connection.
pub struct Resume {
    /// `rsp_prod` of each ring.
    pub rsp_prod: Vec<u32>,
    /// What was written to the tree before Connected.
    pub properties: Properties,
    /// The store's size then.
    pub bytes: u64,
    /// Where the record is, to be deleted before the rings are touched.
    pub records: RunDir,
}

/// Why opening failed.
#[derive(Debug, PartialEq, Eq)]
pub enum OpenError {
    /// This connection cannot be.
    Refused(String),
    /// Only the store is missing, nothing was touched: the same may work later.
    NotNow(String),
}

/// Queues that run on an open store.
pub struct Connection {
    name: String,
    disk: Arc<Disk>,
    queues: Vec<QueueHandle>,
    frontend: FrontendNodes,
    properties: Properties,
    /// The offered number of segments, and whether discards are.
    max_indirect: u16,
    since: Instant,
    _permit: Permit,
}

/// What closing a connection gave.
#[derive(Debug)]
pub struct Closed {
    /// How each queue ended.
    pub queues: Vec<Stopped>,
    /// All their counters together.
    pub stats: Stats,
    /// What the frontend had chosen.
    pub frontend: FrontendNodes,
    /// The size in bytes that the frontend knows.
    pub bytes: u64,
}

impl Opening {
    /// Opens what was announced as `plan`, within `permit`. May take long: a lock, a replay, a grant whose page is
    /// away.
    ///
    /// # Errors
    /// Nothing is open, mapped or bound then.
    pub fn run(self, plan: &Plan, permit: Permit) -> Result<Connection, OpenError> {
        let refused = OpenError::Refused;
        let store = store::open(&plan.store, &self.name).map_err(|error| match self.resume {
            Some(_) => OpenError::NotNow(error.to_string()),
            None => refused(error.to_string()),
        })?;
        let name = self.name.clone();
        self.start(plan, permit, &store).map_err(|reason| {
            if let Err(error) = store.close() {
                close_failed(&name, &error);
            }
            refused(reason)
        })
    }

    fn start(self, plan: &Plan, permit: Permit, store: &Arc<dyn Store>) -> Result<Connection, String> {
        let (geometry, capabilities) = (store.geometry(), store.capabilities());
        plan.holds(&geometry, &capabilities)?;
        let mut properties = plan.properties(&geometry, &capabilities);
        if let Some(resume) = &self.resume {
            if geometry.bytes < resume.bytes {
                return Err(format!("the disk shrank from {} to {} bytes", resume.bytes, geometry.bytes));
            }
            if resume.properties.sector_size != properties.sector_size
                || resume.properties.info != properties.info
            {
                return Err("the disk is no longer what the frontend was told".to_owned());
            }
            properties = resume.properties.clone();
            // From here on the rings change, and the record would be of what was.
            resume.records.forget(&self.id).map_err(|error| error.to_string())?;
        }
        let discard = properties.discard.is_some() && capabilities.discard.is_some();
        let disk = Arc::new(plan.disk(self.name.clone(), Arc::clone(store), discard));
        let limits = plan.transport.limits(self.frontend.dix);
        let pool_bytes = usize::try_from(plan.pool).map_err(|_| "the pool is too large".to_owned())?;
        let queue = |(index, ring): (usize, &blkif::RingNodes)| {
            let start = match &self.resume {
                None => Start::Fresh,
                Some(resume) => Start::At(*resume.rsp_prod.get(index).ok_or("a ring without a record")?),
            };
            let setup = Setup {
                domain: DomId(self.id.domain),
                index,
                refs: ring.refs.iter().map(|gref| GrantRef(gref.0)).collect(),
                port: Port(ring.port),
                abi: self.frontend.abi,
                start,
                dix: self.frontend.dix,
                max_indirect: limits.max_indirect,
                disk: Arc::clone(&disk),
                settings: Settings { pool_bytes, spin: self.config.spin, cpu: None },
                failed: self.bell.clone(),
            };
            QueueHandle::start(&*self.hypervisor, setup).map_err(|error| format!("queue {index}: {error}"))
        };
        // A queue that was started is stopped by being dropped when a later one cannot start.
        let queues = self.frontend.rings.iter().enumerate().map(queue).collect::<Result<Vec<_>, String>>()?;
        Ok(Connection {
            name: self.name,
            disk,
            queues,
            frontend: self.frontend,
            properties,
            max_indirect: limits.max_indirect,
            since: Instant::now(),
            _permit: permit,
        })
    }
}

impl Connection {
    /// What the frontend is told of the disk.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The store, to be looked at for growth.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.disk.store)
    }

    /// The store's size in bytes, if the frontend was told another.
    pub fn outgrown(&self) -> Option<u64> {
        let bytes = self.disk.store.geometry().bytes;
        (self.properties.sectors != Sectors(bytes / 512)).then_some(bytes)
    }

    /// The size that the frontend is about to be told, or was told.
    pub fn set_bytes(&mut self, bytes: u64) {
        self.properties.sectors = Sectors(bytes / 512);
    }

    /// What it has counted so far, all queues together.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.queues.iter().for_each(|queue| stats += queue.stats());
        stats
    }

    /// What there is to tell of it.
    pub fn report(&self) -> ConnectionReport {
        let Self { frontend, disk, .. } = self;
        let queue = |(queue, ring): (&QueueHandle, &blkif::RingNodes)| QueueReport {
            ring_pages: ring.refs.len(),
            port: ring.port,
            counters: queue.stats(),
        };
        ConnectionReport {
            uptime: self.since.elapsed().as_secs_f64(),
            pi: match (disk.profile, frontend.dix) {
                (None, _) => PiMode::None,
                (Some(_), false) => PiMode::Made,
                (Some(_), true) => PiMode::EndToEnd,
            },
            abi: frontend.abi.name().to_owned(),
            persistent: frontend.persistent,
            max_indirect: self.max_indirect,
            discard: self.properties.discard.is_some(),
            queues: self.queues.iter().zip(&frontend.rings).map(queue).collect(),
            store: disk.store.statistics().into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
            attach_report: disk.store.attach_report().map(ToString::to_string),
        }
    }

    /// What the frontend chose.
    pub fn frontend(&self) -> &FrontendNodes {
        &self.frontend
    }

    /// Why a queue ended by itself, if one did.
    pub fn failure(&self) -> Option<String> {
        self.queues.iter().find_map(QueueHandle::failure)
    }

    /// Closes. May take long: everything in flight, then everything to the medium.
    pub fn close(self) -> Closed {
        self.queues.iter().for_each(QueueHandle::request_stop);
        let mut stats = Stats::default();
        let mut stopped = Vec::with_capacity(self.queues.len());
        for queue in self.queues {
            let queue = queue.stop();
            stats += queue.stats;
            stopped.push(queue);
        }
        if self.disk.lost.is() {
            // The store may still be written to, and is not whole: its locks stay until the process ends.
            log::error!(
                "{}: a queue was lost with requests under way: the disk is not closed, and stays locked until \
                 dixback is restarted",
                self.name
            );
        } else if let Err(error) = self.disk.store.close() {
            close_failed(&self.name, &error);
        }
        let bytes = self.properties.sectors.bytes().unwrap_or(u64::MAX);
        Closed { queues: stopped, stats, frontend: self.frontend, bytes }
    }
}

fn close_failed(name: &str, error: &std::io::Error) {
    // A guest decides how often its disk is closed.
    Limit::of(name, "close", module_path!())
        .log(log::Level::Error, || format!("{name}: closing the disk: {error}"));
}
