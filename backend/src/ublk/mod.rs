//! `dixback ublk`: a disk as a block device of this machine, with its PI, for whoever opens it.
//!
//! ```text
//!  fio, mkfs, a file system,        kernel                       dixback ublk add
//!  an application with PI  ---> /dev/ublkbN (blk-integrity) ---> queue threads: copy, check or make PI ---> Store
//! ```
//!
//! | module | idea |
//! |---|---|
//! | `disk` | what the operator says of a disk, as the driver's parameters |
//! | `serve`, `takeover` | a server's life: new devices, devices that a former server left |
//! | `queue`, `request`, `threads` | one thread per queue: the way of a request |
//! | `record` | what a device serves, for who takes it over |
//! | `manage` | list, delete |

mod disk;
mod manage;
mod queue;
mod record;
mod request;
mod serve;
mod takeover;
mod threads;

use crate::control::Service;
use serve::Wish;
use std::io::Write;
use std::process::ExitCode;

/// Exit status of a command line that says nothing that can be done.
const USAGE: u8 = 2;

/// What `dixback ublk` takes.
#[derive(Debug, clap::Args)]
pub struct UblkArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a disk a block device, /dev/ublkbN, and serve it until stopped by SIGTERM or SIGINT
    Add(AddArgs),
    /// Show this machine's ublk devices
    List,
    /// Take a device away
    Del {
        /// Its number: the N of /dev/ublkbN
        id: u32,
        /// Even if it is in use
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// A file or block device, with keys as in `dixback run`: DISK[?key=value&key=value]
    #[arg(required_unless_present = "recover")]
    disk: Option<String>,
    /// The device's number; if a server left such a device, it is taken over [default: any]
    #[arg(long, value_name = "N")]
    id: Option<u32>,
    /// Take over the device that a server left, with the disk it had
    #[arg(long, value_name = "N", conflicts_with = "id")]
    recover: Option<u32>,
    /// Writes are refused, and nothing at all is written
    #[arg(long)]
    read_only: bool,
    /// Queues; never more than processors [default: the disk's key queues=, or as many as processors, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    queues: Option<u16>,
    /// Requests of each queue at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    depth: u16,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: log::LevelFilter,
}

/// Runs it.
pub fn main(args: UblkArgs) -> ExitCode {
    let outcome = match args.command {
        Command::Add(args) => return add(args),
        Command::List => manage::list().map(|table| println!("{table}")),
        Command::Del { id, force } => manage::delete(id, force),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("dixback: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn add(args: AddArgs) -> ExitCode {
    crate::cli::log::start(args.log);
    let target = match args.disk.as_deref().map(disk::absolute).transpose() {
        Ok(target) => target,
        Err(reason) => {
            eprintln!("dixback: {reason}");
            return ExitCode::from(USAGE);
        }
    };
    let wish = Wish {
        target,
        read_only: args.read_only,
        id: args.recover.or(args.id),
        recover: args.recover.is_some(),
        queues: args.queues,
        depth: args.depth,
    };
    let ready = |line: &str| {
        log::info!("{line}");
        let mut service = Service::from_environment();
        service.status(line.to_owned());
        service.ready();
        // For whoever started it and waits on a pipe, if anybody reads it.
        let _ = writeln!(std::io::stdout(), "{line}");
    };
    match serve::serve(&wish, ready) {
        Ok(_) => ExitCode::SUCCESS,
        Err(reason) => {
            log::error!("{reason}");
            ExitCode::FAILURE
        }
    }
}
