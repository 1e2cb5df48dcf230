//! `dixback xl-disk`: the xl disk line for what is wished, and what a given line means.
//!
//! ```text
//! xl-disk /srv/vm1.img integrity=require      ->  'vdev=xvda,...,target=/srv/vm1.img?integrity=require'
//! xl-disk 'vdev=xvda,...,target=...'          ->  what each part of it does, or what is wrong with it
//! ```

use crate::config::{DiskSpec, Target, disk_keys, escape};
use std::process::ExitCode;

/// Exit status of a line or a wish that cannot be.
const USAGE: u8 = 2;

/// The name of the hotplug script.
const SCRIPT: &str = "block-dix";

/// What `xl-disk` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file or block device to serve, or a whole xl disk line to explain
    target: String,
    /// Keys of the disk, such as integrity=require; see `dixback run --help` for all of them
    keys: Vec<String>,
    /// The disk's name in the guest
    #[arg(long, default_value = "xvda")]
    vdev: String,
    /// The guest may not write
    #[arg(long)]
    read_only: bool,
    /// The domain that runs dixback, by name, if it is not dom0
    #[arg(long, value_name = "DOMAIN")]
    backend: Option<String>,
}

/// Runs it.
pub fn main(args: &Args) -> ExitCode {
    let outcome = if args.target.contains("target=") { explain(&args.target) } else { line(args) };
    match outcome {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("dixback: {error}");
            ExitCode::from(USAGE)
        }
    }
}

/// The line.
fn line(args: &Args) -> Result<String, String> {
    let mut target = escape::encode(&args.target);
    for (number, key) in args.keys.iter().enumerate() {
        target.push(if number == 0 { '?' } else { '&' });
        let (name, value) = key.split_once('=').unwrap_or((key, ""));
        target.push_str(&format!("{name}={}", escape::encode(value)));
    }
    DiskSpec::parse(&target).map_err(|error| error.to_string())?;
    // Between quotes xl reads a backslash as the start of an escape; a line ends the string.
    if let Some(strange) = target.chars().find(|c| matches!(c, '\'' | '\\') || c.is_control()) {
        return Err(format!("{strange:?} in the target cannot be written into an xl configuration"));
    }
    for (option, value) in [("--vdev", Some(&args.vdev)), ("--backend", args.backend.as_ref())] {
        let sound = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '\'' | '"' | '\\' | '=');
        if let Some(value) = value.filter(|value| value.is_empty() || !value.chars().all(sound)) {
            return Err(format!("{option} {value:?} is no name that an xl disk line can have"));
        }
    }
    let access = if args.read_only { "ro" } else { "rw" };
    let backend = args.backend.as_ref().map(|domain| format!("backend={domain},")).unwrap_or_default();
    Ok(format!(
        "disk = [ 'vdev={},format=raw,access={access},{backend}backendtype=tap,script={SCRIPT},target={target}' ]",
        args.vdev
    ))
}

