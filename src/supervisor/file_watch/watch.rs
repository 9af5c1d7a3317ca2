//! Watching certificate files for changes, through whatever symlinks lead to them.
//!
//! The kernel reports changes (`inotify(7)`) of the files and of every directory on the way to them: a Kubernetes
//! secret is renewed by changing the target of one symlink in the middle. It does not report what other machines change
//! on a network file system, so the files are also polled at times. Files are written one after the other, so a pair
//! that does not match is given some time.
//!
//! [`Watch`] only decides when to look: looking may take long over the network, so it is done elsewhere.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// If nothing has changed for this long, writing is finished.
const SETTLED: Duration = Duration::from_millis(500);
/// If writing never stops, the files are read after this long.
const UNSETTLED: Duration = Duration::from_secs(5);
/// The interval between two looks at files that cannot be used.
const AGAIN: Duration = Duration::from_secs(1);
/// By then, a renewal is complete or has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// The interval at which files are checked without reading them, and at which files that still cannot be used are read
/// again.
const RARELY: Duration = Duration::from_mins(1);
/// As many symlinks as the kernel follows.
const MOST_LINKS: usize = 40;

/// What distinguishes one state of a file from another without reading it: its device and number, length and last
/// changes.
pub(super) type Identity = (u64, u64, u64, i64, i64, i64, i64);

/// What is to be done to find out whether there is something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Check whether the files have changed, without reading them: [`identities`].
    Compare,
    /// Read the files, and watch them from then on: [`Snapshot::of`].
    Read,
}

/// The files as they were found, and the kernel's watch over them, which began just before.
#[derive(Debug)]
pub struct Snapshot {
    inotify: Option<Inotify>,
    seen: Vec<Option<Identity>>,
}

impl Snapshot {
    /// Watch first, then look, so that a change in between is reported.
    #[must_use]
    pub fn of(paths: &[PathBuf]) -> Self {
        Self { inotify: watch(paths), seen: identities(paths) }
    }
}

/// A watch over files.
#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    inotify: Option<Inotify>,
    seen: Vec<Option<Identity>>,
    /// When to check without reading whether they have changed.
    compare_at: Instant,
    /// When to read the files, and since when that has been put off.
    due: Option<(Instant, Instant)>,
    /// Since when they have not been usable, and whether that was reported.
    unusable_since: Option<(Instant, bool)>,
}

/// What is to be done about files that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Nothing: they may be half of a renewal, or it was reported already.
    Wait,
    /// Report it.
    Report,
}

impl Watch {
    /// A watch that reads the files first: it is some time since they were read.
    #[must_use]
    pub fn new(paths: &[PathBuf], now: Instant) -> Self {
        let (due, compare_at) = (Some((now, now)), now + RARELY);
        Self { paths: paths.to_owned(), inotify: None, seen: Vec::new(), compare_at, due, unusable_since: None }
    }

    /// The files that are watched.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Becomes readable when there is a report.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// When there is something to do even without a report.
    #[must_use]
    pub fn next(&self) -> Instant {
        self.due.map_or(self.compare_at, |(due, _)| due.min(self.compare_at))
    }

    /// Processes the reports, and returns what is to be done now.
    pub fn take_task(&mut self, ready: &BTreeSet<RawFd>, now: Instant) -> Option<Task> {
        let news = self.inotify.as_ref().filter(|inotify| ready.contains(&inotify.as_fd().as_raw_fd()));
        if let Some(inotify) = news {
            while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
        }
        if news.is_some() || self.compare_at <= now {
            self.compare_at = now + RARELY;
            return Some(Task::Compare);
        }
        self.due.take_if(|(due, _)| *due <= now).map(|_| Task::Read)
    }

    /// The files were checked without reading them.
    pub fn compared(&mut self, found: &[Option<Identity>], now: Instant) {
        // Other files in the same directories do not matter.
        if found != self.seen {
            let since = self.due.map_or(now, |(_, since)| since);
            self.due = Some(((now + SETTLED).min(since + UNSETTLED), since));
            self.unusable_since = None;
        }
    }

