//! A tiny backend: enough of one to see what the frontend sends, honest unless told otherwise.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use blkif::{
    BackRing, FrontendNodes, Operation, Paired, Pairing, Payload, Properties, RawSlot, Request, Response,
    Segment, Segments, SharedMemory, Start, Status, Transport, XenbusState, names, parse_indirect,
};
use hypervisor::{Backend, Copier, Copy, Direction, DomId, EventChannel, GrantRef, GrantStatus, Port};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use xenstore::Client;

use super::medium::Medium;

/// What happens to the responses of one request.
pub type Twist = fn(&mut Vec<Response>);

/// What a responder does apart from the protocol's rules.
#[derive(Default)]
pub struct Behaviour {
    /// Take requests, answer none.
    pub mute: AtomicBool,
    /// Answer `Error` to everything.
    pub refuse: AtomicBool,
    /// Change each response on its way.
    pub twist: Mutex<Option<Twist>>,
    /// Keep the data grants mapped over the response.
    pub hold: AtomicBool,
}

/// What it offers, and what it saw.
pub struct World {
    pub transport: Mutex<Transport>,
    pub properties: Mutex<Properties>,
    pub medium: Mutex<Medium>,
    pub behaviour: Behaviour,
    /// What the frontend chose, at each connection.
    pub chosen: Mutex<Vec<FrontendNodes>>,
    /// Requests seen, parsed.
    pub seen: Mutex<VecDeque<(Request, Option<Payload>)>>,
}

/// The responder's thread.
pub struct Responder {
    pub world: Arc<World>,
    stop: Arc<OwnedFd>,
    stopping: Arc<AtomicBool>,
    leave: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Serves the backend directory `dir`.
    pub fn start(hypervisor: Arc<dyn Backend>, client: Client, dir: &str, world: Arc<World>) -> Self {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let stopping = Arc::<AtomicBool>::default();
        let leave = Arc::<AtomicBool>::default();
        let life = Life {
            hypervisor,
            client,
            dir: dir.to_owned(),
            world: Arc::clone(&world),
            stop: Arc::clone(&stop),
            stopping: Arc::clone(&stopping),
        };
        let thread = std::thread::spawn(move || life.run());
        Self { world, stop, stopping, leave, thread: Some(thread) }
    }

    /// Ends without a word to anybody, as if killed: in flight is in flight.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.leave.store(true, SeqCst);
        self.stopping.store(true, SeqCst);
        rustix::io::write(&*self.stop, &1u64.to_ne_bytes()).unwrap();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end();
        }
    }
}

struct Life {
    hypervisor: Arc<dyn Backend>,
    client: Client,
    dir: String,
    world: Arc<World>,
    stop: Arc<OwnedFd>,
    stopping: Arc<AtomicBool>,
}

impl Life {
    fn run(&self) {
        let node = |name: &str| format!("{}/{name}", self.dir);
        let frontend = self.client.read_string(&node(names::FRONTEND)).unwrap();
        let domain: u16 = self.client.read_string(&node(names::FRONTEND_ID)).unwrap().parse().unwrap();
        self.client.watch(&format!("{frontend}/state"), "front").unwrap();
        self.client.watch(&node(names::STATE), "back").unwrap();
        if !matches!(self.state(&self.dir), XenbusState::Initialising) {
            // Taken over from one that was killed: what is on the rings is not ours.
            self.set_state(XenbusState::Closed);
        }
        let mut queues: Option<Queues> = None;
        while !self.stopping.load(SeqCst) {
            let (front, back) = (self.state(&frontend), self.state(&self.dir));
            match (front, back) {
                (_, XenbusState::Closing) => {
                    queues = None;
                    self.set_state(XenbusState::Closed);
                }
                (XenbusState::Initialising, XenbusState::Initialising | XenbusState::Closed)
                    if self.client.read(&node(names::ONLINE)).is_ok_and(|value| value == b"1") =>
                {
                    let transport = self.world.transport.lock().unwrap().nodes();
                    for (name, value) in transport {
                        self.client.write(&node(name), value).unwrap();
                    }
                    self.set_state(XenbusState::InitWait);
                }
                (XenbusState::Initialised, XenbusState::InitWait) => {
                    queues = Some(self.connect(&frontend, DomId(domain)));
                    let properties = self.world.properties.lock().unwrap().nodes();
                    for (name, value) in properties {
                        self.client.write(&node(name), value).unwrap();
                    }
                    self.set_state(XenbusState::Connected);
                }
                (XenbusState::Closing, XenbusState::Connected) => {
                    self.set_state(XenbusState::Closing);
                    queues = None;
                    self.set_state(XenbusState::Closed);
                }
                (XenbusState::Closed, XenbusState::Connected | XenbusState::InitWait) => {
                    queues = None;
                    self.set_state(XenbusState::Closed);
                }
                _ => {
                    let mut polled = [
                        PollFd::from_borrowed_fd(self.client.events().as_fd(), PollFlags::IN),
                        PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
                    ];
                    poll(&mut polled, None).unwrap();
                    while self.client.events().try_next().is_some() {}
                }
            }
        }
        drop(queues);
    }

