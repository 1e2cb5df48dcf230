//! The command line, as a function, so that other programs can have it as a subcommand.

mod args;
mod commands;
mod progress;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::Arguments;

/// Runs the program with these arguments, the first of which is its name.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too, and are no failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // A program that embeds this one may have set up logging already.
    let _ = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).try_init();
    match commands::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("frontend-sim: {error}");
            ExitCode::FAILURE
        }
    }
}
