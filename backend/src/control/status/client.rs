//! The asking end.

use super::{Answer, Request, socket};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the daemon may take for the next bytes of an answer. Making a sidecar longer may take a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no daemon: {}: {source}; is dixback running, with this run directory (--run-dir)?", path.display())]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket is not for this user.
    #[error("{}: {source}: only root may ask the daemon", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon went away, or takes too long.
    #[error("the daemon does not answer: {0}")]
    Io(#[from] io::Error),
    /// What it said is no answer.
    #[error("the daemon's answer is not understood ({0}): is it of another version?")]
    Malformed(#[from] serde_json::Error),
}

/// Asks the daemon that has this run directory.
///
/// # Errors
/// [`AskError`].
pub fn ask(run_dir: &Path, request: &Request) -> Result<Answer, AskError> {
    let path = socket(run_dir);
    let mut stream = UnixStream::connect(&path).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => AskError::Forbidden { path: path.clone(), source },
        _ => AskError::NoDaemon { path: path.clone(), source },
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut answer)?;
    if answer.is_empty() {
        return Err(AskError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(serde_json::from_slice(&answer)?)
}
