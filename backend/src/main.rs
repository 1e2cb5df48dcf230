//! A userspace Xen block backend that carries protection information end to end.

use std::process::ExitCode;

fn main() -> ExitCode {
    dixback::cli::main()
}
