//! A store in memory that a test can hold up, inspect and damage.

use dixback::io::{Doorbell, Ring};
use dixback::store::{
    Capabilities, Completion, DiscardUnit, Errno, Geometry, Io, IoError, Op, PiFault, Store, StoreQueue,
};
use integrity::Profile;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

pub const DISK: u64 = 16 << 20;

/// What a store was asked, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub op: Op,
    pub offset: u64,
    pub bytes: u64,
}

pub struct State {
    pub data: Vec<u8>,
    pub metadata: Vec<u8>,
    pub asked: Vec<Asked>,
    /// Complete nothing until this is false again.
    pub hold: bool,
    /// The errno of every completion from now on.
    pub fail: Option<i32>,
    /// Panic when the next request comes.
    pub panic: bool,
    /// What every completion from now on found, as a device that checks PI.
    pub mismatch: Option<PiFault>,
    /// A queue was told that it is about to end.
    pub hurried: bool,
}

pub struct Memory {
    pub state: Mutex<State>,
    profile: Option<Profile>,
    pub bells: Mutex<Vec<Doorbell>>,
}

impl Memory {
    pub fn new(profile: Option<Profile>) -> Arc<Self> {
        let metadata = profile.map_or(0, |profile| profile.metadata_len(DISK as usize));
        Arc::new(Self {
            state: Mutex::new(State {
                data: vec![0; DISK as usize],
                metadata: vec![0xFF; metadata],
                asked: Vec::new(),
                hold: false,
                fail: None,
                panic: false,
                mismatch: None,
                hurried: false,
            }),
            profile,
            bells: Mutex::default(),
        })
    }

    /// Lets go of what was held.
    pub fn release(&self) {
        self.state.lock().unwrap().hold = false;
        for bell in self.bells.lock().unwrap().iter() {
            bell.ring();
        }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }
}

impl Store for Memory {
    fn geometry(&self) -> Geometry {
        Geometry { bytes: DISK, logical_block: 512, physical_block: 512 }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            profile: self.profile,
            read_only: false,
            discard: Some(DiscardUnit { granularity: 512, alignment: 0 }),
            volatile_cache: true,
        }
    }

    fn queue(self: Arc<Self>, bell: Doorbell) -> io::Result<Box<dyn StoreQueue>> {
        self.bells.lock().unwrap().push(bell);
        Ok(Box::new(Queue { store: self, waiting: VecDeque::new() }))
    }

    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}

struct Queue {
    store: Arc<Memory>,
    waiting: VecDeque<Io>,
}

impl Queue {
    fn work(&mut self, done: &mut Vec<Completion>) {
        let mut state = self.store.state.lock().unwrap();
        while !state.hold
            && let Some(mut io) = self.waiting.pop_front()
        {
            let result = match (state.fail, state.mismatch) {
                (Some(errno), _) => Err(Errno(errno).into()),
                (None, Some(fault)) => Err(IoError::Mismatch(fault)),
                (None, None) => {
                    transfer(&mut state, self.store.profile, &mut io);
                    Ok(())
                }
            };
            done.push(Completion { id: io.id, buffer: io.buffer, result });
        }
    }
}

fn transfer(state: &mut State, profile: Option<Profile>, io: &mut Io) {
    let range = io.offset as usize..(io.offset + io.bytes) as usize;
    let tuples = profile.map_or(0..0, |p| p.metadata_len(range.start)..p.metadata_len(range.end));
    match (io.op, &mut io.buffer) {
        (Op::Read, Some(lease)) => {
            let (data, metadata) = lease.parts_mut();
            data.copy_from_slice(&state.data[range]);
            metadata.copy_from_slice(&state.metadata[tuples]);
        }
        (Op::Write { .. }, Some(lease)) => {
            let (data, metadata) = lease.parts();
            state.data[range].copy_from_slice(data);
            state.metadata[tuples].copy_from_slice(metadata);
        }
        (Op::Discard, None) => {
            state.data[range].fill(0);
            state.metadata[tuples].fill(0xFF);
        }
        (Op::Flush, None) => {}
        other => panic!("{other:?}"),
    }
}

impl StoreQueue for Queue {
    fn submit(&mut self, io: Io, _: &mut Ring, done: &mut Vec<Completion>) {
        let mut state = self.store.state.lock().unwrap();
        state.asked.push(Asked { op: io.op, offset: io.offset, bytes: io.bytes });
        let panics = std::mem::take(&mut state.panic);
        drop(state);
        assert!(!panics, "on purpose");
        self.waiting.push_back(io);
        self.work(done);
    }

    fn complete(&mut self, _: u64, _: i32, _: &mut Ring, _: &mut Vec<Completion>) {
        panic!("this store queues nothing in the ring");
    }

    fn resume(&mut self, _: &mut Ring, done: &mut Vec<Completion>) {
        self.work(done);
    }

    fn hurry(&mut self) {
        self.store.state.lock().unwrap().hurried = true;
    }
}
