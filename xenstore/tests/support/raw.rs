//! A client without manners: sends any bytes, sees every message.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use xenstore::wire::{self, Frames, Header, Kind, Message};

pub struct Raw {
    stream: UnixStream,
    frames: Frames,
    /// The payloads of events that came while an answer was waited for.
    pub events: Vec<Vec<u8>>,
}

impl Raw {
    pub fn connect(socket: &Path) -> Raw {
        Raw::over(UnixStream::connect(socket).unwrap())
    }

    pub fn over(stream: UnixStream) -> Raw {
        // A guard against hanging, no measure of anything.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Raw { stream, frames: Frames::new(), events: Vec::new() }
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn send(&mut self, kind: Kind, request: u32, transaction: u32, payload: &[u8]) {
        self.send_bytes(&wire::encode(kind, request, transaction, &[payload]).unwrap());
    }

    /// Sends a header that need not be true.
    pub fn send_header(&mut self, kind: u32, length: u32) {
        self.send_bytes(&Header { kind, request: 1, transaction: 0, length }.to_bytes());
    }

    /// The next message, or none at the end of the connection.
    pub fn receive(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.frames.next_message().unwrap() {
                return Some(message);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.frames.push(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// Asks and gives the answer's kind and payload, keeping events for later.
    pub fn ask(&mut self, kind: Kind, transaction: u32, payload: &[u8]) -> (Kind, Vec<u8>) {
        self.send(kind, 77, transaction, payload);
        loop {
            let message = self.receive().expect("the connection ended");
            if message.kind() == Some(Kind::WatchEvent) {
                self.events.push(message.payload);
            } else {
                assert_eq!(message.header.request, 77);
                return (message.kind().unwrap(), message.payload);
            }
        }
    }

    /// Asks and expects success.
    pub fn get(&mut self, kind: Kind, transaction: u32, payload: &[u8]) -> Vec<u8> {
        let (answered, answer) = self.ask(kind, transaction, payload);
        assert_eq!(answered, kind, "{:?} answered {:?}", payload.escape_ascii(), answer.escape_ascii());
        answer
    }

    /// Asks and expects this error.
    pub fn refuse(&mut self, kind: Kind, transaction: u32, payload: &[u8], error: &str) {
        let (answered, answer) = self.ask(kind, transaction, payload);
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!((answered, answer.trim_end_matches('\0')), (Kind::Error, error), "{kind:?}");
    }

    pub fn begin(&mut self) -> u32 {
        let answer = self.get(Kind::TransactionStart, 0, b"\0");
        String::from_utf8(answer).unwrap().trim_end_matches('\0').parse().unwrap()
    }
}
