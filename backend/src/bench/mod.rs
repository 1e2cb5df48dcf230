//! `dixback bench`: requests per second and what each costs, beside baselines measured in the same run.
//!
//! ```text
//! raw loop     a bare io_uring loop on the same file: the medium, and nothing else
//! off          through the ring, without PI
//! made         through the ring, PI made and checked by the daemon (an unmodified guest)
//! end to end   through the ring, PI made and checked by the guest and checked by the daemon
//! ```
//!
//! `--crash`: what keeping a log or a bitmap costs (`crash`).
//!
//! Frontend and daemon are processes of their own; each one's time on a processor is counted apart. Each figure is the
//! median of several short samples, taken by turns with those of the other rows it is compared with, so that a machine's
//! moods meet all alike. Figures of one run compare; figures of two machines, or two days, do not.

mod cpu;
mod crash;
mod figure;
mod raw;
mod workload;

use crate::config::units;
use crate::demo::{protect, target};
use crate::simhost::{Host, HostError, pin, system};
use clap::Args;
use comfy_table::{CellAlignment, Table};
use figure::Figure;
use raw::Rate;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use workload::Workload;

/// Measures the daemon on this machine, on the simulated hypervisor.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Where to make the files to measure on; they are removed afterwards.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Size of each of the two files.
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    size: String,
    /// Seconds for each sample.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.25)]
    seconds: f64,
    /// Samples for each figure, which is their median.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    samples: u32,
    /// Leave the file out: only the null disk, which keeps nothing.
    #[arg(long)]
    null_only: bool,
    /// Measure only what keeping a log or a bitmap for a crash costs.
    #[arg(long, conflicts_with = "null_only")]
    crash: bool,
    /// Two block devices to measure that on besides. What is on them is lost.
    #[arg(long, value_name = "DATA,SIDECAR", requires = "crash")]
    devices: Option<String>,
}

/// How a guest uses PI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Off,
    Made,
    EndToEnd,
}

impl Mode {
    const ALL: [Mode; 3] = [Mode::Off, Mode::Made, Mode::EndToEnd];

    fn name(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Made => "made",
            Mode::EndToEnd => "end to end",
        }
    }

    fn dix(self) -> &'static str {
        if self == Mode::EndToEnd { "require" } else { "off" }
    }
}

