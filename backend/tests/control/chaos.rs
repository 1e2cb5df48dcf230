//! A guest, a toolstack and an operator who each do anything at any moment to one disk, while another is in use.
//!
//! `SEED=N` plays another game.

use crate::support::*;
use blkif::XenbusState;
use frontend_sim::{Device, Ring};

const ROUNDS: usize = 15;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// A disk in a file with PI beside it.
fn disk(machine: &Machine) -> String {
    let path = machine.dir.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
    let protect = std::process::Command::new(env!("CARGO_BIN_EXE_dixback"))
        .args(["image", "protect"])
        .arg(&path)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    assert!(protect.unwrap().success());
    path.display().to_string()
}

/// Restart records that are left.
fn records(machine: &Machine) -> usize {
    let entries = std::fs::read_dir(machine.config().run_dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("vbd3-1-")).count()
}

#[test]
fn disk_when_everybody_does_anything_to_it_then_can_be_used_afterwards_and_nothing_is_left() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x1234_5678_9ABC);
    let mut random = Random(seed);
    let machine = Machine::new();
    let mut daemon = Some(machine.daemon());
    let mut bystander = machine.connect(&machine.attach(9, "xvda", WITH_PI), 9);
    let guest = machine.guest(1);
    let target = disk(&machine);
    for round in 0..ROUNDS {
        let mut vbd = machine.create(1, "xvda", &target);
        let mut rings: Vec<Vec<Ring>> = Vec::new();
        for _ in 0..random.below(25) + 5 {
            let client = guest.client();
            // What is not there any more cannot be written, which is part of the game.
            let put =
                |node: &str, value: &str| drop(client.write(&format!("{}/{node}", vbd.frontend()), value));
            let own = |node: &str, value: &str| {
                drop(machine.client.write(&format!("{}/{node}", vbd.backend()), value));
            };
            match random.below(16) {
                0..=3 => put("state", &random.below(10).to_string()),
                4..=6 => {
                    let (some, nodes) = guest.rings(1 + random.below(2) as usize);
                    if let Ok(device) = Device::open(&client, vbd.frontend()) {
                        let _ =
                            device.publish(&nodes).and_then(|()| device.set_state(XenbusState::Initialised));
                    }
                    rings.push(some);
                }
                7 => put("event-channel", "999999"),
                8 => put("ring-ref", "7"),
                9 => drop(machine.client.remove(vbd.frontend())),
                10 => {
                    own("online", "0");
                    own("state", "5");
                }
                11 => {
                    vbd.remove().unwrap();
                    vbd = machine.create(1, "xvda", &target);
                }
                12 => drop(daemon.take().map(Running::stop)),
                13 => daemon = Some(daemon.take().unwrap_or_else(|| machine.daemon())),
                14 => {
                    if let Some(ring) = rings.last().and_then(|rings| rings.first()) {
                        ring.pages.write(0, &(random.below(3) as u32 * 500).to_le_bytes());
                        let _ = ring.event.notify();
                    }
                }
                _ => std::thread::sleep(std::time::Duration::from_millis(random.below(8))),
            }
        }
        let _daemon = daemon.get_or_insert_with(|| machine.daemon());
        vbd.remove().unwrap();
        drop(rings);
        let used = || (machine.usage(1).mapped, machine.usage(1).bound);
        wait("everything to be let go", || used() == (0, 0));
        let vbd = machine.attach(1, "xvda", &target);
        let mut frontend = guest.connect(&vbd, options());
        exercise(&mut frontend);
        frontend.disconnect().unwrap();
        vbd.detach(PATIENCE).unwrap();
        exercise(&mut bystander);
        assert_eq!(bystander.reconnections(), 0, "round {round}, seed {seed}");
        assert_eq!(records(&machine), 0, "round {round}, seed {seed}");
    }
}
