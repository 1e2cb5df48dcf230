//! How much a guest can make the daemon log, however often it comes again.

use crate::support::*;
use dixback::image::{BadInterval, Observer, ProtectOptions, protect};
use frontend_sim::{DixMode, Fault, Submission};
use integrity::{Guard, PiType, Profile, ProfileSpec};
use std::time::Instant;

struct Quiet;

impl Observer for Quiet {
    fn progress(&mut self, _done: u64, _total: u64) {}
    fn bad(&mut self, _interval: &BadInterval) {}
}

#[test]
fn log_when_a_guest_comes_again_and_again_with_wrong_pi_then_stays_short() {
    const ROUNDS: usize = 25;
    const WRITES: usize = 12;
    let machine = Machine::new();
    let disk = machine.dir.path().join("disk.img");
    let file = std::fs::File::create(&disk).unwrap();
    file.set_len(1 << 20).unwrap();
    let profile = Profile::new(ProfileSpec {
        guard: Guard::Crc16T10Dif,
        interval: 512,
        metadata_size: 8,
        pi_offset: 0,
        tag_size: 2,
        pi_type: PiType::Type1,
    })
    .unwrap();
    let protection = ProtectOptions {
        disk: disk.clone(),
        sidecar: None,
        profile,
        log: None,
        app_tag: 0,
        force: false,
        non_atomic: false,
    };
    protect(&protection, &mut Quiet).unwrap();
    // Longer than its sidecar covers, which is worth a line.
    file.set_len(2 << 20).unwrap();
    let daemon = Process::start(&machine, &[]);
    let started = Instant::now();
    let vbd = machine.attach(1, "xvda", disk.to_str().unwrap());
    let guest = machine.guest(1);
    for _ in 0..ROUNDS {
        let connect = frontend_sim::ConnectOptions { dix: DixMode::Require, ..options() };
        let mut frontend = guest.connect(&vbd, connect);
        for _ in 0..WRITES {
            let write = Submission::write(0, &[1; 4096]).faulty(Some(Fault::Data { bit: 9 }));
            assert!(frontend.queue(0).run(&write).is_err());
        }
        frontend.disconnect().unwrap();
        machine.wait_state(&vbd, blkif::XenbusState::Closed);
    }
    let text = daemon.text();
    let lines = |part: &str| text.lines().filter(|line| line.contains(part)).count();
    // Ten at once, and ten more for each ten seconds that this took.
    let allowed = 10 * (1 + started.elapsed().as_secs() as usize / 10);
    assert!(lines("nothing was written") > 0 && lines("of which the sidecar covers") > 0, "{text}");
    assert!(lines("nothing was written") <= allowed, "{}: {text}", lines("nothing was written"));
    assert!(lines("of which the sidecar covers") <= allowed, "{text}");
    assert!(lines("") <= 30 + 4 * allowed, "{} lines: {text}", lines(""));
}
