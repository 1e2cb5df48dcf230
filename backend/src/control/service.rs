//! What the service manager is told (sd_notify(3)): ready, how many disks, alive, about to end.
//!
//! A datagram to the socket that it named in the environment; without one nothing is told.

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// A service manager, or none.
#[derive(Debug, Default)]
pub struct Service {
    socket: Option<(OwnedFd, SocketAddrUnix)>,
    /// How often it wants to hear that the daemon is alive.
    watchdog: Option<Duration>,
    due: Option<Instant>,
    said: String,
}

impl Service {
    /// The one of this process' environment: NOTIFY_SOCKET, and WATCHDOG_USEC if WATCHDOG_PID is not another's.
    pub fn from_environment() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| ours && *us > 0).map(Duration::from_micros);
        Self::new(std::env::var_os("NOTIFY_SOCKET").as_deref(), watchdog)
    }

    fn new(name: Option<&std::ffi::OsStr>, watchdog: Option<Duration>) -> Self {
        let open = |name: &[u8]| {
            // An at sign stands for the zero byte of an abstract name.
            let address = match name.strip_prefix(b"@") {
                Some(name) => SocketAddrUnix::new_abstract_name(name),
                None => SocketAddrUnix::new(name),
            };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            Ok((socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?, address?))
        };
        let socket = name.and_then(|name| match open(name.as_bytes()) {
            Ok(socket) => Some(socket),
            Err(error) => {
                let error: rustix::io::Errno = error;
                log::warn!("the service manager's socket {name:?}: {error}");
                None
            }
        });
        let watchdog = watchdog.filter(|_| socket.is_some());
        Self { socket, watchdog, due: watchdog.map(|_| Instant::now()), said: String::new() }
    }

    /// Disks are served.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// No more than what is there is done.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// One line on how it goes; told if it is a new one.
    pub fn status(&mut self, line: String) {
        if self.said != line && self.tell(&format!("STATUS={line}")) {
            self.said = line;
        }
    }

    /// When to be [`alive`](Self::alive).
    pub fn wakes(&self) -> Option<Instant> {
        self.due
    }

    /// Says so, if it is time.
    pub fn alive(&mut self, now: Instant) {
        if let (Some(due), Some(watchdog)) = (self.due, self.watchdog)
            && due <= now
        {
            self.tell("WATCHDOG=1");
            // Twice as often as it must be heard, as sd_watchdog_enabled(3) advises.
            self.due = Some(now + watchdog / 2);
        }
    }

    /// Whether it went out. It never waits.
    fn tell(&self, text: &str) -> bool {
        let Some((socket, address)) = &self.socket else { return false };
        match sendto(socket, text.as_bytes(), SendFlags::NOSIGNAL, address) {
            Ok(_) => true,
            Err(error) => {
                log::debug!("{text} to the service manager: {error}");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 256];
        let count = socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
    }

    #[test]
    fn manager_when_there_is_one_then_hears_each_new_status_once_and_that_the_daemon_lives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut service = Service::new(Some(path.as_os_str()), Some(Duration::from_secs(10)));
        service.ready();
        for status in ["1 disk", "1 disk", "2 disks"] {
            service.status(status.to_owned());
        }
        let now = Instant::now();
        assert!(service.wakes().unwrap() <= now);
        service.alive(now);
        service.alive(now + Duration::from_secs(4));
        assert_eq!(service.wakes(), Some(now + Duration::from_secs(5)));
        service.stopping();
        let all: Vec<_> = std::iter::from_fn(|| heard(&socket)).collect();
        assert_eq!(all, ["READY=1", "STATUS=1 disk", "STATUS=2 disks", "WATCHDOG=1", "STOPPING=1"]);
    }

    #[test]
    fn manager_when_its_socket_is_abstract_or_gone_then_nothing_fails() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("dixback-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let service = Service::new(Some(format!("@{name}").as_ref()), None);
        service.ready();
        assert_eq!(heard(&socket).as_deref(), Some("READY=1"));
        drop(socket);
        service.stopping();
        assert!(Service::new(None, Some(Duration::from_secs(1))).wakes().is_none());
    }
}
