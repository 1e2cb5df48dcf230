//! What the whole is for: faults put in at each hop, and where each was caught.
//!
//! Each fault is played twice: to a guest that makes and checks PI itself (DIX), and to an unmodified guest, whose PI
//! the daemon makes. What PI cannot catch for such a guest is in the table too, and expected.

use crate::demo::medium::Medium;
use crate::simhost::{Guest, Host, HostError, system};
use blkif::Status;
use frontend_sim::toolstack::Vbd;
use frontend_sim::{ConnectOptions, DixMode, Failure, Fault, Frontend, Submission};
use std::path::Path;

/// What a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It makes PI, sends it, and checks what comes back.
    Dix,
    /// It has never heard of PI.
    Plain,
}

/// Where a fault was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The daemon refused the write; nothing was written.
    Write(String),
    /// The daemon refused to hand out what the medium gave.
    Read(String),
    /// The guest's own check found it.
    Guest(String),
    /// Nobody noticed: the guest reads something it never wrote.
    Unnoticed,
    /// There is no such fault for this guest.
    None,
}

impl Outcome {
    /// Whether it is what was expected: caught in the same place, for the reason expected, whatever else is told.
    pub fn is(&self, expected: &Outcome) -> bool {
        let reason = match (self, expected) {
            (Outcome::Write(what), Outcome::Write(reason))
            | (Outcome::Read(what), Outcome::Read(reason))
            | (Outcome::Guest(what), Outcome::Guest(reason)) => what.contains(reason.as_str()),
            _ => true,
        };
        reason && std::mem::discriminant(self) == std::mem::discriminant(expected)
    }

    /// For the table.
    pub fn text(&self) -> String {
        match self {
            Outcome::Write(what) => format!("caught by the daemon at the write: {what}"),
            Outcome::Read(what) => format!("caught by the daemon at the read: {what}"),
            Outcome::Guest(what) => format!("caught by the guest's own check: {what}"),
            Outcome::Unnoticed => "NOT caught".into(),
            Outcome::None => "-".into(),
        }
    }
}

/// One row: a fault, how to play it, and what is expected of either guest.
pub(super) struct Row {
    /// The fault, in a few words.
    pub name: &'static str,
    /// Plays it on one block of a guest's disk.
    pub play: fn(&mut Scene) -> Result<Outcome, HostError>,
    /// What must happen for a DIX guest.
    pub dix: Outcome,
    /// What must happen for an unmodified guest.
    pub plain: Outcome,
}

/// All rows, along the data's way.
pub(super) fn rows() -> Vec<Row> {
    let guard = || GUARD.to_owned();
    let (write, read, guest) = (Outcome::Write(guard()), Outcome::Read(guard()), Outcome::Guest(guard()));
    let elsewhere = Outcome::Write(REFERENCE.to_owned());
    let row = |name, play, dix: &Outcome, plain: &Outcome| Row {
        name,
        play,
        dix: dix.clone(),
        plain: plain.clone(),
    };
    vec![
        row(
            "a bit flips in guest memory after the guest handed it over",
            in_memory,
            &write,
            &Outcome::Unnoticed,
        ),
        row("a bit flips in the PI in guest memory", in_payload, &write, &Outcome::None),
        row("a misplaced write: the data of another block", misplaced, &elsewhere, &Outcome::Unnoticed),
        row("a bit flips on the medium, in the data", medium_data, &read, &read),
        row("a bit flips on the medium, in the PI", medium_pi, &read, &read),
        row("a lost write: the medium keeps the old data", lost_write, &read, &read),
        row("a stale read: the medium gives old data once", stale_read, &read, &read),
        row("data and its PI roll back together", rollback, &Outcome::Unnoticed, &Outcome::Unnoticed),
        row("a bit flips in guest memory after a read", on_return, &guest, &Outcome::Unnoticed),
    ]
}

