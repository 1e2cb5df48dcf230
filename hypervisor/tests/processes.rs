//! Domains in processes of their own, and what is left when one is killed.
//!
//! The child is this test binary again, running only the test `child`, which does what the environment
//! says and then reports a line.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use common::{BACK, FRONT, Page, World, copy_from, copy_to, until};
use hypervisor::{Access, Backend, Error, Frontend, GrantRef, GrantStatus, PAGE_SIZE, Port, sim};

const ROLE: &str = "SIM_CHILD_ROLE";
const DIR: &str = "SIM_CHILD_DIR";
const ARGUMENT: &str = "SIM_CHILD_ARGUMENT";

/// A child process that has said its line.
struct Running {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    numbers: Vec<u32>,
}

impl Running {
    fn start(role: &str, dir: &Path, argument: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .envs([(ROLE, role), (ARGUMENT, argument)])
            .env(DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let numbers = loop {
            let mut line = String::new();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the child ended early");
            // libtest may have printed the test's name in front of it.
            if let Some((_, said)) = line.split_once("ready:") {
                break said.split_whitespace().map(|number| number.parse().unwrap()).collect();
            }
        };
        Self { child, _stdout: stdout, numbers }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says the line and waits for the end.
fn ready(numbers: &[u32]) {
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    println!("ready:{}", numbers.join(" "));
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = std::env::var_os(DIR).unwrap();
    let argument: Vec<u32> =
        std::env::var(ARGUMENT).unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect();
    match role.as_str() {
        "front" => {
            let front = sim::connect(Path::new(&dir), FRONT).unwrap();
            let shared = front.share(BACK, 2, Access::ReadWrite).unwrap();
            shared.write(0, &[0x5a; 2 * PAGE_SIZE]);
            let channel = front.allocate(BACK).unwrap();
            ready(&[shared.refs()[0].0, shared.refs()[1].0, channel.port().0]);
        }
        "back" => {
            let back = sim::connect(Path::new(&dir), BACK).unwrap();
            let _mapping = back.map(FRONT, &[GrantRef(argument[0])]).unwrap();
            let _channel = back.bind(FRONT, Port(argument[1])).unwrap();
            let _copier = back.copier(FRONT).unwrap();
            ready(&[]);
        }
        "copying" => {
            let back = sim::connect(Path::new(&dir), BACK).unwrap();
            let mut copier = back.copier(FRONT).unwrap();
            let gref = GrantRef(argument[0]);
            std::thread::spawn(move || {
                let mut page = Page([1; 4096]);
                while copy_to(&mut *copier, gref, &mut page, 4096).is_okay() {}
            });
            ready(&[]);
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn frontend_when_killed_then_mapped_pages_stay_and_all_else_is_gone() {
    let world = World::new();
    let mut child = Running::start("front", world.dir.path(), "");
    let [first, second, port] = child.numbers[..] else { panic!("{:?}", child.numbers) };
    let back = world.connect(BACK);
    let mapping = back.map(FRONT, &[GrantRef(first)]).unwrap();
    let mut copier = back.copier(FRONT).unwrap();
    let channel = back.bind(FRONT, Port(port)).unwrap();
    let mut page = Page([0; 4096]);
    assert_eq!(copy_from(&mut *copier, GrantRef(second), &mut page, 4096), GrantStatus::OKAY);
    assert!(page.0.iter().all(|byte| *byte == 0x5a));

    child.kill();
    until("the domain to be gone", || world.broker.usage(FRONT).granted == 0);
    let usage = world.broker.usage(FRONT);
    assert_eq!((usage.mapped, usage.ports, usage.bound), (1, 0, 0));
    for offset in 0..PAGE_SIZE {
        // SAFETY: inside the mapping.
        let byte = unsafe { mapping.base().add(offset) };
        // SAFETY: inside the mapping, and the only other who could write it is dead.
        assert_eq!(unsafe { byte.read_volatile() }, 0x5a);
    }
    assert_eq!(copy_from(&mut *copier, GrantRef(second), &mut page, 1), GrantStatus::BAD_DOMAIN);
    channel.notify().unwrap();
    assert!(channel.acknowledge().unwrap(), "the event of the bind");
    assert!(!channel.acknowledge().unwrap(), "and none for the death");
    assert!(matches!(back.bind(FRONT, Port(port)), Err(Error::NoDomain { .. })));
    assert!(matches!(back.map(FRONT, &[GrantRef(first)]), Err(Error::NoDomain { .. })));

    // The same number lives again, as another domain.
    let front = world.connect(FRONT);
    let shared = front.share(BACK, 1, Access::ReadWrite).unwrap();
    shared.write(0, b"new");
    assert_eq!(copy_from(&mut *copier, shared.refs()[0], &mut page, 1), GrantStatus::BAD_DOMAIN);
    let mut fresh = back.copier(FRONT).unwrap();
    assert_eq!(copy_from(&mut *fresh, shared.refs()[0], &mut page, 3), GrantStatus::OKAY);
    assert_eq!(&page.0[..3], b"new");

    drop(mapping);
    assert_eq!(world.broker.usage(FRONT).mapped, 0);
}

#[test]
fn backend_when_killed_then_its_mappings_ports_and_copiers_are_gone() {
    let world = World::new();
    let front = world.connect(FRONT);
    let shared = front.share(BACK, 1, Access::ReadWrite).unwrap();
    let channel = front.allocate(BACK).unwrap();
    let argument = format!("{} {}", shared.refs()[0].0, channel.port().0);
    let mut child = Running::start("back", world.dir.path(), &argument);
    let usage = world.broker.usage(FRONT);
    assert_eq!((usage.mapped, usage.bound, usage.copiers), (1, 1, 1));
    assert!(matches!(shared.revoke(0), Err(Error::Busy { .. })));

    child.kill();
    until("the mapping to end", || world.broker.usage(FRONT).mapped == 0);
    until("the port to be unbound", || world.broker.usage(FRONT).bound == 0);
    until("the copier to be gone", || world.broker.usage(FRONT).copiers == 0);
    channel.notify().unwrap();
    assert!(!channel.acknowledge().unwrap());
    shared.revoke(0).unwrap();
    // A restarted backend binds the same port again.
    let back = world.connect(BACK);
    let bound = back.bind(FRONT, channel.port()).unwrap();
    assert!(bound.acknowledge().unwrap());
}

#[test]
fn copier_when_killed_at_work_then_revocation_does_not_wait_for_it() {
    let world = World::new();
    let front = world.connect(FRONT);
    for _ in 0..4 {
        let shared = front.share(BACK, 1, Access::ReadWrite).unwrap();
        let mut child = Running::start("copying", world.dir.path(), &shared.refs()[0].0.to_string());
        child.kill();
        until("the copier to be gone", || world.broker.usage(FRONT).copiers == 0);
        shared.revoke(0).unwrap();
    }
}

#[test]
fn process_when_one_of_two_of_a_domain_is_killed_then_the_domain_lives() {
    let world = World::new();
    let front = world.connect(FRONT);
    let shared = front.share(BACK, 1, Access::ReadWrite).unwrap();
    let mut child = Running::start("front", world.dir.path(), "");
    assert_eq!(world.broker.usage(FRONT).granted, 3);
    let back = world.connect(BACK);
    let mapping = back.map(FRONT, &[GrantRef(child.numbers[0])]).unwrap();
    child.kill();
    until("what it shared to be taken back", || world.broker.usage(FRONT).granted == 2);
    drop(mapping);
    assert_eq!(world.broker.usage(FRONT).granted, 1, "the mapped page only now");
    let mut page = Page([0; 4096]);
    let mut copier = back.copier(FRONT).unwrap();
    assert_eq!(copy_from(&mut *copier, shared.refs()[0], &mut page, 8), GrantStatus::OKAY);
}
