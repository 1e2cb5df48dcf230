//! The effects of the machine's steps.

use super::{FIRST_PAUSE, Outcome, Vbd, nodes};
use crate::control::announce;
use crate::control::connection::{Connection, Opening};
use crate::control::host::Host;
use crate::control::limits::Permit;
use crate::control::machine::{Announced, Opened, Step};
use crate::control::plan::Plan;
use crate::control::resume;
use crate::control::tree::{Change, ERROR, Tree};
use blkif::{FrontendNodes, XenbusState};
use log::Level;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xenstore::Error;

/// How long a directory in a driver domain is left to libxl's daemon there (`xl devd`), if one runs: it runs the removal
/// script first, and loses track of the disk if the directory is gone. libxl in dom0 waits 10 s for it to go.
const LIBXL_PATIENCE: Duration = Duration::from_secs(3);

/// A connection that a frontend may have, not yet opened.
struct Attempt {
    opening: Opening,
    plan: Arc<Plan>,
    permit: Permit,
}

impl Vbd {
    /// A step of the machine. An error leaves the machine where it was, so that the step comes again.
    pub(super) fn take(&mut self, step: Step, host: &Host) -> Result<(), Error> {
        match step {
            Step::Rest | Step::Release => {}
            Step::Probe => self.probe(host),
            Step::Announce => self.announce(host)?,
            Step::Open => self.open(host)?,
            Step::Resume => self.resume(host)?,
            Step::Publish => self.publish()?,
            Step::Grow => self.grow(host),
            Step::Tell => self.tell()?,
            Step::Drain { say } => {
                if say && let Err(error) = self.say(XenbusState::Closing) {
                    log::warn!("{}: {error}", self.name);
                }
                self.close(host, |connection| Outcome::Drained(connection.close()));
            }
            Step::Suspend => self.suspend(host),
            Step::Say(state) => self.say(state)?,
            // In dom0 libxl deletes the directory, after running the script.
            Step::Retire if host.is_driver_domain() => self.retire = Some(Instant::now() + LIBXL_PATIENCE),
            Step::Retire => {}
        }
        Ok(())
    }

    fn probe(&mut self, host: &Host) {
        self.reason = None;
        let (tree, fault, config) = (self.tree.clone(), self.fault.clone(), Arc::clone(&host.config));
        host.helpers.start(self.id.clone(), move || Outcome::Probed(announce::probe(&tree, fault, &config)));
    }

    /// Deletes the directory, if its time has come and libxl's daemon has not done it.
    pub(super) fn remove_retired(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.retire.is_some_and(|at| at <= now) {
            // For the case that it fails.
            self.retire = Some(now + self.pause);
            self.tree.remove_closed()?;
            self.retire = None;
        }
        Ok(())
    }

    fn announce(&mut self, host: &Host) -> Result<(), Error> {
        let (Some(description), Some(plan)) = (&self.description, &self.plan) else { return Ok(()) };
        let asks = self
            .seen
            .is_some_and(|view| matches!(view.frontend, XenbusState::Initialised | XenbusState::Connected));
        self.tree.log_error(plan.as_ref().err().map(String::as_str))?;
        let from = self.machine.said();
        // libxl takes InitWait for success, unless a script says otherwise, and of a driver domain it hears no script.
        let withheld = plan.is_err() && host.is_driver_domain() && from == XenbusState::Initialising;
        let to = if withheld { from } else { XenbusState::InitWait };
        let outcome = announce::announce(&self.tree, from, to, description, plan, asks)?;
        self.machine.announced(outcome);
        match (outcome, plan) {
            (Announced::Done | Announced::Withheld, Err(reason)) => {
                let reason = reason.clone();
                self.trouble = Some(format!("cannot be served: {reason}"));
                self.note(Level::Error, &format!("cannot be served: {reason}"));
            }
            (Announced::Done, Ok(plan)) => {
                self.pause = FIRST_PAUSE;
                self.trouble = None;
                let pi = plan.profile.map_or("no PI".to_owned(), |profile| profile.to_string());
                let text = format!("announced: {}, {pi}", plan.store.path.display());
                let offered = nodes(plan.transport.nodes());
                self.note(Level::Info, &text);
                self.murmur(|| format!("offered: {offered}"));
            }
            (Announced::TooLate, _) => {
                self.reason = Some("the features changed after the frontend had chosen".to_owned());
            }
            (Announced::Withheld, Ok(_)) | (Announced::Renewed | Announced::Overtaken, _) => {}
        }
        Ok(())
    }

    fn open(&mut self, host: &Host) -> Result<(), Error> {
        self.introduced = matches!(host.client.is_introduced(self.id.domain), Ok(true));
        match self.opening(host) {
            Ok(Ok(Attempt { opening, plan, permit })) => {
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
    fn opening(&mut self, host: &Host) -> Result<Result<Attempt, String>, Error> {
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
        let permit = match host.caps.reserve(queues, plan.queue_bytes()) {
            Ok(permit) => permit,
            Err(error) => return Ok(Err(error.to_string())),
        };
        self.place = Some(resume::place(host, &self.tree, &self.id, description)?);
        // One that is there is of a directory before this one. After a crash it would pass for this connection's.
        if let Err(error) = host.run_dir.forget(&self.id) {
            return Ok(Err(error.to_string()));
        }
        let opening = host.opening(&self.id, &self.name, frontend, None);
        Ok(Ok(Attempt { opening, plan, permit }))
    }

    fn resume(&mut self, host: &Host) -> Result<(), Error> {
        self.introduced = matches!(host.client.is_introduced(self.id.domain), Ok(true));
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
            Some(connection) => {
                self.leaving = connection.stats();
                host.helpers.start(self.id.clone(), move || work(connection));
            }
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
}
