//! `frontend-sim`: the frontend as a program. Everything is in the library, for programs that embed it.

use std::process::ExitCode;

fn main() -> ExitCode {
    frontend_sim::cli::main(std::env::args_os())
}
