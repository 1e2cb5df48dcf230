//! `dixback image ...` as an operator runs it: output and exit status.

use crate::support::{Image, OWNER, dif};
use dixback::store::open;
use std::path::Path;
use std::process::{Command, Output};

fn image(tool: &[&str], disk: &Path, more: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_dixback");
    Command::new(program).arg("image").args(tool).arg(disk).args(more).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn tools_when_run_in_turn_say_what_they_did_and_how_it_ended() {
    let disk = Image::new(2 << 20);
    disk.scribble(0, &[7; 64 << 10]);

    let missing = image(&["scrub"], &disk.path, &[]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("dixback image protect"), "{missing:?}");

    let made = image(&["protect"], &disk.path, &["--guard", "ip", "--interval", "512"]);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    assert!(text(&made.stdout).contains("4096 intervals, 128 with PI, 3968 in holes"), "{made:?}");
    assert_eq!(image(&["protect"], &disk.path, &[]).status.code(), Some(2));
    assert_eq!(image(&["protect"], &disk.path, &["--force", "--guard", "crc64-nvme"]).status.code(), Some(0));

    let good = image(&["scrub"], &disk.path, &[]);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    assert_eq!(text(&good.stdout), "4096 intervals, 0 bad, 3968 unprotected\n");
    assert!(text(&good.stderr).contains("scrub: 100% (2097152 of 2097152 bytes)"), "{good:?}");

    disk.scribble(20_000, b"rot");
    let bad = image(&["scrub"], &disk.path, &[]);
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    let lines: Vec<_> = text(&bad.stdout).lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("interval 39 at byte 19968: guard tag: expected 0x"), "{lines:?}");
    assert_eq!(lines[1], "4096 intervals, 1 bad, 3968 unprotected");

    let other = image(&["reseal"], &disk.path, &["0..39"]);
    assert_eq!(text(&other.stdout), "39 intervals, 0 resealed, 0 unreadable, 0 unprotected\n");
    assert_eq!(image(&["reseal"], &disk.path, &["39..38"]).status.code(), Some(2));
    let healed = image(&["reseal"], &disk.path, &["39"]);
    assert_eq!(healed.status.code(), Some(0), "{healed:?}");
    assert!(text(&healed.stdout).ends_with("1 intervals, 1 resealed, 0 unreadable, 0 unprotected\n"));
    assert_eq!(image(&["scrub"], &disk.path, &[]).status.code(), Some(0));
}

#[test]
fn scrub_when_the_disk_is_served_ends_with_2_and_the_owners_name() {
    let disk = Image::protected(1 << 20, dif());
    let store = open(&disk.spec(), OWNER).unwrap();
    let refused = image(&["scrub"], &disk.path, &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains(OWNER), "{refused:?}");
    drop(store);
}

fn probe(disk: &Path, keys: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_dixback");
    Command::new(program).arg("probe").arg(disk).args(keys).output().unwrap()
}

#[test]
fn probe_when_there_is_a_sidecar_or_none_says_what_is_used_and_what_is_missing() {
    let disk = Image::new(1 << 20);
    let plain = probe(&disk.path, &[]);
    assert_eq!(plain.status.code(), Some(0), "{plain:?}");
    let said = text(&plain.stdout);
    assert!(said.contains("dixback image protect") && said.contains("would serve it without PI"), "{said}");
    let refused = probe(&disk.path, &["pi=device"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stdout).contains("pi=device, but this keeps no PI"), "{refused:?}");
    let wrong = probe(&disk.path, &["guard=crc32"]);
    assert_eq!((wrong.status.code(), text(&wrong.stderr).contains("guard")), (Some(1), true));
    disk.protect(dif());
    let protected = text(&probe(&disk.path, &[]).stdout);
    assert!(
        protected.contains("with PI (kept by: sidecar): crc16-t10dif type 1, 8 bytes for 512"),
        "{protected}"
    );
    let json = text(&probe(&disk.path, &["--json"]).stdout);
    let told: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&told["kind"], &told["ways"][0]["usable"]), (&"regular file".into(), &true.into()));
    assert_eq!(
        (&told["decision"]["keeper"], &told["decision"]["pi"]["interval"]),
        (&"sidecar".into(), &512.into())
    );
}
