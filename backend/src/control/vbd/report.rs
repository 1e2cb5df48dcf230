//! What a disk tells of itself, and its growth on request.

use super::{Outcome, Vbd};
use crate::control::announce;
use crate::control::host::Host;
use crate::control::status::{Answer, ClientId, DiskReport, PiReport};
use crate::control::tree::Change;
use crate::queue::AppTagRule;
use log::Level;
use xenstore::Error;

impl Vbd {
    /// What there is to tell of it.
    pub fn status(&self) -> DiskReport {
        let plan = self.plan.as_ref().and_then(|plan| plan.as_ref().ok());
        let connection = self.connection.as_ref();
        let mut totals = self.past;
        totals += self.leaving;
        if let Some(connection) = connection {
            totals += connection.stats();
        }
        let state =
            |state: Option<blkif::XenbusState>| state.map_or("gone".to_owned(), |state| state.to_string());
        DiskReport {
            id: self.id.to_string(),
            domain: self.id.domain,
            guest: self.guest.clone(),
            device: self.id.device,
            vdev: self.vdev.clone(),
            state: self.machine.word().to_owned(),
            backend: state(self.seen.and_then(|view| view.own)),
            frontend: state(self.seen.map(|view| view.frontend)),
            reason: self.trouble.clone(),
            target: plan.map(|plan| plan.store.path.display().to_string()),
            bytes: match connection {
                Some(connection) => connection.properties().sectors.bytes(),
                None => plan.map(|plan| plan.bytes),
            },
            sector_size: plan.map(|plan| plan.sector_size()),
            read_only: plan.is_some_and(|plan| plan.nodes.read_only),
            pi: plan.and_then(|plan| {
                let profile = plan.profile?;
                let spec = profile.spec();
                Some(PiReport {
                    profile: profile.to_string(),
                    guard: spec.guard.name().to_owned(),
                    interval: spec.interval,
                    metadata_size: spec.metadata_size,
                    pi_type: spec.pi_type.number(),
                    kept_in: plan.sidecar.as_ref().map(|path| path.display().to_string()),
                    integrity: plan.nodes.spec.integrity.to_string(),
                    app_tag: match plan.nodes.spec.app_tag {
                        AppTagRule::Guest => None,
                        AppTagRule::Operator(tag) => Some((tag.value, tag.mask)),
                    },
                })
            }),
            connection: connection.map(|connection| connection.report()),
            connections: self.connections,
            totals,
        }
    }

    /// Takes in what the disk has grown by, if it is served; `asker` will be told how that ended.
    pub fn resize(&mut self, asker: Option<ClientId>) {
        if self.machine.serves() {
            self.machine.grow();
            self.askers.extend(asker);
        } else if let Some(asker) = asker {
            let word = self.machine.word();
            let reason = format!(
                "no guest is connected ({word}), and the size is looked at when one connects; a sidecar is made longer by: \
                 dixback image resize"
            );
            self.answers.push((asker, Answer::Failed(reason)));
        }
    }

    /// What is to be answered to whom.
    pub fn answers(&mut self) -> Vec<(ClientId, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// The guest's domain is not known to xenstore. If it was, it is gone; some toolstacks make disks first.
    pub fn orphan(&mut self) {
        if self.introduced && !self.orphaned {
            self.note(Level::Info, "its guest is gone");
            self.orphaned = true;
        }
    }

    pub(super) fn answer_askers(&mut self, answer: impl Fn() -> Answer) {
        let askers = self.askers.drain(..);
        self.answers.extend(askers.map(|asker| (asker, answer())));
    }

    pub(super) fn grow(&mut self, host: &Host) {
        let Some(connection) = &self.connection else {
            debug_assert!(false, "{}: nothing to grow", self.name);
            return self.machine.grown(false);
        };
        let store = connection.store();
        let work = move || Outcome::Grown(store.grow().map(drop).map_err(|error| error.to_string()));
        host.helpers.start(self.id.clone(), work);
    }

    /// The helper has looked.
    pub(super) fn grown(&mut self, result: Result<(), String>) {
        let outgrown = self.connection.as_ref().is_some_and(|connection| connection.outgrown().is_some());
        self.machine.grown(outgrown);
        match result {
            Err(reason) => {
                self.note(Level::Warn, &format!("not resized: {reason}"));
                self.answer_askers(|| Answer::Failed(reason.clone()));
            }
            Ok(()) if !outgrown => {
                let bytes =
                    self.connection.as_ref().and_then(|connection| connection.properties().sectors.bytes());
                let bytes = bytes.unwrap_or(0);
                self.answer_askers(|| Answer::Resized { before: bytes, after: bytes });
            }
            // Once the frontend is told.
            Ok(()) => {}
        }
    }

    /// Tells the frontend the new size.
    pub(super) fn tell(&mut self) -> Result<(), Error> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let before = connection.properties().sectors.bytes().unwrap_or(0);
        let Some(after) = connection.outgrown() else {
            self.machine.told();
            return Ok(());
        };
        let mut properties = connection.properties().clone();
        properties.sectors = blkif::Sectors(after / 512);
        let change = announce::tell_size(&self.tree, &properties)?;
        self.machine.told();
        if change == Change::Done {
            connection.set_bytes(after);
            self.note(Level::Info, &format!("resized from {before} to {after} bytes"));
            self.answer_askers(|| Answer::Resized { before, after });
        } else {
            self.answer_askers(|| Answer::Failed("the disk is being taken away".to_owned()));
        }
        Ok(())
    }
}