/// Runs the bench.
pub fn main(args: &BenchArgs) -> ExitCode {
    match bench(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dixback bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &BenchArgs) -> Result<(), HostError> {
    let wrong = |what: &str| system("--size")(io::Error::other(what.to_owned()));
    let bytes = units::size(&args.size).filter(|bytes| *bytes >= 16 << 20 && bytes.is_multiple_of(1 << 20));
    let bytes = bytes.ok_or_else(|| wrong("a whole number of MiB, at least 16M"))?;
    let seconds = Duration::try_from_secs_f64(args.seconds)
        .map_err(|error| system("--seconds")(io::Error::other(error)))?;
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let work = tempfile::Builder::new()
        .prefix("dixback-bench-")
        .tempdir_in(&dir)
        .map_err(system(dir.display().to_string()))?;
    crate::demo::remove_when_interrupted(work.path());
    if args.crash {
        let files = Files::make(work.path(), bytes)?;
        let sidecar = crate::store::sidecar::default_path(&files.protected);
        let name = format!("file in {}", dir.display());
        let mut media = vec![crash::Media { name, data: files.protected, sidecar, bytes }];
        if let Some(text) = &args.devices {
            media.push(crash::devices(text, bytes)?);
        }
        return crash::table(&media, seconds);
    }
    let files = if args.null_only { None } else { Some(Files::make(work.path(), bytes)?) };
    println!("each figure: the median of {} samples of {} s", args.samples, args.seconds);
    println!("kernel of the guards: {:?}; {} processors", integrity::Kernel::selected(), processors());
    println!("file: {} in {}", if args.null_only { "none" } else { &args.size }, dir.display());
    let mut rounds = vec![None];
    match two_processors() {
        Some(two) => rounds.push(Some(two)),
        None => println!("pinned: left out, there is one processor"),
    }
    for pinned in rounds {
        let program = std::env::current_exe().map_err(system("this program's path"))?;
        let host = Host::start(&program, pinned.map(|pinned| pinned.daemon))?;
        crate::demo::remove_when_interrupted(host.dir());
        let mut run =
            Run { host, seconds, samples: args.samples, bytes, pinned, table: Table::new(), domain: 0 };
        run.table.load_preset(comfy_table::presets::ASCII_BORDERS_ONLY_CONDENSED);
        let pin = pinned.map_or("not pinned".to_owned(), |Pinned { frontend, daemon }| {
            format!("pinned (frontend {frontend}, daemon {daemon})")
        });
        run.table.set_header([
            pin.as_str(),
            "PI",
            "requests/s",
            "ratio",
            "daemon ns",
            "spun ns",
            "calls",
            "frontend ns",
            "wake-ups",
            "notif.",
        ]);
        for workload in workload::ALL {
            run.null(workload)?;
        }
        if let Some(files) = &files {
            for workload in workload::ALL {
                run.file(workload, files)?;
            }
        }
        for column in 2..10 {
            if let Some(column) = run.table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{}", run.table);
    }
    println!(
        "ratio: requests/s against the row marked 1.00; daemon and frontend ns: time on a processor per request, of which"
    );
    println!(
        "spun: the daemon looked for the frontend's next request; calls: the daemon's system calls, per request;"
    );
    println!("wake-ups and notifications: the frontend's, per request");
    Ok(())
}

/// The two files: one served plain, one with a sidecar.
struct Files {
    plain: PathBuf,
    protected: PathBuf,
}

impl Files {
    fn make(dir: &Path, bytes: u64) -> Result<Self, HostError> {
        let files = Self { plain: dir.join("plain.img"), protected: dir.join("protected.img") };
        for path in [&files.plain, &files.protected] {
            let failed = || system(path.display().to_string());
            // Real blocks with something in them: holes cost no medium anything.
            let mut file = File::create_new(path).map_err(failed())?;
            let chunk: Vec<u8> = (0..1u32 << 20).map(|i| (i.wrapping_mul(0x9E37_79B1) >> 24) as u8).collect();
            for _ in 0..bytes >> 20 {
                file.write_all(&chunk).map_err(failed())?;
            }
            file.sync_all().map_err(failed())?;
        }
        protect(&files.protected)?;
        Ok(files)
    }
}

/// One table under way.
struct Run {
    host: Host,
    seconds: Duration,
    samples: u32,
    bytes: u64,
    pinned: Option<Pinned>,
    table: Table,
    domain: u16,
}

impl Run {
    fn null(&mut self, workload: Workload) -> Result<(), HostError> {
        let mut samples = [const { Vec::new() }; Mode::ALL.len()];
        for _ in 0..self.samples {
            for (mode, samples) in Mode::ALL.into_iter().zip(&mut samples) {
                let target = match mode {
                    Mode::Off => "null:1G?integrity=off",
                    _ => "null:1G:crc16-t10dif",
                };
                samples.push(self.measure(target, workload, mode)?);
            }
        }
        let figures = samples.map(|samples| Figure::median(&samples));
        for (mode, figure) in Mode::ALL.into_iter().zip(&figures) {
            self.row("null", workload, mode, figure, figures[0].rate);
        }
        Ok(())
    }

    fn file(&mut self, workload: Workload, files: &Files) -> Result<(), HostError> {
        let mut raw = Vec::new();
        let mut samples = [const { Vec::new() }; Mode::ALL.len()];
        for _ in 0..self.samples {
            raw.push(self.raw_loop(workload, &files.plain)?);
            for (mode, samples) in Mode::ALL.into_iter().zip(&mut samples) {
                let target = match mode {
                    Mode::Off => target(&files.plain)? + "?integrity=off",
                    _ => target(&files.protected)?,
                };
                samples.push(self.measure(&target, workload, mode)?);
            }
        }
        let raw = Figure::median(&raw);
        self.table.add_row([
            title("file", workload),
            "raw loop".into(),
            format!("{:.0}", raw.rate),
            "1.00".into(),
            format!("{:.0}", raw.daemon_ns),
            "-".into(),
            "-".into(),
            "-".into(),
            "-".into(),
            "-".into(),
        ]);
        for (mode, samples) in Mode::ALL.into_iter().zip(&samples) {
            self.row("file", workload, mode, &Figure::median(samples), raw.rate);
        }
        Ok(())
    }

    fn raw_loop(&self, workload: Workload, path: &Path) -> Result<Figure, HostError> {
        let failed = || system(path.display().to_string());
        let file = raw::open(path).map_err(failed())?;
        let (bytes, seconds, pinned) = (self.bytes, self.seconds, self.pinned);
        let rate = std::thread::scope(|scope| {
            let body = || {
                if let Some(pinned) = pinned {
                    pin(pinned.frontend)?;
                }
                raw::run(&file, bytes, workload, seconds)
            };
            scope.spawn(body).join().unwrap_or_else(|_| Err(io::Error::other("the raw loop failed")))
        });
        let rate = rate.map_err(failed())?;
        progress();
        Ok(Figure { rate: rate.per_second(), daemon_ns: rate.cpu_ns(), ..Figure::default() })
    }

    /// Attaches a disk to a new domain, lets a frontend work on it, and detaches it.
    fn measure(&mut self, target: &str, workload: Workload, mode: Mode) -> Result<Figure, HostError> {
        self.domain += 1;
        let vbd = self.host.attach(self.domain, "xvda", target)?;
        let seconds = self.seconds.as_secs_f64().to_string();
        let (depth, block) = (workload.depth.to_string(), workload.block.to_string());
        let mut arguments = vec!["--dix", mode.dix(), "--depth", &depth, "bench", "--json"];
        arguments.extend(["--access", workload.name, "--bytes", &block, "--seconds", &seconds]);
        let mut command = self.host.frontend(self.domain, "xvda", &arguments)?;
        if let Some(pinned) = self.pinned {
            crate::simhost::pin_child(&mut command, pinned.frontend);
        }
        let before = cpu::of_process(self.host.daemon_pid()).map_err(system("the daemon's time"))?;
        let output =
            command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(system("the frontend"))?;
        let after = cpu::of_process(self.host.daemon_pid()).map_err(system("the daemon's time"))?;
        let status = self.host.status()?;
        let disk = status.disks.iter().find(|disk| disk.domain == self.domain);
        let stats = disk.map(|disk| disk.totals).unwrap_or_default();
        vbd.detach(Duration::from_secs(60))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(system("the frontend")(io::Error::other(output.status.to_string())));
        }
        let number = |name: &str| {
            let number = field(&text, name);
            number.ok_or_else(|| system("the frontend")(io::Error::other(format!("no {name} in {text:?}"))))
        };
        let requests = number("requests")?;
        let elapsed = Duration::try_from_secs_f64(number("seconds")?).unwrap_or_default();
        progress();
        let rate = Rate { requests: requests as u64, elapsed, cpu: after.saturating_sub(before) };
        Ok(Figure {
            rate: rate.per_second(),
            daemon_ns: rate.cpu_ns(),
            spin_ns: stats.spin_ns as f64 / requests.max(1.0),
            calls: stats.system_calls() as f64 / requests.max(1.0),
            frontend_ns: number("cpu_ns_per_request")?,
            wakeups: number("wakeups")? / requests.max(1.0),
            notifications: number("notifications")? / requests.max(1.0),
        })
    }

    fn row(&mut self, store: &str, workload: Workload, mode: Mode, figure: &Figure, base: f64) {
        self.table.add_row([
            title(store, workload),
            mode.name().into(),
            format!("{:.0}", figure.rate),
            format!("{:.2}", figure.rate / base),
            format!("{:.0}", figure.daemon_ns),
            format!("{:.0}", figure.spin_ns),
            format!("{:.3}", figure.calls),
            format!("{:.0}", figure.frontend_ns),
            format!("{:.3}", figure.wakeups),
            format!("{:.3}", figure.notifications),
        ]);
    }
}

fn title(store: &str, workload: Workload) -> String {
    format!("{store}: {} {}K, depth {}", workload.name, workload.block >> 10, workload.depth)
}

/// A sign of life for each figure, where somebody looks.
fn progress() {
    if io::stderr().is_terminal() {
        eprint!(".");
    }
}

/// A processor for either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pinned {
    frontend: usize,
    daemon: usize,
}

/// The first two processors this process may use, if it may use two.
fn two_processors() -> Option<Pinned> {
    let allowed = rustix::thread::sched_getaffinity(None).ok()?;
    let mut numbers = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    Some(Pinned { frontend: numbers.next()?, daemon: numbers.next()? })
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A number of a line of flat JSON.
fn field(line: &str, name: &str) -> Option<f64> {
    let start = line.find(&format!("\"{name}\":"))? + name.len() + 3;
    let rest = line.get(start..)?;
    rest.get(..rest.find([',', '}'])?)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_when_present_is_its_number_and_else_nothing() {
        let line = r#"{"bench":"random-read","requests":120,"seconds":1.5,"requests_per_second":80.0}"#;
        assert_eq!(field(line, "requests"), Some(120.0));
        assert_eq!(field(line, "requests_per_second"), Some(80.0));
        assert_eq!(field(line, "bench"), None);
        assert_eq!(field(line, "nothing"), None);
    }
}
