//! The command line: one module per subcommand.
//!
//! Exit status: 0 done, 1 it failed (of `image scrub` and `reseal`: bad intervals; of `probe`: it
//! would not be served), 2 wrong usage or configuration (of
//! `image`: it could not be done), 3 no daemon answers.

#![forbid(unsafe_code)]

mod daemon;
mod host;
mod list;
pub(crate) mod log;
mod probe;
mod resize;
mod run;
mod stat;
mod xl_disk;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "dixback", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve disks to guests, until stopped by SIGTERM or SIGINT
    #[command(after_long_help = run::HELP.as_str())]
    Run(Box<run::Args>),
    /// List the disks that the daemon serves, and how they are
    List(list::Args),
    /// Print what the disks do, from the daemon's counters
    #[command(after_help = stat::HELP)]
    Stat(stat::Args),
    /// Have the daemon serve all of a disk whose data has grown, and tell the guest
    Resize(resize::Args),
    /// Print the xl disk line for what is wished, or explain a given one
    XlDisk(xl_disk::Args),
    /// Say what PI a path can carry, how, and what is missing
    Probe(probe::Args),
    /// Make, check and renew a disk's PI sidecar
    Image(crate::image::cli::ImageArgs),
    /// Make a disk a block device of this machine, /dev/ublkbN, that carries its PI
    Ublk(crate::ublk::UblkArgs),
    /// Show the main job on this machine: no Xen, no root
    Demo(crate::demo::DemoArgs),
    /// Measure the daemon on this machine beside a bare io_uring loop
    Bench(crate::bench::BenchArgs),
    /// A simulated host for scripts, until standard input ends
    #[command(hide = true)]
    Host(host::Args),
    /// A frontend on the simulation, as a process of its own (the program frontend-sim)
    #[command(hide = true, disable_help_flag = true)]
    Frontend {
        /// What frontend-sim takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// The program.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::main(*args),
        Command::List(args) => list::main(&args),
        Command::Stat(args) => stat::main(&args),
        Command::Resize(args) => resize::main(&args),
        Command::XlDisk(args) => xl_disk::main(&args),
        Command::Host(args) => host::main(&args),
        Command::Probe(args) => probe::main(&args),
        Command::Image(args) => crate::image::cli::main(args),
        Command::Ublk(args) => crate::ublk::main(args),
        Command::Demo(args) => crate::demo::main(&args),
        Command::Bench(args) => crate::bench::main(&args),
        Command::Frontend { arguments } => {
            frontend_sim::cli::main(std::iter::once(OsString::from("frontend-sim")).chain(arguments))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_when_built_then_is_sound() {
        Cli::command().debug_assert();
    }
}
