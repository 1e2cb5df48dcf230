//! The restart record: what one run of the daemon leaves to the next about a connection, and how the next one tells
//! whether it still holds.
//!
//! A ring can be taken up again only where the last run left it, with every request consumed answered; xenstore does
//! not say where that is. All else in the record is there to notice that something is no longer what it was.

use blkif::{Abi, FrontendNodes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The layout's number; a record of another is not used.
const VERSION: u32 = 1;

/// A connection, drained, with the frontend still connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// The layout.
    version: u32,
    /// What it was for.
    pub place: Place,
    /// The store's size in bytes.
    pub bytes: u64,
    /// `protocol`, as negotiated.
    pub abi: String,
    /// Whether DIX was negotiated.
    pub dix: bool,
    /// Every node this end wrote, as it was.
    pub nodes: BTreeMap<String, String>,
    /// The rings.
    pub rings: Vec<Ring>,
}

/// Which connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Place {
    /// The backend's directory.
    pub backend: String,
    /// The frontend's.
    pub frontend: String,
    /// The guest's name across all time, as the toolstack knows it: domain numbers come again.
    pub uuid: Option<String>,
    /// `params`.
    pub params: String,
    /// `mode`.
    pub mode: String,
}

/// One ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ring {
    /// Its pages.
    pub refs: Vec<u32>,
    /// Its event channel, in the guest.
    pub port: u32,
    /// Responses published, and requests consumed.
    pub rsp_prod: u32,
}

impl Record {
    /// A record of a connection; `rsp_prod` has one number for each of the frontend's rings.
    pub fn new(
        place: Place,
        bytes: u64,
        frontend: &FrontendNodes,
        nodes: BTreeMap<String, String>,
        rsp_prod: &[u32],
    ) -> Self {
        let ring = |(ring, rsp_prod): (&blkif::RingNodes, &u32)| Ring {
            refs: ring.refs.iter().map(|gref| gref.0).collect(),
            port: ring.port,
            rsp_prod: *rsp_prod,
        };
        Self {
            version: VERSION,
            place,
            bytes,
            abi: frontend.abi.name().to_owned(),
            dix: frontend.dix,
            nodes,
            rings: frontend.rings.iter().zip(rsp_prod).map(ring).collect(),
        }
    }

    /// What at this end is no longer as it was, if anything: the place, and the nodes by `own`.
    pub fn mismatch(&self, place: &Place, own: &dyn Fn(&str) -> Option<Vec<u8>>) -> Option<String> {
        if self.version != VERSION {
            return Some(format!("its record is of version {}, not {VERSION}", self.version));
        }
        if self.place != *place {
            return Some("it was of another disk or another guest".to_owned());
        }
        let changed = |(node, value): &(&String, &String)| own(node).as_deref() != Some(value.as_bytes());
        let (node, value) = self.nodes.iter().find(changed)?;
        Some(format!("the node {node} is no longer {value}"))
    }

