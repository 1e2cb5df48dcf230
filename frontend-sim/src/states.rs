//! Xenbus states in xenstore: read, waited for, and what is written beside them when something failed.

use std::time::{Duration, Instant};

use blkif::{XenbusState, names};
use xenstore::Client;

use crate::Error;

/// How often a state is looked at even if no watch fires: somebody else may have fetched the event, where
/// several devices share one client.
const LOOK: Duration = Duration::from_millis(200);

/// The state of the device directory `dir`; `Unknown` when there is none, or none that makes sense.
pub(crate) fn read(client: &Client, dir: &str) -> Result<XenbusState, Error> {
    match client.read(&format!("{dir}/{}", names::STATE)) {
        Ok(value) => Ok(XenbusState::parse(&value).unwrap_or(XenbusState::Unknown)),
        Err(xenstore::Error::NotFound { .. } | xenstore::Error::Access { .. }) => Ok(XenbusState::Unknown),
        Err(error) => Err(error.into()),
    }
}

/// Watches the state of `dir`, so that [`wait`] is woken.
pub(crate) fn watch(client: &Client, dir: &str) -> Result<(), Error> {
    match client.watch_coalesced(&format!("{dir}/{}", names::STATE), dir) {
        Ok(()) | Err(xenstore::Error::Exists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the state of `dir` is `wanted`, and gives it. Given up with [`Error::Closed`] when `stop` says
/// so.
pub(crate) fn wait(
    client: &Client,
    dir: &str,
    what: &'static str,
    patience: Duration,
    wanted: impl Fn(XenbusState) -> bool,
    stop: impl Fn() -> bool,
) -> Result<XenbusState, Error> {
    let started = Instant::now();
    loop {
        let state = read(client, dir)?;
        if wanted(state) {
            return Ok(state);
        }
        let left = patience.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(Error::Timeout { what, waited: patience });
        }
        if stop() {
            return Err(Error::Closed);
        }
        client.events().next_within(left.min(LOOK));
    }
}

/// What the backend of `dir`, or its script, wrote about a failure: `error/<path>/error` of its domain, or
/// `hotplug-error`.
pub(crate) fn error(client: &Client, dir: &str) -> Option<String> {
    // /local/domain/<domid>/<path>
    let home_end = dir.match_indices('/').nth(3)?.0;
    let (home, path) = dir.split_at(home_end);
    let nodes = [format!("{home}/error{path}/error"), format!("{dir}/{}", names::HOTPLUG_ERROR)];
    nodes.iter().find_map(|node| client.read_string(node).ok())
}
