//! Which directories are disks of this daemon, and what an event is about.

use super::id::DiskId;
use super::tree::{Tree, readable};
use crate::config::DaemonConfig;
use blkif::names;
use xenstore::{Client, Error, WatchEvent};

/// The token of the watch on a kind's directory.
pub fn kind_token(kind: &str) -> String {
    format!("kind/{kind}")
}

/// The watch for domains that go, and its token (xenstore.txt).
pub const RELEASE: &str = "@releaseDomain";

/// What an event asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Look at this disk.
    Look(DiskId),
    /// A node appeared, changed or went that matters only if the disk is not known yet.
    LookIfNew(DiskId),
    /// Look at what there is of this kind.
    Scan(String),
    /// A domain is gone: look which.
    Domains,
}

/// Reads an event. Most are our own nodes coming back, and ask for nothing.
pub fn hint(home: &str, event: &WatchEvent) -> Option<Hint> {
    if let Some(id) = DiskId::from_token(&event.token) {
        return Some(Hint::Look(id));
    }
    if event.token == RELEASE {
        return Some(Hint::Domains);
    }
    let kind = event.token.strip_prefix("kind/")?;
    let below = event.path.strip_prefix(home)?.strip_prefix("/backend/")?.strip_prefix(kind)?;
    let mut parts = below.split('/').skip(1);
    let (Some(domain), Some(device)) = (parts.next(), parts.next()) else {
        return Some(Hint::Scan(kind.to_owned()));
    };
    let id = DiskId::new(kind, domain, device)?;
    match (parts.next(), parts.next()) {
        (None, _) | (Some(names::STATE | names::ONLINE), None) => Some(Hint::Look(id)),
        _ => Some(Hint::LookIfNew(id)),
    }
}

/// All disks of a kind that are in the tree.
///
/// # Errors
/// Xenstore.
pub fn scan(client: &Client, home: &str, kind: &str) -> Result<Vec<DiskId>, Error> {
    let children = |path: &str| match client.directory(path) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        result => result,
    };
    let root = format!("{home}/backend/{kind}");
    let mut found = Vec::new();
    for domain in children(&root)? {
        let devices = children(&format!("{root}/{domain}"))?;
        found.extend(devices.iter().filter_map(|device| DiskId::new(kind, &domain, device)));
    }
    Ok(found)
}

/// A directory that is to be served.
#[derive(Debug)]
pub struct Claim {
    /// Its name in logs.
    pub name: String,
    /// The guest's name, if it has one.
    pub guest: Option<String>,
    /// The device's name in the guest, if it was given one.
    pub vdev: Option<String>,
    /// Its nodes.
    pub tree: Tree,
    /// What is wrong with the directory itself, if anything.
    pub fault: Option<String>,
}

