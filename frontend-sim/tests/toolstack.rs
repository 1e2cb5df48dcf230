//! The nodes that are made for a disk, against those xl was seen to make.

mod common;

use std::time::Duration;

use blkif::XenbusState;
use common::{GUARD, GUEST, Machine, world};
use frontend_sim::Error;
use frontend_sim::toolstack::{self, DiskConfig};
use xenstore::Permission;

#[test]
fn nodes_when_a_disk_is_made_then_are_those_of_xl() {
    let machine = Machine::new();
    let target = "/dev/nvme0n3?pi=/x,y&integrity=require";
    let mut config = DiskConfig::new(GUEST, "xvdb", target);
    config.protocol = Some(blkif::Abi::X86_64);
    let vbd = toolstack::create(&machine.dom0, &config).unwrap();
    let backend = [
        ("frontend", "/local/domain/5/device/vbd/51728"),
        ("params", "aio:/dev/nvme0n3?pi=/x,y&integrity=require"),
        ("script", "/etc/xen/scripts/block-dix"),
        ("frontend-id", "5"),
        ("online", "1"),
        ("removable", "0"),
        ("bootable", "1"),
        ("state", "1"),
        ("dev", "xvdb"),
        ("type", "vbd3"),
        ("mode", "w"),
        ("device-type", "disk"),
        ("discard-enable", "1"),
        ("specification", "xen"),
    ];
    let frontend = [
        ("backend", "/local/domain/0/backend/vbd3/5/51728"),
        ("backend-id", "0"),
        ("state", "1"),
        ("virtual-device", "51728"),
        ("device-type", "disk"),
        ("trusted", "1"),
        ("protocol", "x86_64-abi"),
    ];
    let none_read = |owner, reader| vec![Permission::none(owner), Permission::read(reader)];
    for (dir, nodes, permissions) in
        [(vbd.backend(), &backend[..], none_read(0, 5)), (vbd.frontend(), &frontend[..], none_read(5, 0))]
    {
        let mut names = machine.dom0.directory(dir).unwrap();
        names.sort();
        let mut expected: Vec<_> = nodes.iter().map(|(name, _)| name.to_string()).collect();
        expected.sort();
        assert_eq!(names, expected);
        for (name, value) in nodes {
            let path = format!("{dir}/{name}");
            assert_eq!(machine.dom0.read_string(&path).unwrap(), *value, "{path}");
            assert_eq!(machine.dom0.permissions(&path).unwrap(), permissions, "{path}");
        }
    }
    assert_eq!(machine.dom0.read_string("/libxl/5/device/vbd/51728/params").unwrap(), backend[1].1);
}

#[test]
fn attach_when_nobody_serves_then_times_out_and_leaves_nothing() {
    let machine = Machine::new();
    let config = DiskConfig::new(GUEST, "xvdc", "x");
    let result = toolstack::attach(&machine.dom0, &config, Duration::from_millis(30));
    assert!(matches!(result, Err(Error::Timeout { .. })));
    assert!(machine.dom0.read("/local/domain/5/device/vbd/51744/state").is_err());
    assert!(machine.dom0.read("/local/domain/0/backend/vbd3/5/51744/state").is_err());
}

#[test]
fn attach_when_the_backend_cannot_open_the_disk_then_gives_its_reason() {
    let machine = Machine::new();
    let backend = machine.vbd.backend();
    machine.dom0.write(&format!("{backend}/hotplug-error"), "no such file").unwrap();
    machine.dom0.write(&format!("{backend}/state"), XenbusState::InitWait.name()).unwrap();
    let error = machine.vbd.wait_offered(GUARD).unwrap_err();
    assert!(matches!(&error, Error::Backend { message: Some(message), .. } if message == "no such file"));
    let node = "/local/domain/0/error/backend/vbd3/5/51712/error";
    machine.dom0.write(node, "2 opening the disk").unwrap();
    assert!(machine.vbd.wait_offered(GUARD).unwrap_err().to_string().contains("opening the disk"));
}

#[test]
fn disk_when_offered_then_attach_returns_and_detach_removes_it() {
    let machine = Machine::new();
    let _responder = machine.respond(world(None));
    machine.vbd.wait_offered(GUARD).unwrap();
    toolstack::find(&machine.dom0, machine.vbd.frontend()).unwrap().detach(GUARD).unwrap();
    assert!(machine.dom0.read(&format!("{}/state", machine.vbd.backend())).is_err());
    assert!(toolstack::find(&machine.dom0, machine.vbd.frontend()).is_err());
    toolstack::destroy_domain(&machine.dom0, GUEST).unwrap();
    assert!(machine.dom0.read("/local/domain/5/name").is_err());
    toolstack::destroy_domain(&machine.dom0, GUEST).unwrap();
}
