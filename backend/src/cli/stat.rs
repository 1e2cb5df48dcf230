//! `dixback stat`: what the disks do, from the daemon's counters; once, or every few seconds.

use super::daemon::{CommandError, Daemon, end, say};
use crate::config::units;
use crate::control::status::{DiskReport, Report};
use crate::queue::Stats;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What the columns are.
pub const HELP: &str = "\
Columns of the table, each per second with --interval, else since the disk was found:
  READS, READ     read requests, bytes read        WRITES, WRITTEN  write requests, bytes written
  FLUSH, DISCARD  such requests                    DIX              share of requests that came with the guest's PI
  ERRORS          requests answered with an error  PI BAD           requests whose PI did not match: guest's/medium's
and per request: COPIES (grant copy calls), ENTERS (of the kernel's io_uring), NOTIFY (notifications sent), WAKE-UPS.
--long prints every counter of every queue, as --json does for programs.";

/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    daemon: Daemon,
    /// Only these: GUEST, GUEST/DEVICE, or the path of the data; a guest is a name or a number
    disks: Vec<String>,
    /// Print what was done within each TIME, such as 1s, until interrupted
    #[arg(long, short, value_name = "TIME", value_parser = interval)]
    interval: Option<Duration>,
    /// End after so many intervals
    #[arg(long, short = 'n', value_name = "N", requires = "interval")]
    count: Option<u64>,
    /// Every counter, of each queue, one a line
    #[arg(long, short, conflicts_with = "json")]
    long: bool,
    /// One JSON object a line: of each disk its counters, of each queue its own
    #[arg(long)]
    json: bool,
}

/// Prints counters.
pub fn main(args: &Args) -> ExitCode {
    end(stat(args))
}

fn interval(text: &str) -> Result<Duration, &'static str> {
    units::duration(text).filter(|time| *time >= Duration::from_millis(10)).ok_or(units::DURATION_FORM)
}

