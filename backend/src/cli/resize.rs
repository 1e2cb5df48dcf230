//! `dixback resize`: a disk's data has grown; the guest is told.

use super::daemon::{CommandError, Daemon, end, say};
use crate::control::status::{Answer, Request};
use std::process::ExitCode;

/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    daemon: Daemon,
    /// The disk: GUEST if it has one only, GUEST/DEVICE, or the path of the data
    disk: String,
}

/// Has the daemon take in what a disk has grown by.
pub fn main(args: &Args) -> ExitCode {
    end(resize(args))
}

fn resize(args: &Args) -> Result<(), CommandError> {
    let disk = args.daemon.disk(&args.disk)?;
    match args.daemon.order(&Request::Resize { disk: disk.id.clone() })? {
        Answer::Resized { before, after } if before == after => {
            say(format_args!("{}: {after} bytes, as before", disk.title()))
        }
        Answer::Resized { before, after } => {
            say(format_args!("{}: {after} bytes, {} more; the guest is told", disk.title(), after - before))
        }
        _ => Err(CommandError::Strange),
    }
}
