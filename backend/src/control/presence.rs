//! One daemon for the disks of a kind: what this one serves is in xenstore, for others to see.
//!
//! ```text
//! <home>/data/dixback/<kind>/<process>-<n> = "<start time> <script> <run directory>"
//! ```
//!
//! The run directory's lock keeps out a second daemon that has the same; two that have different ones would both answer
//! for a disk. `data` is where a domain may write below its own directory, so this holds in driver domains too. A daemon
//! that was killed leaves its node: a process that is gone, or another of the same number, is told by its start time.

use super::error::ControlError;
use super::tree::prune;
use crate::config::DaemonConfig;
use std::sync::atomic::{AtomicU32, Ordering};
use xenstore::{Client, Error};

/// Tells daemons of one process apart; tests have several.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// This daemon's nodes, removed with it.
#[derive(Debug)]
pub struct Presence {
    client: Client,
    nodes: Vec<String>,
}

/// What another's node says.
#[derive(Debug, PartialEq, Eq)]
struct Other<'a> {
    process: u32,
    start: &'a str,
    script: &'a str,
    run_dir: &'a str,
}

impl Presence {
    /// Makes the nodes, unless another daemon that lives serves some of the same disks.
    ///
    /// # Errors
    /// [`ControlError::Served`] names it; xenstore.
    pub fn take(client: &Client, home: &str, config: &DaemonConfig) -> Result<Self, ControlError> {
        let process = std::process::id();
        let name = format!("{process}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let run_dir = config.run_dir.to_string_lossy();
        let script = if config.script.is_empty() { "*" } else { &config.script };
        let value = format!("{} {script} {run_dir}", start_time(process).unwrap_or_default());
        let mut presence = Self { client: client.clone(), nodes: Vec::new() };
        for kind in &config.kinds {
            let root = format!("{home}/data/dixback/{kind}");
            let rival = client.transaction(|transaction| {
                for child in children(transaction.directory(&root))? {
                    let path = format!("{root}/{child}");
                    let text = String::from_utf8_lossy(&transaction.read(&path)?).into_owned();
                    match parse(&child, &text) {
                        // The lock of our own run directory is ours, so whoever had it is gone.
                        Some(other) if other.run_dir != run_dir && other.lives() => {
                            if other.overlaps(script) {
                                return Ok(Some((other.process, other.run_dir.to_owned())));
                            }
                        }
                        _ => transaction.remove(&path)?,
                    }
                }
                transaction.write(&format!("{root}/{name}"), value.as_bytes())?;
                Ok(None)
            });
            match rival {
                Ok(None) => presence.nodes.push(format!("{root}/{name}")),
                Ok(Some((process, run_dir))) => {
                    return Err(ControlError::Served { kind: kind.clone(), process, run_dir });
                }
                // Where this domain may not write there, its disks are served all the same.
                Err(Error::Access { .. }) => log::debug!("{root}: not for this domain to write"),
                Err(error) => return Err(ControlError::xenstore("saying what is served")(error)),
            }
        }
        Ok(presence)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        for node in &self.nodes {
            // A node that stays is of a process that is gone.
            let top = node.split("/dixback/").next().unwrap_or_default();
            let _ = prune(&self.client, node, top);
        }
    }
}

impl Other<'_> {
    fn lives(&self) -> bool {
        start_time(self.process).as_deref() == Some(self.start)
    }

    fn overlaps(&self, script: &str) -> bool {
        self.script == script || self.script == "*" || script == "*"
    }
}

fn parse<'a>(name: &str, value: &'a str) -> Option<Other<'a>> {
    let mut parts = value.splitn(3, ' ');
    let process = name.split('-').next()?.parse().ok()?;
    Some(Other { process, start: parts.next()?, script: parts.next()?, run_dir: parts.next()? })
}

fn children(listed: Result<Vec<String>, Error>) -> Result<Vec<String>, Error> {
    match listed {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        listed => listed,
    }
}

/// When a process started, in ticks since boot: field 22 of /proc/PID/stat (proc(5)). None if there is no such process.
fn start_time(process: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_when_read_then_tells_a_daemon_that_lives_from_one_that_is_gone() {
        let me = std::process::id();
        let start = start_time(me).unwrap();
        let name = format!("{me}-3");
        let value = format!("{start} block-dix /run/a b");
        let other = parse(&name, &value).unwrap();
        assert_eq!(other.run_dir, "/run/a b");
        assert!(
            other.lives() && other.overlaps("block-dix") && other.overlaps("*") && !other.overlaps("block-x")
        );
        let value = format!("{start}1 * /run/a");
        let gone = parse(&name, &value).unwrap();
        assert!(!gone.lives() && gone.overlaps("block-x"));
        assert_eq!((parse("x-1", &value), parse(&name, "1 2")), (None, None));
    }
}