    fn state(&self, dir: &str) -> XenbusState {
        let value = self.client.read(&format!("{dir}/state")).unwrap_or_default();
        XenbusState::parse(&value).unwrap_or(XenbusState::Unknown)
    }

    fn set_state(&self, state: XenbusState) {
        self.client.write(&format!("{}/state", self.dir), state.name()).unwrap();
    }

    fn connect(&self, frontend: &str, domain: DomId) -> Queues {
        let transport = self.world.transport.lock().unwrap().clone();
        let read = |name: &str| self.client.read(&format!("{frontend}/{name}")).ok();
        let chosen = FrontendNodes::parse(&read, &transport).unwrap();
        self.world.chosen.lock().unwrap().push(chosen.clone());
        let pairing = Pairing::new(transport.limits(chosen.dix));
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let threads = chosen
            .rings
            .iter()
            .map(|nodes| {
                let refs: Vec<_> = nodes.refs.iter().map(|gref| GrantRef(gref.0)).collect();
                let mapping = self.hypervisor.map(domain, &refs).unwrap();
                let (base, len) = (mapping.base(), mapping.len());
                // SAFETY: `mapping` keeps the pages mapped, and nothing refers to them.
                let memory = unsafe { SharedMemory::new(base, len, mapping) };
                let queue = Serving {
                    ring: BackRing::attach(memory, chosen.abi, Start::Fresh).unwrap(),
                    event: self.hypervisor.bind(domain, Port(nodes.port)).unwrap(),
                    copier: self.hypervisor.copier(domain).unwrap(),
                    pairing,
                    world: Arc::clone(&self.world),
                    hypervisor: Arc::clone(&self.hypervisor),
                    domain,
                    held: Vec::new(),
                };
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || queue.run(&stop))
            })
            .collect();
        Queues { stop, threads }
    }
}