    /// The same of the frontend's choice.
    pub fn mismatch_frontend(&self, frontend: &FrontendNodes) -> Option<String> {
        if Abi::from_name(self.abi.as_bytes()) != Some(frontend.abi) || self.dix != frontend.dix {
            return Some("the frontend negotiated something else".to_owned());
        }
        let same = |(then, now): (&Ring, &blkif::RingNodes)| {
            then.port == now.port && then.refs.iter().copied().eq(now.refs.iter().map(|gref| gref.0))
        };
        if self.rings.len() != frontend.rings.len() || !self.rings.iter().zip(&frontend.rings).all(same) {
            return Some("the frontend's rings are others".to_owned());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::id::DiskId;
    use crate::control::rundir::{RunDir, RunDirError};
    use blkif::{GrantRef, RingNodes};

    fn frontend() -> FrontendNodes {
        let ring = |n: u32| RingNodes { refs: vec![GrantRef(n), GrantRef(n + 1)], port: n };
        let rings = vec![ring(8), ring(16)];
        FrontendNodes { abi: Abi::X86_64, rings, persistent: false, dix: true, large_sector: false }
    }

    fn place() -> Place {
        Place {
            backend: "/local/domain/0/backend/vbd3/1/51712".to_owned(),
            frontend: "/local/domain/1/device/vbd/51712".to_owned(),
            uuid: Some("/vm/58aaadfc".to_owned()),
            params: "aio:/a\"b\\\u{7}?pi=auto".to_owned(),
            mode: "w".to_owned(),
        }
    }

    fn record() -> Record {
        let nodes = BTreeMap::from([("sectors".to_owned(), "2048".to_owned())]);
        Record::new(place(), 1 << 20, &frontend(), nodes, &[17, u32::MAX])
    }

    fn own(node: &str) -> Option<Vec<u8>> {
        (node == "sectors").then(|| b"2048".to_vec())
    }

    #[test]
    fn record_when_stored_and_loaded_then_is_the_same_and_forgotten_once_used() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::take(dir.path()).unwrap();
        let id = DiskId::new("vbd3", "1", "51712").unwrap();
        assert_eq!(run.load(&id).unwrap(), None);
        run.store(&id, &record()).unwrap();
        assert_eq!(run.load(&id).unwrap(), Some(record()));
        assert_eq!(record().mismatch(&place(), &own), None);
        assert_eq!(record().mismatch_frontend(&frontend()), None);
        run.forget(&id).unwrap();
        run.forget(&id).unwrap();
        assert_eq!(run.load(&id).unwrap(), None);
    }

    #[test]
    fn record_when_no_record_then_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::take(dir.path()).unwrap();
        let id = DiskId::new("vbd3", "1", "51712").unwrap();
        std::fs::write(dir.path().join(id.file()), "version = 1").unwrap();
        let error = run.load(&id).unwrap_err().to_string();
        assert!(error.contains("vbd3-1-51712.toml"), "{error}");
    }

    #[test]
    fn records_when_swept_then_only_those_of_known_disks_stay() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::take(dir.path()).unwrap();
        let (here, gone) = (DiskId::new("vbd3", "1", "1").unwrap(), DiskId::new("vbd3", "2", "1").unwrap());
        for id in [&here, &gone] {
            run.store(id, &record()).unwrap();
        }
        let strangers = ["dixback.toml", "vbd3-1.toml", "vbd3-1-x.toml", "notes-1-2.txt"];
        for name in strangers {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        std::fs::write(dir.path().join("vbd3-1-1.new"), "").unwrap();
        run.sweep(|name| name == here.file());
        for name in strangers {
            assert!(dir.path().join(name).exists(), "{name}");
        }
        assert!(!dir.path().join("vbd3-1-1.new").exists());
        assert!(run.load(&here).unwrap().is_some());
        assert!(run.load(&gone).unwrap().is_none());
        assert!(dir.path().join("lock").exists());
    }

    #[test]
    fn run_directory_when_taken_twice_then_the_second_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunDir::take(dir.path()).unwrap();
        let error = RunDir::take(dir.path()).unwrap_err();
        assert!(matches!(error, RunDirError::InUse { .. }));
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(first);
        RunDir::take(dir.path()).unwrap();
    }

    #[test]
    fn lock_when_made_then_is_the_daemons_user_alone_to_open() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let _run = RunDir::take(&dir.path().join("run")).unwrap();
        let mode = std::fs::metadata(dir.path().join("run/lock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}: another user could hold the lock");
    }

    #[test]
    fn record_when_anything_changed_then_does_not_hold() {
        let mut other = place();
        other.uuid = None;
        assert!(record().mismatch(&other, &own).is_some());
        assert!(record().mismatch(&place(), &|_| None).is_some());
        let changes: [fn(&mut FrontendNodes); 5] = [
            |f| f.abi = Abi::Arm,
            |f| f.dix = false,
            |f| f.rings[1].port = 9,
            |f| f.rings[0].refs[1] = GrantRef(99),
            |f| drop(f.rings.pop()),
        ];
        for change in changes {
            let mut changed = frontend();
            change(&mut changed);
            assert!(record().mismatch_frontend(&changed).is_some());
        }
        let mut newer = record();
        newer.version = 2;
        assert!(newer.mismatch(&place(), &own).is_some());
    }
}
