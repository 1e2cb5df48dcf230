//! What is written into the tree: offers, refusals, removal; and what is left alone.

use crate::support::*;
use blkif::XenbusState;
use dixback::config::DaemonConfig;
use dixback::control::{ControlError, RunDirError};
use frontend_sim::toolstack;
use hypervisor::DomId;
use std::collections::BTreeMap;
use std::time::Duration;

fn offer(machine: &Machine, backend: &str) -> BTreeMap<String, String> {
    let names = machine.client.directory(backend).unwrap();
    names
        .into_iter()
        .map(|name| (name.clone(), machine.read(&format!("{backend}/{name}")).unwrap()))
        .collect()
}

#[test]
fn disk_when_attached_then_is_offered_with_its_features() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let vbd = machine.attach(1, "xvda", PLAIN);
    let nodes = offer(&machine, vbd.backend());
    for (node, value) in [
        ("state", "2"),
        ("max-ring-page-order", "4"),
        ("multi-queue-max-queues", "4"),
        ("feature-max-indirect-segments", "256"),
    ] {
        assert_eq!(nodes.get(node).map(String::as_str), Some(value), "{node}");
    }
    assert!(!nodes.keys().any(|node| node.contains("data-integrity") || node.contains("error")), "{nodes:?}");
    assert_eq!(machine.error(&vbd), None);
}

#[test]
fn disk_when_it_carries_pi_then_its_profile_is_offered_unless_integrity_is_off() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let vbd = machine.attach(1, "xvda", WITH_PI);
    let nodes = offer(&machine, vbd.backend());
    for (node, value) in [
        ("feature-data-integrity", "1"),
        ("data-integrity-version", "1"),
        ("data-integrity-guard", "crc16-t10dif"),
        ("data-integrity-interval", "512"),
        ("data-integrity-metadata-size", "8"),
        ("data-integrity-pi-offset", "0"),
        ("data-integrity-tag-size", "2"),
        ("data-integrity-type", "1"),
        ("feature-max-indirect-segments", "256"),
    ] {
        assert_eq!(nodes.get(node).map(String::as_str), Some(value), "{node}");
    }
    let mut disk = machine.disk(1, "xvdb", &format!("{WITH_PI}?integrity=off"));
    disk.writable = false;
    let vbd = toolstack::attach(&machine.client, &disk, PATIENCE).unwrap();
    assert!(!offer(&machine, vbd.backend()).keys().any(|node| node.contains("data-integrity")));
}

#[test]
fn keys_when_given_then_shape_the_offer() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let vbd = machine.attach(1, "xvda", &format!("{PLAIN}?queues=2&ring-order=1&indirect=0"));
    let nodes = offer(&machine, vbd.backend());
    assert_eq!(nodes["max-ring-page-order"], "1");
    assert_eq!(nodes["multi-queue-max-queues"], "2");
    assert!(!nodes.contains_key("feature-max-indirect-segments"));
}

#[test]
fn disk_when_it_cannot_be_served_then_reaches_initwait_with_the_reason_and_never_connects() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let image = machine.dir.path().join("odd.img");
    std::fs::write(&image, [0; 700]).unwrap();
    let odd = image.display().to_string();
    for (target, expected) in [
        ("/nowhere/disk.img", "/nowhere/disk.img"),
        (odd.as_str(), "700 bytes"),
        ("", "no medium"),
        ("disk.img", "absolute path"),
        ("null:1G?integritty=off", "integritty"),
        ("null:1G?integrity=require", "integrity=require needs PI"),
        ("null:1G?guard=ip", "guard= needs PI"),
        ("null:1G:crc16-t10dif:512?guard=ip", "guard is crc16-t10dif"),
        ("null:1G:crc16-t10dif:512?interval=4096", "interval is 512"),
        ("null:1G:crc16-t10dif:4096?sector-size=512", "sector-size=512"),
        ("null:1G:crc16-t10dif:512?integrity=off", "integrity=off on a writable disk"),
        ("null:huge", "null:"),
    ] {
        let vbd = machine.create(1, "xvda", target);
        machine.wait_state(&vbd, XenbusState::InitWait);
        let reason = machine.error(&vbd).unwrap();
        assert!(reason.contains(expected), "{target}: {reason}");
        assert_eq!(machine.read(&format!("{}/hotplug-error", vbd.backend())), Some(reason), "{target}");
        let guest = machine.guest(1);
        let device = guest.device(&vbd);
        let (_rings, nodes) = guest.rings(1);
        device.publish(&nodes).unwrap();
        device.set_state(XenbusState::Initialised).unwrap();
        // What follows is done after the daemon has seen the frontend, or with it.
        vbd.detach(PATIENCE).unwrap();
        assert_eq!(machine.usage(1).mapped, 0, "{target}");
    }
}

