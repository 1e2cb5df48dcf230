//! The subcommands.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hypervisor::{DomId, Frontend as Hypervisor};
use xenstore::Client;

use super::args::{
    Arguments, AttachArguments, BenchArguments, Command, Copy, Global, RequestArguments, RequestKind,
    VerifyArguments,
};
use super::progress::with_bar;
use crate::toolstack::{self, DiskConfig};
use crate::workload::{Access, BenchOptions, Verify, VerifyOptions, bench, copy_in, copy_out};
use crate::{Error, Frontend, Queue, Submission};

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Attach(attach) => return attach_disk(global, attach),
        Command::Detach => return detach_disk(global),
        _ => {}
    }
    let mut frontend = connect(global)?;
    let result = match &arguments.command {
        Command::Connect => stay(&frontend),
        Command::CopyIn(copy) => file_to_disk(&mut frontend, copy),
        Command::CopyOut(copy) => disk_to_file(&mut frontend, copy),
        Command::Verify(verify) => run_verify(&mut frontend, verify),
        Command::Bench(options) => run_bench(&mut frontend, global, options),
        Command::Request(request) => run_request(frontend.queue(0), request),
        Command::Attach(_) | Command::Detach => Ok(()),
    };
    // What went wrong first is what is told.
    let disconnected = frontend.disconnect();
    result.and(disconnected)
}

fn connect(global: &Global) -> Result<Frontend, Error> {
    let guest = global.guest()?;
    let hypervisor: Arc<dyn Hypervisor> = hypervisor::open(&global.hypervisor, guest)?;
    let client = Client::connect(guest_socket(&global.xenstore, guest))?;
    let path = frontend_path(guest, global);
    Frontend::connect(&hypervisor, &client, &path, global.connect_options())
}

fn frontend_path(guest: DomId, global: &Global) -> String {
    format!("/local/domain/{}/device/vbd/{}", guest.0, global.device)
}

/// The guest's own socket, where the server has one for each domain.
fn guest_socket(socket: &Path, guest: DomId) -> PathBuf {
    let mut own = OsString::from(socket);
    own.push(format!(".{}", guest.0));
    let own = PathBuf::from(own);
    if own.exists() { own } else { socket.to_owned() }
}

/// For programs that start this one: the line says that it is connected.
fn stay(frontend: &Frontend) -> Result<(), Error> {
    println!("connected\n{}", frontend.disk());
    std::io::stdout().flush().map_err(Error::system("standard output"))?;
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).map_err(Error::system("standard input"))?;
    if frontend.is_closed() { Err(Error::Closed) } else { Ok(()) }
}

fn file_to_disk(frontend: &mut Frontend, copy: &Copy) -> Result<(), Error> {
    let named = || format!("opening {}", copy.file.display());
    let mut file = File::open(&copy.file).map_err(Error::system(named()))?;
    let len = match copy.length {
        Some(len) => len,
        None => file.metadata().map_err(Error::system(named()))?.len(),
    };
    if copy.offset.checked_add(len).is_none_or(|end| end > frontend.disk().bytes()) {
        return Err(Error::Request("the file does not fit the disk"));
    }
    let queue = frontend.queue(0);
    with_bar(|progress| copy_in(queue, &mut file, copy.offset, len, progress))?;
    println!("copied {len} bytes to the disk");
    Ok(())
}

fn disk_to_file(frontend: &mut Frontend, copy: &Copy) -> Result<(), Error> {
    let named = || format!("creating {}", copy.file.display());
    let mut file = File::create(&copy.file).map_err(Error::system(named()))?;
    let len = copy.length.unwrap_or(frontend.disk().bytes().saturating_sub(copy.offset));
    let queue = frontend.queue(0);
    let escaped = with_bar(|progress| copy_out(queue, &mut file, copy.offset, len, progress))?;
    println!("copied {len} bytes from the disk");
    if escaped > 0 {
        println!("{escaped} intervals carried no protection (never written, or discarded)");
    }
    Ok(())
}

