//! One disk: its machine, what it owns, and the effects of the machine's steps.
//!
//! ```text
//! tend:    View <- Tree      Machine::next -> Step      take(step): nodes written, helper started, resources moved
//! finish:  Outcome <- helper thread                     the machine and the disk hear of it; tend follows
//! ```

use super::announce::{self, Description};
use super::connection::{Closed, Connection, OpenError, Opening};
use super::host::Host;
use super::id::DiskId;
use super::limits::Permit;
use super::machine::{Announced, Machine, Opened, Step, View};
use super::plan::Plan;
use super::quiet::Quiet;
use super::record::Place;
use super::resume;
use super::tree::{Change, ERROR, Tree, readable};
use blkif::{FrontendNodes, XenbusState, names};
use log::Level;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xenstore::Error;

/// Pauses before something is tried again that only time can cure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// More steps than any change of the tree needs; a disk that takes more is looked at again after the others.
const STEPS: usize = 16;

/// What a helper thread brings back.
pub enum Outcome {
    /// What the disk is, or why it cannot be served; none if xenstore could not be asked.
    Probed(Option<(Description, Result<Plan, String>)>),
    /// A connection and what it is made after, or why there is none.
    Opened(Result<(Arc<Plan>, Connection), OpenError>),
    /// What closing gave.
    Drained(Closed),
    /// The same, and why there is no restart record, if there is none.
    Suspended(Closed, Result<(), String>),
}

/// One disk.
pub struct Vbd {
    id: DiskId,
    name: String,
    tree: Tree,
    /// What is wrong with the directory itself, if anything.
    fault: Option<String>,
    machine: Machine,
    description: Option<Description>,
    plan: Option<Result<Arc<Plan>, String>>,
    place: Option<Place>,
    connection: Option<Connection>,
    /// Why the next Closing is written.
    reason: Option<String>,
    /// What the tree said last, for when it cannot be asked.
    seen: Option<View>,
    /// When to try again what could not be done.
    retry: Option<Instant>,
    pause: Duration,
    /// Until when the frontend may answer the toolstack's wish to have the disk back.
    grace: Option<Instant>,
    quiet: Quiet,
}

/// What a look at a disk ended in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tended {
    /// Nothing more to do now.
    Rests,
    /// More to do, but others first.
    Again,
    /// It is gone: forget it.
    Gone,
}

impl Vbd {
    /// A disk that was found in the tree.
    pub fn new(id: DiskId, name: String, tree: Tree, fault: Option<String>) -> Self {
        log::info!("{name}: found at {}", tree.backend);
        Self {
            id,
            name,
            tree,
            fault,
            machine: Machine::default(),
            description: None,
            plan: None,
            place: None,
            connection: None,
            reason: None,
            seen: None,
            retry: None,
            pause: FIRST_PAUSE,
            grace: None,
            quiet: Quiet::new(Instant::now()),
        }
    }

    /// Its name in logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether nothing of it is open or about to be.
    pub fn settled(&self) -> bool {
        self.machine.settled()
    }

    /// When it wants to be looked at although nothing happened.
    pub fn wakes(&self) -> Option<Instant> {
        self.retry.into_iter().chain(self.grace).min()
    }

    /// Its time has come.
    pub fn wake(&mut self, now: Instant) {
        if self.retry.is_some_and(|at| at <= now) {
            self.retry = None;
            self.machine.retry();
        }
    }

    /// The daemon is about to end.
    pub fn stop(&mut self) {
        self.machine.stop();
    }

    /// Looks whether a queue failed; whether one did.
    pub fn check_queues(&mut self) -> bool {
        let Some(reason) = self.connection.as_ref().and_then(Connection::failure) else { return false };
        if self.reason.is_none() {
            self.note(Level::Warn, &format!("connection lost: {reason}"));
            self.reason = Some(reason);
        }
        self.machine.condemn();
        true
    }