struct Queues {
    stop: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Queues {
    fn drop(&mut self) {
        rustix::io::write(&*self.stop, &1u64.to_ne_bytes()).unwrap();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

struct Serving {
    ring: BackRing<SharedMemory>,
    event: Box<dyn EventChannel>,
    copier: Box<dyn Copier>,
    pairing: Pairing,
    world: Arc<World>,
    hypervisor: Arc<dyn Backend>,
    domain: DomId,
    held: Vec<hypervisor::Mapping>,
}

#[repr(align(4096))]
struct Page([u8; 4096]);

impl Serving {
    fn run(mut self, stop: &OwnedFd) {
        loop {
            let mut want = 1;
            while let Some(paired) = self.pairing.next(&mut self.ring).unwrap() {
                let mut responses = match paired {
                    Paired::Single(request) => self.serve(request, None),
                    Paired::Pair { data, payload } => self.serve(data, Some(payload)),
                    Paired::Refused(refused) => refused.responses.to_vec(),
                    Paired::NeedMore(more) => {
                        want = more;
                        break;
                    }
                };
                if self.world.behaviour.mute.load(SeqCst) {
                    continue;
                }
                if let Some(twist) = *self.world.behaviour.twist.lock().unwrap() {
                    twist(&mut responses);
                }
                responses.iter().for_each(|response| self.ring.respond(response));
            }
            if self.ring.publish() {
                self.event.notify().unwrap();
            }
            if self.ring.arm(want) {
                continue;
            }
            let mut polled = [
                PollFd::from_borrowed_fd(self.event.as_fd(), PollFlags::IN),
                PollFd::new(stop, PollFlags::IN),
            ];
            poll(&mut polled, None).unwrap();
            if !polled[1].revents().is_empty() {
                return;
            }
            if self.event.acknowledge().unwrap() {
                self.event.unmask().unwrap();
            }
        }
    }

    fn serve(&mut self, request: Request, payload: Option<Payload>) -> Vec<Response> {
        self.world.seen.lock().unwrap().push_back((request.clone(), payload.clone()));
        let status = self.execute(&request, payload.as_ref());
        let mut responses = vec![request.response(status)];
        responses.extend(payload.map(|payload| payload.response(status)));
        responses
    }

    fn execute(&mut self, request: &Request, payload: Option<&Payload>) -> Status {
        if self.world.behaviour.refuse.load(SeqCst) {
            return Status::Error;
        }
        let segments = match &request.segments {
            Segments::Direct(segments) => segments.to_vec(),
            Segments::Indirect { count, pages } => {
                let mut bytes = vec![0; pages.len() * 4096];
                for (page, gref) in pages.iter().enumerate() {
                    let whole = Segment { gref: *gref, first_sector: 0, last_sector: 7 };
                    if !self.copy(&[whole], &mut bytes[page * 4096..][..4096], Direction::FromGuest) {
                        return Status::Error;
                    }
                }
                let mut out = Vec::new();
                parse_indirect(&bytes, *count, self.pairing.limits(), &mut out).unwrap();
                out
            }
        };
        let len = blkif::total_len(&segments);
        let at = request.sector.0 as usize * 512;
        if self.world.behaviour.hold.load(SeqCst) {
            let refs: Vec<_> = segments.iter().map(|segment| GrantRef(segment.gref.0)).collect();
            self.held.push(self.hypervisor.map(self.domain, &refs).unwrap());
        }
        let world = Arc::clone(&self.world);
        let size = world.medium.lock().unwrap().data.len();
        let discard = matches!(request.operation, Operation::Discard { .. });
        if len > 0 && at + len > size {
            return Status::Error;
        }
        let metadata_len = payload.map(|payload| {
            let dix = self.pairing.limits().dix.unwrap();
            payload.needed(&dix, request.sector, len)
        });
        let metadata_len = match metadata_len.transpose() {
            Ok(len) => len,
            Err(_) => return Status::Error,
        };
        let mut data = vec![0; len];
        let mut metadata = vec![0; metadata_len.unwrap_or(0)];
        match request.operation {
            Operation::Read => {
                let medium = world.medium.lock().unwrap();
                data.copy_from_slice(&medium.data[at..at + len]);
                if payload.is_some() {
                    metadata.copy_from_slice(medium.metadata_of(at, len));
                }
                drop(medium);
                let okay = self.copy(&segments, &mut data, Direction::ToGuest)
                    && payload.is_none_or(|p| self.copy(&p.segments, &mut metadata, Direction::ToGuest));
                if okay { Status::Okay } else { Status::Error }
            }
            _ if discard => {
                if let Operation::Discard { sectors, .. } = request.operation {
                    world.medium.lock().unwrap().discard(at, sectors.0 as usize * 512);
                }
                Status::Okay
            }
            _ => {
                let okay = self.copy(&segments, &mut data, Direction::FromGuest)
                    && payload.is_none_or(|p| self.copy(&p.segments, &mut metadata, Direction::FromGuest));
                if !okay {
                    return Status::Error;
                }
                let mut medium = world.medium.lock().unwrap();
                let metadata = payload.map(|_| &metadata[..]);
                if let Some(metadata) = metadata
                    && let Err(tag) = medium.verify(at, &data, metadata)
                {
                    return match tag {
                        integrity::Tag::Guard => Status::Guard,
                        integrity::Tag::Application => Status::Application,
                        integrity::Tag::Reference => Status::Reference,
                    };
                }
                if len > 0 {
                    medium.write(at, &data, metadata);
                }
                Status::Okay
            }
        }
    }

    /// Copies between segments and the start of `bytes`; segments beyond its end are slack.
    fn copy(&mut self, segments: &[Segment], bytes: &mut [u8], direction: Direction) -> bool {
        let mut page = Box::new(Page([0; 4096]));
        let mut at = 0;
        for segment in segments {
            let len = segment.bytes().min(bytes.len() - at);
            let part = &mut bytes[at..at + len];
            if direction == Direction::ToGuest {
                page.0[..len].copy_from_slice(part);
            }
            let mut batch = [Copy {
                gref: GrantRef(segment.gref.0),
                offset: segment.offset() as u16,
                len: len as u16,
                local: page.0.as_mut_ptr(),
                direction,
                status: GrantStatus::OKAY,
            }];
            // SAFETY: `page` is ours alone and as long as any copy.
            unsafe { self.copier.copy(&mut batch) }.unwrap();
            if !batch[0].status.is_okay() {
                return false;
            }
            if direction == Direction::FromGuest {
                part.copy_from_slice(&page.0[..len]);
            }
            at += len;
        }
        true
    }
}

/// How long a slot's bytes are; for tests that look at them.
pub fn slot_bytes(slot: &RawSlot) -> Vec<u8> {
    slot.to_bytes(blkif::Abi::X86_64).to_vec()
}

/// A generous guard against hanging.
pub const GUARD: Duration = Duration::from_secs(60);
