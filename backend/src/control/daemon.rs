//! The control thread's loop: events in, disks tended.
//!
//! ```text
//! poll ( xenstore events | doorbell: helpers, failed queues | stop and resize requests | status clients | the next timer )
//!   -> events become hints, hints a set of disks to look at: one entry each, however often a guest writes
//!   -> each disk in the set is tended once, then the next round
//! ```

mod clients;

use super::claim::{self, Claim, Hint};
use super::error::ControlError;
use super::helper::Helpers;
use super::host::Host;
use super::id::DiskId;
use super::limits::Caps;
use super::presence::Presence;
use super::rundir::RunDir;
use super::service::Service;
use super::status::{Server, socket};
use super::stop::{Stopper, Stops};
use super::vbd::{Tended, Vbd};
use crate::config::DaemonConfig;
use crate::io::Doorbell;
use blkif::names;
use hypervisor::Backend;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use xenstore::{Client, Error};

/// How long after a failed scan the next is tried.
const SCAN_PAUSE: Duration = Duration::from_secs(1);

/// Requests to stop within this time are one: an interrupt may come from the terminal and again from sudo.
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// The daemon: everything the control thread has.
pub struct Daemon {
    host: Host,
    disks: BTreeMap<DiskId, Vbd>,
    /// Disks to look at.
    pending: BTreeSet<DiskId>,
    /// Kinds to scan.
    scans: BTreeSet<String>,
    scan_again: Option<Instant>,
    stops: Stops,
    /// Requests to look whether disks have grown.
    growths: Stops,
    server: Server,
    service: Service,
    _presence: Presence,
    started: Instant,
    /// Domains may have gone.
    releases: bool,
    /// Since when it is about to end.
    stopping: Option<Instant>,
    /// When a stop next says what it waits for.
    notice: Option<Instant>,
}

impl Daemon {
    /// Takes the run directory, registers the watches and looks at what there is. Disks are served from
    /// [`run`](Self::run) on.
    ///
    /// # Errors
    /// Another daemon has the run directory, or xenstore cannot be asked.
    pub fn start(
        config: DaemonConfig,
        client: Client,
        hypervisor: Arc<dyn Backend>,
    ) -> Result<Self, ControlError> {
        config.check()?;
        let run_dir = RunDir::take(&config.run_dir)?;
        let domain = own_domain(&config, &client)?;
        let home =
            client.domain_path(domain).map_err(ControlError::xenstore("asking for the home directory"))?;
        let presence = Presence::take(&client, &home, &config)?;
        let bell = Doorbell::new().map_err(ControlError::System)?;
        let host = Host {
            caps: Caps::new(config.threads, config.pool_total),
            helpers: Helpers::new(bell.clone()),
            config: Arc::new(config),
            client,
            hypervisor,
            bell,
            run_dir,
            domain,
            home,
            stopping: false,
        };
        let path = socket(host.run_dir.path());
        let server = Server::bind(path.clone()).map_err(|source| ControlError::Socket { path, source })?;
        let stops = Stops::new().map_err(ControlError::System)?;
        let mut daemon = Self {
            host,
            disks: BTreeMap::new(),
            pending: BTreeSet::new(),
            scans: BTreeSet::new(),
            scan_again: None,
            stops,
            growths: Stops::new().map_err(ControlError::System)?,
            server,
            service: Service::default(),
            _presence: presence,
            started: Instant::now(),
            releases: false,
            stopping: None,
            notice: None,
        };
        for kind in &daemon.host.config.kinds {
            let root = format!("{}/backend/{kind}", daemon.host.home);
            let watched = daemon.host.client.watch_coalesced(&root, &claim::kind_token(kind));
            watched.map_err(ControlError::xenstore("watching the backend's directory"))?;
            daemon.scans.insert(kind.clone());
        }
        // Where a domain may not hear of others, its disks' nodes tell, as they nearly always do.
        if let Err(error) = daemon.host.client.watch_coalesced(claim::RELEASE, claim::RELEASE) {
            log::debug!("watching {}: {error}", claim::RELEASE);
        }
        daemon.scan().map_err(ControlError::xenstore("looking for disks"))?;
        let files: BTreeSet<_> = daemon.pending.iter().map(DiskId::file).collect();
        daemon.host.run_dir.sweep(|name| files.contains(name));
        Ok(daemon)
    }

