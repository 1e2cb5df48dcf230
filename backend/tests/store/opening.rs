//! Opening: who may, what is refused with which words, what is reported.

use crate::driver::Driver;
use crate::support::{Image, OWNER, dif, scribble, skip};
use dixback::store::{Direct, PiSource, StoreError, StoreSpec, open, probe};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

fn refusal(spec: &StoreSpec) -> String {
    let error = open(spec, "second").err().expect("it must be refused");
    let text = error.to_string();
    assert!(text.contains("disk.img"), "the path is named: {text}");
    text
}

#[test]
fn open_when_open_in_this_process_is_refused_by_the_owners_name() {
    for image in [Image::protected(1 << 20, dif()), Image::new(1 << 20)] {
        let store = image.open();
        let text = refusal(&image.spec());
        let process = format!("process {}", std::process::id());
        assert!(text.contains("is in use by") && text.contains(&process), "{text}");
        if store.capabilities().profile.is_some() {
            assert!(text.contains(OWNER) && text.contains("on host "), "{text}");
            // Whatever way somebody comes to the data or the sidecar.
            assert!(refusal(&StoreSpec { pi: PiSource::None, ..image.spec() }).contains(OWNER));
        }
        assert!(refusal(&StoreSpec { read_only: true, ..image.spec() }).contains("is in use by"));
        store.close().unwrap();
        drop(store);
        image.open().close().unwrap();
    }
}

#[test]
fn open_when_readers_have_it_lets_readers_in_and_writers_not() {
    let image = Image::protected(1 << 20, dif());
    let spec = StoreSpec { read_only: true, ..image.spec() };
    let header = std::fs::read(image.sidecar()).unwrap();
    let readers = [open(&spec, "a").unwrap(), open(&spec, "b").unwrap()];
    assert!(refusal(&image.spec()).contains("is in use by process"));
    for reader in readers {
        reader.close().unwrap();
    }
    assert_eq!(std::fs::read(image.sidecar()).unwrap(), header, "readers write nothing");
    image.open().close().unwrap();
}

/// Not a test of its own: the other process of the one below.
#[test]
fn helper_when_asked_holds_a_disk_until_its_input_ends() {
    let Some(path) = std::env::var_os("DIXBACK_TEST_HOLD") else { return };
    let store = open(&StoreSpec::new(path), "the other process").unwrap();
    println!("\nHOLDS");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read_line(&mut String::new());
    drop(store);
}

#[test]
fn open_when_open_in_another_process_is_refused_by_name_until_that_ends() {
    let image = Image::protected(1 << 20, dif());
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "opening::helper_when_asked_holds_a_disk_until_its_input_ends", "--nocapture"])
        .env("DIXBACK_TEST_HOLD", &image.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "HOLDS"));
    let text = refusal(&image.spec());
    assert!(text.contains("the other process"), "{text}");
    assert!(text.contains(&format!("process {}", other.id())), "{text}");
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    // It was not closed, so whoever had it is named once more.
    let store = image.open();
    let report = store.attach_report().expect("it was not closed").to_string();
    assert!(report.contains("not closed") && report.contains("the other process"), "{report}");
}

#[test]
fn attach_report_when_data_was_changed_from_outside_names_the_commands() {
    let image = Image::protected(1 << 20, dif());
    let store = image.open();
    assert_eq!(store.attach_report(), None);
    let mut driver = Driver::new(&store);
    driver.write(0, &[1; 4096], 0, false).unwrap();
    drop(driver);
    store.close().unwrap();
    drop(store);
    assert_eq!(image.open().attach_report(), None, "and is dropped without a close");
    let store = image.open();
    assert!(store.attach_report().unwrap().unclean.is_some());
    store.close().unwrap();
    drop(store);

    // A clock that ticks slowly must not hide the change.
    let stamp = std::fs::metadata(&image.path).unwrap().modified().unwrap();
    while std::fs::metadata(&image.path).unwrap().modified().unwrap() == stamp {
        image.scribble(0, &[7]);
    }
    let store = image.open();
    let report = store.attach_report().unwrap();
    assert!(report.modified && report.unclean.is_none() && report.size.is_none());
    let text = report.to_string();
    assert!(text.contains("changed from outside"), "{text}");
    for tool in ["scrub", "reseal"] {
        assert!(text.contains(&format!("dixback image {tool} {}", image.path.display())), "{text}");
    }
    // Served all the same: the changed interval does not match, the others do.
    let mut driver = Driver::new(&store);
    let (data, metadata) = driver.read(0, 4096).unwrap();
    let mismatch = dif().verify(&data, &metadata, &integrity::Expected::new(0)).unwrap_err();
    assert_eq!(mismatch.interval, 0);
    assert!(dif().verify(&data[512..], &metadata[8..], &integrity::Expected::new(1)).is_ok());
    drop(driver);
    store.close().unwrap();
    drop(store);
    assert_eq!(image.open().attach_report(), None);
}

#[test]
fn open_when_the_data_has_grown_serves_what_is_covered_and_reports() {
    let image = Image::protected(1 << 20, dif());
    File::options().write(true).open(&image.path).unwrap().set_len(2 << 20).unwrap();
    let store = image.open();
    assert_eq!(store.geometry().bytes, 1 << 20);
    let report = store.attach_report().unwrap();
    assert_eq!((report.size, report.covered), (Some(2 << 20), 1 << 20));
    assert!(report.to_string().contains("2097152 bytes"), "{report}");
}

