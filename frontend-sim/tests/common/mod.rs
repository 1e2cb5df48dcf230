//! What the tests share: a simulated machine with a disk, and a tiny backend for it.
#![allow(dead_code, reason = "each test binary uses some of it")]

pub mod medium;
pub mod responder;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use blkif::{DiscardNodes, DixNodes, Info, Properties, Sectors, Transport};
use frontend_sim::toolstack::{self, DiskConfig, Vbd};
use frontend_sim::{ConnectOptions, Error, Frontend};
use hypervisor::sim::{self, Broker};
use hypervisor::{Backend, DomId};
use integrity::{Guard, PiType, Profile, ProfileSpec};
use tempfile::TempDir;
use xenstore::Client;
use xenstore::server::{Server, ServerConfig, ServerHandle};

pub use medium::Medium;
pub use responder::{Behaviour, GUARD, Responder, World};

/// The guest.
pub const GUEST: DomId = DomId(5);

/// 8 MiB.
pub const BYTES: usize = 8 << 20;

/// A machine without Xen: xenstore, broker, one guest, one disk.
pub struct Machine {
    pub broker: Broker,
    pub server: ServerHandle,
    pub dom0: Client,
    pub vbd: Vbd,
    pub dir: TempDir,
}

impl Machine {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path()).unwrap();
        let server = Server::start(dir.path().join("xenstore"), ServerConfig::default()).unwrap();
        let dom0 = Client::connect(server.socket()).unwrap();
        toolstack::create_domain(&dom0, GUEST, "guest").unwrap();
        let vbd = toolstack::create(&dom0, &DiskConfig::new(GUEST, "xvda", "ram?x=y")).unwrap();
        Self { broker, server, dom0, vbd, dir }
    }

    /// A client of the guest's own, with its rights.
    pub fn guest_client(&self) -> Client {
        Client::connect(self.server.domain_socket(GUEST.0).unwrap()).unwrap()
    }

    pub fn respond(&self, world: World) -> Responder {
        self.respond_again(Arc::new(world))
    }

    pub fn respond_again(&self, world: Arc<World>) -> Responder {
        self.respond_at(self.vbd.backend(), world)
    }

    pub fn respond_at(&self, backend: &str, world: Arc<World>) -> Responder {
        let hypervisor: Arc<dyn Backend> = Arc::new(sim::connect(self.dir.path(), DomId(0)).unwrap());
        let client = Client::connect(self.server.socket()).unwrap();
        Responder::start(hypervisor, client, backend, world)
    }

    pub fn connect(&self, options: ConnectOptions) -> Result<Frontend, Error> {
        let guest: Arc<dyn hypervisor::Frontend> = Arc::new(sim::connect(self.dir.path(), GUEST).unwrap());
        Frontend::connect(&guest, &self.guest_client(), self.vbd.frontend(), options)
    }
}

/// Options with a guard against hanging.
pub fn options() -> ConnectOptions {
    ConnectOptions { patience: GUARD, request_timeout: Some(GUARD), ..ConnectOptions::default() }
}

pub fn profile(guard: Guard, interval: u32) -> Profile {
    let (metadata_size, pi_offset) = match guard {
        Guard::Crc64Nvme => (16, 0),
        Guard::None => (8, 0),
        // The tuple at the end of larger metadata, as NVMe formats have it.
        Guard::Ip => (64, 56),
        Guard::Crc16T10Dif => (8, 0),
    };
    let (pi_type, tag_size) = if guard == Guard::None { (PiType::Type0, 8) } else { (PiType::Type1, 2) };
    Profile::new(ProfileSpec { guard, interval, metadata_size, pi_offset, tag_size, pi_type }).unwrap()
}

/// A world with everything on offer.
pub fn world(profile: Option<Profile>) -> World {
    let sector_size = profile.map_or(512, |profile| profile.interval() as u32);
    World {
        transport: Mutex::new(Transport {
            max_ring_page_order: 4,
            max_queues: 4,
            max_indirect: 256,
            dix: profile.map(|profile| {
                let spec = profile.spec();
                DixNodes {
                    guard: spec.guard.name().to_owned(),
                    interval: spec.interval,
                    metadata_size: spec.metadata_size,
                    pi_offset: spec.pi_offset,
                    tag_size: spec.tag_size,
                    pi_type: spec.pi_type.number(),
                }
            }),
        }),
        properties: Mutex::new(Properties {
            sectors: Sectors(BYTES as u64 / 512),
            sector_size,
            physical_sector_size: 4096,
            info: Info::default(),
            flush: true,
            barrier: true,
            persistent: false,
            discard: Some(DiscardNodes { granularity: 4096, alignment: 0, secure: false }),
        }),
        medium: Mutex::new(Medium::new(BYTES, profile)),
        behaviour: Behaviour::default(),
        chosen: Mutex::default(),
        seen: Mutex::default(),
    }
}

/// Bytes that differ at every place.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Waits for what another thread is about to bring about.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < GUARD, "waited in vain: {what}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
