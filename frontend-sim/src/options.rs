//! How to connect.

use std::str::FromStr;
use std::time::Duration;

use blkif::Abi;

/// How to connect to a device. What the backend does not offer is lowered to what it does, except where
/// something is required.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Protection information.
    pub dix: DixMode,
    /// Rings of up to 2^this pages.
    pub ring_order: u32,
    /// Rings, at most.
    pub queues: u32,
    /// Segments of a request (one page each), at most; more than 11 needs indirect requests.
    pub segments: u16,
    /// Requests in flight on each queue, at most. The ring bounds them too, a request with DIX being two
    /// entries of it.
    pub depth: usize,
    /// The layout of the ring's entries.
    pub abi: Abi,
    /// How buffers are granted.
    pub grants: Grants,
    /// How to wait for responses.
    pub polling: Polling,
    /// Connect again, and send again what was in flight, when the backend goes away and stays online.
    pub reconnect: bool,
    /// How long the backend may take for a step of the handshake.
    pub patience: Duration,
    /// How long a request may take before waiting for it is given up; none: for ever, as a guest does.
    pub request_timeout: Option<Duration>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            dix: DixMode::Auto,
            ring_order: 4,
            queues: 1,
            segments: 32,
            depth: 32,
            abi: Abi::native(),
            grants: Grants::Kept,
            polling: Polling::default(),
            reconnect: true,
            patience: Duration::from_secs(30),
            request_timeout: None,
        }
    }
}

/// Whether to use protection information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DixMode {
    /// No, as every frontend before DIX.
    Off,
    /// If the backend offers it.
    #[default]
    Auto,
    /// Yes, or not connect.
    Require,
}

impl FromStr for DixMode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            "require" => Ok(Self::Require),
            _ => Err(format!("{name:?} is none of off, auto, require")),
        }
    }
}

/// How the pages of requests are granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grants {
    /// Once, for the life of the buffer; without asking the backend to keep them mapped.
    #[default]
    Kept,
    /// For each request, and taken back when the response comes: finds a backend that still uses them
    /// then. Slow.
    PerRequest,
}

/// How to wait for responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polling {
    /// Sleep at once.
    Off,
    /// Look for as long as a response is likely to come, at most this long, then sleep.
    Adaptive(Duration),
    /// Never sleep.
    Always,
}

impl Default for Polling {
    /// Up to 50 us: about what a wake-up between processors costs.
    fn default() -> Self {
        Self::Adaptive(Duration::from_micros(50))
    }
}

impl FromStr for Polling {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "off" => Ok(Self::Off),
            "adaptive" => Ok(Self::default()),
            "always" => Ok(Self::Always),
            _ => match name.strip_suffix("us").and_then(|number| number.parse().ok()) {
                Some(us) => Ok(Self::Adaptive(Duration::from_micros(us))),
                None => Err(format!("{name:?} is none of off, adaptive, always, <number>us")),
            },
        }
    }
}
