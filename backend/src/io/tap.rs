//! For tests: records every write and flush that goes to files they name, where it leaves the program.
//!
//! ```text
//! Ring::push, Medium::write_all_at  -> Written   what, where, by which thread
//! Ring::reap, their return          -> Done      it has completed
//! Medium::sync                      -> Syncing, Synced or Failed
//! the test itself                   -> Note
//! ```
//!
//! A write counts as under way from before the kernel hears of it until the program knows that it is over: whatever a
//! power cut could make of it in between, a test sees.
//!
//! One of them can be made to [fail](Tape::fail): the kernel then hears of none that does.

use io_uring::{opcode, squeue, types};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

/// Something that happened, in an order in which it did.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A write of a file has begun. A hole is a write of zeroes.
    Written { id: usize, file: usize, offset: u64, bytes: Vec<u8> },
    /// It has ended.
    Done { id: usize },
    /// A flush has begun, on the thread of that name.
    Syncing { file: usize, thread: String },
    /// It has ended.
    Synced { id: usize },
    /// It has failed: what it should have made durable may be lost, whatever a later flush says.
    Failed { id: usize },
    /// What a test has to say.
    Note(usize),
}

impl Event {
    /// The same in a longer recording, `by` events later.
    pub(crate) fn behind(self, by: usize) -> Self {
        match self {
            Event::Written { id, file, offset, bytes } => Event::Written { id: id + by, file, offset, bytes },
            Event::Done { id } => Event::Done { id: id + by },
            Event::Synced { id } => Event::Synced { id: id + by },
            Event::Failed { id } => Event::Failed { id: id + by },
            other => other,
        }
    }
}

/// What a medium does that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A write, of which anything may be on the medium.
    Write,
    /// A write, of which nothing is.
    Nothing,
    /// A flush.
    Sync,
}

/// A fault to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub file: usize,
    pub deed: Deed,
    /// How many such deeds of the file go well before.
    pub after: usize,
    /// How many of them fail then.
    pub times: usize,
}

/// What the note says where something failed.
pub(crate) const FAULT: usize = usize::MAX;
/// The reason of a fault. (An entry of an io_uring fails with another one.)
const REASON: i32 = libc::EIO;

/// A recording.
#[derive(Default)]
pub(crate) struct Tape {
    events: Mutex<Vec<Event>>,
    under_way: Mutex<HashMap<(ThreadId, u64), usize>>,
    fault: Mutex<Option<Fault>>,
}

type Key = (u64, u64);

/// What is recorded: device and inode, the test's number of it, on which tape.
static FILES: Mutex<Vec<(Key, usize, Arc<Tape>)>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tape {
    /// Records these files, as numbers 0, 1, ..
    pub(crate) fn start(files: &[&File]) -> Arc<Self> {
        let tape = Arc::new(Self::default());
        for (number, file) in files.iter().enumerate() {
            lock(&FILES).push((key(file.as_raw_fd()), number, Arc::clone(&tape)));
        }
        tape
    }

    /// Ends the recording.
    pub(crate) fn stop(self: &Arc<Self>) -> Vec<Event> {
        lock(&FILES).retain(|(_, _, tape)| !Arc::ptr_eq(tape, self));
        std::mem::take(&mut *lock(&self.events))
    }

    /// Adds a test's word; gives its place.
    pub(crate) fn note(&self, note: usize) {
        lock(&self.events).push(Event::Note(note));
    }

    /// Has something fail from now on.
    pub(crate) fn fail(&self, fault: Fault) {
        *lock(&self.fault) = Some(fault);
    }

    /// Whether this deed fails, and then how.
    fn fails(&self, file: usize, sync: bool) -> Option<Deed> {
        let mut fault = lock(&self.fault);
        let found = fault.as_mut().filter(|f| f.file == file && (f.deed == Deed::Sync) == sync)?;
        if found.after > 0 {
            found.after -= 1;
            return None;
        }
        found.times = found.times.checked_sub(1)?;
        let deed = found.deed;
        drop(fault);
        self.note(FAULT);
        Some(deed)
    }

    fn add(&self, event: impl FnOnce(usize) -> Event) -> usize {
        let mut events = lock(&self.events);
        let id = events.len();
        events.push(event(id));
        id
    }
}