    /// The files were read.
    pub fn was_read(&mut self, snapshot: Snapshot) {
        self.inotify = snapshot.inotify;
        self.seen = snapshot.seen;
    }

    /// The files are to be read again at this time, changed or not.
    pub fn read_again(&mut self, at: Instant) {
        self.due = Some((at, at));
    }

    /// The files can be used.
    pub fn usable(&mut self) {
        self.unusable_since = None;
    }

    /// The files cannot be used.
    pub fn unusable(&mut self, now: Instant) -> Unfit {
        let (since, said) = *self.unusable_since.get_or_insert((now, false));
        let is_old = now >= since + PATIENCE;
        self.unusable_since = Some((since, said || is_old));
        // Time alone may help: a certificate may not be valid yet.
        self.read_again(now + if is_old { RARELY } else { AGAIN });
        if is_old && !said { Unfit::Report } else { Unfit::Wait }
    }
}

/// What distinguishes one state of these files from another.
pub(super) fn identities(paths: &[PathBuf]) -> Vec<Option<Identity>> {
    let identity = |found: fs::Metadata| {
        let (changed, written) = ((found.ctime(), found.ctime_nsec()), (found.mtime(), found.mtime_nsec()));
        (found.dev(), found.ino(), found.len(), changed.0, changed.1, written.0, written.1)
    };
    paths.iter().map(|path| fs::metadata(path).ok().map(identity)).collect()
}

/// Asks the kernel to report changes; none if it cannot.
fn watch(paths: &[PathBuf]) -> Option<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
    let of_directories = AddWatchFlags::IN_ONLYDIR
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_ATTRIB;
    for directory in paths.iter().flat_map(|path| lookups(path)).collect::<BTreeSet<_>>() {
        // A directory that cannot be read cannot be watched.
        let _ = inotify.add_watch(&directory, of_directories);
    }
    // A file that is mounted by itself belongs to another directory than the one in which it appears.
    let of_files = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB;
    for path in paths {
        let _ = inotify.add_watch(path, of_files);
    }
    Some(inotify)
}