    /// What is served where, in one line.
    pub fn describe(&self) -> String {
        let Host { config, home, .. } = &self.host;
        let kinds = config.kinds.join(", ");
        format!("serving {kinds} of {home}/backend, {} disks found", self.pending.len())
    }

    /// What asks this daemon to stop, from any thread.
    pub fn stopper(&self) -> Stopper {
        self.stops.stopper()
    }

    /// What makes this daemon look whether disks have grown, from any thread.
    pub fn grower(&self) -> Stopper {
        self.growths.stopper()
    }

    /// Who is told how the daemon does, from now on; first, that it is ready.
    pub fn serve_under(&mut self, service: Service) {
        service.ready();
        self.service = service;
    }

    /// Serves until asked to stop; then leaves every connection to the next run and returns.
    ///
    /// # Errors
    /// A second request to stop came before the first was done; the message says what hangs.
    pub fn run(mut self) -> Result<(), ControlError> {
        loop {
            self.wait()?;
            if self.stops.take() {
                match self.stopping {
                    None => self.begin_stop(),
                    Some(since) if since.elapsed() < ONE_REQUEST => {}
                    Some(_) => return Err(ControlError::Hangs { what: self.unsettled() }),
                }
            }
            self.collect();
            self.tend();
            self.answer();
            self.service.status(self.summary());
            self.service.alive(Instant::now());
            if self.host.stopping && self.disks.values().all(Vbd::settled) {
                log::info!("stopped");
                return Ok(());
            }
            self.remark();
        }
    }

