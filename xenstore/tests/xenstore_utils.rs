//! The embedded server under clients written by others: Debian's xenstore-utils, which use Xen's libxenstore.
//!
//! The library finds the socket by `XENSTORED_PATH`. Skipped where the programs are not installed.

#[allow(dead_code)]
mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::skipped;
use xenstore::server::{Server, ServerConfig};
use xenstore::{Client, Permission};

fn tool(name: &str, socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(format!("xenstore-{name}"));
    command.args(arguments).env("XENSTORED_PATH", socket).stdin(Stdio::null());
    command
}

fn run(name: &str, socket: &Path, arguments: &[&str]) -> Output {
    tool(name, socket, arguments).output().unwrap()
}

/// What a tool prints, which must succeed.
fn output(name: &str, socket: &Path, arguments: &[&str]) -> String {
    let output = run(name, socket, arguments);
    assert!(output.status.success(), "xenstore-{name} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn installed(test: &str) -> bool {
    let found = Command::new("xenstore-ls").arg("-h").output().is_ok();
    if !found {
        skipped(&format!("xenstore_utils {test}"), "no xenstore-ls here (Debian: package xenstore-utils)");
    }
    found
}

#[test]
fn tools_when_run_on_the_embedded_server_then_read_and_write_it() {
    if !installed("tools_when_run_on_the_embedded_server_then_read_and_write_it") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path().join("socket"), ServerConfig::default()).unwrap();
    let client = Client::connect(server.socket()).unwrap();
    let socket = server.socket();
    output("write", socket, &["/vm/name", "guest one", "/vm/memory", "512"]);
    assert_eq!(client.read_string("/vm/name").unwrap(), "guest one");
    assert_eq!(output("read", socket, &["/vm/name", "/vm/memory"]), "guest one\n512\n");
    assert_eq!(output("list", socket, &["/vm"]), "name\nmemory\n");
    output("exists", socket, &["/vm/name"]);
    assert!(!run("exists", socket, &["/vm/none"]).status.success());
    assert!(!run("read", socket, &["/vm/none"]).status.success());
    output("chmod", socket, &["-r", "/vm", "n0", "r7"]);
    for path in ["/vm", "/vm/name"] {
        assert_eq!(client.permissions(path).unwrap(), [Permission::none(0), Permission::read(7)]);
    }
    assert_eq!(
        output("ls", socket, &["-fp", "/vm"]),
        "/vm/name = \"guest one\"   (n0,r7)\n/vm/memory = \"512\"   (n0,r7)\n"
    );
    output("rm", socket, &["/vm/name"]);
    assert_eq!(client.directory("/vm").unwrap(), ["memory"]);
}

/// xenstore-ls walks it with DIRECTORY_PART.
#[test]
fn tools_when_a_listing_is_longer_than_a_message_then_show_all_of_it() {
    if !installed("tools_when_a_listing_is_longer_than_a_message_then_show_all_of_it") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path().join("socket"), ServerConfig::default()).unwrap();
    let client = Client::connect(server.socket()).unwrap();
    let expected: String = (0..2000).map(|number| format!("/many/child-number-{number} = \"\"\n")).collect();
    for number in 0..2000 {
        client.mkdir(&format!("/many/child-number-{number}")).unwrap();
    }
    assert_eq!(output("ls", server.socket(), &["-f", "/many"]), expected);
}

#[test]
fn tools_when_watching_then_hear_of_changes_in_order() {
    if !installed("tools_when_watching_then_hear_of_changes_in_order") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path().join("socket"), ServerConfig::default()).unwrap();
    let client = Client::connect(server.socket()).unwrap();
    let mut watching =
        tool("watch", server.socket(), &["-n", "4", "/a"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    // The first event says that the watch is there.
    assert_eq!(lines.next().unwrap().unwrap(), "/a");
    client.write("/a/b", "").unwrap();
    client.write("/elsewhere", "").unwrap();
    client.transaction(|transaction| transaction.write("/a/c", "")).unwrap();
    client.remove("/a").unwrap();
    let heard: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(heard, ["/a/b", "/a/c", "/a"]);
    assert!(watching.wait().unwrap().success());
}
