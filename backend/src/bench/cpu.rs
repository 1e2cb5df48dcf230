//! Time on a processor, in nanoseconds as the scheduler counts it.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// Of this process, as [`of_process`]: what a loop makes the kernel's workers do counts for it as it does for the daemon.
pub(super) fn of_this_process() -> io::Result<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).map_err(io::Error::other)
}

/// Of a process so far: all its threads, those that have ended and kernel workers of its io_urings included.
pub(super) fn of_process(pid: u32) -> io::Result<Duration> {
    let mut clock = MaybeUninit::uninit();
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: the call writes the clock's number, or fails.
    let error = unsafe { libc::clock_getcpuclockid(pid, clock.as_mut_ptr()) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: the call has succeeded, so the number was written.
    let clock = unsafe { clock.assume_init() };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the time, or fails.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).map_err(io::Error::other)?;
    let nanos = u32::try_from(time.tv_nsec).map_err(io::Error::other)?;
    Ok(Duration::new(seconds, nanos))
}
