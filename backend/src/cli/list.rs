//! `dixback list`: which disks the daemon has, and how they are.

use super::daemon::{CommandError, Daemon, end, say};
use crate::config::units;
use crate::control::status::{DiskReport, PiMode, Report};
use comfy_table::Table;
use std::process::ExitCode;

/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    daemon: Daemon,
    /// Only these: GUEST, GUEST/DEVICE, or the path of the data; a guest is a name or a number
    disks: Vec<String>,
    /// One JSON object with all there is to know, counters included
    #[arg(long)]
    json: bool,
}

/// Lists.
pub fn main(args: &Args) -> ExitCode {
    end(list(args))
}

fn list(args: &Args) -> Result<(), CommandError> {
    let report = args.daemon.status(&args.disks)?;
    if args.json {
        return say(serde_json::to_string_pretty(&report).unwrap_or_default());
    }
    say(text(&report))
}

/// The table, and below it what is wrong with which disk.
fn text(report: &Report) -> String {
    if report.disks.is_empty() {
        return "no disks".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["DISK", "STATE", "SIZE", "RINGS", "PI", "DATA"]);
    for disk in &report.disks {
        table.add_row([
            disk.title(),
            disk.state.clone(),
            disk.bytes.map_or("-".to_owned(), units::size_text) + if disk.read_only { " ro" } else { "" },
            rings(disk),
            pi(disk),
            disk.target.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    let mut lines: Vec<_> = table.lines().map(|line| line.trim().to_owned()).collect();
    for disk in &report.disks {
        let title = disk.title();
        lines.extend(disk.reason.iter().map(|reason| format!("{title}: {reason}")));
        let attach = disk.connection.iter().filter_map(|connection| connection.attach_report.as_ref());
        lines.extend(attach.map(|found| format!("{title}: {found}")));
    }
    lines.join("\n")
}

fn rings(disk: &DiskReport) -> String {
    let Some(connection) = &disk.connection else { return "-".to_owned() };
    let pages = connection.queues.first().map_or(0, |queue| queue.ring_pages);
    format!("{} x {pages} pages", connection.queues.len())
}

/// What is done about PI: by whom it is made, or who could.
fn pi(disk: &DiskReport) -> String {
    let Some(pi) = &disk.pi else { return "none".to_owned() };
    let who = match disk.connection.as_ref().map(|connection| connection.pi) {
        None => "offered",
        Some(PiMode::None) => "none",
        Some(PiMode::Made) => "made here",
        Some(PiMode::EndToEnd) => "end to end",
    };
    format!("{who}: {}/{} {}", pi.guard, pi.interval, pi.integrity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::{ConnectionReport, PiReport, QueueReport, Share};
    use crate::queue::Stats;

    fn report() -> Report {
        let queue = QueueReport { ring_pages: 16, port: 4, counters: Stats::default() };
        let connection = ConnectionReport {
            uptime: 1.0,
            pi: PiMode::EndToEnd,
            abi: "x86_64-abi".into(),
            persistent: false,
            max_indirect: 256,
            discard: true,
            queues: vec![queue.clone(), queue],
            store: [("range_waits".to_owned(), 3)].into(),
            attach_report: Some("it was not closed".into()),
        };
        let pi = PiReport {
            profile: "crc16".into(),
            guard: "crc16-t10dif".into(),
            interval: 512,
            metadata_size: 8,
            pi_type: 1,
            kept_in: Some("/srv/a.img.pi".into()),
            integrity: "auto".into(),
            app_tag: None,
        };
        let disk = DiskReport {
            id: "vbd3/1/51712".into(),
            domain: 1,
            guest: Some("web".into()),
            device: 51712,
            vdev: Some("xvda".into()),
            state: "connected".into(),
            backend: "Connected".into(),
            frontend: "Connected".into(),
            reason: None,
            target: Some("/srv/a.img".into()),
            bytes: Some(10 << 30),
            sector_size: Some(512),
            read_only: false,
            pi: Some(pi),
            connection: Some(connection),
            connections: 1,
            totals: Stats::default(),
        };
        let unusable = DiskReport {
            id: "vbd3/2/51728".into(),
            domain: 2,
            guest: None,
            vdev: None,
            device: 51728,
            state: "unusable".into(),
            reason: Some("cannot be served: /srv/b.img: no such file".into()),
            target: None,
            bytes: None,
            pi: None,
            connection: None,
            ..disk.clone()
        };
        Report {
            version: "1".into(),
            pid: 1,
            uptime: 1.0,
            domain: 0,
            kinds: vec![],
            stopping: false,
            threads: Share { used: 2, limit: 256 },
            buffers: Share { used: 2, limit: 256 },
            disks: vec![disk, unusable],
        }
    }

    #[test]
    fn list_when_printed_then_has_a_line_for_each_disk_and_one_for_each_trouble() {
        let text = text(&report());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        for part in
            ["web/xvda", "connected", "10GiB", "2 x 16 pages", "end to end: crc16-t10dif/512", "/srv/a.img"]
        {
            assert!(lines[1].contains(part), "{part}: {text}");
        }
        assert!(lines[2].contains("2/51728") && lines[2].contains("unusable"), "{text}");
        assert_eq!(lines[3], "web/xvda: it was not closed");
        assert!(lines[4].ends_with("no such file"), "{text}");
    }
}
