//! The control device: one command at a time, each an io_uring command with its result.
//!
//! ```text
//! features -> add -> set_params -> (queues fetch) -> start  ...  try_stop | stop -> delete
//!                    a server died: start_recovery -> (queues fetch) -> end_recovery
//! ```

use crate::uapi::{self, CtrlCmd, CtrlDevInfo, RawParams};
use crate::{Error, Features, Params};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use zerocopy::{FromBytes, IntoBytes};

const CONTROL: &str = "/dev/ublk-control";

/// Where a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started, or stopped.
    Dead,
    /// Served.
    Live,
    /// Without a server; its requests wait for the next.
    Quiesced,
    /// Without a server; its requests fail.
    Failing,
    /// What the kernel says and this library does not know.
    Other(u16),
}

impl State {
    fn of(raw: u16) -> Self {
        match raw {
            uapi::S_DEV_DEAD => State::Dead,
            uapi::S_DEV_LIVE => State::Live,
            uapi::S_DEV_QUIESCED => State::Quiesced,
            uapi::S_DEV_FAIL_IO => State::Failing,
            other => State::Other(other),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Dead => f.pad("dead"),
            State::Live => f.pad("live"),
            State::Quiesced => f.pad("quiesced"),
            State::Failing => f.pad("failing"),
            State::Other(number) => write!(f, "in state {number}"),
        }
    }
}

/// A device that is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewDevice {
    /// Its number; any that is free, if not given.
    pub id: Option<u32>,
    /// Queues; the kernel lowers them to the number of processors.
    pub queues: u16,
    /// Requests of each queue at a time, 1 to 4096.
    pub depth: u16,
    /// Most bytes of a request, at most 32 MiB.
    pub largest: u32,
    /// What it must have.
    pub features: Features,
    /// A number of the server's own, which the driver keeps and gives back: by it a device can be told from another that
    /// has got its number since (`ublksrv_flags`).
    pub mark: u64,
}

/// A device that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its number.
    pub id: u32,
    /// Its queues.
    pub queues: u16,
    /// Requests of each queue at a time.
    pub depth: u16,
    /// Where it stands.
    pub state: State,
    /// Most bytes of a request.
    pub largest: u32,
    /// The process that serves it, as this process sees process numbers.
    pub server: Option<u32>,
    /// What it has.
    pub features: Features,
    /// Its maker's number; 0 where that has none.
    pub mark: u64,
}

impl Info {
    fn of(raw: &CtrlDevInfo) -> Self {
        Self {
            id: raw.dev_id,
            queues: raw.nr_hw_queues,
            depth: raw.queue_depth,
            state: State::of(raw.state),
            largest: raw.max_io_buf_bytes,
            server: u32::try_from(raw.ublksrv_pid).ok().filter(|process| *process > 0),
            features: Features(raw.flags),
            mark: raw.ublksrv_flags,
        }
    }
}

/// The open control device.
pub struct Control {
    uring: IoUring<squeue::Entry128, cqueue::Entry>,
    file: File,
}

impl Control {
    /// Opens it.
    ///
    /// # Errors
    /// [`Error::NoDriver`], [`Error::Uring`].
    pub fn open() -> Result<Self, Error> {
        let file = OpenOptions::new().read(true).write(true).open(CONTROL).map_err(Error::NoDriver)?;
        let uring = IoUring::builder().build(4).map_err(Error::Uring)?;
        Ok(Self { uring, file })
    }

    /// What the driver offers. A driver without this command (before Linux 6.3) offers nothing of use here.
    ///
    /// # Errors
    /// The command's.
    pub fn features(&mut self) -> Result<Features, Error> {
        let mut features = 0u64;
        self.command("GET_FEATURES", uapi::CMD_GET_FEATURES, None, 0, features.as_mut_bytes())?;
        Ok(Features(features))
    }

    /// Adds a device, which then waits for parameters, queues and a start.
    ///
    /// # Errors
    /// [`Error::Features`] before, [`Error::Cleared`] if the kernel made it without one of them all the same (it is
    /// deleted again), else the command's; EEXIST: the number is taken.
    pub fn add(&mut self, new: &NewDevice) -> Result<Info, Error> {
        let offered = self.features()?;
        let missing = new.features.beyond(offered);
        if missing != Features::default() {
            return Err(Error::Features { missing, offered });
        }
        let mut raw = CtrlDevInfo {
            nr_hw_queues: new.queues,
            queue_depth: new.depth,
            max_io_buf_bytes: new.largest,
            dev_id: new.id.unwrap_or(u32::MAX),
            flags: new.features.0 | uapi::F_CMD_IOCTL_ENCODE,
            ublksrv_flags: new.mark,
            ..CtrlDevInfo::default()
        };
        self.command("ADD_DEV", uapi::CMD_ADD_DEV, new.id, 0, raw.as_mut_bytes())?;
        let info = Info::of(&raw);
        let cleared = new.features.beyond(info.features);
        if cleared != Features::default() {
            self.delete(info.id)?;
            return Err(Error::Cleared(cleared));
        }
        Ok(info)
    }

    /// What a device is.
    ///
    /// # Errors
    /// The command's; ENODEV: there is none of this number.
    pub fn info(&mut self, device: u32) -> Result<Info, Error> {
        let mut raw = CtrlDevInfo::default();
        self.command("GET_DEV_INFO", uapi::CMD_GET_DEV_INFO, Some(device), 0, raw.as_mut_bytes())?;
        Ok(Info::of(&raw))
    }