#[test]
fn open_when_the_data_is_shorter_is_refused() {
    let image = Image::protected(1 << 20, dif());
    File::options().write(true).open(&image.path).unwrap().set_len(1 << 19).unwrap();
    for error in [open(&image.spec(), "x").err().unwrap(), probe(&image.spec()).unwrap_err()] {
        assert!(matches!(error, StoreError::DataShorter { found: 0x80000, needed: 0x100000, .. }), "{error}");
        assert!(error.to_string().contains("image protect --force"), "{error}");
    }
}

#[test]
fn open_when_one_header_copy_is_damaged_uses_the_other_and_reports() {
    for copy in [0, 32 << 10] {
        let image = Image::protected(1 << 20, dif());
        scribble(&image.sidecar(), copy + 300, b"rot");
        let store = image.open();
        assert!(store.attach_report().unwrap().damaged);
        store.close().unwrap();
        drop(store);
        // Opening and closing have written both copies anew.
        assert_eq!(image.open().attach_report(), None);
    }
}

#[test]
fn open_when_the_sidecar_cannot_be_used_says_why() {
    let expect = |change: fn(&Image), words: &[&str]| {
        let image = Image::protected(1 << 20, dif());
        change(&image);
        for text in [refusal(&image.spec()), probe(&image.spec()).unwrap_err().to_string()] {
            assert!(text.contains("disk.img.pi"), "{text}");
            for word in words {
                assert!(text.contains(word), "{word:?} is not in {text}");
            }
        }
    };
    expect(
        |image| {
            scribble(&image.sidecar(), 300, b"rot");
            scribble(&image.sidecar(), (32 << 10) + 300, b"rot");
        },
        &["both copies of the header are damaged", "image protect --force"],
    );
    expect(|image| std::fs::write(image.sidecar(), b"").unwrap(), &["no PI sidecar"]);
    expect(|image| std::fs::write(image.sidecar(), vec![7; 1 << 20]).unwrap(), &["no PI sidecar"]);
    expect(
        |image| {
            // Version 2, with the checksum that it should have.
            for copy in [0, 32 << 10] {
                let mut block = std::fs::read(image.sidecar()).unwrap()[copy..copy + 4096].to_vec();
                block[8] = 2;
                block[16..24].fill(0);
                let sum = crc_fast::crc64_nvme(&block);
                block[16..24].copy_from_slice(&sum.to_le_bytes());
                scribble(&image.sidecar(), copy as u64, &block);
            }
        },
        &["format version 2", "newer dixback"],
    );
    expect(
        |image| File::options().write(true).open(image.sidecar()).unwrap().set_len((1 << 20) + 4096).unwrap(),
        &["cut short", "1052672 of 1064960 bytes", "image protect --force"],
    );
}

#[test]
fn open_when_the_path_is_no_disk_says_what_it_is() {
    let image = Image::new(1 << 20);
    let text = |spec: &StoreSpec| {
        let (opened, probed) = (open(spec, "x").err().unwrap(), probe(spec).unwrap_err());
        assert_eq!(opened.to_string(), probed.to_string());
        opened.to_string()
    };
    let folder = image.path.parent().unwrap();
    assert!(text(&StoreSpec::new(folder)).contains("is a directory"));
    assert!(text(&StoreSpec::new("/dev/null")).contains("a special file"));
    assert!(text(&StoreSpec::new(folder.join("none"))).contains("No such file"));
    let missing = StoreSpec { pi: PiSource::Sidecar(folder.join("none.pi")), ..image.spec() };
    let found = text(&missing);
    assert!(found.contains("none.pi") && found.contains("dixback image protect"), "{found}");
    File::options().write(true).open(&image.path).unwrap().set_len(1000).unwrap();
    let found = text(&image.spec());
    assert!(found.contains("1000 bytes") && found.contains("truncate -s %512"), "{found}");
    File::options().write(true).open(&image.path).unwrap().set_len(0).unwrap();
    assert!(text(&image.spec()).contains("is empty"));
}

#[test]
fn probe_when_a_sidecar_is_there_says_what_open_will_find_and_writes_nothing() {
    let image = Image::protected(1 << 20, dif());
    let before = std::fs::read(image.sidecar()).unwrap();
    let found = probe(&image.spec()).unwrap();
    assert_eq!(found.capabilities.profile, Some(dif()));
    assert_eq!(std::fs::read(image.sidecar()).unwrap(), before);
    let store = image.open();
    // While it is served, too.
    assert_eq!(probe(&image.spec()).unwrap(), found);
    assert_eq!((store.geometry(), store.capabilities()), (found.geometry, found.capabilities));
    let plain = probe(&StoreSpec { pi: PiSource::None, ..image.spec() }).unwrap();
    assert_eq!(plain.capabilities.profile, None);
}

#[test]
fn direct_when_demanded_is_used_or_refused() {
    let image = Image::new(1 << 20);
    match open(&StoreSpec { direct: Direct::On, ..image.spec() }, "direct") {
        Ok(store) => {
            let mut driver = Driver::new(&store);
            driver.write(512, &[1; 512], 0, false).unwrap();
            assert_eq!(driver.read(512, 512).unwrap().0, [1; 512]);
        }
        Err(error) => {
            assert!(error.to_string().contains("direct=auto"), "{error}");
            skip("direct_when_demanded", "the file system of temporary files has no direct I/O");
        }
    }
}
