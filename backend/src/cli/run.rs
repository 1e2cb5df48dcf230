//! `dixback run`: the daemon.

use crate::config::{ConfigError, DaemonConfig, SAMPLE, disk_keys, units};
use crate::control::{ControlError, Daemon, Service};
use crate::io::Ring;
use hypervisor::DomId;
use log::LevelFilter;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;
use xenstore::{Client, ClientOptions};

/// Exit status of a configuration or command line that says nothing that can be done.
const USAGE: u8 = 2;

/// What follows the options in the long help: the file, the keys.
pub static HELP: LazyLock<String> = LazyLock::new(|| {
    let mut text = format!("The configuration file, with every key at its default:\n{SAMPLE}\n");
    text.push_str("Keys of a disk, in its target: target=PATH?key=value&key=value (%3F %26 %25 for ? & %)\n");
    for (name, allowed) in disk_keys() {
        text.push_str(&format!("  {name:<12} {allowed}\n"));
    }
    text
});

/// Options; each goes before the configuration file's key of the same name.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file; without it every key is at its default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A kind of backend directories to serve; may be given several times [default: vbd3]
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// Claim devices with this script only; empty for all [default: block-dix]
    #[arg(long, value_name = "NAME")]
    script: Option<String>,
    /// xenstored's socket, or /dev/xen/xenbus [default: $XENSTORED_PATH, or /run/xenstored/socket]
    #[arg(long, value_name = "PATH")]
    xenstore: Option<PathBuf>,
    /// xen, or sim:DIR [default: xen]
    #[arg(long, value_name = "NAME")]
    hypervisor: Option<String>,
    /// This domain's number [default: what xenstore says]
    #[arg(long, value_name = "N")]
    domain: Option<u16>,
    /// Where the lock and the restart records are [default: /run/dixback]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Most queue threads [default: 256]
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// Most queues of a disk [default: as many as processors, at most 4]
    #[arg(long, value_name = "N")]
    queues: Option<u32>,
    /// Bytes of data buffers of each queue [default: 4MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pool: Option<u64>,
    /// Most bytes of buffers of all queues, for data, PI and segments [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pool_total: Option<u64>,
    /// Longest time a queue spins for work before it sleeps; 0 for never [default: 50us]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    spin: Option<Duration>,
    /// error, warn, info, debug or trace [default: info, or what RUST_LOG says]
    #[arg(long, value_name = "LEVEL")]
    log: Option<LevelFilter>,
}

/// Runs the daemon.
pub fn main(args: Args) -> ExitCode {
    let config = match settle(args) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("dixback: {error}");
            return ExitCode::from(USAGE);
        }
    };
    super::log::start(config.log);
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The file's settings, and the command line's over them.
fn settle(args: Args) -> Result<DaemonConfig, ConfigError> {
    let mut config = match &args.config {
        Some(path) => DaemonConfig::load(path)?,
        None => DaemonConfig::default(),
    };
    fn put<T>(place: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *place = value;
        }
    }
    put(&mut config.kinds, Some(args.kinds).filter(|kinds| !kinds.is_empty()));
    put(&mut config.script, args.script);
    put(&mut config.xenstore, args.xenstore);
    put(&mut config.hypervisor, args.hypervisor);
    put(&mut config.domain, args.domain.map(Some));
    put(&mut config.run_dir, args.run_dir);
    put(&mut config.threads, args.threads);
    put(&mut config.queues, args.queues);
    put(&mut config.pool, args.pool);
    put(&mut config.pool_total, args.pool_total);
    put(&mut config.spin, args.spin);
    put(&mut config.log, args.log);
    config.check()?;
    Ok(config)
}

fn serve(config: DaemonConfig) -> Result<(), ControlError> {
    raise_descriptors();
    // Told once and at the start, not for each queue when a guest connects.
    drop(Ring::new(1)?);
    // The control thread serves every disk: a read that waits for a lost xenstored would hold up all of them, and
    // every watch fires anyway once it is back.
    let options = ClientOptions { patience: Duration::ZERO, ..ClientOptions::default() };
    let client = Client::connect_to(xenstore::client::at(&config.xenstore), options)
        .map_err(|source| ControlError::Xenstore { doing: "connecting", source })?;
    let domain = crate::control::own_domain(&config, &client)?;
    let hypervisor = hypervisor::open(&config.hypervisor, DomId(domain))?;
    let mut daemon = Daemon::start(DaemonConfig { domain: Some(domain), ..config }, client, hypervisor)?;
    let stopper = daemon.stopper();
    for signal in [SIGTERM, SIGINT] {
        stopper.on_signal(signal).map_err(ControlError::System)?;
    }
    daemon.grower().on_signal(SIGHUP).map_err(ControlError::System)?;
    let line = daemon.describe();
    log::info!("{line}");
    daemon.serve_under(Service::from_environment());
    // For whoever started it and waits on a pipe, if he still does.
    let _ = writeln!(std::io::stdout(), "{line}");
    daemon.run()
}

/// A queue needs half a dozen descriptors, and the usual soft limit of 1024 is there for programs that use select.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        log::warn!("the limit of open files stays at {:?}: {error}", limit.current);
    }
}

fn size(text: &str) -> Result<u64, &'static str> {
    units::size(text).ok_or(units::SIZE_FORM)
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    units::duration(text).ok_or(units::DURATION_FORM)
}