    /// Does what there is to do now.
    pub fn tend(&mut self, host: &Host) -> Tended {
        for _ in 0..STEPS {
            let view = match self.tree.view() {
                Ok(view) => view,
                // A daemon that ends does not wait for xenstored to come back.
                Err(error) if host.stopping => match self.seen {
                    Some(view) => view,
                    None => return self.defer(&error),
                },
                Err(error) => return self.defer(&error),
            };
            let view = View { overdue: self.overdue(&view, host.config.detach_grace), ..view };
            self.seen = Some(view);
            match self.machine.next(view) {
                Step::Rest => return Tended::Rests,
                Step::Release => {
                    self.release(host);
                    return Tended::Gone;
                }
                step => {
                    if let Err(error) = self.take(step, host) {
                        return self.defer(&error);
                    }
                }
            }
        }
        Tended::Again
    }

    /// Whether the frontend has not answered the toolstack for so long that it will not.
    fn overdue(&mut self, view: &View, grace: Duration) -> bool {
        let asked = view.own == Some(XenbusState::Closing) && !view.online && self.machine.holds();
        if !asked || view.frontend == XenbusState::Closing {
            self.grace = None;
            return false;
        }
        let now = Instant::now();
        *self.grace.get_or_insert(now + grace) <= now
    }

    /// A step of the machine. An error leaves the machine where it was, so that the step comes again.
    fn take(&mut self, step: Step, host: &Host) -> Result<(), Error> {
        match step {
            Step::Rest | Step::Release => {}
            Step::Probe => self.probe(host),
            Step::Announce => self.announce()?,
            Step::Open => self.open(host)?,
            Step::Resume => self.resume(host)?,
            Step::Publish => self.publish()?,
            Step::Drain { say } => {
                if say && let Err(error) = self.say(XenbusState::Closing) {
                    log::warn!("{}: {error}", self.name);
                }
                self.close(host, |connection| Outcome::Drained(connection.close()));
            }
            Step::Suspend => self.suspend(host),
            Step::Say(state) => self.say(state)?,
            Step::Retire if host.deletes(&self.id.kind) => self.tree.remove()?,
            Step::Retire => {}
        }
        Ok(())
    }

    fn probe(&mut self, host: &Host) {
        self.reason = None;
        let (tree, fault, config) = (self.tree.clone(), self.fault.clone(), Arc::clone(&host.config));
        host.helpers.start(self.id.clone(), move || Outcome::Probed(announce::probe(&tree, fault, &config)));
    }

    fn announce(&mut self) -> Result<(), Error> {
        let (Some(description), Some(plan)) = (&self.description, &self.plan) else { return Ok(()) };
        let asks = self
            .seen
            .is_some_and(|view| matches!(view.frontend, XenbusState::Initialised | XenbusState::Connected));
        self.tree.log_error(plan.as_ref().err().map(String::as_str))?;
        let outcome = announce::announce(&self.tree, self.machine.said(), description, plan, asks)?;
        self.machine.announced(outcome);
        match (outcome, plan) {
            (Announced::Done, Err(reason)) => {
                let reason = reason.clone();
                self.note(Level::Error, &format!("cannot be served: {reason}"));
            }
            (Announced::Done, Ok(plan)) => {
                self.pause = FIRST_PAUSE;
                let pi = plan.profile.map_or("no PI".to_owned(), |profile| profile.to_string());
                let text = format!("announced: {}, {pi}", plan.store.path.display());
                self.note(Level::Info, &text);
            }
            (Announced::TooLate, _) => {
                self.reason = Some("the features changed after the frontend had chosen".to_owned());
            }
            (Announced::Renewed | Announced::Overtaken, _) => {}
        }
        Ok(())
    }

    fn open(&mut self, host: &Host) -> Result<(), Error> {
        match self.opening(host) {
            Ok(Ok((opening, plan, permit))) => {
                let work = move || {
                    let connection = opening.run(&plan, permit);
                    Outcome::Opened(connection.map(|connection| (plan, connection)))
                };
                host.helpers.start(self.id.clone(), work);
                Ok(())
            }
            Ok(Err(reason)) => {
                self.refuse(reason);
                Ok(())
            }
            Err(error) => {
                self.machine.opened(Opened::NotNow);
                Err(error)
            }
        }
    }