/// The directories in which a name is looked up on the way to the file, each of which may change its meaning; up to the
/// one that contains the file, or should contain what is missing.
fn lookups(path: &Path) -> BTreeSet<PathBuf> {
    let owned = |path: &Path| path.components().map(|part| part.as_os_str().to_owned()).collect::<Vec<OsString>>();
    let mut rest: VecDeque<OsString> = owned(path).into();
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    let mut found = BTreeSet::new();
    while let Some(name) = rest.pop_front() {
        match Path::new(&name).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => _ = at.pop(),
            Some(Component::Normal(name)) => {
                let next = at.join(name);
                found.insert(at.clone());
                if let Ok(target) = fs::read_link(&next) {
                    links += 1;
                    if links > MOST_LINKS {
                        break;
                    }
                    owned(&target).into_iter().rev().for_each(|part| rest.push_front(part));
                } else if rest.is_empty() || !next.exists() {
                    break;
                } else {
                    at = next;
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Whether the files are to be read now; if so, they are.
    fn is_due(watch: &mut Watch, ready: &BTreeSet<RawFd>, now: Instant) -> bool {
        let nothing = BTreeSet::new();
        let mut ready = ready;
        while let Some(task) = watch.take_task(ready, now) {
            if task == Task::Read {
                watch.was_read(Snapshot::of(&watch.paths));
                return true;
            }
            watch.compared(&identities(&watch.paths), now);
            ready = &nothing;
        }
        false
    }

    /// Waits for reports, and until it is time to look.
    fn looks_after(watch: &mut Watch, change: impl FnOnce()) -> bool {
        change();
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            let fd = watch.descriptor().unwrap();
            let mut fds = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
            let until = watch.next().min(deadline).saturating_duration_since(Instant::now());
            nix::poll::poll(&mut fds, u16::try_from(until.as_millis() + 1).unwrap()).unwrap();
            let ready = fds[0].any().unwrap().then(|| fd.as_raw_fd()).into_iter().collect();
            if is_due(watch, &ready, Instant::now()) {
                return true;
            }
            if watch.due.is_none() {
                return false;
            }
        }
        false
    }

    fn begun(path: &Path) -> Watch {
        let mut watch = Watch::new(&[path.to_owned()], Instant::now());
        assert!(is_due(&mut watch, &BTreeSet::new(), Instant::now()), "the files are read first");
        assert!(watch.due.is_none() && watch.next() > Instant::now() + RARELY / 2, "and then sleeps");
        watch
    }

    #[test]
    fn a_secret_that_changes_by_a_symlink_in_the_middle_is_noticed_time_and_again() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for version in ["v1", "v2", "v3"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("tls.crt"), version).unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/tls.crt", at("tls.crt")).unwrap();
        let mut watch = begun(&at("tls.crt"));
        for version in ["v2", "v3"] {
            assert!(looks_after(&mut watch, || {
                symlink(version, at("..tmp")).unwrap();
                fs::rename(at("..tmp"), at("..data")).unwrap();
            }));
        }
    }

    #[test]
    fn other_files_of_the_directory_are_no_reason_to_look() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cert.pem");
        fs::write(&path, "a").unwrap();
        let mut watch = begun(&path);
        assert!(!looks_after(&mut watch, || fs::write(directory.path().join("other"), "b").unwrap()));
        assert!(looks_after(&mut watch, || fs::write(&path, "bb").unwrap()));
        assert!(looks_after(&mut watch, || fs::remove_file(&path).unwrap()));
        assert!(looks_after(&mut watch, || fs::write(&path, "c").unwrap()));
    }

    #[test]
    fn half_a_renewal_is_waited_for_and_what_stays_is_reported_once() {
        let start = Instant::now();
        let mut watch = Watch::new(&[], start);
        assert!(is_due(&mut watch, &BTreeSet::new(), start));
        let (mut now, mut waits) = (start, 0);
        while watch.unusable(now) == Unfit::Wait {
            waits += 1;
            now = watch.next();
            assert!(is_due(&mut watch, &BTreeSet::new(), now));
        }
        assert_eq!(waits, 10);
        let (later, _) = watch.due.unwrap();
        assert_eq!(later, now + RARELY, "they are read again, but not soon");
        assert!(is_due(&mut watch, &BTreeSet::new(), later));
        assert_eq!(watch.unusable(later), Unfit::Wait, "it was reported");
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_seen_after_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cert.pem");
        fs::write(&path, "a").unwrap();
        let mut watch = begun(&path);
        watch.inotify = None;
        fs::write(&path, "bb").unwrap();
        let at = watch.next();
        assert!(!is_due(&mut watch, &BTreeSet::new(), at), "it may still be written");
        let settled = watch.next();
        assert!(is_due(&mut watch, &BTreeSet::new(), settled));
    }

    #[test]
    fn a_directory_that_another_takes_the_place_of_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["certs", "new"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("cert.pem"), name).unwrap();
        }
        let mut watch = begun(&at("certs/cert.pem"));
        assert!(looks_after(&mut watch, || {
            fs::rename(at("certs"), at("old")).unwrap();
            fs::rename(at("new"), at("certs")).unwrap();
        }));
    }

    #[test]
    fn every_directory_is_known_in_which_a_name_is_looked_up() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir_all(root.join("real/deep")).unwrap();
        fs::create_dir(root.join("links")).unwrap();
        symlink("../real", root.join("links/current")).unwrap();
        symlink(root.join("real/deep/file"), root.join("real/alias")).unwrap();
        let ancestors: BTreeSet<PathBuf> = root.ancestors().map(Path::to_owned).collect();
        let of = |names: &[&str]| -> BTreeSet<PathBuf> {
            ancestors.iter().cloned().chain(names.iter().map(|name| root.join(name))).collect()
        };
        assert_eq!(lookups(&root.join("links/current/alias")), of(&["links", "real", "real/deep"]));
        assert_eq!(lookups(&root.join("real/none/file")), of(&["real"]));
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(lookups(&root.join("loop")), ancestors);
    }
}
