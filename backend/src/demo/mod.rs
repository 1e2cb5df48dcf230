//! `dixback demo`: the main job on any machine, without Xen and without root.
//!
//! ```text
//! 1. an image goes in     frontend process --ring, PI--> daemon process --> DISK + sidecar
//! 2. and comes back       DISK + sidecar --> daemon --ring, PI--> frontend --> compared with the image
//! 3. DISK is scrubbed     every interval against its PI, by the image tools
//! 4. faults               on a scratch copy, one at each hop: where was it caught, and was that expected?
//! ```

mod cleanup;
mod faults;
mod medium;

mod transfer;

pub(crate) use cleanup::remove_when_interrupted;
pub(crate) use transfer::{protect, target};

use crate::config::units;
use crate::simhost::{Host, HostError, system};
use clap::Args;
use comfy_table::{ContentArrangement, Table};
use faults::{Kind, Row, Scene};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tempfile::TempDir;

/// Shows the main job: an image through the ring with PI and back, and a table of faults.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// The file to write through the ring; it is never modified. Without it, data is made up.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Size of the made-up data.
    #[arg(long, value_name = "SIZE", default_value = "256M", conflicts_with = "image")]
    size: String,
    /// The disk to make, with its sidecar beside it, and to keep. Must not exist.
    #[arg(long, value_name = "DISK")]
    out: Option<PathBuf>,
    /// Only read this disk, which has a sidecar, through the ring from end to end.
    #[arg(long, value_name = "DISK", conflicts_with_all = ["image", "size", "out"])]
    read: Option<PathBuf>,
}

/// Bytes of the disk that faults are played on.
const SCRATCH: u64 = 4 << 20;

/// Runs the demo. Exit status 0: every expectation held; 1: one did not, or something failed.
pub fn main(args: &DemoArgs) -> ExitCode {
    let result = match &args.read {
        Some(disk) => transfer::read_only(disk),
        None => demo(args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dixback demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo(args: &DemoArgs) -> Result<bool, HostError> {
    let work = tempfile::Builder::new()
        .prefix("dixback-demo-")
        .tempdir()
        .map_err(system("a temporary directory"))?;
    remove_when_interrupted(work.path());
    let image = match &args.image {
        Some(image) => image.clone(),
        None => made_up(&work, &args.size)?,
    };
    let disk = args.out.clone().unwrap_or_else(|| work.path().join("disk.img"));
    if disk.exists() {
        let error = std::io::Error::other("exists already; the demo only makes new disks");
        return Err(system(disk.display().to_string())(error));
    }
    let host = Host::start(&program()?, None)?;
    remove_when_interrupted(host.dir());
    say(&format!(
        "daemon: process {}, on the simulated hypervisor, with the embedded xenstore",
        host.daemon_pid()
    ));
    let played = transfer::in_and_out(&host, &image, &disk)
        .and_then(|good| Ok(play_faults(&host, &work, &disk)? && good));
    drop(host);
    if args.out.is_some() {
        if matches!(played, Ok(true)) {
            say(&format!("kept: {} and its sidecar", disk.display()));
        } else {
            // It did not exist before.
            transfer::remove(&disk);
        }
    }
    let good = played?;
    say(if good { "every expectation held" } else { "NOT every expectation held" });
    Ok(good)
}

/// This program, to be started again as daemon and as frontend.
fn program() -> Result<PathBuf, HostError> {
    std::env::current_exe().map_err(system("this program's path"))
}

/// One line of the demo's story.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever closed our output does not want to read it.
    let _ = writeln!(out, "{line}");
}

/// A file of data that no compression and no accident makes look right: a counter's hash.
fn made_up(work: &TempDir, size: &str) -> Result<PathBuf, HostError> {
    let bytes = units::size(size).filter(|bytes| *bytes >= 1 << 20).ok_or_else(|| {
        system("--size")(std::io::Error::other(format!(
            "{size} is no size of at least 1M, such as 256M or 1G"
        )))
    })?;
    let path = work.path().join("image");
    let failed = || system("the made-up image");
    let mut file = File::create(&path).map_err(failed())?;
    let mut chunk = vec![0u8; 1 << 20];
    let (mut state, mut left) = (0u64, bytes);
    while left > 0 {
        for word in chunk.chunks_exact_mut(8) {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 31)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
            word.copy_from_slice(&(mixed ^ (mixed >> 32)).to_le_bytes());
        }
        let now = left.min(chunk.len() as u64) as usize;
        file.write_all(&chunk[..now]).map_err(failed())?;
        left -= now as u64;
    }
    Ok(path)
}

/// Plays every fault to both kinds of guest; whether each ended as expected.
fn play_faults(host: &Host, work: &TempDir, disk: &Path) -> Result<bool, HostError> {
    say("");
    say(
        "faults, each on a scratch copy of the disk's start; a DIX guest makes and checks PI itself, for an unmodified",
    );
    say("guest the daemon does");
    let mut scenes = Vec::new();
    for (domain, kind, name) in [(2, Kind::Dix, "dix"), (3, Kind::Plain, "plain")] {
        let path = work.path().join(format!("scratch-{name}.img"));
        transfer::copy_start(disk, &path, SCRATCH)?;
        protect(&path)?;
        scenes.push(Scene::new(host, domain, kind, &path)?);
    }
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::ASCII_BORDERS_ONLY_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_width(110);
    }
    table.set_header(["fault", "DIX guest", "unmodified guest"]);
    let mut good = true;
    for row in faults::rows() {
        let Row { name, dix, plain, .. } = &row;
        let mut cells = vec![(*name).to_owned()];
        for (scene, expected) in scenes.iter_mut().zip([dix, plain]) {
            let outcome = scene.play(&row, host)?;
            let held = outcome.is(expected);
            good &= held;
            let wrong =
                if held { String::new() } else { format!("  UNEXPECTED, should be: {}", expected.text()) };
            cells.push(outcome.text() + &wrong);
        }
        table.add_row(cells);
    }
    say(&table.to_string());
    say(
        "what is NOT caught was expected: PI begins where it is made, and cannot tell an old block with its old PI from",
    );
    say("the present one (such a change from outside is reported when the disk is attached)");
    for scene in scenes {
        scene.end()?;
    }
    Ok(good)
}
