//! One disk: its machine, what it owns, and the effects of the machine's steps.
//!
//! ```text
//! tend:    View <- Tree      Machine::next -> Step      take(step): nodes written, helper started, resources moved
//! finish:  Outcome <- helper thread                     the machine and the disk hear of it; tend follows
//! ```

mod report;
mod steps;
#[cfg(test)]
mod tests;

use super::announce::Description;
use super::claim::Claim;
use super::connection::{Closed, Connection, OpenError};
use super::host::Host;
use super::id::DiskId;
use super::machine::{Machine, Opened, Step, View};
use super::plan::Plan;
use super::quiet::Quiet;
use super::record::Place;
use super::status::{Answer, ClientId};
use super::tree::{Tree, readable};
use crate::queue::Stats;
use blkif::{XenbusState, names};
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
    /// The disk was looked at for growth; or why it cannot grow.
    Grown(Result<(), String>),
}

/// One disk.
pub struct Vbd {
    id: DiskId,
    name: String,
    guest: Option<String>,
    vdev: Option<String>,
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
    /// When to delete the directory if nobody else has.
    retire: Option<Instant>,
    /// Until when the frontend may answer the toolstack's wish to have the disk back.
    grace: Option<Instant>,
    quiet: Quiet,
    /// The same for what is told at debug only.
    murmurs: Quiet,
    /// Xenstore knew the guest's domain when the present connection, or the last, was made.
    introduced: bool,
    /// The guest's domain is gone, though its nodes are not.
    orphaned: bool,
    /// Connections made, and what those that are over have counted.
    connections: u64,
    past: Stats,
    /// What the one that a helper closes had counted by then.
    leaving: Stats,
    /// Why the disk cannot be served, or why the last connection was refused or lost, for whoever asks.
    trouble: Option<String>,
    /// Who waits for the disk to grow.
    askers: Vec<ClientId>,
    /// What is to be answered.
    answers: Vec<(ClientId, Answer)>,
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
    pub fn new(id: DiskId, claim: Claim) -> Self {
        let Claim { name, guest, vdev, tree, fault } = claim;
        log::info!("{name}: found at {}", tree.backend);
        Self {
            id,
            name,
            guest,
            vdev,
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
            retire: None,
            grace: None,
            quiet: Quiet::new(Instant::now()),
            murmurs: Quiet::new(Instant::now()),
            introduced: false,
            orphaned: false,
            connections: 0,
            past: Stats::default(),
            leaving: Stats::default(),
            trouble: None,
            askers: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Its name in logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has a connection.
    pub fn is_connected(&self) -> bool {
        self.machine.holds()
    }

    /// Whether nothing of it is open or about to be.
    pub fn settled(&self) -> bool {
        self.machine.settled()
    }

    /// When it wants to be looked at although nothing happened.
    pub fn wakes(&self) -> Option<Instant> {
        // While a helper is at work its end is what the disk waits for, and the machine would do nothing before.
        self.retry.into_iter().chain(self.retire).chain(self.grace.filter(|_| !self.machine.busy())).min()
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
            self.trouble = Some(format!("connection lost: {reason}"));
            self.reason = Some(reason);
        }
        self.machine.condemn();
        true
    }

    /// Does what there is to do now.
    pub fn tend(&mut self, host: &Host) -> Tended {
        if let Err(error) = self.remove_retired() {
            return self.defer(&error);
        }
        if self.orphaned && matches!(host.client.is_introduced(self.id.domain), Ok(true)) {
            self.orphaned = false;
        }
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
            let view = if self.orphaned { View { frontend: XenbusState::Unknown, ..view } } else { view };
            self.seen = Some(view);
            let (word, step) = (self.machine.word(), self.machine.next(view));
            if step != Step::Rest {
                self.murmur(|| format!("{word}, {view}: {step:?}"));
            }
            match step {
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
            Some(Outcome::Grown(result)) => self.grown(result),
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
        let rings = frontend.rings.iter().map(|ring| format!("grants {:?} port {}", ring.refs, ring.port));
        let rings = rings.collect::<Vec<_>>().join("; ");
        let told = nodes(connection.properties().nodes());
        self.murmur(|| format!("rings: {rings}; told: {told}"));
        self.pause = FIRST_PAUSE;
        self.plan = Some(Ok(plan));
        self.connections += 1;
        self.trouble = None;
        self.machine.opened(Opened::Running);
        if connection.outgrown().is_some() {
            self.machine.outgrown();
        }
        self.connection = Some(connection);
    }

    fn refuse(&mut self, reason: String) {
        self.note(Level::Warn, &format!("connection refused: {reason}"));
        self.trouble = Some(format!("connection refused: {reason}"));
        self.reason = Some(reason);
        self.machine.opened(Opened::Refused);
    }

    /// A helper panicked, and what it had is dropped with it.
    fn crashed(&mut self) {
        let reason = "an internal error; the log has it".to_owned();
        self.note(Level::Error, &reason);
        self.machine.crashed();
        self.answer_askers(|| Answer::Failed(reason.clone()));
        if self.machine.holds() {
            return;
        }
        self.past += std::mem::take(&mut self.leaving);
        self.trouble = Some(reason.clone());
        self.reason = Some(reason);
        // What panics once may do so each time.
        self.put_off();
    }

    /// Nothing is left of it.
    fn release(&mut self, host: &Host) {
        self.answer_askers(|| Answer::Failed("the disk is gone".to_owned()));
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
        self.past += closed.stats;
        self.leaving = Stats::default();
        self.answer_askers(|| Answer::Failed("the disk was let go meanwhile".to_owned()));
        let stats: Vec<_> =
            closed.stats.named().filter(|(_, n)| *n != 0).map(|(name, n)| format!("{name} {n}")).collect();
        let stats = if stats.is_empty() { "nothing done".to_owned() } else { stats.join(", ") };
        self.note(Level::Info, &format!("{what}: {stats}"));
    }

    /// Logs at debug, within the same limits.
    fn murmur(&mut self, text: impl FnOnce() -> String) {
        if !log::log_enabled!(Level::Debug) {
            return;
        }
        match self.murmurs.allow(Instant::now()) {
            Some(0) => log::debug!("{}: {}", self.name, readable(&text())),
            Some(n) => log::debug!("{}: {} ({n} before it left out)", self.name, readable(&text())),
            None => {}
        }
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

/// Nodes in a line, for the log.
fn nodes(nodes: Vec<(&'static str, String)>) -> String {
    nodes.iter().map(|(node, value)| format!("{node}={value}")).collect::<Vec<_>>().join(" ")
}