    /// What a frontend wants, bounded; or why it cannot have it.
    fn opening(&mut self, host: &Host) -> Result<Result<(Opening, Arc<Plan>, Permit), String>, Error> {
        let (Some(Ok(plan)), Some(description)) = (&self.plan, &self.description) else {
            return Ok(Err("the disk was never announced".to_owned()));
        };
        let plan = Arc::clone(plan);
        let parse = |read: &dyn Fn(&str) -> Option<Vec<u8>>| FrontendNodes::parse(read, &plan.transport);
        let frontend = match self.tree.parse(Tree::read_frontend, parse)? {
            Ok(frontend) => frontend,
            Err(error) => return Ok(Err(format!("the frontend's nodes: {error}"))),
        };
        if let Err(reason) = announce::admit(&plan, &frontend) {
            return Ok(Err(reason));
        }
        let queues = u32::try_from(frontend.rings.len()).unwrap_or(u32::MAX);
        let permit = match host.caps.reserve(queues, plan.pool) {
            Ok(permit) => permit,
            Err(error) => return Ok(Err(error.to_string())),
        };
        self.place = Some(resume::place(host, &self.tree, &self.id, description)?);
        Ok(Ok((host.opening(&self.id, &self.name, frontend, None), plan, permit)))
    }

    fn resume(&mut self, host: &Host) -> Result<(), Error> {
        match resume::prepare(host, &self.tree, &self.id, &self.name) {
            Ok(Ok(prepared)) => {
                self.note(Level::Info, "taking up the connection that the last run left");
                self.description = Some(prepared.description.clone());
                self.place = Some(prepared.place.clone());
                host.helpers.start(self.id.clone(), move || Outcome::Opened(prepared.run()));
                Ok(())
            }
            Ok(Err(reason)) => {
                if let Err(error) = host.run_dir.forget(&self.id) {
                    log::warn!("{}: {error}", self.name);
                }
                self.refuse(reason);
                Ok(())
            }
            Err(error) => {
                self.machine.opened(Opened::NotNow);
                Err(error)
            }
        }
    }

    fn publish(&mut self) -> Result<(), Error> {
        let Some(connection) = &self.connection else { return Ok(()) };
        self.tree.log_error(None)?;
        let change = announce::publish(&self.tree, self.machine.said(), connection.properties())?;
        self.machine.published(change == Change::Done);
        Ok(())
    }

    /// Hands the connection to a helper.
    fn close(&mut self, host: &Host, work: impl FnOnce(Connection) -> Outcome + Send + 'static) {
        match self.connection.take() {
            Some(connection) => host.helpers.start(self.id.clone(), move || work(connection)),
            None => {
                debug_assert!(false, "{}: nothing to close", self.name);
                self.machine.drained();
            }
        }
    }

    fn suspend(&mut self, host: &Host) {
        let (id, place, records) = (self.id.clone(), self.place.clone(), host.run_dir.clone());
        let transport = self.plan.iter().flatten().flat_map(|plan| plan.transport.nodes());
        let properties = self.connection.iter().flat_map(|connection| connection.properties().nodes());
        let nodes = transport.chain(properties).map(|(node, value)| (node.to_owned(), value)).collect();
        self.close(host, move |connection| {
            let closed = connection.close();
            let recorded = match place {
                Some(place) => resume::record(&records, &id, place, nodes, &closed),
                None => Err("its place is not known".to_owned()),
            };
            Outcome::Suspended(closed, recorded)
        });
    }

    fn say(&mut self, state: XenbusState) -> Result<(), Error> {
        let reason = self.reason.as_deref().filter(|_| state == XenbusState::Closing);
        if reason.is_some() {
            self.tree.log_error(reason)?;
        }
        let change = self.tree.change(self.machine.said(), state, |edit| {
            if let Some(reason) = reason {
                edit.tell(ERROR, reason)?;
            }
            Ok(Change::Done)
        })?;
        self.machine.wrote(state, change == Change::Done);
        if change == Change::Done && state == XenbusState::Closed {
            self.reason = None;
            self.note(Level::Info, "closed");
        }
        Ok(())
    }

