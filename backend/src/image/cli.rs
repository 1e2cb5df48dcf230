//! `dixback image protect | scrub | reseal | replay | resize`.

use crate::image::{
    BadInterval, ImageError, IntervalRange, Observer, ProtectOptions, ReplayOptions, ResealOptions,
    ResizeOptions, ScrubOptions, protect, replay, reseal, resize, scrub,
};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use integrity::{Guard, PiType, Profile, ProfileError, ProfileSpec};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// The tools of a disk's PI sidecar.
#[derive(Args, Debug)]
pub struct ImageArgs {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand, Debug)]
enum Tool {
    /// Make a PI sidecar for a disk: PI for the data that is there, nothing for holes.
    Protect(ProtectArgs),
    /// Read everything and list every interval that does not match its PI.
    ///
    /// Exit status: 0 nothing bad, 1 bad intervals were found, 2 it could not be done.
    Scrub(DiskArgs),
    /// Accept the data as it is: give intervals that do not match their PI new PI, and list them.
    ///
    /// Exit status: 0 all match now, 1 some cannot be read, 2 it could not be done.
    Reseal(ResealArgs),
    /// Make good what a crash left of a disk, as attaching it would: by the log of its writes, or its bitmap.
    ///
    /// Exit status: 0 all of it is, 1 intervals are lost or do not match, 2 it could not be done.
    Replay(DiskArgs),
    /// Make the sidecar of a disk that has grown cover all of it; while a guest has the disk: dixback resize.
    ///
    /// Exit status: 0 it does, 2 it could not be done.
    Resize(DiskArgs),
}

#[derive(Args, Debug)]
struct DiskArgs {
    /// The image file or block device.
    disk: PathBuf,
    /// Its sidecar; DISK.pi if not given.
    #[arg(long, value_name = "PATH")]
    pi: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct ResealArgs {
    #[command(flatten)]
    disk: DiskArgs,
    /// Which intervals: A..B or A in interval numbers, bytes:A..B in bytes (K, M, G and T allowed); B is not in it.
    range: Option<IntervalRange>,
}

#[derive(Args, Debug)]
struct ProtectArgs {
    #[command(flatten)]
    disk: DiskArgs,
    /// The checksum: crc16-t10dif, ip, crc64-nvme, or none to carry a guest's metadata unchecked.
    #[arg(long, default_value = "crc16-t10dif")]
    guard: Guard,
    /// Bytes of data that one tuple protects.
    #[arg(long, default_value_t = 512)]
    interval: u32,
    /// Bytes of metadata per interval; as the guard needs if not given.
    #[arg(long, value_name = "BYTES")]
    metadata_size: Option<u16>,
    /// Where the tuple starts within the metadata.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pi_offset: u8,
    /// Bytes of application tag that guests may use: 0, 2, 6 or 8.
    #[arg(long, value_name = "BYTES")]
    tag_size: Option<u8>,
    /// 1: the reference tag is the interval's number. 3: it is the guest's.
    #[arg(long = "type", value_name = "1|3")]
    pi_type: Option<u8>,
    /// The application tag of the data that is there, for a disk served with app-tag=; such as 0x1200, not 0xffff.
    #[arg(long, value_name = "TAG", default_value = "0", value_parser = app_tag)]
    app_tag: u16,
    /// Room for the log that crash=log keeps, 64KiB to 1GiB; by the disk's size if not given.
    #[arg(long, value_name = "SIZE", value_parser = log_size)]
    log: Option<u64>,
    /// Replace a sidecar that exists.
    #[arg(long)]
    force: bool,
    /// Accept an interval larger than what is written whole when the power fails.
    #[arg(long)]
    non_atomic: bool,
}

impl ProtectArgs {
    fn profile(&self) -> Result<Profile, ProfileError> {
        let guard = self.guard;
        let default = if guard == Guard::None { 0 } else { 1 };
        Profile::new(ProfileSpec {
            guard,
            interval: self.interval,
            // Fits: a tuple has 0, 8 or 16 bytes.
            metadata_size: self.metadata_size.unwrap_or(match guard {
                Guard::None => 8,
                guard => u16::from(self.pi_offset) + guard.tuple_size() as u16,
            }),
            pi_offset: self.pi_offset,
            tag_size: self.tag_size.unwrap_or(if guard == Guard::None { 0 } else { 2 }),
            pi_type: PiType::try_from(self.pi_type.unwrap_or(default))?,
        })
    }
}

/// A tag that is not the escape.
fn app_tag(text: &str) -> Result<u16, &'static str> {
    let tag = match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    tag.ok().filter(|tag| *tag != u16::MAX).ok_or("a number below 0xffff")
}

fn log_size(text: &str) -> Result<u64, String> {
    let size = crate::config::units::size(text).filter(|size| (64 << 10..=1 << 30).contains(size));
    size.ok_or_else(|| "a size from 64KiB to 1GiB".to_owned())
}