    /// Sets the parameters of a device that was never started.
    ///
    /// # Errors
    /// [`Error::Value`], or the command's.
    pub fn set_params(&mut self, device: u32, params: &Params) -> Result<(), Error> {
        let mut raw = params.to_raw()?;
        self.command("SET_PARAMS", uapi::CMD_SET_PARAMS, Some(device), 0, raw.as_mut_bytes())
    }

    /// A device's parameters; none if it has some that this library never sets.
    ///
    /// # Errors
    /// The command's.
    pub fn params(&mut self, device: u32) -> Result<Option<Params>, Error> {
        let mut bytes = [0; size_of::<RawParams>()];
        let (length, _) = bytes.split_at_mut(4);
        length.copy_from_slice(&u32::try_from(size_of::<RawParams>()).unwrap_or(0).to_ne_bytes());
        self.command("GET_PARAMS", uapi::CMD_GET_PARAMS, Some(device), 0, &mut bytes)?;
        Ok(RawParams::read_from_bytes(&bytes).ok().and_then(|raw| Params::from_raw(&raw)))
    }

    /// Makes the block device. Waits until every tag of every queue has been fetched by this process.
    ///
    /// # Errors
    /// The command's.
    pub fn start(&mut self, device: u32) -> Result<(), Error> {
        self.command("START_DEV", uapi::CMD_START_DEV, Some(device), std::process::id().into(), &mut [])
    }

    /// Removes the block device, whoever has it open; requests that come later fail.
    ///
    /// # Errors
    /// The command's.
    pub fn stop(&mut self, device: u32) -> Result<(), Error> {
        self.command("STOP_DEV", uapi::CMD_STOP_DEV, Some(device), 0, &mut [])
    }

    /// Removes the block device if nobody has it open. Takes [`Features::SAFE_STOP`].
    ///
    /// # Errors
    /// The command's; EBUSY: it is open.
    pub fn try_stop(&mut self, device: u32) -> Result<(), Error> {
        self.command("TRY_STOP_DEV", uapi::CMD_TRY_STOP_DEV, Some(device), 0, &mut [])
    }

    /// Deletes a device. Waits until its server has closed it.
    ///
    /// # Errors
    /// The command's.
    pub fn delete(&mut self, device: u32) -> Result<(), Error> {
        self.command("DEL_DEV", uapi::CMD_DEL_DEV, Some(device), 0, &mut [])
    }

    /// Deletes a device, without waiting for whoever has it open.
    ///
    /// # Errors
    /// The command's.
    pub fn delete_later(&mut self, device: u32) -> Result<(), Error> {
        self.command("DEL_DEV_ASYNC", uapi::CMD_DEL_DEV_ASYNC, Some(device), 0, &mut [])
    }

    /// Begins to take over a device whose server has gone.
    ///
    /// # Errors
    /// The command's; EBUSY: the former server is not quite gone.
    pub fn start_recovery(&mut self, device: u32) -> Result<(), Error> {
        self.command("START_USER_RECOVERY", uapi::CMD_START_USER_RECOVERY, Some(device), 0, &mut [])
    }

    /// Ends it: requests flow again. Waits until every tag of every queue has been fetched by this process.
    ///
    /// # Errors
    /// The command's.
    pub fn end_recovery(&mut self, device: u32) -> Result<(), Error> {
        let process = std::process::id().into();
        self.command("END_USER_RECOVERY", uapi::CMD_END_USER_RECOVERY, Some(device), process, &mut [])
    }

    /// One command, to its end.
    fn command(
        &mut self,
        name: &'static str,
        operation: u32,
        device: Option<u32>,
        data: u64,
        buffer: &mut [u8],
    ) -> Result<(), Error> {
        let failed = |source| Error::Command {
            device: device.map_or("(new)".to_owned(), |device| device.to_string()),
            command: name,
            source,
        };
        let command = CtrlCmd {
            dev_id: device.unwrap_or(u32::MAX),
            queue_id: u16::MAX,
            len: u16::try_from(buffer.len()).unwrap_or(u16::MAX),
            addr: if buffer.is_empty() { 0 } else { address(buffer) },
            data,
            ..CtrlCmd::default()
        };
        let mut bytes = [0; 80];
        let (head, _) = bytes.split_at_mut(size_of::<CtrlCmd>());
        head.copy_from_slice(command.as_bytes());
        let entry = opcode::UringCmd80::new(types::Fd(self.file.as_raw_fd()), operation).cmd(bytes).build();
        // SAFETY: the only memory that the entry names is `buffer`, borrowed until the completion is taken below; on a
        // way out without it the process is told so by a panic, not by a return.
        unsafe { self.uring.submission().push(&entry) }.map_err(|error| failed(io::Error::other(error)))?;
        loop {
            match self.uring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("io_uring_enter with a ublk command under way: {error}"),
            }
            let Some(done) = self.uring.completion().next() else { continue };
            return match done.result() {
                0.. => Ok(()),
                error => Err(failed(io::Error::from_raw_os_error(error.saturating_neg()))),
            };
        }
    }
}

/// A buffer's address as the kernel wants it.
fn address(buffer: &mut [u8]) -> u64 {
    u64::try_from(buffer.as_mut_ptr().expose_provenance()).unwrap_or(0)
}
