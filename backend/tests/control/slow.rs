//! A disk whose opening hangs: nobody else waits for it.

use crate::support::*;
use blkif::XenbusState;
use dixback::config::DaemonConfig;
use dixback::control::ControlError;
use frontend_sim::toolstack::Vbd;
use hypervisor::{
    Backend, Copier, Counted, DomId, Error, EventChannel, GrantRef, Hypervisor, Mapping, Port, Statistics,
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

    fn is_waited_at(&self) -> bool {
        *self.waiting.lock().unwrap() > 0
    }
}

/// A hypervisor that cannot map domain 1's pages while the gate is closed: on Xen, pages that are paged out.
struct Slow {
    inner: Arc<dyn Hypervisor>,
    gate: Arc<Gate>,
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
        self.inner.copier(domain)
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
    _frontend: (frontend_sim::Device, Vec<frontend_sim::Ring>),
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
    Scene { machine, gate, daemon, vbd, _frontend: (device, rings) }
}

#[test]
fn disk_when_its_opening_hangs_then_others_come_and_go() {
    let Scene { machine, gate, daemon, vbd, _frontend } = scene();
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
    let Scene { machine, gate, daemon, vbd, _frontend } = scene();
    vbd.remove().unwrap();
    machine.attach(2, "xvda", PLAIN).detach(PATIENCE).unwrap();
    gate.open();
    daemon.stop();
    assert_eq!((machine.usage(1).mapped, machine.usage(1).bound), (0, 0));
    assert_eq!(machine.read(vbd.backend()), None);
}

#[test]
fn stop_when_asked_for_twice_then_names_what_hangs() {
    let Scene { machine: _machine, gate, daemon, vbd, _frontend } = scene();
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
