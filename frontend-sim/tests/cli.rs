//! The program itself.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use common::{GUEST, Machine, pattern, profile, until, world};
use integrity::Guard;

fn program(machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frontend-sim"));
    command
        .arg("--hypervisor")
        .arg(format!("sim:{}", machine.dir.path().display()))
        .arg("--xenstore")
        .arg(machine.server.socket())
        .args(["--domain", &GUEST.0.to_string(), "--timeout", "60"])
        .args(arguments);
    command
}

fn run(machine: &Machine, arguments: &[&str]) -> Output {
    let output = program(machine, arguments).output().unwrap();
    println!("{arguments:?}: {output:?}");
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn program_when_copying_a_file_in_and_out_then_is_the_same() {
    let machine = Machine::new();
    let _responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 512))));
    let (from, to) = (machine.dir.path().join("from"), machine.dir.path().join("to"));
    let data = pattern(1_234_567, 1);
    std::fs::write(&from, &data).unwrap();
    assert!(run(&machine, &["copy-in", from.to_str().unwrap()]).status.success());
    let length = data.len().to_string();
    assert!(run(&machine, &["copy-out", to.to_str().unwrap(), "--length", &length]).status.success());
    assert!(std::fs::read(&to).unwrap() == data);
    std::fs::write(&from, vec![0; common::BYTES + 1]).unwrap();
    let output = run(&machine, &["copy-in", from.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("does not fit"));
}

#[test]
fn program_when_verifying_and_measuring_then_says_what_it_did() {
    let machine = Machine::new();
    let _responder = machine.respond(world(Some(profile(Guard::Crc64Nvme, 4096))));
    let output = run(&machine, &["verify", "--requests", "200", "--length", "1048576", "--queues", "2"]);
    assert!(output.status.success());
    assert!(text(&output).contains("verified: "), "{}", text(&output));
    let output = run(&machine, &["bench", "--requests", "100", "--json"]);
    assert!(output.status.success());
    assert_eq!(text(&output).lines().count(), 4);
    assert!(text(&output).contains(r#""dix":"crc64-nvme""#));
    let output = run(&machine, &["bench", "--requests", "100", "--access", "random-read", "--dix", "off"]);
    assert!(text(&output).contains("requests/s"));
}

#[test]
fn program_when_a_fault_is_asked_for_then_says_who_found_it() {
    let machine = Machine::new();
    let _responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 512))));
    let output = run(&machine, &["request", "write", "--fault", "data:100"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("status Error, protection information Guard"));
    assert!(run(&machine, &["request", "write"]).status.success());
    let output = run(&machine, &["request", "read", "--fault", "payload:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("guard tag of interval 0"));
}

#[test]
fn program_when_it_stays_connected_then_leaves_when_its_input_ends() {
    let machine = Machine::new();
    let _responder = machine.respond(world(None));
    let mut child = program(&machine, &["connect", "--ring-order", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "connected");
    assert_eq!(machine.broker.usage(GUEST).mapped, 2);
    drop(child.stdin.take());
    assert!(lines.any(|line| line.unwrap().contains("1 of 2 pages")));
    assert!(child.wait().unwrap().success());
    assert_eq!(machine.broker.usage(GUEST).mapped, 0);
}

#[test]
fn program_when_killed_then_the_next_one_connects_all_the_same() {
    let machine = Machine::new();
    let _responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 512))));
    for _ in 0..3 {
        let mut child =
            program(&machine, &["connect"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "connected");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(run(&machine, &["request", "read"]).status.success());
    until("all to be given back", || machine.broker.usage(GUEST) == hypervisor::sim::Usage::default());
}

#[test]
fn program_when_arguments_are_wrong_then_says_so() {
    let machine = Machine::new();
    for wrong in [&["verify", "--dix", "maybe"][..], &["sleep"], &["--device", "sda", "connect"]] {
        assert_eq!(run(&machine, wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert!(run(&machine, &["--help"]).status.success());
    let output = run(&machine, &["--device", "xvdb", "connect"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("51728/backend"), "{}", text(&output));
}