fn run_verify(frontend: &mut Frontend, arguments: &VerifyArguments) -> Result<(), Error> {
    let options = VerifyOptions {
        seed: arguments.seed,
        offset: arguments.offset,
        bytes: arguments.length,
        max_request: arguments.max_request,
        discard: arguments.discard,
        overlap: !arguments.no_overlap,
    };
    let verify = Verify::new(options, frontend.disk())?;
    verify.fill(frontend.queue(0))?;
    let report = verify.run(frontend, arguments.extent.limit(10))?;
    let last = verify.check(frontend.queue(0))?;
    println!(
        "verified: {} reads, {} writes, {} flushes, {} discards; {} blocks read were right, then all {}",
        report.reads, report.writes, report.flushes, report.discards, report.blocks, last.blocks,
    );
    match frontend.disk().dix {
        Some(profile) => println!("protection information was checked: {profile}"),
        None => println!("without protection information"),
    }
    Ok(())
}

fn run_bench(frontend: &mut Frontend, global: &Global, arguments: &BenchArguments) -> Result<(), Error> {
    let all = [Access::RandomRead, Access::RandomWrite, Access::SequentialRead, Access::SequentialWrite];
    let accesses = if arguments.access.is_empty() { &all[..] } else { &arguments.access };
    for (number, access) in accesses.iter().enumerate() {
        let options = BenchOptions {
            access: *access,
            bytes: arguments.bytes.unwrap_or(access.usual_bytes()),
            depth: global.depth().min(frontend.queue(0).depth()),
            limit: arguments.extent.limit(5),
            region: arguments.length,
        };
        let report = bench(frontend, options)?;
        if arguments.json {
            println!("{}", report.json());
        } else {
            println!("{}{report}", if number > 0 { "\n" } else { "" });
        }
    }
    Ok(())
}

fn run_request(queue: &mut Queue, arguments: &RequestArguments) -> Result<(), Error> {
    let data: Vec<u8> = (0..arguments.bytes).map(|at| (at / 512 + at) as u8).collect();
    let submission = match arguments.operation {
        RequestKind::Read => Submission::read(arguments.sector, arguments.bytes),
        RequestKind::Write => Submission::write(arguments.sector, &data),
        RequestKind::Barrier => Submission::barrier(arguments.sector, &data),
        RequestKind::Flush => Submission::flush(),
        RequestKind::Discard => Submission::discard(arguments.sector, arguments.bytes as u64 / 512),
    };
    queue.submit(&submission.faulty(arguments.fault))?;
    let Some(mut completion) = queue.complete()? else { return Err(Error::Closed) };
    let (status, payload) = completion.statuses();
    match payload {
        Some(payload) => println!("status {status:?}, protection information {payload:?}"),
        None => println!("status {status:?}"),
    }
    if arguments.operation as u8 == RequestKind::Read as u8 {
        let mut into = vec![0; arguments.bytes];
        let checked = completion.read_into(&mut into)?;
        if checked.escaped > 0 {
            println!("{} intervals carried no protection", checked.escaped);
        }
        return Ok(());
    }
    completion.check()
}

fn attach_disk(global: &Global, arguments: &AttachArguments) -> Result<(), Error> {
    let client = Client::connect(&global.xenstore)?;
    let guest = global.guest()?;
    toolstack::create_domain(&client, guest, &format!("guest-{}", guest.0))?;
    let config = DiskConfig {
        backend_domain: DomId(arguments.backend_domain),
        kind: arguments.kind.clone(),
        writable: !arguments.read_only,
        ..DiskConfig::new(guest, &arguments.vdev, &arguments.target)
    };
    let vbd = toolstack::attach(&client, &config, global.patience())?;
    println!("{}", vbd.backend());
    Ok(())
}

fn detach_disk(global: &Global) -> Result<(), Error> {
    let client = Client::connect(&global.xenstore)?;
    toolstack::find(&client, &frontend_path(global.guest()?, global))?.detach(global.patience())
}