/// Which tag gives a fault away.
const GUARD: &str = "guard tag";
const REFERENCE: &str = "reference tag";
const APPLICATION: &str = "application tag";

/// Bytes of the block each fault is played on.
const BLOCK: usize = 4096;

/// One guest with a scratch disk.
pub(super) struct Scene {
    guest: Guest,
    kind: Kind,
    frontend: Option<Frontend>,
    vbd: Vbd,
    medium: Medium,
    block: u64,
    content: u8,
}

impl Scene {
    /// Gives a new guest the disk at `path`, which has a sidecar.
    pub fn new(host: &Host, domain: u16, kind: Kind, path: &Path) -> Result<Self, HostError> {
        let vbd = host.attach(domain, "xvda", &path.display().to_string())?;
        let guest = host.guest(domain)?;
        let medium = Medium::new(path)?;
        let mut scene = Self { guest, kind, frontend: None, vbd, medium, block: 0, content: 0 };
        scene.connect()?;
        Ok(scene)
    }

    /// Puts fresh content on a fresh block and, if it can be read back, plays a row on it: what fails before the fault
    /// catches nothing. An unmodified guest is told of an error only; what the daemon's log says of it is added.
    pub fn play(&mut self, row: &Row, host: &Host) -> Result<Outcome, HostError> {
        self.block += 1;
        self.content = self.content.wrapping_add(17);
        let old = self.bytes();
        let before = match self.write(&old, None)? {
            None => self.look(&old)?,
            Some(refused) => refused,
        };
        if before != Outcome::None {
            let what = format!("block {} before the fault", self.block);
            return Err(system(what)(std::io::Error::other(before.text())));
        }
        let logged = host.log().len();
        let outcome = (row.play)(self)?;
        Ok(match (outcome, self.kind) {
            (Outcome::Read(what), Kind::Plain) => {
                let log = host.log();
                Outcome::Read(match named(log.get(logged..).unwrap_or_default(), self.offset()) {
                    Some(fault) => format!("{what}, in its log {fault}"),
                    None => what,
                })
            }
            (outcome, _) => outcome,
        })
    }

    /// Lets go of the disk.
    pub fn end(mut self) -> Result<(), HostError> {
        self.disconnect()?;
        self.vbd.detach(std::time::Duration::from_secs(60))?;
        Ok(())
    }

    fn connect(&mut self) -> Result<(), HostError> {
        let dix = if self.kind == Kind::Dix { DixMode::Require } else { DixMode::Off };
        let options = ConnectOptions { dix, ..ConnectOptions::default() };
        let (hypervisor, client) = (&self.guest.hypervisor, &self.guest.xenstore);
        self.frontend = Some(Frontend::connect(hypervisor, client, self.vbd.frontend(), options)?);
        Ok(())
    }

    fn disconnect(&mut self) -> Result<(), HostError> {
        Ok(self.frontend.take().map_or(Ok(()), Frontend::disconnect)?)
    }

    fn offset(&self) -> u64 {
        self.block * BLOCK as u64
    }

    fn sector(&self) -> u64 {
        self.offset() / 512
    }

    /// The block's content as it should be now.
    fn bytes(&self) -> Vec<u8> {
        (0..BLOCK).map(|i| (i as u8).wrapping_mul(7) ^ self.content ^ (self.block as u8)).collect()
    }

    /// New content for the block.
    fn next_bytes(&mut self) -> Vec<u8> {
        self.content = self.content.wrapping_add(101);
        self.bytes()
    }

    fn frontend(&mut self) -> &mut Frontend {
        self.frontend.as_mut().expect("a scene is connected between its steps")
    }

    /// Writes the block, with a fault; gives what caught it, if anything did.
    fn write(&mut self, data: &[u8], fault: Option<Fault>) -> Result<Option<Outcome>, HostError> {
        let submission = Submission::write(self.sector(), data).faulty(fault);
        let result = self.frontend().queue(0).run(&submission);
        caught(result, Outcome::Write)
    }

