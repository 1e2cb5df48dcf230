//! Where the log goes: standard error, for a person or for systemd's journal.

use env_logger::Builder;
use log::{Level, LevelFilter};
use std::io::Write;
use std::os::fd::AsFd;

/// Starts it. RUST_LOG can say more than a level, so it goes before.
pub fn start(level: LevelFilter) {
    let mut builder = Builder::new();
    builder.filter_level(level).parse_default_env();
    if is_journal(std::io::stderr().as_fd(), std::env::var("JOURNAL_STREAM").ok().as_deref()) {
        // The journal has its own clock; it takes each line's priority from its start (sd-daemon(3)).
        builder.format(|out, record| {
            let priority = priority(record.level());
            let text = format!("{}: {}", record.target(), record.args());
            text.lines().try_for_each(|line| writeln!(out, "<{priority}>{line}"))
        });
    }
    builder.init();
}

/// Whether a stream is the one to the journal that the service manager made: JOURNAL_STREAM has its device and inode
/// (systemd.exec(5)).
fn is_journal(stream: impl AsFd, named: Option<&str>) -> bool {
    let Some((device, inode)) = named.and_then(|named| named.split_once(':')) else { return false };
    let stat = rustix::fs::fstat(stream);
    stat.is_ok_and(|stat| device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino))
}

/// syslog(3)'s.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_when_it_is_the_journals_then_is_known_by_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        assert!(is_journal(&file, Some(&format!("{}:{}", stat.st_dev, stat.st_ino))));
        for other in [None, Some("1:1"), Some(""), Some("a:b"), Some("7")] {
            assert!(!is_journal(&file, other), "{other:?}");
        }
    }
}
