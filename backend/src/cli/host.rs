//! A simulated host for scripts: xenstore, grants and the daemon, for as long as standard input stays open.
//!
//! The first line on standard output is a shell's: `hypervisor=... xenstore=... log=...`. Exit status 0 if the daemon
//! ended cleanly.

use crate::simhost::Host;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

/// What `host` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// More of what `dixback run` takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs it.
pub fn main(args: &Args) -> ExitCode {
    let outcome = std::env::current_exe().map_err(|error| error.to_string()).and_then(|program| {
        let arguments: Vec<&str> = args.arguments.iter().map(String::as_str).collect();
        serve(&program, &arguments)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dixback host: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(program: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut host = Host::start_with(program, None, arguments).map_err(|error| error.to_string())?;
    println!(
        "hypervisor={} xenstore={} log={}",
        host.hypervisor_name(),
        host.xenstore().display(),
        host.log_path().display()
    );
    std::io::stdout().flush().map_err(|error| error.to_string())?;
    std::io::stdin().read_to_end(&mut Vec::new()).map_err(|error| error.to_string())?;
    let status = host.end_daemon(Signal::TERM).map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("the daemon ended with {status}")) }
}
