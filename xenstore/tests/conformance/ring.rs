//! A domain's connection to Xen's xenstored: the shared ring page, as tests/fakexen offers it.
//!
//! ```text
//!   Client ◄──socket pair──► bridge thread ◄──► domN.xenstore (the page), evtchn and domN.evtchn (signals)
//! ```
//!
//! The page is a file that xenstored has mapped. It is read and written here by system calls, which order the
//! indexes after the bytes as a guest's memory barriers would. Layout: struct xenstore_domain_interface in
//! xs_wire.h.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use xenstore::client::Endpoint;

const RING: u32 = 1024;
const REQUESTS: u64 = 0;
const RESPONSES: u64 = 1024;
const REQ_CONS: u64 = 2048;
const REQ_PROD: u64 = 2052;
const RSP_CONS: u64 = 2056;
const RSP_PROD: u64 = 2060;

/// The port of a domain is this plus its number (fakexen.c).
const PORT_BASE: u32 = 1000;

pub struct Ring {
    folder: PathBuf,
    domain: u16,
    /// Open from before the introduction on, so that no signal is lost.
    signals: File,
}

impl Ring {
    /// Before the domain is introduced.
    pub fn prepare(folder: &Path, domain: u16) -> Ring {
        let path = folder.join(format!("dom{domain}.evtchn"));
        // A page and a FIFO of an earlier domain of this number are not this one's.
        let _ = std::fs::remove_file(folder.join(format!("dom{domain}.xenstore")));
        let _ = std::fs::remove_file(&path);
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
        let signals = OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(path).unwrap();
        Ring { folder: folder.to_owned(), domain, signals }
    }
}

impl Endpoint for Ring {
    fn open(&self) -> io::Result<OwnedFd> {
        let page = self.folder.join(format!("dom{}.xenstore", self.domain));
        let (ours, theirs) = UnixStream::pair()?;
        let bridge = Bridge {
            page: OpenOptions::new().read(true).write(true).open(page)?,
            signals: self.signals.try_clone()?,
            signal: OpenOptions::new().read(true).write(true).open(self.folder.join("evtchn"))?,
            port: PORT_BASE + u32::from(self.domain),
            stream: ours,
        };
        // It ends with the client's end of the pair.
        std::thread::spawn(move || bridge.run());
        Ok(theirs.into())
    }

    fn describe(&self) -> String {
        format!("the ring of domain {}", self.domain)
    }
}

struct Bridge {
    page: File,
    signals: File,
    signal: File,
    port: u32,
    stream: UnixStream,
}

impl Bridge {
    fn run(mut self) {
        // An error means that one of the ends is gone.
        while let Ok(true) = self.turn() {}
    }

    /// Moves what can be moved, or waits. False: the client is gone.
    fn turn(&mut self) -> io::Result<bool> {
        let sent = self.requests()?;
        let Some(sent) = sent else {
            return Ok(false);
        };
        let received = self.responses()?;
        if sent || received {
            self.signal.write_all(&self.port.to_ne_bytes())?;
            return Ok(true);
        }
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, self.room()? > 0);
        let mut polled = [PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.stream, wanted)];
        poll(&mut polled, None)?;
        // Only that there were signals counts; what they are about is in the page.
        let _ = (&self.signals).read(&mut [0; 64]);
        Ok(true)
    }

    /// Moves requests into the ring. None: there will be no more.
    fn requests(&mut self) -> io::Result<Option<bool>> {
        let room = self.room()?;
        if room == 0 {
            return Ok(Some(false));
        }
        let mut buffer = [0; RING as usize];
        let count = match recv(&self.stream, &mut buffer[..room as usize], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Ok(None),
            Ok((count, _)) => count,
            Err(Errno::AGAIN) => return Ok(Some(false)),
            Err(errno) => return Err(errno.into()),
        };
        let producer = self.index(REQ_PROD)?;
        for (at, byte) in (0u32..).zip(&buffer[..count]) {
            let place = producer.wrapping_add(at) % RING;
            self.page.write_all_at(&[*byte], REQUESTS + u64::from(place))?;
        }
        self.set_index(REQ_PROD, producer.wrapping_add(count as u32))?;
        Ok(Some(true))
    }

    /// Moves responses out of the ring.
    fn responses(&mut self) -> io::Result<bool> {
        let (consumer, producer) = (self.index(RSP_CONS)?, self.index(RSP_PROD)?);
        let count = producer.wrapping_sub(consumer);
        assert!(count <= RING);
        let mut bytes = Vec::new();
        for at in 0..count {
            let place = consumer.wrapping_add(at) % RING;
            let mut byte = [0];
            self.page.read_exact_at(&mut byte, RESPONSES + u64::from(place))?;
            bytes.extend(byte);
        }
        self.stream.write_all(&bytes)?;
        self.set_index(RSP_CONS, producer)?;
        Ok(count > 0)
    }

    fn room(&self) -> io::Result<u32> {
        Ok(RING - self.index(REQ_PROD)?.wrapping_sub(self.index(REQ_CONS)?))
    }

    fn index(&self, at: u64) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.page.read_exact_at(&mut bytes, at)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn set_index(&self, at: u64, value: u32) -> io::Result<()> {
        self.page.write_all_at(&value.to_ne_bytes(), at)
    }
}
