//! `dixback probe`: what PI a path can carry, by which way, and what is missing.
//!
//! ```text
//! probe TARGET[?keys]  ->  survey (every way)  +  the daemon's own decision for these keys  ->  text, or one line of JSON
//! ```
//!
//! Exit status 0 if the daemon would serve the target so, 1 if it would not.

use crate::config::{DaemonConfig, DiskNodes, escape};
use crate::control::{Plan, store_spec};
use crate::store::{self, Keeper, Probe, Survey, WayReport};
use comfy_table::Table;
use serde::Serialize;
use std::process::ExitCode;

/// What `probe` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file, a block device or an NVMe character device
    target: String,
    /// Keys of the disk, such as pi=device, as in `dixback xl-disk`
    keys: Vec<String>,
    /// As a disk that the guest may not write
    #[arg(long)]
    read_only: bool,
    /// One line of JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Everything that is told.
#[derive(Debug, Serialize)]
struct Told {
    target: String,
    kind: &'static str,
    bytes: u64,
    logical_block: u32,
    ways: Vec<Way>,
    decision: Decision,
}

#[derive(Debug, Serialize)]
struct Way {
    way: String,
    path: String,
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pi: Option<Pi>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

/// What the daemon would do.
#[derive(Debug, Serialize)]
struct Decision {
    served: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keeper: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pi: Option<Pi>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sector_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discard: Option<bool>,
}

/// A profile.
#[derive(Debug, Serialize)]
struct Pi {
    guard: &'static str,
    #[serde(rename = "type")]
    pi_type: u8,
    interval: u32,
    metadata_size: u16,
    pi_offset: u8,
    tag_size: u8,
}

impl Pi {
    fn of(profile: integrity::Profile) -> Self {
        let spec = profile.spec();
        Self {
            guard: spec.guard.name(),
            pi_type: spec.pi_type.number(),
            interval: spec.interval,
            metadata_size: spec.metadata_size,
            pi_offset: spec.pi_offset,
            tag_size: spec.tag_size,
        }
    }

    fn line(&self) -> String {
        let Self { guard, pi_type, interval, metadata_size, pi_offset, tag_size } = self;
        let place = if *pi_offset == 0 { String::new() } else { format!(", tuple at {pi_offset}") };
        format!(
            "{guard} type {pi_type}, {metadata_size} bytes for {interval}{place}, application tag of {tag_size} bytes"
        )
    }
}

/// Runs it.
pub fn main(args: &Args) -> ExitCode {
    match look(args) {
        Ok(told) => {
            if args.json {
                println!("{}", serde_json::to_string(&told).unwrap_or_default());
            } else {
                print!("{}", text(&told));
            }
            if told.decision.served { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("dixback probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn look(args: &Args) -> Result<Told, String> {
    let path = std::path::absolute(&args.target).map_err(|error| format!("{}: {error}", args.target))?;
    let mut params = escape::encode(&path.to_string_lossy());
    for (number, key) in args.keys.iter().enumerate() {
        let (name, value) = key.split_once('=').unwrap_or((key, ""));
        params.push_str(&format!("{}{name}={}", if number == 0 { '?' } else { '&' }, escape::encode(value)));
    }
    let read = |node: &str| match node {
        blkif::names::PARAMS => Some(params.clone().into_bytes()),
        blkif::names::MODE => Some(if args.read_only { b"r".to_vec() } else { b"w".to_vec() }),
        _ => None,
    };
    let nodes = DiskNodes::parse(&read).map_err(|error| error.to_string())?;
    let spec = store_spec(&nodes);
    let Survey { kind, bytes, logical_block, ways } =
        store::survey(&spec).map_err(|error| error.to_string())?;
    let decided = store::probe(&spec).map_err(|error| error.to_string()).and_then(|probe| {
        let plan = Plan::make(&DaemonConfig::default(), nodes, spec, &probe)?;
        Ok((probe, plan))
    });
    let target = path.display().to_string();
    let decision = decision(decided);
    Ok(Told { target, kind, bytes, logical_block, ways: ways.into_iter().map(way).collect(), decision })
}

fn way(report: WayReport) -> Way {
    Way {
        way: report.way.to_string(),
        path: report.path.display().to_string(),
        usable: report.profile.is_some(),
        pi: report.profile.map(Pi::of),
        missing: report.missing,
        note: report.note,
    }
}

fn decision(decided: Result<(Probe, Plan), String>) -> Decision {
    match decided {
        Ok((probe, plan)) => Decision {
            served: true,
            refusal: None,
            keeper: Some(if plan.profile.is_some() { probe.keeper } else { Keeper::Nobody }.to_string()),
            pi: plan.profile.map(Pi::of),
            sector_size: Some(plan.sector_size()),
            discard: Some(probe.capabilities.discard.is_some()),
        },
        Err(reason) => Decision {
            served: false,
            refusal: Some(reason),
            keeper: None,
            pi: None,
            sector_size: None,
            discard: None,
        },
    }
}

fn text(told: &Told) -> String {
    let Told { target, kind, bytes, logical_block, ways, decision } = told;
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["way", "what", "PI, or what is missing"]);
    for way in ways {
        let found = match (&way.pi, &way.missing) {
            (Some(pi), _) => pi.line(),
            (None, missing) => format!("no: {}", missing.as_deref().unwrap_or_default()),
        };
        let note = way.note.filter(|_| way.usable).map(|note| format!(" ({note})")).unwrap_or_default();
        table.add_row([way.way.clone(), way.path.clone(), found + &note]);
    }
    let mut text = format!("{target}: {kind}, {bytes} bytes in blocks of {logical_block}\n{table}\n");
    match (decision.refusal.as_ref(), decision.pi.as_ref()) {
        (Some(reason), _) => text.push_str(&format!("dixback would refuse it: {reason}\n")),
        (None, None) => text.push_str("dixback would serve it without PI\n"),
        (None, Some(pi)) => {
            let (keeper, sector) =
                (decision.keeper.as_deref().unwrap_or_default(), decision.sector_size.unwrap_or(0));
            let discard = if decision.discard == Some(true) { "discards" } else { "no discards" };
            text.push_str(&format!(
                "dixback would serve it with PI (kept by: {keeper}): {}; sectors of {sector} bytes, {discard}\n",
                pi.line()
            ));
        }
    }
    text
}
