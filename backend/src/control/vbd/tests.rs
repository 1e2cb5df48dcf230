//! When a disk is looked at although nothing happened.

use super::*;
use crate::control::machine::{Announced, Opened};
use blkif::XenbusState::{Connected, InitWait, Initialised, Initialising};
use tempfile::TempDir;
use xenstore::Client;
use xenstore::server::{Server, ServerConfig, ServerHandle};

fn disk() -> (TempDir, ServerHandle, Vbd) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("xenstored"), ServerConfig::default()).unwrap();
    let client = Client::connect(server.socket()).unwrap();
    let id = DiskId::new("vbd3", "1", "51712").unwrap();
    let tree = Tree::new(client, "/local/domain/0", &id.path(), None);
    let claim = Claim { name: "domain 1".to_owned(), guest: None, vdev: None, tree, fault: None };
    (dir, server, Vbd::new(id, claim))
}

fn view(own: XenbusState, frontend: XenbusState) -> View {
    View { own: Some(own), online: true, frontend, overdue: false }
}

#[test]
fn disk_when_its_grace_is_over_while_a_helper_works_then_waits_for_the_helper() {
    let (_dir, _server, mut disk) = disk();
    let machine = &mut disk.machine;
    assert_eq!(machine.next(view(Initialising, Initialising)), Step::Probe);
    machine.probed(Some(true));
    assert_eq!(machine.next(view(Initialising, Initialising)), Step::Announce);
    machine.announced(Announced::Done);
    assert_eq!(machine.next(view(InitWait, Initialised)), Step::Open);
    machine.opened(Opened::Running);
    assert_eq!(machine.next(view(InitWait, Initialised)), Step::Publish);
    machine.published(true);
    machine.grow();
    assert_eq!(machine.next(view(Connected, Connected)), Step::Grow);
    disk.grace = Some(Instant::now());
    assert_eq!(disk.wakes(), None, "it would be looked at without end");
    disk.machine.grown(false);
    assert_eq!(disk.wakes(), disk.grace);
}

#[test]
fn disk_when_another_look_at_it_panics_then_is_not_looked_at_again_at_once() {
    let (_dir, _server, mut disk) = disk();
    disk.plan = Some(Err("what the look before this one gave".to_owned()));
    assert_eq!(disk.machine.next(view(Initialising, Initialising)), Step::Probe);
    assert!(!disk.finish(None));
    assert!(disk.wakes().is_some());
}