    /// Reads the block, with a fault; gives the bytes, or what caught it.
    fn read(&mut self, fault: Option<Fault>) -> Result<Result<Vec<u8>, Outcome>, HostError> {
        let submission = Submission::read(self.sector(), BLOCK).faulty(fault);
        let queue = self.frontend().queue(0);
        queue.submit(&submission)?;
        let mut bytes = vec![0; BLOCK];
        let mut result = Ok(());
        while let Some(mut done) = queue.complete()? {
            result = done.read_into(&mut bytes).map(drop);
        }
        Ok(match caught(result, Outcome::Read)? {
            Some(outcome) => Err(outcome),
            None => Ok(bytes),
        })
    }

    /// Reads the block and says what the guest learns, if it should hold `wanted`.
    fn look(&mut self, wanted: &[u8]) -> Result<Outcome, HostError> {
        Ok(match self.read(None)? {
            Err(outcome) => outcome,
            Ok(bytes) if bytes == wanted => Outcome::None,
            Ok(_) => Outcome::Unnoticed,
        })
    }

    /// Does something to the files while nobody serves them: the daemon keeps PI in memory.
    fn while_closed(
        &mut self,
        act: impl FnOnce(&mut Medium, u64) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        self.disconnect()?;
        let offset = self.offset();
        act(&mut self.medium, offset)?;
        self.connect()
    }
}

/// The interval and the tag that a log names first, if the interval is in the block at byte `block`.
fn named(log: &str, block: u64) -> Option<&str> {
    let (_, fault) = log.split_once("does not match its PI: ")?;
    let (_, byte) = fault.split_once("(byte ")?;
    let byte: u64 = byte.split(')').next()?.parse().ok()?;
    (block..block + BLOCK as u64).contains(&byte).then(|| fault.split(" is ").next())?
}

/// What a failed request tells; errors that are no answer stay errors.
fn caught(
    result: Result<(), frontend_sim::Error>,
    by_daemon: fn(String) -> Outcome,
) -> Result<Option<Outcome>, HostError> {
    let Err(error) = result else { return Ok(None) };
    match error.failure() {
        Some(Failure::Status { payload: Some(Status::Guard), .. }) => Ok(Some(by_daemon(GUARD.into()))),
        Some(Failure::Status { payload: Some(Status::Reference), .. }) => {
            Ok(Some(by_daemon(REFERENCE.into())))
        }
        Some(Failure::Status { payload: Some(Status::Application), .. }) => {
            Ok(Some(by_daemon(APPLICATION.into())))
        }
        Some(Failure::Status { data: Status::Error, .. }) => Ok(Some(by_daemon("I/O error".into()))),
        Some(Failure::Mismatch(mismatch)) => Ok(Some(Outcome::Guest(format!("{} tag", mismatch.tag)))),
        _ => Err(error.into()),
    }
}

/// What a write with `fault` comes to: refused, or on the disk as something else than the guest meant.
fn faulty_write(scene: &mut Scene, fault: Fault) -> Result<Outcome, HostError> {
    let old = scene.bytes();
    let new = scene.next_bytes();
    match scene.write(&new, Some(fault))? {
        // Refused is not enough: nothing may have been written.
        Some(outcome) => match scene.look(&old)? {
            Outcome::None => Ok(outcome),
            other => Ok(other),
        },
        None => scene.look(&new),
    }
}

fn in_memory(scene: &mut Scene) -> Result<Outcome, HostError> {
    faulty_write(scene, Fault::Data { bit: 12_345 })
}

fn in_payload(scene: &mut Scene) -> Result<Outcome, HostError> {
    match scene.kind {
        Kind::Dix => faulty_write(scene, Fault::Payload { bit: 3 }),
        Kind::Plain => Ok(Outcome::None),
    }
}

