//! The options.

use std::path::PathBuf;
use std::time::Duration;

use blkif::Abi;
use clap::{Args, Parser, Subcommand};
use hypervisor::DomId;

use crate::workload::{Access, Limit};
use crate::{ConnectOptions, DixMode, Error, Fault, Grants, Polling, toolstack};
use xenstore::Client;

/// A Xen block frontend in a program: copies, verifies, measures and misbehaves.
#[derive(Parser)]
#[command(name = "frontend-sim", version)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Args)]
pub(super) struct Global {
    /// Where grants and event channels come from: xen, or sim:DIR
    #[arg(long, global = true, default_value = "sim:/run/dixback-sim")]
    pub(super) hypervisor: String,
    /// Xenstore's socket, or /dev/xen/xenbus; where SOCKET.DOMAIN is there too, that one, with the guest's rights
    #[arg(long, global = true, value_name = "SOCKET", default_value = "/run/xenstored/socket")]
    pub(super) xenstore: PathBuf,
    /// The guest to be; on Xen this domain, which xenstore knows, elsewhere 1, if not given
    #[arg(long, global = true, value_name = "N")]
    domain: Option<u16>,
    /// The disk: its name, or its number
    #[arg(long, global = true, default_value = "xvda", value_parser = device)]
    pub(super) device: u32,
    /// Protection information: off, auto, require
    #[arg(long, global = true, default_value = "auto")]
    dix: DixMode,
    /// Rings of up to 2^N pages
    #[arg(long, global = true, value_name = "N", default_value_t = 4)]
    ring_order: u32,
    /// Rings, at most
    #[arg(long, global = true, value_name = "N", default_value_t = 1)]
    queues: u32,
    /// Segments of a request, at most
    #[arg(long, global = true, value_name = "N", default_value_t = 32)]
    segments: u16,
    /// Requests in flight on each queue; 32, or on Xen 16, if not given. Each has its segments' pages granted, and
    /// gntalloc grants 1024 pages unless /sys/module/xen_gntalloc/parameters/limit says otherwise
    #[arg(long, global = true, value_name = "N")]
    depth: Option<usize>,
    /// x86_64-abi, x86_32-abi or arm-abi; the native one if not given
    #[arg(long, global = true, value_parser = abi)]
    abi: Option<Abi>,
    /// How to wait for responses: off, adaptive, always, or at most so long, such as 50us
    #[arg(long, global = true, default_value = "adaptive")]
    polling: Polling,
    /// Grant each request's pages anew, and take them back when it is done
    #[arg(long, global = true)]
    grant_each: bool,
    /// Do not connect again when the backend goes away
    #[arg(long, global = true)]
    no_reconnect: bool,
    /// Seconds the other side may take, for a step of the handshake or for a request
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
}

impl Global {
    /// The guest to be.
    ///
    /// # Errors
    /// It is not given, and xenstore does not say.
    pub(super) fn guest(&self) -> Result<DomId, Error> {
        match self.domain {
            Some(domain) => Ok(DomId(domain)),
            None if !self.is_xen() => Ok(DomId(1)),
            None => {
                // A relative path is of the domain that asks.
                let text = Client::connect(&self.xenstore)?.read_string("domid")?;
                let domain = text
                    .trim()
                    .parse()
                    .map_err(|_| Error::Request("xenstore's domid is no number: --domain"))?;
                Ok(DomId(domain))
            }
        }
    }

    fn is_xen(&self) -> bool {
        self.hypervisor == "xen"
    }

    /// Requests in flight on each queue.
    pub(super) fn depth(&self) -> usize {
        self.depth.unwrap_or(if self.is_xen() { 16 } else { 32 })
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    pub(super) fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            dix: self.dix,
            ring_order: self.ring_order,
            queues: self.queues,
            segments: self.segments,
            depth: self.depth(),
            abi: self.abi.unwrap_or(Abi::native()),
            grants: if self.grant_each { Grants::PerRequest } else { Grants::Kept },
            polling: self.polling,
            reconnect: !self.no_reconnect,
            patience: self.patience(),
            request_timeout: Some(self.patience()),
        }
    }
}

fn device(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().or_else(|| toolstack::device_number(text));
    number.ok_or_else(|| "neither a disk's name (xvda) nor a device's number".to_owned())
}