/// What a line means.
fn explain(line: &str) -> Result<String, String> {
    // The line of a configuration file, whole or what is between its quotes.
    let inner = match (line.find('\''), line.rfind('\'')) {
        (Some(start), Some(end)) if start < end => line.get(start + 1..end).unwrap_or(line),
        _ => line,
    };
    let (options, target) = inner.split_once("target=").ok_or("no target= in the line")?;
    let mut text = String::new();
    let (mut tap, mut script, mut raw) = (false, false, true);
    for option in options.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let meaning = match name {
            "vdev" => "the disk's name in the guest",
            "access" => "rw: the guest may write; ro: it may not",
            "backend" => "the domain that runs dixback",
            "format" => {
                raw = value == "raw";
                "raw: dixback gets the target as it is"
            }
            "backendtype" => {
                tap = value == "tap";
                "tap: the disk goes to backend/vbd3, which no kernel driver claims (Xen 4.19 or later)"
            }
            "script" => {
                script = value.rsplit('/').next() == Some(SCRIPT);
                "block-dix: xl says why if the disk cannot be served, and dixback claims the disk"
            }
            "discard" | "no-discard" => "whether discards are offered",
            "direct-io-safe" => {
                "xl's word that the data may be written from the guest's pages; dixback copies anyway"
            }
            _ => "xl's own",
        };
        text.push_str(&format!("{option:<28} {meaning}\n"));
    }
    let spec = DiskSpec::parse(target).map_err(|error| error.to_string())?;
    let served = match &spec.target {
        Target::Path(path) => path.display().to_string(),
        Target::Null(_) => "nothing: a disk for measuring, which keeps no data".to_owned(),
    };
    text.push_str(&format!("{:<28} {served}\n", "target="));
    let given = target.split_once('?').map_or("", |(_, keys)| keys);
    for key in given.split('&').filter(|key| !key.is_empty()) {
        let name = key.split('=').next().unwrap_or(key);
        let allowed = disk_keys().find(|(known, _)| *known == name).map_or("", |(_, allowed)| allowed);
        text.push_str(&format!("{:<28} {allowed}\n", format!("  {key}")));
    }
    let mut wrong = Vec::new();
    if !tap {
        wrong.push("backendtype=tap is missing: dixback will not see the disk");
    }
    if !script {
        wrong.push("script=block-dix is missing: dixback will not claim the disk");
    }
    if !raw {
        wrong.push("format= must be raw");
    }
    let text = text.trim_end();
    if wrong.is_empty() { Ok(text.to_owned()) } else { Err(format!("{}\n\n{text}", wrong.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(target: &str, keys: &[&str]) -> Args {
        Args {
            target: target.to_owned(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            vdev: "xvda".to_owned(),
            read_only: false,
            backend: None,
        }
    }

    #[test]
    fn line_when_printed_then_is_explained() {
        let line = line(&args("/srv/vm1.img", &["integrity=require", "pi=/srv/a,b.pi"])).unwrap();
        assert_eq!(
            line,
            "disk = [ 'vdev=xvda,format=raw,access=rw,backendtype=tap,script=block-dix,\
             target=/srv/vm1.img?integrity=require&pi=/srv/a,b.pi' ]"
        );
        let text = explain(&line).unwrap();
        assert!(text.contains("/srv/vm1.img") && text.contains("integrity=require"), "{text}");
    }

    #[test]
    fn device_with_pi_of_its_own_when_wished_then_is_in_the_line() {
        let keys = ["pi=device", "guard=ip", "metadata-size=8"];
        let line = line(&args("/dev/ng0n1", &keys)).unwrap();
        assert!(line.contains("target=/dev/ng0n1?pi=device&guard=ip&metadata-size=8"), "{line}");
        assert!(explain(&line).unwrap().contains("pi=device"));
        assert!(super::line(&args("/dev/ng0n1", &["pi=device", "metadata-size=0"])).is_err());
    }

    #[test]
    fn wish_when_it_cannot_be_then_is_refused_by_name() {
        assert!(line(&args("/srv/vm1.img", &["integrity=perhaps"])).unwrap_err().contains("integrity"));
        assert!(line(&args("vm1.img", &[])).is_err());
    }

    #[test]
    fn line_when_xl_would_read_it_otherwise_then_is_refused() {
        for target in ["/srv/a'b.img", r"/srv/a\\b.img", "/srv/a\nb.img", "/srv/a\tb.img"] {
            assert!(line(&args(target, &[])).unwrap_err().contains("in the target"), "{target}");
        }
        for vdev in ["", "xvda,access=rw", "xvd a", "xvda'"] {
            let args = Args { vdev: vdev.to_owned(), ..args("/srv/vm1.img", &[]) };
            assert!(line(&args).unwrap_err().contains("--vdev"), "{vdev}");
        }
        let args = Args { backend: Some("a,b".to_owned()), ..args("/srv/vm1.img", &[]) };
        assert!(line(&args).unwrap_err().contains("--backend"));
    }

    #[test]
    fn path_when_it_has_a_question_mark_then_is_escaped() {
        assert!(line(&args("/srv/vm?.img", &[])).unwrap().contains("target=/srv/vm%3F.img"));
    }

    #[test]
    fn line_when_not_for_dixback_then_says_what_is_missing() {
        let error = explain("vdev=xvda,format=raw,backendtype=phy,target=/dev/sda").unwrap_err();
        assert!(
            error.contains("backendtype=tap is missing") && error.contains("script=block-dix"),
            "{error}"
        );
    }
}
