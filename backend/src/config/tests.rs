//! Target strings, nodes and the daemon's file, right and wrong.

use super::*;
use crate::queue::{AppTagRule, Integrity};
use crate::store::{CrashMode, Direct, PiSource};
use integrity::{AppTag, Guard};
use proptest::prelude::*;
use std::collections::HashMap;
use std::path::PathBuf;

fn reason(params: &str) -> String {
    DiskSpec::parse(params).unwrap_err().to_string()
}

#[test]
fn target_when_plain_then_every_key_is_at_its_default() {
    let spec = DiskSpec::new(Target::Path(PathBuf::from("/srv/a b,c=d.img")));
    assert_eq!(DiskSpec::parse("aio:/srv/a b,c=d.img").unwrap(), spec);
    assert_eq!(DiskSpec::parse("/srv/a b,c=d.img").unwrap(), spec);
}

#[test]
fn target_when_escaped_then_is_the_path_meant() {
    let spec = DiskSpec::parse("aio:/srv/what%3F 50%25 %26.img?pi=/p%26q%3F.pi").unwrap();
    assert_eq!(spec.target, Target::Path(PathBuf::from("/srv/what? 50% &.img")));
    assert_eq!(spec.pi, PiSource::Sidecar(PathBuf::from("/p&q?.pi")));
}

#[test]
fn keys_when_all_given_then_each_is_set() {
    let spec = DiskSpec::parse(
        "null:1GiB?pi=auto&integrity=require&guard=crc64-nvme&interval=4096&metadata-size=16&sector-size=4096&app-tag=0x1200/0xff00\
         &escape=allow&direct=off&queues=2&ring-order=3&indirect=64&pool=8MiB&discard=off&cache=1MiB&crash=bitmap",
    )
    .unwrap();
    assert_eq!(
        spec,
        DiskSpec {
            pi: PiSource::Auto,
            integrity: Integrity::Require,
            guard: Some(Guard::Crc64Nvme),
            interval: Some(4096),
            metadata_size: Some(16),
            sector_size: Some(4096),
            app_tag: AppTagRule::Operator(AppTag { value: 0x1200, mask: 0xff00 }),
            allow_escape: true,
            direct: Direct::Off,
            queues: Some(2),
            ring_order: Some(3),
            indirect: Some(64),
            pool: Some(8 << 20),
            discard: Some(false),
            cache: Some(1 << 20),
            crash: Some(CrashMode::Bitmap),
            ..DiskSpec::new(Target::Null("1GiB".to_owned()))
        }
    );
}

#[test]
fn target_when_nothing_to_serve_then_is_refused() {
    assert!(matches!(DiskSpec::parse(""), Err(ConfigError::NoTarget)));
    assert!(matches!(DiskSpec::parse("aio:?pi=auto"), Err(ConfigError::NoTarget)));
    for target in ["disk.img", "qcow2:/a", "vhd:/a", "aio:aio:/x", "/a\0b"] {
        assert!(reason(target).contains("neither an absolute path"), "{target:?}: {}", reason(target));
    }
}

#[test]
fn key_when_wrong_then_the_message_names_it_and_what_is_allowed() {
    assert!(reason("/d?integritty=auto").contains("\"integritty\" does not exist; there are pi, integrity,"));
    assert!(reason("/d?pi=auto&pi=none").contains("\"pi\" is given twice"));
    assert!(reason("/d?integrity=on").contains("off, auto or require"));
    assert!(reason("/d?").contains("\"\" does not exist"));
    assert!(reason("/d?integrity").contains("cannot be \"\""));
    assert!(reason("/d?integrity=auto&").contains("\"\" does not exist"));
    for (key, bad) in [
        ("pi", "relative.pi"),
        ("guard", "crc32"),
        ("interval", "520"),
        ("interval", "8192"),
        ("sector-size", "256"),
        ("app-tag", "0x1ffff"),
        ("app-tag", "0xffff"),
        ("app-tag", "0x1234/0x00ff"),
        ("app-tag", "0/0"),
        ("app-tag", "+5"),
        ("app-tag", "0x+5"),
        ("app-tag", ""),
        ("escape", "yes"),
        ("direct", "maybe"),
        ("queues", "0"),
        ("queues", "65"),
        ("queues", "+2"),
        ("ring-order", "5"),
        ("ring-order", "-1"),
        ("indirect", "10"),
        ("indirect", "257"),
        ("pool", "4"),
        ("pool", "2T"),
        ("discard", "1"),
        ("cache", "0"),
        ("crash", "journal"),
    ] {
        let message = reason(&format!("/d?{key}={bad}"));
        assert!(message.contains(&format!("{key:?}")), "{key}={bad}: {message}");
        assert!(message.contains(&format!("{bad:?}")), "{key}={bad}: {message}");
    }
}

#[test]
fn keys_when_they_contradict_each_other_then_are_refused() {
    for keys in ["integrity=require&pi=none", "integrity=off&app-tag=1", "pi=none&interval=512"] {
        assert!(reason(&format!("/d?{keys}")).contains("contradict"), "{keys}");
    }
}

fn nodes(given: &[(&str, &str)]) -> Result<DiskNodes, ConfigError> {
    let given: HashMap<_, _> = given.iter().map(|(k, v)| (*k, v.as_bytes().to_vec())).collect();
    DiskNodes::parse(&|node| given.get(node).cloned())
}