#[test]
fn disk_when_refused_and_attached_anew_then_no_error_is_left() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let vbd = machine.create(1, "xvda", "/nowhere");
    machine.wait_state(&vbd, XenbusState::InitWait);
    vbd.detach(PATIENCE).unwrap();
    let vbd = machine.attach(1, "xvda", PLAIN);
    assert_eq!(machine.error(&vbd), None);
    assert_eq!(machine.read(&format!("{}/hotplug-error", vbd.backend())), None);
}

#[test]
fn disk_when_detached_or_removed_by_force_then_nothing_of_it_is_left() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    for force in [false, true] {
        let vbd = machine.attach(1, "xvda", PLAIN);
        if force {
            vbd.remove().unwrap()
        } else {
            vbd.detach(PATIENCE).unwrap()
        }
        // A later disk is looked at after what came before it.
        let next = machine.attach(1, "xvdb", PLAIN);
        assert_eq!(machine.read(vbd.backend()), None);
        next.detach(PATIENCE).unwrap();
    }
}

#[test]
fn disk_when_made_anew_in_one_go_then_the_new_one_is_offered() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    for target in [PLAIN, WITH_PI, PLAIN] {
        let vbd = machine.attach(1, "xvda", target);
        let dix = machine.read(&format!("{}/feature-data-integrity", vbd.backend()));
        assert_eq!(dix.is_some(), target == WITH_PI);
        vbd.remove().unwrap();
    }
}

#[test]
fn device_when_its_script_is_another_then_is_left_alone() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let mut other = machine.disk(1, "xvda", PLAIN);
    other.script = "/etc/xen/scripts/block".to_owned();
    let other = toolstack::create(&machine.client, &other).unwrap();
    let ours = machine.attach(1, "xvdb", PLAIN);
    assert_eq!(other.backend_state().unwrap(), XenbusState::Initialising);
    ours.detach(PATIENCE).unwrap();
}

#[test]
fn device_when_of_another_configured_kind_then_is_served() {
    let machine = Machine::new();
    let config =
        DaemonConfig { kinds: vec!["vbd3".into(), "dix".into()], script: String::new(), ..machine.config() };
    let _daemon = machine.daemon_with(config);
    let mut disk = machine.disk(1, "xvda", PLAIN);
    disk.kind = "dix".to_owned();
    disk.script = "anything".to_owned();
    toolstack::attach(&machine.client, &disk, PATIENCE).unwrap();
}

#[test]
fn disk_when_already_there_then_is_offered_at_start() {
    let machine = Machine::new();
    let vbd = machine.create(1, "xvda", PLAIN);
    let _daemon = machine.daemon();
    machine.wait_state(&vbd, XenbusState::InitWait);
}

/// A machine with a driver domain, 7, and a disk that it has.
fn driver_domain(target: &str) -> (Machine, DaemonConfig, toolstack::DiskConfig) {
    let machine = Machine::new();
    toolstack::create_domain(&machine.client, DomId(7), "driver").unwrap();
    for path in ["/local/domain/7/backend", "/local/domain/7/error", "/local/domain/7/data"] {
        machine.client.mkdir(path).unwrap();
        machine.client.set_permissions(path, &[xenstore::Permission::none(7)]).unwrap();
    }
    let config = DaemonConfig { domain: Some(7), ..machine.config() };
    let disk = toolstack::DiskConfig { backend_domain: DomId(7), ..machine.disk(1, "xvda", target) };
    (machine, config, disk)
}

/// What libxl does first when it takes a disk back.
fn take_back(machine: &Machine, backend: &str) {
    machine.client.write(&format!("{backend}/online"), "0").unwrap();
    machine.client.write(&format!("{backend}/state"), "5").unwrap();
}

#[test]
fn driver_domain_when_the_disk_is_detached_and_nobody_else_does_then_deletes_its_directory() {
    let (machine, config, disk) = driver_domain(PLAIN);
    let daemon = machine.daemon_with(config);
    let vbd = toolstack::attach(&machine.client, &disk, PATIENCE).unwrap();
    take_back(&machine, vbd.backend());
    // Not at once: libxl's own daemon there has a script to run.
    machine.wait_state(&vbd, XenbusState::Closed);
    wait("the directory to be deleted", || machine.read(vbd.backend()).is_none());
    drop(daemon);
    for empty in ["/local/domain/7/error", "/local/domain/7/data"] {
        assert_eq!(machine.client.directory(empty).unwrap(), [""; 0], "{empty}");
    }
}

