//! A queue's io_uring, the one place where its thread waits.
//!
//! The queue and its store share the ring; the top byte of `user_data` says whose completion it is. A ring of wide
//! entries (SQE128, CQE32) takes NVMe commands beside everything else.

use crate::io::attr::attach;
use crate::io::{Lease, PiAttr, Pool};
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Submitter, cqueue, opcode, squeue, types};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::time::Duration;

/// Whose completion a `user_data` names. The lower 56 bits are the owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The queue: its event channel, its doorbell.
    Queue,
    /// The store the queue serves.
    Store,
}

const STORE: u64 = 1 << 56;
/// IORING_ENTER_GETEVENTS (linux/io_uring.h): run the completion work that is due.
const GETEVENTS: u32 = 1;

impl Owner {
    /// The `user_data` of this owner's `value` (below 2^56).
    pub fn user_data(self, value: u64) -> u64 {
        debug_assert!(value < STORE);
        match self {
            Owner::Queue => value,
            Owner::Store => value | STORE,
        }
    }

    /// Takes a `user_data` apart.
    pub fn of(user_data: u64) -> (Owner, u64) {
        (if user_data & STORE == 0 { Owner::Queue } else { Owner::Store }, user_data & (STORE - 1))
    }
}

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel has no io_uring at all.
    #[error(
        "this kernel has no io_uring (io_uring_setup: ENOSYS); Linux 5.15 or newer with CONFIG_IO_URING is needed"
    )]
    Missing,
    /// It is switched off for us.
    #[error(
        "io_uring is switched off here (io_uring_setup: {0}); see sysctl kernel.io_uring_disabled and seccomp rules"
    )]
    Disabled(io::Error),
    /// Anything else.
    #[error("cannot set up an io_uring: {0}")]
    Setup(io::Error),
}

/// An io_uring with room for `entries` submissions; a full submission queue is submitted and goes on.
pub struct Ring {
    uring: Uring,
    /// Completions taken to make room in the kernel, not yet given out.
    early: VecDeque<(u64, i32)>,
    fixed: bool,
    submits: u64,
}

/// The two shapes of entries a ring can have.
enum Uring {
    Narrow(IoUring),
    Wide(IoUring<squeue::Entry128, cqueue::Entry32>),
}

/// The same said of either shape.
macro_rules! either {
    ($uring:expr, $name:ident => $what:expr) => {
        match $uring {
            Uring::Narrow($name) => $what,
            Uring::Wide($name) => $what,
        }
    };
}

/// Where data goes to or comes from, and how.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// The file or device.
    pub fd: RawFd,
    /// Where on it, in bytes.
    pub offset: u64,
    /// A write, with flags of pwritev2 (RWF_DSYNC for FUA); else a read.
    pub write: Option<i32>,
    /// The PI that goes with it.
    pub pi: Option<NonNull<PiAttr>>,
}

impl Ring {
    /// Sets up a ring for one thread.
    ///
    /// # Errors
    /// [`RingError`], which says in one line what is missing.
    pub fn new(entries: u32) -> Result<Self, RingError> {
        Ok(Self::of(Uring::Narrow(build(entries)?)))
    }

    /// Sets up a ring of wide entries, which [`push_wide`](Ring::push_wide) needs (Linux 5.19).
    ///
    /// # Errors
    /// [`RingError`], which says in one line what is missing.
    pub fn wide(entries: u32) -> Result<Self, RingError> {
        Ok(Self::of(Uring::Wide(build(entries)?)))
    }

    fn of(uring: Uring) -> Self {
        Self { uring, early: VecDeque::new(), fixed: false, submits: 0 }
    }