#[test]
fn nodes_when_as_libxl_writes_them_then_are_read() {
    let base = [("params", "aio:/d"), ("mode", "w"), ("device-type", "disk"), ("removable", "0")];
    let disk = nodes(&base).unwrap();
    assert!(!disk.read_only && !disk.cdrom && !disk.removable && disk.offers_discard());
    let disk = nodes(&[("params", "/d"), ("mode", "r"), ("discard-enable", "1")]).unwrap();
    assert!(disk.read_only && !disk.offers_discard());
    let disk = nodes(&[("params", "/d"), ("mode", "w"), ("discard-enable", "0")]).unwrap();
    assert!(!disk.offers_discard());
    let disk = nodes(&[("params", "/d?discard=off"), ("mode", "w"), ("discard-enable", "1")]).unwrap();
    assert!(!disk.offers_discard());
    let disk =
        nodes(&[("params", "/d"), ("mode", "w"), ("device-type", "cdrom"), ("removable", "1")]).unwrap();
    assert!(disk.read_only && disk.cdrom && disk.removable);
}

#[test]
fn nodes_when_missing_or_meaningless_then_are_refused_by_name() {
    assert!(matches!(nodes(&[("mode", "w")]), Err(ConfigError::NoTarget)));
    for (given, name) in [
        (vec![("params", "/d")], "mode"),
        (vec![("params", "/d"), ("mode", "w!")], "mode"),
        (vec![("params", "/d"), ("mode", "w"), ("discard-enable", "yes")], "discard-enable"),
        (vec![("params", "/d"), ("mode", "w"), ("removable", "2")], "removable"),
    ] {
        let message = nodes(&given).unwrap_err().to_string();
        assert!(message.contains(&format!("{name:?}")), "{message}");
    }
}

#[test]
fn sample_file_when_read_then_is_the_default() {
    // As it is, it sets nothing; with every key it says what goes without saying.
    let keys = SAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key,
        _ => line,
    });
    let keys = keys.collect::<Vec<_>>().join("\n");
    assert_eq!(toml::from_str::<toml::Table>(&keys).unwrap().len(), 16, "{keys}");
    assert!(toml::from_str::<toml::Table>(SAMPLE).unwrap().is_empty());
    let mut sample: DaemonConfig = toml::from_str(&keys).unwrap();
    sample.check().unwrap();
    let default = DaemonConfig::default();
    default.check().unwrap();
    // These two depend on the machine.
    (sample.queues, sample.xenstore) = (default.queues, default.xenstore.clone());
    assert_eq!(sample, default);
    assert_eq!(toml::from_str::<DaemonConfig>("").unwrap(), default);
}

#[test]
fn file_when_wrong_then_the_message_names_key_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dixback.toml");
    for (text, expected) in [
        ("kind = [\"vbd3\"]", "unknown field `kind`"),
        ("threads = -1", "line 1"),
        ("\n\npool = \"4 megabytes\"", "line 3"),
        ("spin = 5", "line 1"),
    ] {
        std::fs::write(&path, text).unwrap();
        let message = DaemonConfig::load(&path).unwrap_err().to_string();
        assert!(message.contains(expected), "{text}: {message}");
    }
    let missing = DaemonConfig::load(&dir.path().join("none.toml")).unwrap_err().to_string();
    assert!(missing.contains("none.toml"), "{missing}");
}

#[test]
fn setting_when_out_of_bounds_then_is_refused_by_name() {
    type Set = fn(&mut DaemonConfig);
    let wrong: [(&str, Set); 8] = [
        ("kinds", |c| c.kinds = vec!["a/b".to_owned()]),
        ("kinds", |c| c.kinds.clear()),
        ("script", |c| c.script = "/etc/xen/scripts/block-dix".to_owned()),
        ("threads", |c| c.threads = 0),
        ("queues", |c| c.queues = 0),
        ("indirect", |c| c.indirect = 5),
        ("pool", |c| c.pool = 4096),
        ("pool-total", |c| c.pool_total = 1 << 20),
    ];
    for (key, set) in wrong {
        let mut config = DaemonConfig::default();
        set(&mut config);
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains(&format!("{key:?}")), "{message}");
    }
}

proptest! {
    #[test]
    fn target_when_arbitrary_then_is_read_or_refused_with_a_reason(text in any::<String>()) {
        if let Err(error) = DiskSpec::parse(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn keys_when_arbitrary_then_are_read_or_refused_with_a_reason(
        pairs in proptest::collection::vec(("[a-z-]{0,12}", "[ -~]{0,12}"), 0..6)
    ) {
        let keys: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        if let Err(error) = DiskSpec::parse(&format!("/d?{}", keys.join("&"))) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn known_key_when_its_value_is_arbitrary_then_is_read_or_refused_by_name(
        key in 0..disk_keys().count(), value in any::<String>()
    ) {
        let (name, _) = disk_keys().nth(key).unwrap();
        let value = escape::encode(&value);
        if let Err(error) = DiskSpec::parse(&format!("/d?{name}={value}")) {
            prop_assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn nodes_when_arbitrary_then_are_read_or_refused_with_a_reason(
        values in proptest::collection::vec(proptest::option::of(any::<Vec<u8>>()), 5)
    ) {
        let names = ["params", "mode", "device-type", "discard-enable", "removable"];
        let read = |node: &str| values[names.iter().position(|name| *name == node)?].clone();
        if let Err(error) = DiskNodes::parse(&read) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
