//! Every way in which a path could carry PI, and what each lacks: what `dixback probe` shows. The daemon's own decision
//! ([`probe`](crate::store::probe)) asks the same questions with the same code.

use crate::store::device::{Namespace, is_namespace, sibling_of_block};
use crate::store::lock::Access;
use crate::store::medium::{Direct, Medium, SECTOR};
use crate::store::sidecar::{PiFile, default_path};
use crate::store::spec::usable;
use crate::store::{Keeper, StoreError, StoreSpec};
use integrity::{Guard, Profile};
use std::path::PathBuf;

/// One way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayReport {
    /// Which.
    pub way: Keeper,
    /// What is opened for it: the device, its character device, the sidecar.
    pub path: PathBuf,
    /// The PI, if it is usable.
    pub profile: Option<Profile>,
    /// Why it is not usable; what to do where there is something.
    pub missing: Option<String>,
    /// What there is to know before it is used.
    pub note: Option<&'static str>,
}

/// What is known of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// A regular file, a block device, an NVMe namespace.
    pub kind: &'static str,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its smallest unit of I/O in bytes.
    pub logical_block: u32,
    /// The ways, those first that the daemon would try first.
    pub ways: Vec<WayReport>,
}

/// Looks at everything that the spec's path could carry PI by, whatever its `pi` says. Changes nothing.
///
/// # Errors
/// [`StoreError`]: it is no disk, or cannot be opened for reading.
pub fn survey(spec: &StoreSpec) -> Result<Survey, StoreError> {
    if is_namespace(&spec.path) {
        let namespace = Namespace::open(&spec.path, Access::Shared);
        let (bytes, logical_block) = namespace.as_ref().map_or((0, 0), |found| (found.bytes, found.block));
        let ways = vec![passthrough(spec.path.clone(), namespace)];
        return Ok(Survey { kind: "NVMe namespace", bytes, logical_block, ways });
    }
    let medium = Medium::open(&spec.path, Access::Shared, spec.direct, SECTOR)?;
    let mut ways = vec![sidecar(spec, &medium)];
    if medium.device {
        ways.push(device(&medium));
        if let Some(sibling) = sibling_of_block(&spec.path) {
            let namespace = Namespace::open(&sibling, Access::Shared);
            ways.push(passthrough(sibling, namespace));
        }
    }
    let kind = if medium.device { "block device" } else { "regular file" };
    Ok(Survey { kind, bytes: medium.bytes, logical_block: medium.sector, ways })
}

fn sidecar(spec: &StoreSpec, data: &Medium) -> WayReport {
    let path = match &spec.pi {
        crate::store::PiSource::Sidecar(path) => path.clone(),
        _ => default_path(&spec.path),
    };
    let opened = match path.try_exists() {
        Ok(false) => Err(StoreError::NoSidecar { path: path.clone(), data: spec.path.clone() }),
        _ => PiFile::open(&path, &spec.path, Access::Shared, Direct::Off, false).and_then(|pi| {
            pi.check_data(data)?;
            Ok(pi.header.profile)
        }),
    };
    report(Keeper::Sidecar, path, opened.map_err(|error| error.to_string()))
}

fn device(medium: &Medium) -> WayReport {
    let found = usable(medium).map_err(String::from).and_then(|format| {
        let nothing = "it keeps no PI: the device has none, or is formatted without";
        format.map(|format| format.profile).ok_or_else(|| nothing.to_owned())
    });
    let mut report = report(Keeper::Device, medium.path.clone(), found);
    report.note = match report.profile.map(|profile| profile.guard()) {
        Some(Guard::Ip) => {
            Some("Linux does not tell a host adapter that a guard of ours is a checksum: try writes first")
        }
        Some(Guard::None) => Some("metadata that nobody checks: used with pi=device only"),
        _ => None,
    };
    report
}

fn passthrough(path: PathBuf, namespace: Result<Namespace, StoreError>) -> WayReport {
    let found = namespace.map(|namespace| namespace.profile);
    let mut report = report(Keeper::Namespace, path, found.map_err(|error| error.to_string()));
    report.note = Some("used when the character device is the target: no partitions, no dm, no multipath");
    report
}

fn report(way: Keeper, path: PathBuf, found: Result<Profile, String>) -> WayReport {
    let (profile, missing) = match found {
        Ok(profile) => (Some(profile), None),
        Err(why) => (None, Some(why)),
    };
    WayReport { way, path, profile, missing, note: None }
}
