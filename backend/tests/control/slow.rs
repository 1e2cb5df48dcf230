//! A disk whose opening or closing hangs: nobody else waits for it, and what it has done is told all the same.

use crate::support::*;
use blkif::{Encode, Operation, Request, Sectors, Segment, XenbusState};
use dixback::config::DaemonConfig;
use dixback::control::ControlError;
use dixback::control::status::{self, Answer, DiskReport};
use frontend_sim::toolstack::Vbd;
use hypervisor::{
    Backend, Copier, Copy, Counted, DomId, Error, EventChannel, GrantRef, Hypervisor, Mapping, Port,
    Statistics,
};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Closed until opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
    waiting: Mutex<usize>,
}

impl Gate {
    fn pass(&self) {
        *self.waiting.lock().unwrap() += 1;
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.changed.wait(open).unwrap();
        }
        *self.waiting.lock().unwrap() -= 1;
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn close(&self) {
        *self.open.lock().unwrap() = false;
    }

    fn is_waited_at(&self) -> bool {
        *self.waiting.lock().unwrap() > 0
    }
}

/// A hypervisor that can neither map nor copy domain 1's pages while the gate is closed: on Xen, pages that are paged out.
struct Slow {
    inner: Arc<dyn Hypervisor>,
    gate: Arc<Gate>,
}

struct SlowCopier {
    inner: Box<dyn Copier>,
    gate: Arc<Gate>,
}

impl Copier for SlowCopier {
    unsafe fn copy(&mut self, batch: &mut [Copy]) -> Result<(), Error> {
        self.gate.pass();
        // SAFETY: the caller's promise.
        unsafe { self.inner.copy(batch) }
    }
}

impl Counted for Slow {
    fn statistics(&self) -> Statistics {
        self.inner.statistics()
    }
}

impl Backend for Slow {
    fn map(&self, domain: DomId, refs: &[GrantRef]) -> Result<Mapping, Error> {
        if domain == DomId(1) {
            self.gate.pass();
        }
        self.inner.map(domain, refs)
    }

    fn copier(&self, domain: DomId) -> Result<Box<dyn Copier>, Error> {
        let inner = self.inner.copier(domain)?;
        Ok(if domain == DomId(1) {
            Box::new(SlowCopier { inner, gate: Arc::clone(&self.gate) })
        } else {
            inner
        })
    }

    fn bind(&self, domain: DomId, remote: Port) -> Result<Box<dyn EventChannel>, Error> {
        self.inner.bind(domain, remote)
    }
}

struct Scene {
    machine: Machine,
    gate: Arc<Gate>,
    daemon: Running,
    vbd: Vbd,
    frontend: (frontend_sim::Device, Vec<frontend_sim::Ring>),
}

/// A daemon that hangs in opening domain 1's disk.
fn scene() -> Scene {
    let machine = Machine::new();
    let gate = Arc::new(Gate::default());
    let config = DaemonConfig { stop_notice: Duration::from_millis(1), ..machine.config() };
    let inner = hypervisor::open(&config.hypervisor, DomId(0)).unwrap();
    let daemon = machine.daemon_on(config, Arc::new(Slow { inner, gate: Arc::clone(&gate) }));
    let vbd = machine.attach(1, "xvda", PLAIN);
    let guest = machine.guest(1);
    let (rings, nodes) = guest.rings(1);
    let device = guest.device(&vbd);
    device.publish(&nodes).unwrap();
    device.set_state(XenbusState::Initialised).unwrap();
    wait("the daemon to hang", || gate.is_waited_at());
    Scene { machine, gate, daemon, vbd, frontend: (device, rings) }
}

#[test]
fn disk_when_its_opening_hangs_then_others_come_and_go() {
    let Scene { machine, gate, daemon, vbd, frontend: _frontend } = scene();
    for _ in 0..3 {
        let other = machine.attach(2, "xvda", PLAIN);
        let mut frontend = machine.connect(&other, 2);
        exercise(&mut frontend);
        frontend.disconnect().unwrap();
        other.detach(PATIENCE).unwrap();
    }
    assert_eq!(vbd.backend_state().unwrap(), XenbusState::InitWait);
    gate.open();
    machine.wait_state(&vbd, XenbusState::Connected);
    daemon.stop();
}

#[test]
fn disk_when_removed_while_its_opening_hangs_then_is_let_go_once_it_is_open() {
    let Scene { machine, gate, daemon, vbd, frontend: _frontend } = scene();
    vbd.remove().unwrap();
    machine.attach(2, "xvda", PLAIN).detach(PATIENCE).unwrap();
    gate.open();
    daemon.stop();
    assert_eq!((machine.usage(1).mapped, machine.usage(1).bound), (0, 0));
    assert_eq!(machine.read(vbd.backend()), None);
}

#[test]
fn stop_when_asked_for_twice_then_names_what_hangs() {
    let Scene { machine: _machine, gate, daemon, vbd, frontend: _frontend } = scene();
    daemon.stopper.stop();
    // Whoever asks twice at once has asked once: terminals and sudo both pass on an interrupt.
    daemon.stopper.stop();
    std::thread::sleep(Duration::from_millis(1100));
    daemon.stopper.stop();
    match daemon.end() {
        Err(error @ ControlError::Hangs { .. }) => {
            assert!(error.to_string().contains("domain 1 xvda"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(vbd.backend_state().unwrap(), XenbusState::InitWait);
    gate.open();
}

#[test]
fn disk_when_its_closing_hangs_then_what_it_has_done_is_told_meanwhile() {
    let Scene { machine, gate, daemon, vbd, frontend: (_device, mut rings) } = scene();
    let told = || match status::ask(&machine.config().run_dir, &status::Request::Status).unwrap() {
        Answer::Status(mut report) => report.disks.pop().unwrap(),
        other => panic!("{other:?}"),
    };
    gate.open();
    machine.wait_state(&vbd, XenbusState::Connected);
    let mut send = |request: Request| {
        let ring = &mut rings[0];
        ring.front.push(&Encode::request(&request)).unwrap();
        if ring.front.publish() {
            ring.event.notify().unwrap();
        }
    };
    send(Request::direct(1, Operation::Flush, Sectors(0), &[], false));
    wait("the flush", || told().totals.flushes == 1);
    gate.close();
    let page = Segment { gref: blkif::GrantRef(0), first_sector: 0, last_sector: 7 };
    send(Request::direct(2, Operation::Write, Sectors(0), &[page], false));
    wait("the queue to hang", || gate.is_waited_at());
    vbd.remove().unwrap();
    let mut leaving: Option<DiskReport> = None;
    wait("the disk to be let go", || {
        leaving = Some(told()).filter(|disk| disk.state == "draining");
        leaving.is_some()
    });
    gate.open();
    daemon.stop();
    assert_eq!(leaving.unwrap().totals.flushes, 1);
}
