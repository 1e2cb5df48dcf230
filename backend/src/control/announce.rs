//! What the backend writes of a disk: the offer before InitWait, the properties before Connected, or why not.

use super::machine::Announced;
use super::plan::{self, Plan};
use super::tree::{Change, ERROR, Edit, Tree};
use crate::config::{DaemonConfig, DiskNodes};
use crate::queue::{AppTagRule, Integrity};
use crate::store;
use crate::store::sidecar::foreign_tag;
use blkif::{FrontendNodes, Properties, XenbusState, names};
use std::cell::Cell;
use std::sync::Arc;
use xenstore::Error;

/// What of the directory the plan was made from. The toolstack may remove a directory and make it anew between two
/// looks; then these tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// `params`.
    pub params: Option<Vec<u8>>,
    /// `mode`.
    pub mode: Option<Vec<u8>>,
    /// `frontend`.
    pub frontend: Option<Vec<u8>>,
    /// The others.
    rest: [Option<Vec<u8>>; 3],
}

impl Description {
    /// Reads it.
    ///
    /// # Errors
    /// Of `read`.
    pub fn read(read: impl Fn(&str) -> Result<Option<Vec<u8>>, Error>) -> Result<Self, Error> {
        Ok(Self {
            params: read(names::PARAMS)?,
            mode: read(names::MODE)?,
            frontend: read(names::FRONTEND)?,
            rest: [read(names::DEVICE_TYPE)?, read(names::REMOVABLE)?, read(names::DISCARD_ENABLE)?],
        })
    }
}

/// Nodes of an offer that are not written where they do not apply, and must not be left from an earlier offer.
const OPTIONAL_OFFER: [&str; 9] = [
    names::FEATURE_MAX_INDIRECT_SEGMENTS,
    names::FEATURE_DATA_INTEGRITY,
    names::DATA_INTEGRITY_VERSION,
    names::DATA_INTEGRITY_GUARD,
    names::DATA_INTEGRITY_INTERVAL,
    names::DATA_INTEGRITY_METADATA_SIZE,
    names::DATA_INTEGRITY_PI_OFFSET,
    names::DATA_INTEGRITY_TAG_SIZE,
    names::DATA_INTEGRITY_TYPE,
];

/// The same of the properties.
const OPTIONAL_PROPERTIES: [&str; 3] =
    [names::DISCARD_GRANULARITY, names::DISCARD_ALIGNMENT, names::DISCARD_SECURE];

/// Looks at a disk: what it is to be, what it is, what is offered of it. May block. `fault` is what is wrong with
/// the directory itself. None if xenstore cannot be asked.
pub fn probe(
    tree: &Tree,
    fault: Option<String>,
    config: &DaemonConfig,
) -> Option<(Description, Result<Plan, String>)> {
    let read =
        tree.at_once(|edit| Ok((Description::read(|node| edit.read(node))?, edit.parse(DiskNodes::parse)?)));
    let (description, nodes) = match read {
        Ok(read) => read,
        Err(error) => {
            log::debug!("{}: {error}", tree.backend);
            return None;
        }
    };
    // The daemon watches where the first look at the directory led it.
    let moved = match (&tree.frontend, &description.frontend) {
        (Some(watched), Some(now)) => watched.as_bytes() != now.as_slice(),
        _ => false,
    };
    let plan = match (fault, nodes) {
        (Some(fault), _) => Err(fault),
        _ if moved => Err("the node frontend changed; detach the disk and attach it again".to_owned()),
        (None, Err(error)) => Err(error.to_string()),
        (None, Ok(nodes)) => {
            let spec = plan::store_spec(&nodes);
            store::probe(&spec)
                .map_err(|error| error.to_string())
                .and_then(|probe| Plan::make(config, nodes, spec, &probe))
                .and_then(check_tags)
        }
    };
    Some((description, plan))
}

/// Refuses a disk whose operator owns the application tag, where the data carries another: every read of it would fail.
fn check_tags(plan: Plan) -> Result<Plan, String> {
    let (AppTagRule::Operator(wanted), Some(sidecar)) = (plan.nodes.spec.app_tag, &plan.sidecar) else {
        return Ok(plan);
    };
    let disk = &plan.store.path;
    match foreign_tag(disk, sidecar, wanted).map_err(|error| error.to_string())? {
        None => Ok(plan),
        Some((interval, tag)) => Err(format!(
            "app-tag={:#x}/{:#x}, but interval {interval} of {} carries {tag:#x}: such intervals could not be read; to make \
             its PI anew from the data as it is: dixback image protect --force --app-tag {:#x} {}",
            wanted.value,
            wanted.mask,
            disk.display(),
            wanted.value,
            disk.display()
        )),
    }
}

