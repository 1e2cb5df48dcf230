//! What the tests of the simulation share.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::time::{Duration, Instant};

use hypervisor::sim::{self, Broker, Sim};
use hypervisor::{Copier, Copy, Direction, DomId, Error, GrantRef, GrantStatus};
use tempfile::TempDir;

/// The domain that serves.
pub const BACK: DomId = DomId(0);
/// The domain that is served.
pub const FRONT: DomId = DomId(1);
/// Another one.
pub const OTHER: DomId = DomId(2);

/// A broker on a directory of its own.
pub struct World {
    pub broker: Broker,
    pub dir: TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { broker: Broker::start(dir.path()).unwrap(), dir }
    }

    pub fn connect(&self, domain: DomId) -> Sim {
        sim::connect(self.dir.path(), domain).unwrap()
    }
}

/// Private memory that crosses no page.
#[repr(align(4096))]
pub struct Page(pub [u8; 4096]);

/// Copies from the start of a granted page.
pub fn copy_from(copier: &mut dyn Copier, gref: GrantRef, page: &mut Page, len: u16) -> GrantStatus {
    copy(copier, gref, page, 0, len, Direction::FromGuest).unwrap()
}

/// Copies to the start of a granted page.
pub fn copy_to(copier: &mut dyn Copier, gref: GrantRef, page: &mut Page, len: u16) -> GrantStatus {
    copy(copier, gref, page, 0, len, Direction::ToGuest).unwrap()
}

/// Copies between the start of `page` and a granted page.
pub fn copy(
    copier: &mut dyn Copier,
    gref: GrantRef,
    page: &mut Page,
    offset: u16,
    len: u16,
    direction: Direction,
) -> Result<GrantStatus, Error> {
    let unset = GrantStatus(77);
    let mut batch = [Copy { gref, offset, len, local: page.0.as_mut_ptr(), direction, status: unset }];
    // SAFETY: `page` is exclusively borrowed, and as long as any copy.
    unsafe { copier.copy(&mut batch) }?;
    Ok(batch[0].status)
}

/// Waits for what another process or thread is about to bring about.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