fn key(fd: RawFd) -> Key {
    // SAFETY: the descriptor is open: whoever is about to use it has it.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::fs::fstat(fd).map_or((0, 0), |stat| (stat.st_dev, stat.st_ino))
}

fn find(fd: RawFd) -> Option<(usize, Arc<Tape>)> {
    let files = lock(&FILES);
    if files.is_empty() {
        return None;
    }
    let key = key(fd);
    files.iter().find(|(other, ..)| *other == key).map(|(_, number, tape)| (*number, Arc::clone(tape)))
}

/// Adds the second event when it is dropped.
pub(crate) struct Ending(Option<(Arc<Tape>, Event)>);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some((tape, event)) = self.0.take() {
            let flush = matches!(event, Event::Synced { .. });
            lock(&tape.events).push(event);
            if flush {
                // A medium that takes its time, so that others get on between the flush and what its caller does next.
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }
}

/// A write that blocks; or it fails.
pub(crate) fn writing(file: &File, offset: u64, bytes: &[u8]) -> io::Result<Ending> {
    let Some((file, tape)) = find(file.as_raw_fd()) else { return Ok(Ending(None)) };
    let fails = tape.fails(file, false);
    if fails != Some(Deed::Nothing) {
        let id = tape.add(|id| Event::Written { id, file, offset, bytes: bytes.to_vec() });
        if fails.is_none() {
            return Ok(Ending(Some((tape, Event::Done { id }))));
        }
    }
    Err(io::Error::from_raw_os_error(REASON))
}

/// A flush; or it fails.
pub(crate) fn syncing(file: &File) -> io::Result<Ending> {
    let Some((file, tape)) = find(file.as_raw_fd()) else { return Ok(Ending(None)) };
    let thread = std::thread::current().name().unwrap_or_default().to_owned();
    let id = tape.add(|_| Event::Syncing { file, thread });
    if tape.fails(file, true).is_some() {
        tape.add(|_| Event::Failed { id });
        return Err(io::Error::from_raw_os_error(REASON));
    }
    Ok(Ending(Some((tape, Event::Synced { id }))))
}

/// The beginning of `struct io_uring_sqe` (linux/io_uring.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct Sqe {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    offset: u64,
    address: u64,
    length: u32,
    op_flags: u32,
    user_data: u64,
}

/// An entry of an io_uring; or one that fails in its place. A thread has one ring, so its `user_data` tells its requests
/// apart.
pub(crate) fn queued(entry: &squeue::Entry) -> squeue::Entry {
    const WRITE_FIXED: u8 = 5;
    const FALLOCATE: u8 = 17;
    const WRITE: u8 = 23;
    // SAFETY: an Entry is a repr(C) wrapper of the kernel's 64 initialised bytes, of which these are the first.
    let sqe = unsafe { std::ptr::from_ref(entry).cast::<Sqe>().read() };
    if ![WRITE_FIXED, FALLOCATE, WRITE].contains(&sqe.opcode) {
        return entry.clone();
    }
    let Some((file, tape)) = find(sqe.fd) else { return entry.clone() };
    let bytes = if sqe.opcode == FALLOCATE {
        vec![0; sqe.address as usize]
    } else {
        // SAFETY: whoever pushes the entry keeps what it names valid and unchanged until its completion.
        unsafe { std::slice::from_raw_parts(sqe.address as *const u8, sqe.length as usize) }.to_vec()
    };
    let fails = tape.fails(file, false);
    if fails != Some(Deed::Nothing) {
        let id = tape.add(|id| Event::Written { id, file, offset: sqe.offset, bytes });
        if fails.is_none() {
            lock(&tape.under_way).insert((std::thread::current().id(), sqe.user_data), id);
            return entry.clone();
        }
    }
    opcode::Fsync::new(types::Fd(-1)).build().user_data(sqe.user_data)
}

/// A completion of an io_uring.
pub(crate) fn completed(user_data: u64) {
    let mut tapes: Vec<Arc<Tape>> = lock(&FILES).iter().map(|(_, _, tape)| Arc::clone(tape)).collect();
    tapes.dedup_by(|a, b| Arc::ptr_eq(a, b));
    for tape in tapes {
        let id = lock(&tape.under_way).remove(&(std::thread::current().id(), user_data));
        if let Some(id) = id {
            lock(&tape.events).push(Event::Done { id });
        }
    }
}