/// Writes the offer, or why there is none, and the state `to`: InitWait, or `from` to withhold it. A frontend that `asks`
/// already has chosen from what is in the tree now: it is not changed under it.
///
/// # Errors
/// Xenstore.
pub fn announce(
    tree: &Tree,
    from: XenbusState,
    to: XenbusState,
    description: &Description,
    plan: &Result<Arc<Plan>, String>,
    asks: bool,
) -> Result<Announced, Error> {
    let outcome = Cell::new(Announced::Overtaken);
    let change = tree.change(from, to, |edit| {
        if Description::read(|node| edit.read(node))? != *description {
            outcome.set(Announced::Renewed);
            return Ok(Change::Overtaken);
        }
        let plan = match plan {
            Ok(plan) => plan,
            Err(reason) => {
                edit.tell(names::HOTPLUG_ERROR, reason)?;
                edit.tell(ERROR, reason)?;
                return Ok(Change::Done);
            }
        };
        let nodes = plan.transport.nodes();
        if from == XenbusState::InitWait && asks && !same(edit, &nodes, &OPTIONAL_OFFER)? {
            outcome.set(Announced::TooLate);
            return Ok(Change::Overtaken);
        }
        replace(edit, &nodes, &OPTIONAL_OFFER)?;
        edit.remove(names::HOTPLUG_ERROR)?;
        edit.remove(ERROR)?;
        Ok(Change::Done)
    })?;
    Ok(match change {
        Change::Done if to == XenbusState::InitWait => Announced::Done,
        Change::Done => Announced::Withheld,
        Change::Overtaken => outcome.get(),
    })
}

/// Writes the properties and Connected.
///
/// # Errors
/// Xenstore.
pub fn publish(tree: &Tree, from: XenbusState, properties: &Properties) -> Result<Change, Error> {
    tree.change(from, XenbusState::Connected, |edit| {
        replace(edit, &properties.nodes(), &OPTIONAL_PROPERTIES)?;
        edit.remove(ERROR)?;
        Ok(Change::Done)
    })
}

/// Writes a disk's new size, and Connected once more: frontends look at the size when the backend's state is written.
///
/// # Errors
/// Xenstore.
pub fn tell_size(tree: &Tree, properties: &Properties) -> Result<Change, Error> {
    tree.change(XenbusState::Connected, XenbusState::Connected, |edit| {
        edit.write(names::SECTORS, &properties.sectors.to_string())?;
        edit.write(names::STATE, XenbusState::Connected.name())?;
        Ok(Change::Done)
    })
}

/// Whether a frontend that chose this can be served, beyond what bounds each of its nodes.
///
/// # Errors
/// Why it cannot, and what to do.
pub fn admit(plan: &Plan, frontend: &FrontendNodes) -> Result<(), String> {
    frontend.check_sector_size(plan.sector_size()).map_err(|error| error.to_string())?;
    if plan.nodes.spec.integrity == Integrity::Require && !frontend.dix {
        return Err("integrity=require, but the frontend does not speak DIX; a disk that boots the guest, or one for \
                    a guest without DIX, needs integrity=auto"
            .to_owned());
    }
    Ok(())
}

/// Whether the directory has exactly these nodes, and of `optional` no others.
fn same(edit: &Edit<'_>, nodes: &[(&'static str, String)], optional: &[&str]) -> Result<bool, Error> {
    for (node, value) in nodes {
        if edit.read(node)?.as_deref() != Some(value.as_bytes()) {
            return Ok(false);
        }
    }
    for node in absent(nodes, optional) {
        if edit.read(node)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes these nodes, and removes others of `optional`.
fn replace(edit: &Edit<'_>, nodes: &[(&'static str, String)], optional: &[&str]) -> Result<(), Error> {
    for (node, value) in nodes {
        edit.write(node, value)?;
    }
    for node in absent(nodes, optional) {
        edit.remove(node)?;
    }
    Ok(())
}

fn absent<'a>(nodes: &'a [(&'static str, String)], optional: &'a [&str]) -> impl Iterator<Item = &'a str> {
    optional.iter().copied().filter(|name| !nodes.iter().any(|(node, _)| node == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use xenstore::Client;
    use xenstore::server::{Server, ServerConfig};

    const NODES: [(&str, &str); 4] =
        [(names::STATE, "1"), (names::FRONTEND, "/f"), (names::PARAMS, "null:1G"), (names::MODE, "w")];

    #[test]
    fn disk_when_removed_and_made_anew_while_it_is_probed_then_is_seen_as_one_of_them_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path().join("xenstored"), ServerConfig::default()).unwrap();
        let connect = || Client::connect(server.socket()).unwrap();
        let tree = Tree::new(connect(), "/local/domain/0", "vbd3/1/51712", None);
        let (toolstack, config, done) = (connect(), DaemonConfig::default(), AtomicBool::new(false));
        let make = || {
            toolstack.transaction(|tx| {
                let mut nodes = NODES.iter();
                nodes.try_for_each(|(node, value)| tx.write(&format!("{}/{node}", tree.backend), value))
            })
        };
        make().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    toolstack.remove(&tree.backend).unwrap();
                    make().unwrap();
                }
            });
            let torn = (0..200).find_map(|_| {
                let (description, plan) = probe(&tree, None, &config)?;
                let whole = description.params.is_some();
                let alike = description.mode.is_some() == whole && plan.is_ok() == whole;
                (!alike).then_some((description, plan))
            });
            done.store(true, Ordering::Relaxed);
            assert!(torn.is_none(), "{torn:?}");
        });
    }
}