#[test]
fn driver_domain_when_the_disk_is_back_before_its_directory_is_deleted_then_it_stays() {
    let (machine, config, disk) = driver_domain(PLAIN);
    let _daemon = machine.daemon_with(config);
    let vbd = toolstack::attach(&machine.client, &disk, PATIENCE).unwrap();
    take_back(&machine, vbd.backend());
    machine.wait_state(&vbd, XenbusState::Closed);
    let other = toolstack::DiskConfig { vdev: "xvdb".to_owned(), ..disk.clone() };
    let other = toolstack::attach(&machine.client, &other, PATIENCE).unwrap();
    take_back(&machine, other.backend());
    let vbd = toolstack::attach(&machine.client, &disk, PATIENCE).unwrap();
    // The other's time comes after the first one's would.
    wait("the other directory to be deleted", || machine.read(other.backend()).is_none());
    machine.wait_state(&vbd, XenbusState::InitWait);
}

#[test]
fn driver_domain_when_the_disk_cannot_be_served_then_xl_is_not_told_that_it_is_there() {
    let (machine, config, disk) = driver_domain("/nowhere");
    let _daemon = machine.daemon_with(config);
    let vbd = toolstack::create(&machine.client, &disk).unwrap();
    let backend = vbd.backend();
    // Both are written in one go.
    wait("the reason", || machine.read(&format!("{backend}/error")).is_some());
    assert_eq!(machine.read(&format!("{backend}/state")).as_deref(), Some("1"));
    assert_ne!(machine.client.directory("/local/domain/7/error").unwrap(), [""; 0]);
    take_back(&machine, backend);
    wait("the directory to be deleted", || machine.read(backend).is_none());
    wait("the error to be taken back", || {
        machine.client.directory("/local/domain/7/error").unwrap().is_empty()
    });
}

#[test]
fn daemon_when_another_has_the_run_directory_then_is_refused_by_name() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    match machine.try_daemon(machine.config()) {
        Err(ControlError::RunDir(error @ RunDirError::InUse { .. })) => {
            assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        }
        _ => panic!("two daemons"),
    }
}

#[test]
fn xenstored_when_it_restarts_then_disks_are_served_again() {
    let mut machine = Machine::new();
    let _daemon = machine.daemon();
    let vbd = machine.attach(1, "xvda", PLAIN);
    let mut frontend = machine.connect(&vbd, 1);
    exercise(&mut frontend);
    drop(frontend);
    drop(machine.server.take());
    // It comes back without a tree, which Xen's own does not survive either; the daemon does.
    let server = xenstore::server::Server::start(machine.socket(), Default::default()).unwrap();
    machine.server = Some(server);
    wait("the test's own client", || machine.client.directory("/").is_ok());
    let vbd = machine.attach(2, "xvda", PLAIN);
    exercise(&mut machine.connect(&vbd, 2));
    wait("the lost disk to be let go", || machine.usage(1).mapped == 0);
}

#[test]
fn disk_when_its_directory_is_incomplete_or_wrong_then_others_are_served() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let root = "/local/domain/0/backend/vbd3";
    for (path, value) in [
        ("1/51712/state", "1"),
        ("1/51712/script", "block-dix"),
        ("x/1/state", "1"),
        ("1/hda/state", "1"),
        ("70000/1/state", "1"),
        ("2", ""),
    ] {
        machine.client.write(&format!("{root}/{path}"), value).unwrap();
    }
    let mut stolen = machine.disk(3, "xvda", PLAIN);
    stolen.domain = DomId(3);
    let stolen = toolstack::create(&machine.client, &stolen).unwrap();
    let good = machine.attach(4, "xvda", PLAIN);
    machine.wait_state(&stolen, XenbusState::InitWait);
    // Its frontend becomes another domain's: the daemon must not follow it there.
    stolen.remove().unwrap();
    machine
        .client
        .transaction(|tx| {
            let backend = format!("{root}/3/51712");
            tx.write(&format!("{backend}/frontend"), good.frontend())?;
            tx.write(&format!("{backend}/frontend-id"), "3")?;
            tx.write(&format!("{backend}/script"), "block-dix")?;
            tx.write(&format!("{backend}/params"), PLAIN)?;
            tx.write(&format!("{backend}/mode"), "w")?;
            tx.write(&format!("{backend}/state"), "1")
        })
        .unwrap();
    wait("the stolen frontend to be refused", || {
        machine
            .read(&format!("{root}/3/51712/hotplug-error"))
            .is_some_and(|text| text.contains("no directory of domain 3"))
    });
    exercise(&mut machine.connect(&good, 4));
}

#[test]
fn stop_when_nothing_is_connected_then_is_quick_and_clean() {
    let machine = Machine::new();
    let daemon =
        machine.daemon_with(DaemonConfig { stop_notice: Duration::from_millis(1), ..machine.config() });
    let vbd = machine.attach(1, "xvda", PLAIN);
    daemon.stop();
    assert_eq!(vbd.backend_state().unwrap(), XenbusState::InitWait);
    let _daemon = machine.daemon();
    exercise(&mut machine.connect(&vbd, 1));
}