    /// A helper is back, or panicked if none. Whether the disk is to be tended now: else time must pass first.
    pub fn finish(&mut self, outcome: Option<Outcome>) -> bool {
        self.retry = None;
        match outcome {
            Some(Outcome::Probed(Some((description, plan)))) => {
                self.machine.probed(Some(plan.is_ok()));
                self.description = Some(description);
                self.plan = Some(plan.map(Arc::new));
            }
            Some(Outcome::Probed(None)) => {
                self.machine.probed(None);
                self.put_off();
            }
            Some(Outcome::Opened(Ok((plan, connection)))) => self.opened(plan, connection),
            Some(Outcome::Opened(Err(OpenError::Refused(reason)))) => self.refuse(reason),
            Some(Outcome::Opened(Err(OpenError::NotNow(reason)))) => {
                self.note(Level::Error, &format!("cannot be taken up now, the guest waits: {reason}"));
                self.machine.opened(Opened::NotNow);
                self.put_off();
            }
            Some(Outcome::Drained(closed)) => {
                self.machine.drained();
                self.report("disconnected", &closed);
            }
            Some(Outcome::Suspended(closed, recorded)) => {
                self.machine.suspended(recorded.is_ok());
                self.report("left to the next run", &closed);
                if let Err(reason) = recorded {
                    self.note(Level::Error, &format!("cannot be left to the next run: {reason}"));
                    self.reason =
                        Some(format!("the daemon ended, and could not leave the connection: {reason}"));
                }
            }
            None => self.crashed(),
        }
        self.retry.is_none()
    }

    fn opened(&mut self, plan: Arc<Plan>, connection: Connection) {
        let frontend = connection.frontend();
        let pages = frontend.rings.first().map_or(0, |ring| ring.refs.len());
        let dix = if frontend.dix { ", DIX" } else { "" };
        let text =
            format!("connected: {} rings of {pages} pages, {}{dix}", frontend.rings.len(), frontend.abi);
        self.note(Level::Info, &text);
        self.pause = FIRST_PAUSE;
        self.plan = Some(Ok(plan));
        self.connection = Some(connection);
        self.machine.opened(Opened::Running);
    }

    fn refuse(&mut self, reason: String) {
        self.note(Level::Warn, &format!("connection refused: {reason}"));
        self.reason = Some(reason);
        self.machine.opened(Opened::Refused);
    }

    /// A helper panicked, and what it had is dropped with it.
    fn crashed(&mut self) {
        let reason = "an internal error; the log has it".to_owned();
        self.note(Level::Error, &reason);
        self.machine.crashed();
        self.reason = Some(reason);
        if !self.machine.holds() && self.plan.is_none() {
            self.put_off();
        }
    }

    /// Nothing is left of it.
    fn release(&mut self, host: &Host) {
        if let Some(frontend) = &self.tree.frontend
            && let Err(error) = host.client.unwatch(&format!("{frontend}/{}", names::STATE), &self.id.token())
        {
            log::debug!("{}: {error}", self.name);
        }
        if let Err(error) = self.tree.log_error(None) {
            log::debug!("{}: {error}", self.name);
        }
        if let Err(error) = host.run_dir.forget(&self.id) {
            log::warn!("{}: {error}", self.name);
        }
        log::info!("{}: gone", self.name);
    }

    /// Something could not be done now.
    fn defer(&mut self, error: &Error) -> Tended {
        // A lost connection is the client's to tell of, once, and every watch fires when it is back.
        if !matches!(error, Error::Disconnected) {
            self.note(Level::Warn, &error.to_string());
        }
        self.put_off();
        self.grace = None;
        Tended::Rests
    }

    fn put_off(&mut self) {
        self.retry = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn report(&mut self, what: &str, closed: &Closed) {
        let stats: Vec<_> =
            closed.stats.named().filter(|(_, n)| *n != 0).map(|(name, n)| format!("{name} {n}")).collect();
        let stats = if stats.is_empty() { "nothing done".to_owned() } else { stats.join(", ") };
        self.note(Level::Info, &format!("{what}: {stats}"));
    }

    /// Logs, within what a guest may make the daemon log.
    fn note(&mut self, level: Level, text: &str) {
        match self.quiet.allow(Instant::now()) {
            Some(0) => log::log!(level, "{}: {}", self.name, readable(text)),
            Some(n) => {
                log::log!(level, "{}: {} ({n} messages before this one left out)", self.name, readable(text))
            }
            None => {}
        }
    }
}