/// Looks whether a directory is a disk of this daemon: complete, and with the right script.
///
/// # Errors
/// Xenstore.
pub fn claim(
    client: &Client,
    home: &str,
    config: &DaemonConfig,
    id: &DiskId,
) -> Result<Option<Claim>, Error> {
    let mut tree = Tree::new(client.clone(), home, &id.path(), None);
    let nodes = tree.at_once(|edit| {
        let text = |node| {
            let value = edit.read(node)?;
            Ok::<_, Error>(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
        };
        let (Some(_), Some(frontend)) = (text(names::STATE)?, text(names::FRONTEND)?) else {
            return Ok(None);
        };
        Ok(Some((frontend, text(names::SCRIPT)?, text(names::FRONTEND_ID)?, text(names::DEV)?)))
    })?;
    let Some((frontend, script, frontend_id, dev)) = nodes else { return Ok(None) };
    let script = script.unwrap_or_default();
    if !config.script.is_empty() && script.rsplit('/').next() != Some(&config.script) {
        log::debug!("{id}: script {script:?} is not {:?}: not ours", config.script);
        return Ok(None);
    }
    let fault = fault(id, &frontend, frontend_id.as_deref());
    if fault.is_none() {
        tree.frontend = Some(frontend);
    }
    // A guest may not even have one.
    let guest = client.read_string(&format!("/local/domain/{}/name", id.domain)).ok();
    let guest = guest.map(|name| readable(&name)).filter(|name| !name.is_empty());
    let vdev = dev.filter(|dev| is_plain(dev));
    Ok(Some(Claim { name: name(id, vdev.as_deref()), guest, vdev, tree, fault }))
}

/// What is wrong with the way to the frontend: it must be the domain's own that the directory is for, or the wrong
/// guest's word would count.
fn fault(id: &DiskId, frontend: &str, frontend_id: Option<&str>) -> Option<String> {
    if frontend_id != Some(&id.domain.to_string()) {
        return Some(format!("frontend-id is {frontend_id:?} in the directory of domain {}", id.domain));
    }
    let inside = frontend.starts_with(&format!("/local/domain/{}/", id.domain));
    if !inside || xenstore::path::check_node(frontend).is_err() {
        return Some(format!("frontend {frontend:?} is no directory of domain {}", id.domain));
    }
    None
}

fn is_plain(dev: &str) -> bool {
    !dev.is_empty() && dev.len() <= 16 && dev.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn name(id: &DiskId, dev: Option<&str>) -> String {
    let dev = dev.map_or_else(String::new, |dev| format!(" {dev}"));
    format!("domain {}{dev} ({}/{})", id.domain, id.kind, id.device)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "/local/domain/0";

    fn event(path: &str, token: &str) -> Option<Hint> {
        hint(HOME, &WatchEvent { path: path.to_owned(), token: token.to_owned() })
    }

    #[test]
    fn event_when_about_a_disk_then_names_it() {
        let id = DiskId::new("vbd3", "1", "51712").unwrap();
        let look = Some(Hint::Look(id.clone()));
        let base = "/local/domain/0/backend/vbd3/1/51712";
        assert_eq!(event(base, "kind/vbd3"), look);
        assert_eq!(event(&format!("{base}/state"), "kind/vbd3"), look);
        assert_eq!(event(&format!("{base}/online"), "kind/vbd3"), look);
        assert_eq!(event(&format!("{base}/sectors"), "kind/vbd3"), Some(Hint::LookIfNew(id)));
        assert_eq!(event("/anything", "frontend/vbd3/1/51712"), look);
    }

    #[test]
    fn event_when_above_the_disks_then_asks_for_a_scan() {
        let scan = Some(Hint::Scan("vbd3".to_owned()));
        for path in ["/local/domain/0/backend/vbd3", "/local/domain/0/backend/vbd3/1"] {
            assert_eq!(event(path, "kind/vbd3"), scan, "{path}");
        }
    }

    #[test]
    fn event_when_about_nothing_of_ours_then_asks_for_nothing() {
        for (path, token) in [
            ("/local/domain/0/backend/vbd3/x/1", "kind/vbd3"),
            ("/local/domain/0/backend/vif/1/0", "kind/vbd3"),
            ("/local/domain/7/backend/vbd3/1/1", "kind/vbd3"),
            ("/local/domain/0/backend/vbd3/1/1", "other"),
        ] {
            assert_eq!(event(path, token), None, "{path} {token}");
        }
    }

    #[test]
    fn frontend_when_of_another_domain_then_is_a_fault() {
        let id = DiskId::new("vbd3", "1", "51712").unwrap();
        assert_eq!(fault(&id, "/local/domain/1/device/vbd/51712", Some("1")), None);
        for (frontend, domain) in [
            ("/local/domain/1/device/vbd/51712", None),
            ("/local/domain/1/device/vbd/51712", Some("2")),
            ("/local/domain/11/device/vbd/51712", Some("1")),
            ("/local/domain/1/..", Some("1")),
            ("device/vbd/51712", Some("1")),
            ("", Some("1")),
        ] {
            assert!(fault(&id, frontend, domain).is_some(), "{frontend} {domain:?}");
        }
    }
}
