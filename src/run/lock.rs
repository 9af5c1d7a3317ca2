//! The lock that prevents a second instance. The kernel releases it however we end.
//!
//! A launcher holds an exclusive lock on the file that is named after its address. One on a single address also holds a
//! shared lock on the file of the wildcard address of its family, so that the wildcard and the single addresses exclude
//! each other without a race.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use crate::host::Instance;

/// A lock that we hold. Its files are removed when it is dropped.
#[derive(Debug)]
pub struct Lock(Vec<Held>);

#[derive(Debug)]
struct Held {
    file: Option<Flock<File>>,
    path: PathBuf,
}

/// The holder of a lock, as far as the file shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The file.
    pub path: PathBuf,
    /// The process.
    pub pid: Option<u32>,
    /// The address that it serves.
    pub serves: Option<String>,
}

/// Why the lock could not be taken.
#[derive(Debug)]
pub enum Refused {
    /// Another process holds it.
    Held(Holder),
    /// The file could not be used, with the reason.
    Unusable(PathBuf, String),
}

/// Whose files count as locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Those of any user: the path was set explicitly.
    Any,
    /// Our own and root's. In a world-writable directory, any user could otherwise prevent the start.
    OursOrRoot,
}

impl Lock {
    /// Takes the lock at this path.
    ///
    /// # Errors
    /// If it is held or the file cannot be used.
    pub fn named(path: &Path, serves: &str) -> Result<Self, Refused> {
        Ok(Self(vec![acquire(path, FlockArg::LockExclusiveNonblock, Owner::Any, serves)?]))
    }

    /// Takes the lock of an instance in a directory.
    ///
    /// # Errors
    /// If it is held, also by the instance on all addresses or, for that one, by one on a single address; or if a file
    /// cannot be used.
    pub fn of_instance(directory: &Path, instance: &Instance, serves: &str) -> Result<Self, Refused> {
        let path = |instance: &Instance| directory.join(format!("{}.lock", instance.file_stem()));
        let own = acquire(&path(instance), FlockArg::LockExclusiveNonblock, Owner::OursOrRoot, serves);
        let mut files = vec![own.map_err(|refused| name_single_address(refused, directory, instance))?];
        if let Some(all) = instance.on_all_addresses() {
            files.push(acquire(&path(&all), FlockArg::LockSharedNonblock, Owner::OursOrRoot, serves)?);
        }
        Ok(Self(files))
    }