/// Runs a tool.
pub fn main(args: ImageArgs) -> ExitCode {
    let result = match args.tool {
        Tool::Protect(args) => run_protect(&args),
        Tool::Scrub(args) => run_scrub(args).map_err(|error| error.to_string()),
        Tool::Reseal(args) => run_reseal(args).map_err(|error| error.to_string()),
        Tool::Replay(args) => run_replay(args).map_err(|error| error.to_string()),
        Tool::Resize(args) => run_resize(args).map_err(|error| error.to_string()),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dixback: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_protect(args: &ProtectArgs) -> Result<ExitCode, String> {
    let profile = args.profile().map_err(|error| error.to_string())?;
    let options = ProtectOptions {
        disk: args.disk.disk.clone(),
        sidecar: args.disk.pi.clone(),
        profile,
        app_tag: args.app_tag,
        log: args.log,
        force: args.force,
        non_atomic: args.non_atomic,
    };
    let mut terminal = Terminal::new("protect");
    let made = protect(&options, &mut terminal).map_err(|error| error.to_string())?;
    terminal.finish();
    let (sidecar, intervals, sealed) = (made.sidecar.display(), made.intervals, made.sealed);
    say(format_args!(
        "{sidecar}: {profile}; {intervals} intervals, {sealed} with PI, {} in holes",
        intervals - sealed
    ));
    Ok(ExitCode::SUCCESS)
}

fn run_scrub(args: DiskArgs) -> Result<ExitCode, ImageError> {
    let options = ScrubOptions { disk: args.disk, sidecar: args.pi };
    let mut terminal = Terminal::new("scrub");
    let found = scrub(&options, &mut terminal)?;
    terminal.finish();
    say(format_args!("{} intervals, {} bad, {} unprotected", found.intervals, found.bad, found.unprotected));
    Ok(ExitCode::from(u8::from(found.bad > 0)))
}

fn run_reseal(args: ResealArgs) -> Result<ExitCode, ImageError> {
    let options = ResealOptions { disk: args.disk.disk, sidecar: args.disk.pi, range: args.range };
    let mut terminal = Terminal::new("reseal");
    let found = reseal(&options, &mut terminal)?;
    terminal.finish();
    say(format_args!(
        "{} intervals, {} resealed, {} unreadable, {} unprotected",
        found.intervals, found.changed, found.unreadable, found.unprotected
    ));
    Ok(ExitCode::from(u8::from(found.unreadable > 0)))
}

fn run_replay(args: DiskArgs) -> Result<ExitCode, ImageError> {
    let options = ReplayOptions { disk: args.disk, sidecar: args.pi };
    let mut terminal = Terminal::new("replay");
    let done = replay(&options, &mut terminal)?;
    terminal.finish();
    match &done {
        Some(done) => say(format_args!("{done}")),
        None => say(format_args!("nothing to be done")),
    }
    Ok(ExitCode::from(u8::from(done.is_some_and(|done| done.lost.count + done.bad.count > 0))))
}

fn run_resize(args: DiskArgs) -> Result<ExitCode, ImageError> {
    let found = resize(&ResizeOptions { disk: args.disk, sidecar: args.pi })?;
    match found.after - found.before {
        0 => say(format_args!("{} bytes, as before", found.after)),
        more => say(format_args!(
            "{} bytes; the last {more} are not protected until they are written",
            found.after
        )),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a line. A reader that went away is no reason to stop: the work and the exit status are left.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Shows progress on standard error: a bar on a terminal, else a line for every tenth; and bad intervals, as they
/// are found, on standard output.
struct Terminal {
    name: &'static str,
    bar: Option<ProgressBar>,
    /// Tenths already told.
    tenths: u64,
}

impl Terminal {
    fn new(name: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let template = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            // The template is a constant; were it wrong, the default bar would do.
            bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
            bar.with_message(name)
        });
        Self { name, bar, tenths: 0 }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Terminal {
    fn progress(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        let tenths = (u128::from(done) * 10 / u128::from(total.max(1))) as u64;
        if tenths > self.tenths {
            self.tenths = tenths;
            eprintln!("{}: {}% ({done} of {total} bytes)", self.name, tenths * 10);
        }
    }

    fn bad(&mut self, interval: &BadInterval) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(format_args!("{interval}"))),
            None => say(format_args!("{interval}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        image: ImageArgs,
    }

    fn profile(line: &str) -> Result<String, String> {
        let words = ["image", "protect", "DISK"].into_iter().chain(line.split_whitespace());
        let program = Program::try_parse_from(words).map_err(|error| error.to_string())?;
        let Tool::Protect(args) = program.image.tool else { panic!() };
        let profile = args.profile().map_err(|error| error.to_string())?;
        let spec = profile.spec();
        let ProfileSpec { guard, interval, metadata_size, pi_offset, tag_size, pi_type } = spec;
        Ok(format!("{guard} {interval} {metadata_size} {pi_offset} {tag_size} {pi_type}"))
    }

    #[test]
    fn protect_when_options_are_left_out_takes_what_goes_together() {
        assert_eq!(profile("").unwrap(), "crc16-t10dif 512 8 0 2 1");
        assert_eq!(profile("--guard crc64-nvme --interval 4096").unwrap(), "crc64-nvme 4096 16 0 2 1");
        assert_eq!(profile("--guard ip --pi-offset 8 --type 3 --tag-size 6").unwrap(), "ip 512 16 8 6 3");
        assert_eq!(profile("--guard none").unwrap(), "none 512 8 0 0 0");
        assert!(profile("--guard crc32").unwrap_err().contains("crc16-t10dif"));
        assert!(profile("--metadata-size 4").is_err());
        assert!(profile("--type 2").is_err());
        assert_eq!((app_tag("0x12fe"), app_tag("7")), (Ok(0x12fe), Ok(7)));
        assert!(app_tag("0xffff").is_err() && app_tag("-1").is_err());
    }

    #[test]
    fn image_args_when_built_are_consistent() {
        use clap::CommandFactory;
        Program::command().debug_assert();
    }
}
