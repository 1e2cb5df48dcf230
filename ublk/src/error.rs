//! What can go wrong between a server and the driver, each with what to do about it.
#![forbid(unsafe_code)]

use crate::{Features, State};
use std::io;

/// Why the driver or a device cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no control device.
    #[error("/dev/ublk-control: {0}; load the kernel module ublk_drv (CONFIG_BLK_DEV_UBLK), as root")]
    NoDriver(#[source] io::Error),
    /// There is no io_uring to speak through.
    #[error("cannot set up an io_uring for /dev/ublk-control: {0}")]
    Uring(#[source] io::Error),
    /// The driver lacks features.
    #[error(
        "this kernel's ublk driver lacks {missing} (it has: {offered}); \
         UBLK_F_INTEGRITY takes Linux 7.0 or newer with CONFIG_BLK_DEV_INTEGRITY"
    )]
    Features {
        /// What is missing.
        missing: Features,
        /// What there is.
        offered: Features,
    },
    /// The driver cleared flags of a device that it had offered.
    #[error("the driver made the device without {0}, though it offers that")]
    Cleared(Features),
    /// A control command failed.
    #[error("ublk device {device}: {command}: {source}")]
    Command {
        /// The device.
        device: String,
        /// The command, as the header names it.
        command: &'static str,
        /// The driver's answer.
        source: io::Error,
    },
    /// The device's character device cannot be used.
    #[error("{path}: {doing}: {source}")]
    Device {
        /// The path.
        path: String,
        /// What was being done.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The device is in another state than the one needed.
    #[error("ublk device {device} is {found}, not {needed}")]
    State {
        /// The device.
        device: u32,
        /// What it is.
        found: State,
        /// What it must be.
        needed: State,
    },
    /// A value that the interface has no room for.
    #[error("{what} is {value}, which ublk cannot do: {allowed}")]
    Value {
        /// What it is about.
        what: &'static str,
        /// The value.
        value: u64,
        /// What would do.
        allowed: &'static str,
    },
    /// The block layer says something else of the device's integrity than what was asked for.
    #[error(
        "{path} is {found:?}, expected {expected:?}: the device would not carry its protection information"
    )]
    Sysfs {
        /// The file.
        path: String,
        /// What is in it.
        found: String,
        /// What should be.
        expected: String,
    },
}

impl Error {
    /// The driver's error number, if it answered with one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Command { source, .. } | Error::Device { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