fn misplaced(scene: &mut Scene) -> Result<Outcome, HostError> {
    if scene.kind == Kind::Dix {
        return faulty_write(scene, Fault::Reference { off_by: 8 });
    }
    // Without PI a misplaced write is just a write: of what belongs elsewhere.
    let meant_here = scene.bytes();
    let elsewhere = scene.next_bytes();
    match scene.write(&elsewhere, None)? {
        Some(outcome) => Ok(outcome),
        None => scene.look(&meant_here),
    }
}

fn medium_data(scene: &mut Scene) -> Result<Outcome, HostError> {
    let wanted = scene.bytes();
    let offset = scene.offset();
    scene.medium.flip_data(offset + 1000, 4)?;
    scene.look(&wanted)
}

fn medium_pi(scene: &mut Scene) -> Result<Outcome, HostError> {
    let wanted = scene.bytes();
    scene.while_closed(|medium, offset| medium.flip_pi(offset, 0))?;
    scene.look(&wanted)
}

fn lost_write(scene: &mut Scene) -> Result<Outcome, HostError> {
    let old = scene.bytes();
    let new = scene.next_bytes();
    if let Some(refused) = scene.write(&new, None)? {
        return Ok(refused);
    }
    let offset = scene.offset();
    scene.medium.put_data(offset, &old)?;
    scene.look(&new)
}

fn stale_read(scene: &mut Scene) -> Result<Outcome, HostError> {
    let old = scene.bytes();
    let new = scene.next_bytes();
    if let Some(refused) = scene.write(&new, None)? {
        return Ok(refused);
    }
    let offset = scene.offset();
    scene.medium.put_data(offset, &old)?;
    let outcome = scene.look(&new)?;
    scene.medium.put_data(offset, &new)?;
    // The medium has come to its senses, and so must the disk.
    match scene.look(&new)? {
        Outcome::None => Ok(outcome),
        other => Ok(other),
    }
}

fn rollback(scene: &mut Scene) -> Result<Outcome, HostError> {
    let old = scene.bytes();
    let mut old_pi = Vec::new();
    scene.while_closed(|medium, offset| {
        old_pi = medium.pi(offset, BLOCK)?;
        Ok(())
    })?;
    let new = scene.next_bytes();
    if let Some(refused) = scene.write(&new, None)? {
        return Ok(refused);
    }
    scene.while_closed(|medium, offset| {
        medium.put_data(offset, &old)?;
        medium.put_pi(offset, &old_pi)
    })?;
    scene.look(&new)
}

fn on_return(scene: &mut Scene) -> Result<Outcome, HostError> {
    let wanted = scene.bytes();
    Ok(match scene.read(Some(Fault::Data { bit: 4_321 }))? {
        Err(outcome) => outcome,
        Ok(bytes) if bytes == wanted => Outcome::None,
        Ok(_) => Outcome::Unnoticed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_when_caught_elsewhere_or_for_another_reason_is_not_the_expected_one() {
        let expected = Outcome::Read(GUARD.into());
        assert!(
            Outcome::Read("I/O error, in its log interval 8 (byte 4096): guard tag".into()).is(&expected)
        );
        assert!(!Outcome::Read("I/O error".into()).is(&expected));
        assert!(!Outcome::Read(REFERENCE.into()).is(&expected));
        assert!(!Outcome::Write(GUARD.into()).is(&expected));
        assert!(!Outcome::Unnoticed.is(&expected) && Outcome::Unnoticed.is(&Outcome::Unnoticed));
    }

    #[test]
    fn named_when_the_log_is_of_another_block_is_nothing() {
        let line = "ERROR d: what the medium holds does not match its PI: interval 9 (byte 4608): guard tag is 0x1, \
                    expected 0x2\n";
        assert_eq!(named(line, 4096), Some("interval 9 (byte 4608): guard tag"));
        assert_eq!(named(line, 0), None);
        assert_eq!(named("nothing", 4096), None);
    }
}
