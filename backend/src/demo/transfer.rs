//! Steps 1 to 3 of the demo: an image goes in, comes back, and is scrubbed.

use crate::demo::{program, say};
use crate::image;
use crate::simhost::{Host, HostError, system};
use integrity::{Guard, PiType, Profile, ProfileSpec};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Writes `image` through the ring onto the new disk, reads it back, compares, and scrubs.
pub(super) fn in_and_out(host: &Host, image: &Path, disk: &Path) -> Result<bool, HostError> {
    let bytes = File::open(image).and_then(|file| size_of_file(&file)).map_err(system(shown(image)))?;
    let sectors = bytes.div_ceil(512);
    let file = File::create_new(disk).map_err(system(shown(disk)))?;
    file.set_len(sectors * 512).map_err(system(shown(disk)))?;
    drop(file);
    protect(disk)?;
    let vbd = host.attach(1, "xvda", &target(disk)?)?;

    let start = Instant::now();
    frontend(host, &["copy-in", &shown(image)], "the writing frontend")?;
    speed("written through the ring, with PI made by the guest", bytes, start.elapsed());

    let start = Instant::now();
    let back = host.dir().join("back");
    let length = bytes.next_multiple_of(512).to_string();
    frontend(host, &["copy-out", "--length", &length, &shown(&back)], "the reading frontend")?;
    speed("read back, PI checked by daemon and guest", bytes, start.elapsed());
    let difference = first_difference(image, &back, bytes)?;
    std::fs::remove_file(&back).map_err(system(shown(&back)))?;
    match difference {
        None => say("equal to the image"),
        Some(byte) => say(&format!("what came back differs from {} at byte {byte}", image.display())),
    }
    vbd.detach(Duration::from_secs(60))?;

    let options = image::ScrubOptions { disk: disk.to_owned(), sidecar: None };
    let found =
        image::scrub(&options, &mut ()).map_err(|error| system(shown(disk))(io::Error::other(error)))?;
    let image::Scrubbed { intervals, bad, unprotected } = found;
    say(&format!("scrubbed: {intervals} intervals, {bad} bad, {unprotected} unprotected"));
    // Every byte was written, so every interval has PI.
    Ok(difference.is_none() && bad == 0 && unprotected == 0)
}

/// Removes a disk and its sidecar, as far as they came to be.
pub(super) fn remove(disk: &Path) {
    for path in [disk.to_owned(), crate::store::sidecar::default_path(disk)] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                say(&format!("{}: {error}", path.display()))
            }
            _ => {}
        }
    }
}

/// Serves a disk that exists, read-only in effect, and reads all of it through the ring.
pub(super) fn read_only(disk: &Path) -> Result<bool, HostError> {
    let bytes = File::open(disk).and_then(|file| size_of_file(&file)).map_err(system(shown(disk)))?;
    let host = Host::start(&program()?, None)?;
    super::remove_when_interrupted(host.dir());
    let vbd = host.attach(1, "xvda", &target(disk)?)?;
    let result = frontend(&host, &["copy-out", "/dev/null"], "the reading frontend");
    vbd.detach(Duration::from_secs(60))?;
    for line in host.log().lines().filter(|line| line.contains("interval ")) {
        say(line);
    }
    if result.is_ok() {
        say(&format!("{bytes} bytes read through the ring, every interval matches its PI"));
    }
    result.map(|()| true)
}

/// Runs a frontend process with PI to its end. Its progress and its reason, if it fails, go to standard error.
fn frontend(host: &Host, arguments: &[&str], what: &str) -> Result<(), HostError> {
    let mut command = host.frontend(1, "xvda", &["--dix", "require"])?;
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().map_err(system(what))?;
    if status.success() {
        return Ok(());
    }
    Err(system(what)(io::Error::other(format!("{status}; its reason is above"))))
}

/// Makes the disk's sidecar.
pub(crate) fn protect(disk: &Path) -> Result<(), HostError> {
    let failed = |error: &dyn std::fmt::Display| system(shown(disk))(io::Error::other(error.to_string()));
    let profile = Profile::new(ProfileSpec {
        guard: Guard::Crc16T10Dif,
        interval: 512,
        metadata_size: 8,
        pi_offset: 0,
        tag_size: 2,
        pi_type: PiType::Type1,
    });
    let profile = profile.map_err(|error| failed(&error))?;
    let options = image::ProtectOptions {
        disk: disk.to_owned(),
        sidecar: None,
        profile,
        log: None,
        app_tag: 0,
        force: false,
        non_atomic: false,
    };
    image::protect(&options, &mut ()).map(drop).map_err(|error| failed(&error))
}

/// Copies the first `bytes` of `from` to the new file `to`, which has that size whatever `from` has.
pub(super) fn copy_start(from: &Path, to: &Path, bytes: u64) -> Result<(), HostError> {
    let source = File::open(from).map_err(system(shown(from)))?;
    let mut copy = File::create_new(to).map_err(system(shown(to)))?;
    io::copy(&mut source.take(bytes), &mut copy).map_err(system(shown(to)))?;
    copy.set_len(bytes).map_err(system(shown(to)))
}

/// The target string of a disk: absolute, with what separates keys escaped.
pub(crate) fn target(disk: &Path) -> Result<String, HostError> {
    let path: PathBuf = std::path::absolute(disk).map_err(system(shown(disk)))?;
    Ok(crate::config::escape::encode(&path.to_string_lossy()))
}

/// The size of a file or a block device.
fn size_of_file(mut file: &File) -> io::Result<u64> {
    use std::io::Seek;
    let size = file.seek(io::SeekFrom::End(0))?;
    file.rewind()?;
    Ok(size)
}

/// The first byte in which the first `bytes` of two files differ, if any.
fn first_difference(image: &Path, back: &Path, bytes: u64) -> Result<Option<u64>, HostError> {
    let open = |path: &Path| File::open(path).map(|file| file.take(bytes)).map_err(system(shown(path)));
    let (mut image, mut back) = (open(image)?, open(back)?);
    let (mut wanted, mut got) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    loop {
        let len = full(&mut image, &mut wanted).map_err(system("the image"))?;
        let read = full(&mut back, &mut got).map_err(system("what came back"))?;
        if len != read || wanted[..len] != got[..len] {
            let same = wanted[..len].iter().zip(&got[..read]).take_while(|(a, b)| a == b).count();
            return Ok(Some(at + same as u64));
        }
        if len == 0 {
            return Ok(None);
        }
        at += len as u64;
    }
}

/// Reads until the buffer is full or the input ends.
fn full(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match input.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

fn speed(what: &str, bytes: u64, elapsed: Duration) {
    let rate = bytes as f64 / elapsed.as_secs_f64() / 1e6;
    say(&format!("{bytes} bytes {what}: {rate:.0} MB/s"));
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