    /// Passes the locks on to the program that is about to be executed, as descriptors above those that it knows by
    /// number.
    pub fn inherit(self) {
        const ABOVE: i32 = 100;
        for file in self.0.iter().filter_map(|held| held.file.as_ref()) {
            let _ = nix::fcntl::fcntl(file.as_fd(), nix::fcntl::FcntlArg::F_DUPFD(ABOVE));
        }
        std::mem::forget(self);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        // Others may share the lock. Only an exclusive holder removes the file: then no other process can have locked
        // it.
        if file.relock(FlockArg::LockExclusiveNonblock).is_ok() && is_at(&file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Takes one file.
fn acquire(path: &Path, how: FlockArg, owner: Owner, serves: &str) -> Result<Held, Refused> {
    let unusable = |why: String| Refused::Unusable(path.to_owned(), why);
    loop {
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path);
        let file = open.map_err(|error| unusable(why_not_opened(path, owner, &error)))?;
        let there = file.metadata().map_err(|error| unusable(error.to_string()))?;
        check(&there, owner).map_err(unusable)?;
        let mut file = match Flock::lock(file, how) {
            Ok(file) => file,
            Err((file, Errno::EWOULDBLOCK)) => return Err(Refused::Held(holder(path, file))),
            Err((_, errno)) => return Err(unusable(errno.desc().to_owned())),
        };
        // The holder before us may have removed the file between our opening and locking it.
        if !is_at(&file, path) {
            continue;
        }
        let _ = file.set_len(0);
        if matches!(how, FlockArg::LockExclusiveNonblock) {
            let _ = writeln!(file, "{}\n{serves}", std::process::id());
        }
        return Ok(Held { file: Some(file), path: path.to_owned() });
    }
}

/// Whether this file is one that we may lock and write to.
fn check(file: &Metadata, owner: Owner) -> Result<(), String> {
    if !file.is_file() {
        return Err("it is not a regular file".into());
    }
    // A hard link could lead to another file elsewhere.
    if file.nlink() > 1 {
        return Err("it has more than one name".into());
    }
    let uid = file.uid();
    if owner == Owner::OursOrRoot && uid != geteuid().as_raw() && uid != 0 {
        return Err(format!("it belongs to user {uid}"));
    }
    Ok(())
}

/// Describes what is in the way, if it belongs to another user.
fn why_not_opened(path: &Path, owner: Owner, error: &std::io::Error) -> String {
    let there = std::fs::symlink_metadata(path).ok();
    match there.and_then(|file| check(&file, owner).err()) {
        Some(why) => why,
        None => error.to_string(),
    }
}

/// What the holder of a lock wrote into the file.
fn holder(path: &Path, file: File) -> Holder {
    const LONGEST: u64 = 4096;
    let mut text = String::new();
    let _ = file.take(LONGEST).read_to_string(&mut text);
    let mut lines = text.lines();
    let pid = lines.next().and_then(|line| line.trim().parse().ok());
    Holder { path: path.to_owned(), pid, serves: lines.next().map(str::to_owned) }
}

/// The file of the wildcard address names no process when those on single addresses share it: looks for one of them.
fn name_single_address(refused: Refused, directory: &Path, instance: &Instance) -> Refused {
    let Refused::Held(Holder { pid: None, .. }) = refused else { return refused };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut holders = entries.filter_map(|entry| {
        let path = entry.path();
        let stem = path.file_name()?.to_str()?.strip_suffix(".lock")?;
        let is_one = Instance::from_file_stem(stem)?.on_all_addresses().as_ref() == Some(instance);
        let file =
            is_one.then(|| OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path).ok())??;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Err((file, Errno::EWOULDBLOCK)) => Some(holder(&path, file)),
            _ => None,
        }
    });
    holders.find(|holder| holder.pid.is_some()).map_or(refused, Refused::Held)
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), std::fs::symlink_metadata(path)) else { return false };
    (there.dev(), there.ino()) == (ours.dev(), ours.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(address: &str) -> Instance {
        Instance::tcp(address.parse().unwrap())
    }

    fn of(directory: &tempfile::TempDir, address: &str) -> Result<Lock, Refused> {
        Lock::of_instance(directory.path(), &instance(address), address)
    }

    fn serves(refused: Result<Lock, Refused>) -> String {
        match refused {
            Err(Refused::Held(holder)) => {
                assert_eq!(holder.pid, Some(std::process::id()));
                holder.serves.unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = Lock::named(&path, "127.0.0.1:80").unwrap();
        assert_eq!(serves(Lock::named(&path, "other")), "127.0.0.1:80");
        drop(lock);
        assert!(!path.exists(), "the file must be removed");
        Lock::named(&path, "").unwrap();
    }

    #[test]
    fn a_wildcard_and_single_addresses_of_its_family_exclude_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let one = of(&directory, "127.0.0.1:80").unwrap();
        let two = of(&directory, "127.0.0.2:80").unwrap();
        let six = of(&directory, "[::]:80").unwrap();
        let other_port = of(&directory, "0.0.0.0:81").unwrap();
        assert_eq!(serves(of(&directory, "127.0.0.1:80")), "127.0.0.1:80");
        assert_eq!(serves(of(&directory, "[::1]:80")), "[::]:80");
        assert!(serves(of(&directory, "0.0.0.0:80")).starts_with("127.0.0."));
        drop((one, six));
        assert_eq!(serves(of(&directory, "0.0.0.0:80")), "127.0.0.2:80");
        drop(two);
        let all = of(&directory, "0.0.0.0:80").unwrap();
        assert_eq!(serves(of(&directory, "127.0.0.1:80")), "0.0.0.0:80");
        drop(all);
        drop(other_port);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_stale_file_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["mcp-launch-127.0.0.1-80.lock", "mcp-launch-0.0.0.0-80.lock"] {
            std::fs::write(directory.path().join(name), "999999999\n0.0.0.0:80\n").unwrap();
        }
        let _lock = of(&directory, "127.0.0.1:80").unwrap();
        assert_eq!(serves(of(&directory, "0.0.0.0:80")), "127.0.0.1:80");
    }

    #[test]
    fn what_is_in_the_way_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let (path, precious) = (directory.path().join("lock"), directory.path().join("precious"));
        std::fs::write(&precious, "data").unwrap();
        let unusable = || match Lock::named(&path, "") {
            Err(Refused::Unusable(_, why)) => why,
            other => panic!("{other:?}"),
        };
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        assert!(unusable().contains("not a regular file"), "{}", unusable());
        std::fs::remove_file(&path).unwrap();
        std::fs::hard_link(&precious, &path).unwrap();
        assert!(unusable().contains("more than one name"), "{}", unusable());
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(unusable().contains("not a regular file"), "{}", unusable());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(unusable().contains("not a regular file"), "{}", unusable());
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "data");
    }
}
