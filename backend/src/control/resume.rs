//! Taking up a connection that another run of the daemon left, and leaving one.
//!
//! ```text
//! record there?  -> same place, same guest?  -> frontend still Connected, its nodes as recorded?  -> ours as recorded?
//!    -> (helper) probe -> still what was announced? -> open: record deleted, each ring from its rsp_prod
//! ```
//!
//! Features are those in the tree, whatever the configuration says now: the frontend has chosen from them.

use super::announce::Description;
use super::connection::{Closed, Connection, OpenError, Opening, Resume};
use super::host::Host;
use super::id::DiskId;
use super::limits::Caps;
use super::plan::{self, Plan};
use super::record::{Place, Record};
use super::rundir::RunDir;
use super::tree::Tree;
use crate::config::DiskNodes;
use crate::store;
use blkif::{FrontendNodes, Properties, Transport, XenbusState};
use std::collections::BTreeMap;
use std::sync::Arc;
use xenstore::Error;

/// A connection whose record holds, ready to be opened.
pub struct Prepared {
    /// What the directory says.
    pub description: Description,
    /// Which connection.
    pub place: Place,
    nodes: DiskNodes,
    transport: Transport,
    opening: Opening,
    caps: Arc<Caps>,
}

/// Which connection a disk has, or would have.
///
/// # Errors
/// Xenstore.
pub fn place(host: &Host, tree: &Tree, id: &DiskId, description: &Description) -> Result<Place, Error> {
    let text =
        |value: &Option<Vec<u8>>| String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
    let uuid = match host.client.read(&format!("/local/domain/{}/vm", id.domain)) {
        Ok(value) => Some(String::from_utf8_lossy(&value).into_owned()),
        Err(error @ (Error::Disconnected | Error::Io { .. })) => return Err(error),
        Err(_) => None,
    };
    Ok(Place {
        backend: tree.backend.clone(),
        frontend: text(&description.frontend),
        uuid,
        params: text(&description.params),
        mode: text(&description.mode),
    })
}

/// Whether the record of a disk found connected still holds; if not, why.
///
/// # Errors
/// Xenstore.
pub fn prepare(host: &Host, tree: &Tree, id: &DiskId, name: &str) -> Result<Result<Prepared, String>, Error> {
    let refused = |reason: String| Ok(Err(format!("the last run's connection cannot be taken up: {reason}")));
    let record = match host.run_dir.load(id) {
        Ok(Some(record)) => record,
        Ok(None) => {
            // Requests may have been consumed whose responses are not known to be published; answers out of order
            // have overwritten others in the ring.
            return refused("it was not ended cleanly, so what is in its rings is not known".to_owned());
        }
        Err(error) => return refused(error.to_string()),
    };
    if !matches!(tree.view()?.frontend, XenbusState::Initialised | XenbusState::Connected) {
        return refused("the frontend has left it".to_owned());
    }
    let description = Description::read(|node| tree.read_own(node))?;
    let place = place(host, tree, id, &description)?;
    if let Some(reason) = tree.parse(Tree::read_own, |read| record.mismatch(&place, read))? {
        return refused(reason);
    }
    let nodes = match tree.parse(Tree::read_own, DiskNodes::parse)? {
        Ok(nodes) => nodes,
        Err(error) => return refused(error.to_string()),
    };
    let offer = |read: &dyn Fn(&str) -> Option<Vec<u8>>| {
        Ok::<_, blkif::NegotiationError>((Transport::parse(read)?, Properties::parse(read)?))
    };
    let (transport, properties) = match tree.parse(Tree::read_own, offer)? {
        Ok(offer) => offer,
        Err(error) => return refused(format!("this end's nodes: {error}")),
    };
    let choice = |read: &dyn Fn(&str) -> Option<Vec<u8>>| FrontendNodes::parse(read, &transport);
    let frontend = match tree.parse(Tree::read_frontend, choice)? {
        Ok(frontend) => frontend,
        Err(error) => return refused(format!("the frontend's nodes: {error}")),
    };
    if let Some(reason) = record.mismatch_frontend(&frontend) {
        return refused(reason);
    }
    let rsp_prod = record.rings.iter().map(|ring| ring.rsp_prod).collect();
    let resume = Resume { rsp_prod, properties, bytes: record.bytes, records: host.run_dir.clone() };
    let opening = host.opening(id, name, frontend, Some(resume));
    Ok(Ok(Prepared { description, place, nodes, transport, opening, caps: Arc::clone(&host.caps) }))
}

impl Prepared {
    /// Opens. May block.
    ///
    /// # Errors
    /// As [`Opening::run`]. Before the record is deleted nothing is lost: what only the store stands in the way of
    /// can be tried again.
    pub fn run(self) -> Result<(Arc<Plan>, Connection), OpenError> {
        let spec = plan::store_spec(&self.nodes);
        let probe = store::probe(&spec).map_err(|error| OpenError::NotNow(error.to_string()))?;
        let config = &self.opening.config;
        let mut plan = Plan::make(config, self.nodes, spec, &probe).map_err(OpenError::NotNow)?;
        if plan.transport.dix != self.transport.dix {
            return Err(OpenError::NotNow("the disk's PI is not what was announced".to_owned()));
        }
        plan.transport = self.transport;
        // Granted once, granted still: the limits may have been lowered since.
        let queues = u32::try_from(self.opening.frontend.rings.len()).unwrap_or(u32::MAX);
        let permit = self.caps.take(queues, plan.queue_bytes());
        let connection = self.opening.run(&plan, permit)?;
        Ok((Arc::new(plan), connection))
    }
}

/// Leaves a closed connection to the next run.
///
/// # Errors
/// Why it cannot be.
pub fn record(
    records: &RunDir,
    id: &DiskId,
    place: Place,
    nodes: BTreeMap<String, String>,
    closed: &Closed,
) -> Result<(), String> {
    if !closed.queues.iter().all(|queue| queue.resumable) {
        return Err("a ring could not be drained".to_owned());
    }
    let rsp_prod: Vec<u32> = closed.queues.iter().map(|queue| queue.rsp_prod).collect();
    let record = Record::new(place, closed.bytes, &closed.frontend, nodes, &rsp_prod);
    records.store(id, &record).map_err(|error| error.to_string())
}
