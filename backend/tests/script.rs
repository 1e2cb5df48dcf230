//! The hotplug script `block-dix`, run by the shell as libxl runs it, on the embedded xenstore.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use xenstore::Client;
use xenstore::server::{Server, ServerConfig, ServerHandle};

const DISK: &str = "/local/domain/0/backend/vbd3/1/51712";

struct Place {
    server: ServerHandle,
    client: Client,
    _dir: tempfile::TempDir,
}

/// An embedded xenstore, or none where the programs that the script runs are missing.
fn place(test: &str) -> Option<Place> {
    if Command::new("xenstore-read").arg("-h").output().is_err() {
        let line = format!("SKIPPED {test}: no xenstore-read here (Debian: package xenstore-utils)\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
        if let Some(log) = std::env::var_os("DIXBACK_SKIP_LOG") {
            let file = std::fs::File::options().append(true).create(true).open(log);
            let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
        }
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("socket"), ServerConfig::default()).unwrap();
    let client = Client::connect(server.socket()).unwrap();
    Some(Place { server, client, _dir: dir })
}

impl Place {
    fn run(&self, action: &str) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/block-dix");
        let mut command = Command::new("sh");
        command.arg(script).arg(action).env("XENBUS_PATH", DISK).env("DIXBACK_SCRIPT_PATIENCE", "0");
        command.env("XENSTORED_PATH", self.server.socket()).stdin(Stdio::null()).output().unwrap()
    }

    fn write(&self, node: &str, value: &str) {
        self.client.write(&format!("{DISK}/{node}"), value).unwrap();
    }

    fn read(&self, node: &str) -> Option<String> {
        self.client.read_string(&format!("{DISK}/{node}")).ok()
    }
}

#[test]
fn add_when_the_disk_was_offered_then_says_connected() {
    let Some(place) = place("add_when_the_disk_was_offered_then_says_connected") else { return };
    place.write("state", "2");
    assert!(place.run("add").status.success());
    assert_eq!(place.read("hotplug-status").as_deref(), Some("connected"));
    assert!(place.run("remove").status.success());
}

#[test]
fn add_when_the_disk_cannot_be_served_then_fails_with_the_reason_to_the_letter() {
    let Some(place) = place("add_when_the_disk_cannot_be_served_then_fails_with_the_reason_to_the_letter")
    else {
        return;
    };
    for reason in ["/srv/a b.img: no such file", r#"/srv/$(echo x)`id`\n"';*?[: is in use"#, "-h", "  two"] {
        place.write("state", "2");
        place.write("error", reason);
        let output = place.run("add");
        assert_eq!(output.status.code(), Some(1), "{reason}");
        assert_eq!(place.read("hotplug-error").as_deref(), Some(reason));
        assert_eq!(place.read("hotplug-status").as_deref(), Some("error"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(reason) && said.contains(DISK), "{said}");
    }
}

#[test]
fn add_when_nobody_serves_the_disk_then_says_what_to_look_at() {
    let Some(place) = place("add_when_nobody_serves_the_disk_then_says_what_to_look_at") else { return };
    place.write("state", "1");
    assert_eq!(place.run("add").status.code(), Some(1));
    let said = place.read("hotplug-error").unwrap();
    assert!(said.contains("dixback") && said.contains("--kind vbd3"), "{said}");
}

#[test]
fn add_when_the_disk_is_gone_then_fails_and_does_not_make_its_directory_again() {
    let Some(place) = place("add_when_the_disk_is_gone_then_fails_and_does_not_make_its_directory_again")
    else {
        return;
    };
    assert_eq!(place.run("add").status.code(), Some(1));
    assert!(place.client.read(DISK).is_err(), "{:?}", place.client.directory(DISK));
}