fn abi(text: &str) -> Result<Abi, String> {
    Abi::from_name(text.as_bytes()).ok_or_else(|| "none of x86_64-abi, x86_32-abi, arm-abi".to_owned())
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Connects, says what was negotiated, and stays until its standard input ends
    Connect,
    /// Writes a file to the disk
    CopyIn(Copy),
    /// Reads the disk into a file
    CopyOut(Copy),
    /// Writes what can be recognised, at random, and checks everything it reads
    Verify(VerifyArguments),
    /// Measures requests per second and what they cost
    Bench(BenchArguments),
    /// Sends one request, with a fault if asked, and says what came of it
    Request(RequestArguments),
    /// As xl block-attach: makes the disk's nodes and waits until a backend offers it (rights of domain 0)
    Attach(AttachArguments),
    /// As xl block-detach
    Detach,
}

#[derive(Args)]
pub(super) struct Copy {
    /// The file
    pub(super) file: PathBuf,
    /// Where on the disk to start, in bytes
    #[arg(long, default_value_t = 0)]
    pub(super) offset: u64,
    /// How many bytes; the whole file, or the rest of the disk, if not given
    #[arg(long)]
    pub(super) length: Option<u64>,
}

#[derive(Args)]
pub(super) struct Extent {
    /// Stop after this many seconds
    #[arg(long)]
    seconds: Option<f64>,
    /// Stop after this many requests
    #[arg(long)]
    requests: Option<u64>,
}

impl Extent {
    /// As given, or so many seconds.
    pub(super) fn limit(&self, usual: u64) -> Limit {
        let time = self.seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let time =
            if time.is_none() && self.requests.is_none() { Some(Duration::from_secs(usual)) } else { time };
        Limit { requests: self.requests, time }
    }
}

#[derive(Args)]
pub(super) struct VerifyArguments {
    #[command(flatten)]
    pub(super) extent: Extent,
    /// What the data and the choices follow from
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Where on the disk the region starts, in bytes
    #[arg(long, default_value_t = 0)]
    pub(super) offset: u64,
    /// Bytes of the region; up to 256 MiB if not given
    #[arg(long)]
    pub(super) length: Option<u64>,
    /// Bytes of the largest request
    #[arg(long)]
    pub(super) max_request: Option<usize>,
    /// Send discards too
    #[arg(long)]
    pub(super) discard: bool,
    /// Keep requests in flight from overlapping
    #[arg(long)]
    pub(super) no_overlap: bool,
}

#[derive(Args)]
pub(super) struct BenchArguments {
    #[command(flatten)]
    pub(super) extent: Extent,
    /// random-read, random-write, sequential-read, sequential-write; all four if not given. Writes
    /// overwrite the disk
    #[arg(long)]
    pub(super) access: Vec<Access>,
    /// Bytes of a request; 4096 at random, 131072 in sequence, if not given
    #[arg(long)]
    pub(super) bytes: Option<usize>,
    /// Bytes of the disk to use, from its start
    #[arg(long)]
    pub(super) length: Option<u64>,
    /// A line of JSON for each measurement, for programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct RequestArguments {
    /// What to send
    #[arg(value_enum)]
    pub(super) operation: RequestKind,
    /// First sector, of 512 bytes
    #[arg(long, default_value_t = 0)]
    pub(super) sector: u64,
    /// Bytes
    #[arg(long, default_value_t = 4096)]
    pub(super) bytes: usize,
    /// `data[:BIT]`, `payload[:BIT]`, `reference[:OFF_BY]`, `application[:TAG]`, `escape`, `unflagged`
    #[arg(long)]
    pub(super) fault: Option<Fault>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum RequestKind {
    Read,
    Write,
    Barrier,
    Flush,
    Discard,
}

#[derive(Args)]
pub(super) struct AttachArguments {
    /// What to serve; may end with ?key=value&...
    pub(super) target: String,
    /// The disk's name in the guest
    #[arg(long, default_value = "xvda")]
    pub(super) vdev: String,
    /// The guest may not write
    #[arg(long)]
    pub(super) read_only: bool,
    /// The backend's domain
    #[arg(long, default_value_t = 0)]
    pub(super) backend_domain: u16,
    /// The backends' directory: vbd3, or vbd
    #[arg(long, default_value = "vbd3")]
    pub(super) kind: String,
}
