//! A guest by hand: rings, pages and events of a simulated domain, against one queue of the daemon.

use crate::host::{Host, Switches};
use crate::memory::Memory;
use blkif::{Abi, FrontRing, RawSlot, Response, Segment, SharedMemory, Start, Status};
use dixback::io::Doorbell;
use dixback::queue::{AppTagRule, Disk, Integrity, Lost, QueueHandle, Settings, Setup, Stopped};
use hypervisor::sim::{self, Broker, Sim};
use hypervisor::{Access, DomId, EventChannel, Frontend, PAGE_SIZE, Shared};
use integrity::{Guard, PiType, Profile, ProfileSpec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::Arc;
use std::time::Duration;

pub const BACK: DomId = DomId(0);
pub const GUEST: DomId = DomId(1);

pub fn profile() -> Profile {
    Profile::new(ProfileSpec {
        guard: Guard::Crc16T10Dif,
        interval: 512,
        metadata_size: 8,
        pi_offset: 0,
        tag_size: 2,
        pi_type: PiType::Type1,
    })
    .unwrap()
}

/// How a test wants its queue.
pub struct Wish {
    pub profile: Option<Profile>,
    pub dix: bool,
    pub order: usize,
    pub max_indirect: u16,
    pub pool: usize,
    pub spin: Duration,
    pub disk: fn(Disk) -> Disk,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            profile: Some(profile()),
            dix: true,
            order: 0,
            max_indirect: 256,
            pool: 4 << 20,
            spin: Settings::default().spin,
            disk: |d| d,
        }
    }
}

pub struct Guest {
    pub ring: FrontRing<SharedMemory>,
    pub channel: Box<dyn EventChannel>,
    pub pages: Shared,
    pub store: Arc<Memory>,
    pub queue: Option<QueueHandle>,
    pub failed: Doorbell,
    pub disk: Arc<Disk>,
    pub ring_pages: Arc<Shared>,
    pub wish: Wish,
    pub guest: Arc<Sim>,
    pub back: Arc<Sim>,
    pub switches: Arc<Switches>,
    _broker: Broker,
    _dir: tempfile::TempDir,
}

pub const PAGES: usize = 600;

impl Guest {
    pub fn new(wish: Wish) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path()).unwrap();
        let back = Arc::new(sim::connect(dir.path(), BACK).unwrap());
        let guest = Arc::new(sim::connect(dir.path(), GUEST).unwrap());
        let ring_pages = Arc::new(guest.share(BACK, 1 << wish.order, Access::ReadWrite).unwrap());
        let (base, len) = (ring_pages.base(), ring_pages.len());
        // SAFETY: the pages stay shared while the ring lives; only it touches them.
        let memory = unsafe { SharedMemory::new(base, len, Arc::clone(&ring_pages)) };
        let ring = FrontRing::init(memory, Abi::X86_64).unwrap();
        let channel = guest.allocate(BACK).unwrap();
        let pages = guest.share(BACK, PAGES, Access::ReadWrite).unwrap();
        let store = Memory::new(wish.profile);
        let disk = (wish.disk)(Disk {
            name: "domain 1 xvda".into(),
            store: store.clone(),
            profile: wish.profile,
            integrity: Integrity::Auto,
            app_tag: AppTagRule::Guest,
            allow_escape: false,
            read_only: false,
            discard: true,
            lost: Lost::default(),
        });
        let failed = Doorbell::new().unwrap();
        let mut this = Self {
            ring,
            channel,
            pages,
            store,
            queue: None,
            failed,
            disk: Arc::new(disk),
            ring_pages,
            wish,
            guest,
            back,
            switches: Arc::default(),
            _broker: broker,
            _dir: dir,
        };
        this.start(Start::Fresh);
        this
    }

    pub fn start(&mut self, start: Start) {
        let setup = Setup {
            domain: GUEST,
            index: 0,
            refs: self.ring_pages.refs().to_vec(),
            port: self.channel.port(),
            abi: Abi::X86_64,
            start,
            dix: self.wish.dix,
            max_indirect: self.wish.max_indirect,
            disk: Arc::clone(&self.disk),
            settings: Settings { pool_bytes: self.wish.pool, spin: self.wish.spin, cpu: None },
            failed: self.failed.clone(),
        };
        let host = Host { sim: Arc::clone(&self.back), switches: Arc::clone(&self.switches) };
        self.queue = Some(QueueHandle::start(&host, setup).unwrap());
    }

    pub fn stop(&mut self) -> Stopped {
        self.queue.take().unwrap().stop()
    }

    /// A segment over the sectors `first..=last` of one of the guest's pages.
    pub fn segment(&self, page: usize, first: u8, last: u8) -> Segment {
        let gref = blkif::GrantRef(self.pages.refs()[page].0);
        Segment { gref, first_sector: first, last_sector: last }
    }

    /// Whole pages from `page` on.
    pub fn whole(&self, page: usize, count: usize) -> Vec<Segment> {
        (page..page + count).map(|page| self.segment(page, 0, 7)).collect()
    }

    pub fn put(&self, page: usize, bytes: &[u8]) {
        self.pages.write(page * PAGE_SIZE, bytes);
    }

    pub fn get(&self, page: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.pages.read(page * PAGE_SIZE, &mut bytes);
        bytes
    }

    pub fn send(&mut self, slots: &[RawSlot]) {
        for slot in slots {
            self.ring.push(slot).unwrap();
        }
        if self.ring.publish() {
            self.channel.notify().unwrap();
        }
    }

    /// The next response; panics after a long time without.
    pub fn response(&mut self) -> blkif::RawResponse {
        self.response_within(Duration::from_secs(60)).expect("no response for a minute")
    }

    pub fn response_within(&mut self, limit: Duration) -> Option<blkif::RawResponse> {
        let until = std::time::Instant::now() + limit;
        loop {
            if let Some(response) = self.ring.take_response().unwrap() {
                return Some(response);
            }
            if self.ring.arm(1) {
                continue;
            }
            let left = until.checked_duration_since(std::time::Instant::now())?;
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            poll(&mut [PollFd::from_borrowed_fd(self.channel.as_fd(), PollFlags::IN)], Some(&left)).unwrap();
            self.channel.acknowledge().unwrap();
            self.channel.unmask().unwrap();
        }
    }

    /// Takes `count` responses, and gives them by id.
    pub fn responses(&mut self, count: usize) -> std::collections::BTreeMap<u64, Status> {
        (0..count)
            .map(|_| {
                let raw = self.response();
                (raw.id, Status::from_wire(raw.status).expect("a status of the protocol"))
            })
            .collect()
    }

    /// Sends one slot and gives its response.
    pub fn ask(&mut self, slot: &RawSlot) -> Response {
        self.send(std::slice::from_ref(slot));
        let raw = self.response();
        Response { id: raw.id, operation: raw.operation, status: Status::from_wire(raw.status).unwrap() }
    }
}