fn stat(args: &Args) -> Result<(), CommandError> {
    let Some(interval) = args.interval else {
        let report = args.daemon.status(&args.disks)?;
        return print(args, &samples(&report, None), None);
    };
    let mut before = (args.daemon.status(&args.disks)?, Instant::now());
    let mut left = args.count;
    while left != Some(0) {
        std::thread::sleep((before.1 + interval).saturating_duration_since(Instant::now()));
        let now = (args.daemon.status(&args.disks)?, Instant::now());
        print(args, &samples(&now.0, Some(&before.0)), Some(now.1 - before.1))?;
        before = now;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

/// What is printed of a disk.
#[derive(Debug, Serialize)]
struct Sample {
    disk: String,
    title: String,
    /// Of all connections.
    counters: Stats,
    /// Of each ring of the present connection.
    queues: Vec<Stats>,
    store: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    /// Seconds that the counters are of; none: since each disk was found.
    seconds: Option<f64>,
    disks: &'a [Sample],
}

/// The counters, less those of an earlier look.
fn samples(report: &Report, before: Option<&Report>) -> Vec<Sample> {
    let earlier: HashMap<&str, &DiskReport> =
        before.iter().flat_map(|report| &report.disks).map(|disk| (disk.id.as_str(), disk)).collect();
    let sample = |disk: &DiskReport| {
        let earlier = earlier.get(disk.id.as_str());
        // Another connection's queues counted from nothing.
        let same = earlier.filter(|earlier| earlier.connections == disk.connections);
        let queue = |number: usize| {
            let queues = same.and_then(|earlier| earlier.connection.as_ref());
            queues
                .and_then(|connection| connection.queues.get(number))
                .map_or(Stats::default(), |q| q.counters)
        };
        let connection = disk.connection.iter();
        let queues = connection.clone().flat_map(|connection| &connection.queues).enumerate();
        Sample {
            disk: disk.id.clone(),
            title: disk.title(),
            counters: disk.totals - earlier.map_or(Stats::default(), |earlier| earlier.totals),
            queues: queues.map(|(number, now)| now.counters - queue(number)).collect(),
            store: connection.flat_map(|connection| connection.store.clone()).collect(),
        }
    };
    report.disks.iter().map(sample).collect()
}

fn print(args: &Args, samples: &[Sample], seconds: Option<Duration>) -> Result<(), CommandError> {
    let seconds = seconds.map(|time| time.as_secs_f64());
    if args.json {
        let line = Line { seconds, disks: samples };
        return say(serde_json::to_string(&line).unwrap_or_default());
    }
    if samples.is_empty() {
        return say("no disks");
    }
    say(if args.long { long(samples) } else { table(samples, seconds) })
}

/// Every counter that is not 0.
fn long(samples: &[Sample]) -> String {
    let mut lines = Vec::new();
    for sample in samples {
        let mut add = |whose: &str, name: &str, n: u64| {
            if n != 0 {
                lines.push(format!("{} {whose}{name} {n}", sample.title));
            }
        };
        sample.counters.named().for_each(|(name, n)| add("", name, n));
        for (number, queue) in sample.queues.iter().enumerate() {
            queue.named().for_each(|(name, n)| add(&format!("queue{number}."), name, n));
        }
        sample.store.iter().for_each(|(name, n)| add("store.", name, *n));
    }
    if lines.is_empty() { "nothing done".to_owned() } else { lines.join("\n") }
}

/// A line for each disk.
fn table(samples: &[Sample], seconds: Option<f64>) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header([
        "DISK", "READS", "READ", "WRITES", "WRITTEN", "FLUSH", "DISCARD", "DIX", "ERRORS", "PI BAD",
        "COPIES", "ENTERS", "NOTIFY", "WAKE-UPS",
    ]);
    let rate = |n: u64| match seconds {
        Some(seconds) => format!("{:.0}", n as f64 / seconds),
        None => n.to_string(),
    };
    let bytes = |n: u64| match seconds {
        Some(seconds) => format!("{}/s", amount(n as f64 / seconds)),
        None => amount(n as f64),
    };
    for Sample { title, counters, .. } in samples {
        let requests = counters.served() + counters.errors;
        let each = |n: u64| match requests {
            0 => "-".to_owned(),
            requests => format!("{:.2}", n as f64 / requests as f64),
        };
        let dix = match counters.dix_requests + counters.daemon_requests {
            0 => "-".to_owned(),
            all => format!("{:.0}%", 100.0 * counters.dix_requests as f64 / all as f64),
        };
        table.add_row([
            title.clone(),
            rate(counters.reads),
            bytes(counters.read_bytes),
            rate(counters.writes),
            bytes(counters.written_bytes),
            rate(counters.flushes),
            rate(counters.discards),
            dix,
            rate(counters.errors),
            format!("{}/{}", counters.guest_mismatches(), counters.medium_mismatches()),
            each(counters.copy_calls),
            each(counters.submits),
            each(counters.notifications),
            each(counters.wakeups),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Bytes to three digits or so.
fn amount(bytes: f64) -> String {
    let (mut value, mut unit) = (bytes, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" || value >= 100.0 { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(counters: Stats) -> Sample {
        Sample {
            disk: "vbd3/1/1".into(),
            title: "web/xvda".into(),
            counters,
            queues: vec![counters],
            store: BTreeMap::new(),
        }
    }

    #[test]
    fn table_when_nothing_was_done_then_divides_by_nothing_and_else_has_rates_and_shares() {
        let idle = table(&[sample(Stats::default())], Some(2.0));
        assert!(
            idle.lines().nth(1).unwrap().split_whitespace().filter(|cell| *cell == "-").count() == 5,
            "{idle}"
        );
        let counters = Stats {
            reads: 300,
            read_bytes: 300 << 12,
            writes: 100,
            written_bytes: 100 << 12,
            dix_requests: 100,
            daemon_requests: 300,
            guest_guard_mismatches: 2,
            errors: 100,
            copy_calls: 250,
            ..Stats::default()
        };
        let busy = table(&[sample(counters)], Some(2.0));
        let cells: Vec<_> = busy.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "web/xvda", "150", "600KiB/s", "50", "200KiB/s", "0", "0", "25%", "50", "2/0", "0.50",
                "0.00", "0.00", "0.00"
            ]
        );
        assert!(table(&[sample(counters)], None).contains("1.2MiB"));
    }

    #[test]
    fn long_when_printed_then_has_every_counter_that_moved() {
        let text = long(&[sample(Stats { reads: 3, wakeups: 2, ..Stats::default() })]);
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("web/xvda reads 3\n") && text.contains("web/xvda queue0.wakeups 2"), "{text}");
        assert_eq!(long(&[sample(Stats::default())]), "nothing done");
    }

    #[test]
    fn amounts_when_large_or_small_then_have_a_fitting_unit() {
        for (bytes, text) in
            [(0.0, "0B"), (1023.0, "1023B"), (1536.0, "1.5KiB"), (1e15, "909TiB"), (1048576.0, "1.0MiB")]
        {
            assert_eq!(amount(bytes), text);
        }
    }
}