    /// Waits for anything to happen.
    fn wait(&self) -> Result<(), ControlError> {
        let idle = self.pending.is_empty() && (self.scans.is_empty() || self.scan_again.is_some());
        let now = Instant::now();
        let timers = self.disks.values().filter_map(Vbd::wakes);
        let timers = timers
            .chain(self.notice)
            .chain(self.scan_again)
            .chain(self.server.wakes())
            .chain(self.service.wakes());
        let next = if idle { timers.min() } else { Some(now) };
        let timeout = next.map(|at| timespec(at.saturating_duration_since(now)));
        let mut polled = vec![
            PollFd::new(self.host.client.events(), PollFlags::IN),
            PollFd::new(&self.host.bell, PollFlags::IN),
            PollFd::new(&self.stops, PollFlags::IN),
            PollFd::new(&self.growths, PollFlags::IN),
        ];
        polled.extend(self.server.polled());
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(ControlError::System(error.into())),
        }
    }

    /// Takes in everything that happened.
    fn collect(&mut self) {
        self.host.bell.quiet();
        for (id, outcome) in self.host.helpers.finished() {
            let Some(disk) = self.disks.get_mut(&id) else { continue };
            if disk.finish(outcome) {
                self.pending.insert(id);
            }
        }
        let failed = self.disks.iter_mut().filter_map(|(id, disk)| disk.check_queues().then(|| id.clone()));
        self.pending.extend(failed);
        while let Some(event) = self.host.client.events().try_next() {
            match claim::hint(&self.host.home, &event) {
                Some(Hint::Look(id)) => drop(self.pending.insert(id)),
                Some(Hint::LookIfNew(id)) if self.disks.contains_key(&id) => {}
                Some(Hint::LookIfNew(id)) => drop(self.pending.insert(id)),
                Some(Hint::Scan(kind)) => drop(self.scans.insert(kind)),
                Some(Hint::Domains) => self.releases = true,
                None => {}
            }
        }
        if std::mem::take(&mut self.releases) {
            self.look_for_orphans();
        }
        if self.growths.take() {
            for (id, disk) in &mut self.disks {
                disk.resize(None);
                self.pending.insert(id.clone());
            }
        }
        for (client, request) in self.server.requests() {
            self.heed(client, request);
        }
        let now = Instant::now();
        for (id, disk) in &mut self.disks {
            if disk.wakes().is_some_and(|at| at <= now) {
                disk.wake(now);
                self.pending.insert(id.clone());
            }
        }
        if self.scan_again.is_none_or(|at| at <= now) {
            self.scan_again = None;
            if let Err(error) = self.scan() {
                log::debug!("looking for disks: {error}");
                self.scan_again = Some(now + SCAN_PAUSE);
            }
        }
    }

    /// Everything of the kinds to scan, known or found, is to be looked at.
    fn scan(&mut self) -> Result<(), Error> {
        while let Some(kind) = self.scans.first().cloned() {
            self.pending.extend(claim::scan(&self.host.client, &self.host.home, &kind)?);
            self.pending.extend(self.disks.keys().filter(|id| id.kind == kind).cloned());
            self.scans.remove(&kind);
        }
        Ok(())
    }

    /// Looks once at each disk there is something about.
    fn tend(&mut self) {
        for id in std::mem::take(&mut self.pending) {
            if !self.disks.contains_key(&id) && !self.adopt(&id) {
                continue;
            }
            let Some(disk) = self.disks.get_mut(&id) else { continue };
            match disk.tend(&self.host) {
                Tended::Rests => {}
                Tended::Again => drop(self.pending.insert(id)),
                Tended::Gone => {
                    self.answer();
                    self.disks.remove(&id);
                }
            }
        }
    }

    /// A directory that is not known yet: whether it is one of ours now.
    fn adopt(&mut self, id: &DiskId) -> bool {
        if self.host.stopping {
            return false;
        }
        let Host { client, home, config, .. } = &self.host;
        let claim = match claim::claim(client, home, config, id) {
            Ok(Some(claim)) => claim,
            Ok(None) => return false,
            Err(error) => {
                log::warn!("{id}: {error}");
                self.scans.insert(id.kind.clone());
                self.scan_again = Some(Instant::now() + SCAN_PAUSE);
                return false;
            }
        };
        let Claim { name, tree, .. } = &claim;
        if let Some(frontend) = &tree.frontend {
            let state = format!("{frontend}/{}", names::STATE);
            match client.watch_whole(&state, &id.token()) {
                Ok(()) | Err(Error::Exists { .. }) => {}
                Err(error) => {
                    log::warn!("{name}: watching the frontend: {error}");
                    self.scans.insert(id.kind.clone());
                    self.scan_again = Some(Instant::now() + SCAN_PAUSE);
                    return false;
                }
            }
        }
        self.disks.insert(id.clone(), Vbd::new(id.clone(), claim));
        true
    }

    fn begin_stop(&mut self) {
        log::info!("stopping: {} disks", self.disks.len());
        self.service.stopping();
        self.host.stopping = true;
        self.stopping = Some(Instant::now());
        self.notice = Some(Instant::now() + self.host.config.stop_notice);
        for (id, disk) in &mut self.disks {
            disk.stop();
            self.pending.insert(id.clone());
        }
    }

    /// Says what a long stop waits for.
    fn remark(&mut self) {
        let now = Instant::now();
        if self.notice.is_some_and(|at| at <= now) {
            log::warn!("still stopping, waiting for {}", self.unsettled());
            self.notice = Some(now + self.host.config.stop_notice);
        }
    }

    fn unsettled(&self) -> String {
        let names: Vec<_> = self.disks.values().filter(|disk| !disk.settled()).map(Vbd::name).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    }
}

/// This domain's number: configured, or what xenstore says.
///
/// # Errors
/// Xenstore cannot be asked, or says nothing that is a number.
pub fn own_domain(config: &DaemonConfig, client: &Client) -> Result<u16, ControlError> {
    if let Some(domain) = config.domain {
        return Ok(domain);
    }
    let text = match client.read_string("domid") {
        Ok(text) => text,
        // Every domain libxl makes has the node; dom0 gets it from a script that runs at boot.
        Err(error) if error.is_not_found() => "0".to_owned(),
        Err(source) => return Err(ControlError::xenstore("asking for this domain's number")(source)),
    };
    text.trim().parse().map_err(|_| ControlError::NoDomain { text })
}

fn timespec(duration: Duration) -> Timespec {
    // Rounded up: a timer that is polled for too early is polled for again at once.
    let duration = duration.saturating_add(Duration::from_micros(1));
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec: seconds, tv_nsec: duration.subsec_nanos().into() }
}
