//! What `list`, `stat` and `resize` share: asking the daemon that runs, and naming disks.

use crate::control::status::{Answer, AskError, DiskReport, Report, Request, ask};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit status when no daemon answers.
const NO_DAEMON: u8 = 3;

/// Which daemon.
#[derive(Clone, Debug, clap::Args)]
pub struct Daemon {
    /// The run directory of the daemon to ask
    #[arg(long, value_name = "DIR", default_value = "/run/dixback")]
    run_dir: PathBuf,
}

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The daemon's reason.
    #[error("{0}")]
    Failed(String),
    /// A word that names no disk.
    #[error(
        "{0:?} names no disk: it is GUEST, GUEST/DEVICE, the path of the data, or KIND/DOMAIN/DEVICE; see dixback list"
    )]
    NoDisk(String),
    /// A word that names more than one.
    #[error("{word:?} names more than one disk: {disks}")]
    Several {
        /// The word.
        word: String,
        /// What it names.
        disks: String,
    },
    /// An answer to another question.
    #[error("the daemon's answer is to another question: is it of another version?")]
    Strange,
    /// Nobody reads what is written.
    #[error("{0}")]
    Output(#[from] std::io::Error),
}

impl Daemon {
    /// What the daemon has, of disks those that the words name, or all.
    pub fn status(&self, words: &[String]) -> Result<Report, CommandError> {
        let mut report = match ask(&self.run_dir, &Request::Status)? {
            Answer::Status(report) => *report,
            Answer::Failed(reason) => return Err(CommandError::Failed(reason)),
            Answer::Resized { .. } => return Err(CommandError::Strange),
        };
        let named = |word: &&String| !report.disks.iter().any(|disk| disk.is_named(word));
        if let Some(word) = words.iter().find(named) {
            return Err(CommandError::NoDisk(word.clone()));
        }
        report.disks.retain(|disk| words.is_empty() || words.iter().any(|word| disk.is_named(word)));
        Ok(report)
    }

    /// The one disk that a word names.
    pub fn disk(&self, word: &str) -> Result<DiskReport, CommandError> {
        let mut disks = self.status(&[word.to_owned()])?.disks;
        match (disks.pop(), disks.as_slice()) {
            (Some(disk), []) => Ok(disk),
            (None, _) => Err(CommandError::NoDisk(word.to_owned())),
            (Some(last), others) => {
                let disks: Vec<_> = others.iter().chain([&last]).map(|disk| disk.id.as_str()).collect();
                Err(CommandError::Several { word: word.to_owned(), disks: disks.join(", ") })
            }
        }
    }

    /// Gives an order.
    pub fn order(&self, request: &Request) -> Result<Answer, CommandError> {
        match ask(&self.run_dir, request)? {
            Answer::Failed(reason) => Err(CommandError::Failed(reason)),
            answer => Ok(answer),
        }
    }
}

/// Ends a command: 0, 1 if it failed, 3 if there is no daemon.
pub fn end(result: Result<(), CommandError>) -> ExitCode {
    let error = match result {
        Ok(()) => return ExitCode::SUCCESS,
        // As a pipe's reader that has seen enough wants it.
        Err(CommandError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(error) => error,
    };
    eprintln!("dixback: {error}");
    match error {
        CommandError::Ask(AskError::NoDaemon { .. } | AskError::Forbidden { .. }) => {
            ExitCode::from(NO_DAEMON)
        }
        _ => ExitCode::FAILURE,
    }
}

/// Writes a line.
pub fn say(line: impl std::fmt::Display) -> Result<(), CommandError> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