    fn submitter(&self) -> Submitter<'_> {
        either!(&self.uring, uring => uring.submitter())
    }

    /// Whether a pool's pages are registered, as buffer 0.
    pub fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// Makes the calling thread the ring's one issuer. Called once, by the thread that will use it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn enable(&mut self) -> io::Result<()> {
        self.submitter().register_enable_rings()
    }

    /// Registers a pool's pages, so that the kernel need not pin them for each request. Where it refuses (a
    /// locked-memory limit), the ring works without.
    pub fn register(&mut self, pool: &Pool) {
        let (base, length) = pool.data_range();
        let iovec = libc::iovec { iov_base: base.cast(), iov_len: length };
        // SAFETY: the pool's pages stay mapped while the ring lives: the queue drops its ring before its pool.
        match unsafe { self.submitter().register_buffers(&[iovec]) } {
            Ok(()) => self.fixed = true,
            Err(error) => log::debug!("buffers are not registered ({error}); raise LimitMEMLOCK to allow it"),
        }
    }

    /// Queues an entry.
    ///
    /// # Safety
    /// Every buffer the entry names must stay valid and unaliased until its completion has been taken.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) {
        #[cfg(test)]
        let entry = &crate::io::tap::queued(entry);
        loop {
            let pushed = match &mut self.uring {
                // SAFETY: the caller's promise, handed on.
                Uring::Narrow(uring) => unsafe { uring.submission().push(entry) },
                // SAFETY: as above.
                Uring::Wide(uring) => unsafe { uring.submission().push(&entry.clone().into()) },
            };
            if pushed.is_ok() {
                return;
            }
            self.submit_full();
        }
    }

    /// Queues a wide entry. False on a ring that has none; nothing is queued then.
    ///
    /// # Safety
    /// Every buffer the entry names must stay valid and unaliased until its completion has been taken.
    pub unsafe fn push_wide(&mut self, entry: &squeue::Entry128) -> bool {
        loop {
            let Uring::Wide(uring) = &mut self.uring else { return false };
            // SAFETY: the caller's promise, handed on.
            if unsafe { uring.submission().push(entry) }.is_ok() {
                return true;
            }
            self.submit_full();
        }
    }

    /// The submission queue is full: the kernel takes what is there.
    fn submit_full(&mut self) {
        self.submits += 1;
        if let Err(error) = self.submitter().submit() {
            self.make_room(&error);
        }
    }

    /// What the kernel needs before it takes more.
    #[cold]
    fn make_room(&mut self, error: &io::Error) {
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // Completions that found no room wait in the kernel, which takes nothing more until some are gone.
            Some(libc::EBUSY) => {
                while let Some(completion) = self.next() {
                    self.early.push_back(completion);
                }
            }
            // Short of memory.
            Some(libc::EAGAIN) => std::thread::sleep(Duration::from_millis(1)),
            _ => panic!("io_uring_enter: {error}"),
        }
    }

    /// Queues a transfer of a `part` of a lease's data, in bytes.
    ///
    /// # Safety
    /// The attribute that the transfer names, if any, and the buffer that it names stay valid and unaliased until the
    /// completion has been taken.
    pub unsafe fn transfer(&mut self, transfer: Transfer, lease: &Lease, part: Range<usize>, user_data: u64) {
        debug_assert!(part.start < part.end && part.end <= lease.len());
        let at = lease.data_ptr().wrapping_add(part.start);
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        let Transfer { fd, offset, write, pi } = transfer;
        let fd = types::Fd(fd);
        let mut entry = match (write, self.fixed) {
            (None, true) => opcode::ReadFixed::new(fd, at, length, 0).offset(offset).build(),
            (None, false) => opcode::Read::new(fd, at, length).offset(offset).build(),
            (Some(flags), true) => {
                opcode::WriteFixed::new(fd, at, length, 0).offset(offset).rw_flags(flags).build()
            }
            (Some(flags), false) => opcode::Write::new(fd, at, length).offset(offset).rw_flags(flags).build(),
        };
        if let Some(pi) = pi {
            attach(&mut entry, pi);
        }
        // SAFETY: the caller keeps what `pi` names, and the store the lease, until it takes this completion.
        unsafe { self.push(&entry.user_data(user_data)) }
    }

    /// Queues a read of a lease, but for its first `skip` bytes, from `fd` at `offset`.
    pub fn read(&mut self, fd: RawFd, lease: &Lease, skip: usize, offset: u64, user_data: u64) {
        let transfer = Transfer { fd, offset, write: None, pi: None };
        // SAFETY: there is no attribute.
        unsafe { self.transfer(transfer, lease, skip..lease.len(), user_data) }
    }

    /// Queues a write of a lease, but for its first `skip` bytes, to `fd` at `offset`.
    pub fn write(&mut self, fd: RawFd, lease: &Lease, skip: usize, offset: u64, user_data: u64) {
        let transfer = Transfer { fd, offset, write: Some(0), pi: None };
        // SAFETY: there is no attribute.
        unsafe { self.transfer(transfer, lease, skip..lease.len(), user_data) }
    }

    /// Queues a one-shot poll for `fd` to become readable.
    pub fn poll(&mut self, fd: RawFd, user_data: u64) {
        let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).build().user_data(user_data);
        // SAFETY: the entry names no memory.
        unsafe { self.push(&entry) }
    }

    /// Queues the end of what was queued as `other`: it then completes, done or not. So does this.
    pub fn cancel(&mut self, other: u64, user_data: u64) {
        let entry = opcode::AsyncCancel::new(other).build().user_data(user_data);
        // SAFETY: the entry names no memory.
        unsafe { self.push(&entry) }
    }

    /// Whether a completion can be taken, now or by entering the kernel once without waiting.
    pub fn ready(&mut self) -> bool {
        !self.early.is_empty()
            || either!(&mut self.uring, uring => !uring.completion().is_empty())
            || self.taskrun()
    }

    /// Hands everything queued to the kernel and, with `wait`, sleeps until a completion is there or the time is
    /// over.
    ///
    /// # Errors
    /// io_uring_enter's own, but for interruptions and time-outs, which are no errors here.
    pub fn submit(&mut self, wait: Option<Duration>) -> io::Result<()> {
        // What was taken early is there: nothing is waited for.
        let wait = wait.filter(|_| self.early.is_empty());
        let result = match wait {
            None => {
                // What is queued is asked anew each time: the kernel stops at an entry that it does not take, and
                // takes none while it is short of memory.
                let queued = self.pending();
                if queued == 0 && !self.taskrun() {
                    // Nothing to hand in, and the kernel says that nothing is ready either: no call at all.
                    return Ok(());
                }
                let queued = u32::try_from(queued).unwrap_or(u32::MAX);
                // SAFETY: no argument is passed; what the queued entries name is their pushers' promise.
                unsafe { self.submitter().enter::<()>(queued, 0, GETEVENTS, None) }
            }
            Some(limit) => {
                let limit = Timespec::from(limit);
                self.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
        };
        self.submits += 1;
        match result {
            Ok(_) => Ok(()),
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The next completion: `user_data` and result.
    pub fn reap(&mut self) -> Option<(u64, i32)> {
        // Those first: they are older.
        let taken = self.early.pop_front().or_else(|| self.next());
        #[cfg(test)]
        taken.iter().for_each(|(user_data, _)| crate::io::tap::completed(*user_data));
        taken
    }

    fn next(&mut self) -> Option<(u64, i32)> {
        match &mut self.uring {
            Uring::Narrow(uring) => {
                uring.completion().next().map(|entry| (entry.user_data(), entry.result()))
            }
            Uring::Wide(uring) => uring.completion().next().map(|entry| (entry.user_data(), entry.result())),
        }
    }

    /// Whether completions wait for the kernel to be entered (DEFER_TASKRUN).
    fn taskrun(&mut self) -> bool {
        either!(&mut self.uring, uring => uring.submission().taskrun())
    }

    /// How many entries wait to be submitted.
    pub fn pending(&mut self) -> usize {
        either!(&mut self.uring, uring => uring.submission().len())
    }

    /// How often the kernel was entered.
    pub fn submits(&self) -> u64 {
        self.submits
    }
}

/// Sets a ring of either shape up for one thread.
fn build<S: squeue::EntryMarker, C: cqueue::EntryMarker>(entries: u32) -> Result<IoUring<S, C>, RingError> {
    // One thread submits and reaps, and runs the kernel's completion work only when it enters: fewer
    // interruptions (SINGLE_ISSUER and DEFER_TASKRUN are Linux 6.1).
    let modern = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_r_disabled()
        .setup_cqsize(entries * 4)
        .build(entries);
    let uring = match modern {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().setup_r_disabled().setup_cqsize(entries * 4).build(entries)
        }
        other => other,
    };
    uring.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS) => RingError::Missing,
        Some(libc::EPERM | libc::EACCES) => RingError::Disabled(error),
        _ => RingError::Setup(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_when_taken_to_make_room_come_out_first_and_are_not_waited_for() {
        let mut ring = Ring::new(8).unwrap();
        ring.enable().unwrap();
        let nop = |n| opcode::Nop::new().build().user_data(n);
        // SAFETY: the entries name no memory.
        unsafe { ring.push(&nop(1)) }
        ring.submit(None).unwrap();
        ring.make_room(&io::Error::from_raw_os_error(libc::EBUSY));
        // SAFETY: as above.
        unsafe { ring.push(&nop(2)) }
        assert!(ring.ready());
        // With nothing but the first to come, a wait for a minute would be seen.
        ring.submit(Some(Duration::from_secs(60))).unwrap();
        assert_eq!(ring.reap(), Some((1, 0)));
        ring.submit(None).unwrap();
        assert_eq!((ring.reap(), ring.reap()), (Some((2, 0)), None));
    }

    #[test]
    fn submit_after_an_entry_the_kernel_does_not_take_hands_in_those_behind_it() {
        let mut ring = Ring::new(8).unwrap();
        ring.enable().unwrap();
        let strange = opcode::Nop::new().build().personality(12_345).user_data(1);
        for entry in [strange, opcode::Nop::new().build().user_data(2)] {
            // SAFETY: the entries name no memory.
            unsafe { ring.push(&entry) }
        }
        let mut taken = Vec::new();
        for _ in 0..3 {
            ring.submit(None).unwrap();
            taken.extend(std::iter::from_fn(|| ring.reap()));
        }
        assert_eq!(taken, [(1, -libc::EINVAL), (2, 0)]);
    }

    #[test]
    fn wide_ring_when_given_entries_of_either_shape_completes_both() {
        let mut ring = match Ring::wide(8) {
            Ok(ring) => ring,
            Err(error) => panic!("{error}"),
        };
        ring.enable().unwrap();
        // SAFETY: the entry names no memory.
        unsafe { ring.push(&opcode::Nop::new().build().user_data(1)) }
        // SAFETY: as above.
        assert!(unsafe { ring.push_wide(&squeue::Entry128::from(opcode::Nop::new().build().user_data(2))) });
        assert_eq!(ring.pending(), 2);
        let mut taken = Vec::new();
        for _ in 0..3 {
            ring.submit(None).unwrap();
            taken.extend(std::iter::from_fn(|| ring.reap()));
        }
        assert_eq!(taken, [(1, 0), (2, 0)]);
        // SAFETY: nothing is queued on a narrow ring.
        assert!(!unsafe { Ring::new(8).unwrap().push_wide(&opcode::Nop::new().build().into()) });
    }
}
