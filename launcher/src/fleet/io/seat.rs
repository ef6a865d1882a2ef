//! Where a running `svcmap up` is found: a socket in the user's own runtime folder, named after the
//! topology's file, and a lock beside it that only the living hold.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::errors::Failure;
use crate::topology::FILE_NAME;

/// The socket that commands talk to, as long as this lives.
pub struct Seat {
    /// What they come to.
    pub listener: UnixListener,
    socket: PathBuf,
    lock: PathBuf,
    _held: File,
    /// The topology's file, locked as well: another environment may have another folder.
    _topology: File,
}

/// A `svcmap up` that runs.
pub struct Found {
    /// To it.
    pub stream: UnixStream,
    /// Which topology it keeps.
    pub path: PathBuf,
    /// Whether it was not named, and is none of this folder.
    pub is_elsewhere: bool,
}

impl Seat {
    /// That of the topology in that file, which nobody else keeps.
    ///
    /// # Errors
    /// If somebody does, or the folder is not the user's own.
    pub fn take(path: &Path) -> Result<Self, Failure> {
        let topology = File::open(path).map_err(|error| of(path, &error))?;
        if flock(&topology, FlockOperation::NonBlockingLockExclusive).is_err() {
            let holder =
                find(Some(path)).ok().and_then(|found| holder(&names(&folder(), &found.path).0));
            return Err(taken(path, holder));
        }
        let folder = own_folder()?;
        let (lock, socket) = names(&folder, path);
        let held = hold(&lock, path)?;
        // Whoever left it is gone, as the lock is ours.
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(of(&socket, &error)),
            _ => {}
        }
        let listener = UnixListener::bind(&socket).map_err(|error| of(&socket, &error))?;
        listener.set_nonblocking(true).map_err(|error| of(&socket, &error))?;
        Ok(Self { listener, socket, lock, _held: held, _topology: topology })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // The lock goes last, and is still held then.
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_file(&self.lock);
    }
}

/// Opens the lock and holds it. Its file may have been removed between the two: then again.
fn hold(lock: &Path, path: &Path) -> Result<File, Failure> {
    loop {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(lock)
            .map_err(|error| of(lock, &error))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(taken(path, holder(lock)));
        }
        let is_it = fs::metadata(lock).is_ok_and(|there| {
            file.metadata().is_ok_and(|held| (held.dev(), held.ino()) == (there.dev(), there.ino()))
        });
        if is_it {
            let text = format!("{}\n{}\n", std::process::id(), path.display());
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| file.write_all(text.as_bytes()))
                .map_err(|error| of(lock, &error))?;
            return Ok(file);
        }
    }
}

/// Who holds that lock.
fn holder(lock: &Path) -> Option<u32> {
    fs::read_to_string(lock).ok()?.lines().next()?.parse().ok()
}

fn taken(path: &Path, holder: Option<u32>) -> Failure {
    let path = path.display();
    match holder {
        Some(pid) => Failure::usage(format!(
            "{path} is kept by another svcmap up already, pid {pid}: svcmap ps shows what it keeps, \
             svcmap plan what would change"
        ))
        .fix(format!("kill -HUP {pid} applies the file")),
        None => Failure::usage(format!("{path} is kept by another svcmap up already"))
            .fix("svcmap ps, where it was started"),
    }
}

/// The `svcmap up` of that file; of the one here if none is named; where there is none, the only one that
/// runs.
///
/// # Errors
/// If there is none, or several.
pub fn find(named: Option<&Path>) -> Result<Found, Failure> {
    if let Some(named) = named {
        let path = std::path::absolute(named).map_err(|error| of(named, &error))?;
        return reach(&path).ok_or_else(|| nobody(&path.display().to_string(), named));
    }
    let here = Path::new(FILE_NAME);
    if here.exists() {
        let path = std::path::absolute(here).map_err(|error| of(here, &error))?;
        // Another one that runs has nothing to do with this one.
        return reach(&path).ok_or_else(|| nobody(&path.display().to_string(), Path::new("")));
    }
    let mut all = running();
    match (all.pop(), all.pop()) {
        (Some(only), None) => Ok(Found { is_elsewhere: true, ..only }),
        (None, _) => Err(Failure::unavailable(format!(
            "no svcmap up runs, and there is no {FILE_NAME} here that one could keep"
        ))
        .fix("svcmap init && svcmap up")),
        (Some(one), Some(other)) => {
            let (a, b) = (one.path.display(), other.path.display());
            Err(Failure::usage(format!(
                "several svcmap up run, of {a}, {b}{}",
                if all.is_empty() { "" } else { " and more" }
            ))
            .fix("say which: --file FILE"))
        }
    }
}

fn nobody(what: &str, named: &Path) -> Failure {
    let command = format!("svcmap up {}", named.display());
    Failure::unavailable(format!("no svcmap up runs that keeps {what}")).fix(command.trim_end())
}

fn reach(path: &Path) -> Option<Found> {
    let folder = folder();
    if !is_own(&folder) {
        return None;
    }
    let (_, socket) = names(&folder, path);
    let stream = UnixStream::connect(socket).ok()?;
    Some(Found { stream, path: path.to_owned(), is_elsewhere: false })
}

/// All of this user that run.
fn running() -> Vec<Found> {
    let entries = fs::read_dir(folder()).into_iter().flatten().flatten();
    let locks = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "lock"));
    let paths = locks.filter_map(|lock| {
        let text = fs::read_to_string(lock).ok()?;
        Some(PathBuf::from(text.lines().nth(1)?))
    });
    paths.filter_map(|path| reach(&path)).collect()
}

/// The folder for what lives no longer than its process.
fn folder() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match runtime.filter(|path| path.is_absolute()) {
        Some(runtime) => runtime.join("svcmap"),
        None => std::env::temp_dir().join(format!("svcmap-{}", rustix::process::getuid().as_raw())),
    }
}

/// The same, made if it is missed, and nobody else's.
fn own_folder() -> Result<PathBuf, Failure> {
    let folder = folder();
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(of(&folder, &error)),
        _ => {}
    }
    if !is_own(&folder) {
        return Err(Failure::usage(format!(
            "{} is not a folder that only you can use",
            folder.display()
        ))
        .fix(format!(
            "chmod 700 {0}; or set XDG_RUNTIME_DIR to a folder of your own",
            folder.display()
        )));
    }
    Ok(folder)
}

/// Whether nobody else has put anything there: what listens there is believed.
fn is_own(folder: &Path) -> bool {
    fs::symlink_metadata(folder).is_ok_and(|found| {
        let is_own = found.uid() == rustix::process::getuid().as_raw();
        is_own && found.mode() & 0o077 == 0 && found.is_dir()
    })
}

/// The lock and the socket of a topology. A socket's path has some 100 bytes at most, so they are
/// called after a hash (FNV-1a, 64 bits) of its file's path.
fn names(folder: &Path, path: &Path) -> (PathBuf, PathBuf) {
    let hash =
        path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let named = |end: &str| folder.join(format!("{hash:016x}.{end}"));
    (named("lock"), named("sock"))
}

fn of(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display())).fix(format!("ls -l {}", path.display()))
}
