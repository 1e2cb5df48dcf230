//! A ublk server's side of Linux's userspace block devices (`drivers/block/ublk_drv.c`), with protection information.
//!
//! ```text
//!            /dev/ublk-control                 /dev/ublkcN                      /dev/ublkbN
//! Control    add, parameters, start,  Queue    fetch -> a request's tag         anybody's I/O
//!            stop, delete, recover             request(tag): what is asked
//!                                              read/write data, integrity
//!                                              commit(tag, result) and fetch
//! ```
//!
//! A device has queues, each served by one thread; a queue has tags, each of which carries one request at a time.
//! [`Queue`] makes the io_uring entries and leaves the io_uring to its caller, who has other things in it too. Data and
//! integrity metadata are copied by pread and pwrite on `/dev/ublkcN` ("user copy"), the only way the kernel offers to
//! metadata.
//!
//! The kernel silently clears flags it does not know. So [`Control::add`] compares what it asked for with what it got,
//! and [`sysfs::check`] what the block layer says of the started device.
//!
//! Sources: `include/uapi/linux/ublk_cmd.h` and `drivers/block/ublk_drv.c` of Linux 7.2.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions)
)]

mod control;
mod error;
mod features;
mod params;
mod queue;
pub mod sysfs;
pub mod uapi;

pub use control::{Control, Info, NewDevice, State};
pub use error::Error;
pub use features::Features;
pub use params::{Csum, Discard, Integrity, Params};
pub use queue::{Device, MAX_REQUEST, Operation, Queue, Request};
