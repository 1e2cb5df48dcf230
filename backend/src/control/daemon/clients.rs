//! What the daemon tells, and does when it is asked to; and disks whose guests are gone.

use super::Daemon;
use crate::control::status::{Answer, ClientId, Report, Request};
use crate::control::vbd::Vbd;
use std::collections::BTreeMap;

impl Daemon {
    /// Looks which disks' guests are gone. Nodes may outlive a domain, grants and event channels shall not.
    pub(super) fn look_for_orphans(&mut self) {
        let mut gone: BTreeMap<u16, bool> = BTreeMap::new();
        for (id, disk) in &mut self.disks {
            let gone = *gone.entry(id.domain).or_insert_with(|| {
                // If it cannot be told now, the disk goes on as it is.
                matches!(self.host.client.is_introduced(id.domain), Ok(false))
            });
            if gone {
                disk.orphan();
                self.pending.insert(id.clone());
            }
        }
    }

    /// Does what a client asks for, or begins to.
    pub(super) fn heed(&mut self, client: ClientId, request: Request) {
        match request {
            Request::Status => {
                let report = Answer::Status(Box::new(self.report()));
                self.server.answer(client, &report);
            }
            Request::Resize { disk: name } => {
                match self.disks.iter_mut().find(|(id, _)| id.to_string() == name) {
                    Some((id, disk)) => {
                        disk.resize(Some(client));
                        self.pending.insert(id.clone());
                    }
                    None => self.server.answer(client, &Answer::Failed(format!("there is no disk {name}"))),
                }
            }
        }
    }

    /// Gives clients what they wait for.
    pub(super) fn answer(&mut self) {
        for disk in self.disks.values_mut() {
            for (client, answer) in disk.answers() {
                self.server.answer(client, &answer);
            }
        }
    }

    /// What there is to tell.
    fn report(&self) -> Report {
        let (threads, buffers) = self.host.caps.shares();
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.started.elapsed().as_secs_f64(),
            domain: self.host.domain,
            kinds: self.host.config.kinds.clone(),
            stopping: self.host.stopping,
            threads,
            buffers,
            disks: self.disks.values().map(Vbd::status).collect(),
        }
    }

    /// How it goes, in one line.
    pub(super) fn summary(&self) -> String {
        let connected = self.disks.values().filter(|disk| disk.is_connected()).count();
        let what = if self.host.stopping { "stopping: " } else { "" };
        format!("{what}{} disks, {connected} connected", self.disks.len())
    }
}
