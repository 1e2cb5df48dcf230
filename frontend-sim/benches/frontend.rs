//! What a request costs this end, so that a backend's figures can be told from its client's.
//!
//! The other end is the tests' tiny backend, in this process: its own cost is not of interest here and not
//! counted; rates are bounded by it.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Machine, options, profile, world};
use frontend_sim::workload::{Access, BenchOptions, Limit, bench};
use frontend_sim::{ConnectOptions, Polling};
use integrity::Guard;

fn main() {
    // `cargo test` runs benches too, to see that they work; there a few requests do.
    let requests = if std::env::args().any(|argument| argument == "--bench") { 100_000 } else { 100 };
    println!(
        "{:17} {:>6} {:>5} {:>13} {:>9}  cpu ns/request  wake-ups",
        "access", "bytes", "depth", "dix", "polling"
    );
    for dix in [None, Some(Guard::Crc16T10Dif), Some(Guard::Crc64Nvme)] {
        let machine = Machine::new();
        let _responder = machine.respond(world(dix.map(|guard| profile(guard, 4096))));
        for (polling, name) in [(Polling::Off, "off"), (Polling::default(), "adaptive")] {
            let mut front = machine.connect(ConnectOptions { polling, ..options() }).expect("a disk");
            for (access, depth) in [
                (Access::RandomRead, 1),
                (Access::RandomRead, 32),
                (Access::RandomWrite, 32),
                (Access::SequentialRead, 8),
            ] {
                let bytes = access.usual_bytes();
                let limit = Limit::requests(requests * 4096 / bytes as u64 + 1);
                let report = bench(&mut front, BenchOptions { access, bytes, depth, limit, region: None });
                let report = report.expect("a measurement");
                println!(
                    "{:17} {bytes:6} {depth:5} {:>13} {name:>9}  {:14.0}  {:8}",
                    access.name(),
                    dix.map_or("off", |guard| guard.name()),
                    report.cpu_ns(),
                    report.counters.wakeups,
                );
            }
            front.disconnect().expect("an end");
        }
    }
}
