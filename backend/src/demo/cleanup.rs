//! Leaving nothing behind, however the demo ends.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// Directories to remove when a signal ends the program. On every other way out their owners remove them.
pub(crate) fn remove_when_interrupted(dir: &Path) {
    static DIRS: OnceLock<Mutex<Vec<PathBuf>>> = OnceLock::new();
    let first = DIRS.get().is_none();
    let dirs = DIRS.get_or_init(Mutex::default);
    if let Ok(mut dirs) = dirs.lock() {
        dirs.push(dir.to_owned());
    }
    if !first {
        return;
    }
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            for dir in dirs.lock().map(|dirs| dirs.clone()).unwrap_or_default() {
                let _ = std::fs::remove_dir_all(dir);
            }
            // As a shell says it: ended by that signal. Child processes end with this one.
            std::process::exit(128 + signal);
        }
    });
}
