//! The command line: one module per subcommand. Exit status: 0 clean, 1 failed while running, 2 wrong usage.

#![forbid(unsafe_code)]

mod run;

use clap::{Parser, Subcommand};
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
}

/// The program.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::main(*args),
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
