//! Where the control socket is, how it is created, and who may use it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::sockopt::{PeerCredentials, SendTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket};
use nix::sys::stat::{Mode, umask};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{Uid, geteuid};

use crate::host::{Environment, runtime_directories};
use crate::plan::Bind;
use crate::settings::value::AutoPath;

/// The name of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file.
    Path(PathBuf),
    /// A name in the abstract namespace, which does not need a file system.
    Abstract(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

impl Place {
    fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Path(path) => SocketAddr::from_pathname(path),
            Self::Abstract(name) => SocketAddr::from_abstract_name(name),
        }
    }

    /// Connects. If the listener's queue is full, this takes no longer than `patience`.
    ///
    /// # Errors
    /// The kernel's error; EAGAIN when `patience` has passed.
    pub fn connect(&self, patience: Duration) -> nix::Result<UnixStream> {
        let address = match self {
            Self::Path(path) => UnixAddr::new(path)?,
            Self::Abstract(name) => UnixAddr::new_abstract(name.as_bytes())?,
        };
        connect_to(&address, patience)
    }

    /// Connects to a launcher of our own or of root's: gives its process, too, where that can be seen from here.
    ///
    /// # Errors
    /// That there is none, or whose it is.
    pub fn own(&self, patience: Duration) -> Result<(UnixStream, Option<i32>), NotOwn> {
        let stream = match self {
            Self::Path(path) => connect_to_own_file(path, patience)?,
            Self::Abstract(_) => self.connect(patience).map_err(NotOwn::from)?,
        };
        // For a listener this is the process that called listen(2), and no other process can have done that.
        let peer = getsockopt(&stream, PeerCredentials).map_err(NotOwn::from)?;
        check_owner(peer.uid())?;
        Ok((stream, Some(peer.pid()).filter(|pid| *pid > 0)))
    }
}

/// Why there is no launcher that we can trust at this place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotOwn {
    /// Nobody listens there.
    Nobody,
    /// It belongs to this user, who is neither we nor root.
    Stranger(u32),
    /// It is ours or root's, but cannot be asked.
    Denied(Errno),
}

impl From<Errno> for NotOwn {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EACCES | Errno::EPERM | Errno::EAGAIN => Self::Denied(errno),
            _ => Self::Nobody,
        }
    }
}

fn check_owner(uid: u32) -> Result<(), NotOwn> {
    if uid == geteuid().as_raw() || uid == 0 { Ok(()) } else { Err(NotOwn::Stranger(uid)) }
}

/// Connects to the file whose owner was checked: another file, or a link to another program's socket, may be put in its
/// place in between.
fn connect_to_own_file(path: &Path, patience: Duration) -> Result<UnixStream, NotOwn> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = nix::fcntl::open(path, flags, Mode::empty()).map_err(NotOwn::from)?;
    let seen = nix::sys::stat::fstat(&file).map_err(NotOwn::from)?;
    check_owner(seen.st_uid)?;
    if seen.st_mode & libc::S_IFMT != libc::S_IFSOCK {
        return Err(NotOwn::Nobody);
    }
    let by_descriptor = UnixAddr::new(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str());
    connect_to(&by_descriptor.map_err(NotOwn::from)?, patience).map_err(NotOwn::from)
}

fn connect_to(address: &UnixAddr, patience: Duration) -> nix::Result<UnixStream> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // The send timeout also applies to connecting, unix(7).
    let millis = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX).max(1);
    setsockopt(&socket, SendTimeout, &TimeVal::milliseconds(millis))?;
    connect(socket.as_raw_fd(), address)?;
    Ok(socket.into())
}

/// Where a launcher puts its socket, in the order in which it tries; none when it is switched off.
#[must_use]
pub fn places(setting: &AutoPath, env: &Environment, bind: &Bind) -> Vec<Place> {
    match setting {
        AutoPath::Off => Vec::new(),
        AutoPath::At(path) => vec![Place::Path(path.clone())],
        AutoPath::Auto => {
            let name = bind.instance().file_stem();
            let files = runtime_directories(env).map(|directory| Place::Path(directory.join(format!("{name}.sock"))));
            files.chain([Place::Abstract(name.clone())]).collect()
        }
    }
}

/// A listening socket. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    place: Place,
    /// Device and inode of its file: the file there at the end may belong to another process.
    file: Option<(u64, u64)>,
}

impl Listener {
    /// Creates the socket at the first place where that works.
    ///
    /// # Errors
    /// Why it did not work at the first place.
    pub fn bind(places: &[Place]) -> Result<Self, String> {
        let mut first = None;
        for place in places {
            match Self::bind_at(place) {
                Ok(listener) => return Ok(listener),
                Err(why) => {
                    first.get_or_insert_with(|| format!("{place}: {why}"));
                }
            }
        }
        Err(first.unwrap_or_else(|| "no location for it".to_owned()))
    }

    fn bind_at(place: &Place) -> Result<Self, String> {
        if let Place::Path(path) = place {
            clear(path)?;
        }
        let text = |error: io::Error| error.to_string();
        let address = place.address().map_err(text)?;
        // This gives it its mode from the start. No other thread of ours creates files.
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind_addr(&address);
        umask(before);
        let socket = bound.map_err(text)?;
        socket.set_nonblocking(true).map_err(text)?;
        let file = match place {
            Place::Path(path) => std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino())),
            Place::Abstract(_) => None,
        };
        Ok(Self { socket, place: place.clone(), file })
    }

    /// The socket itself.
    #[must_use]
    pub const fn socket(&self) -> &UnixListener {
        &self.socket
    }

    #[cfg(test)]
    const fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Place::Path(path) = &self.place
            && std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino())) == self.file
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes what a killed predecessor left behind, and nothing else.
fn clear(path: &Path) -> Result<(), String> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !there.file_type().is_socket() {
        return Err("the path exists and is not a socket".into());
    }
    match Place::Path(path.to_owned()).connect(Duration::from_millis(200)) {
        Err(Errno::ECONNREFUSED) => {
            std::fs::remove_file(path).map_err(|error| format!("the old socket cannot be removed: {error}"))
        }
        Ok(_) | Err(Errno::EAGAIN) => Err("another process is listening there".into()),
        Err(errno) => Err(errno.desc().into()),
    }
}

/// Checks that a client may talk to us: only our own user and root may.
///
/// # Errors
/// Who it is, if it may not.
pub fn check_client(socket: &impl AsFd) -> Result<(), String> {
    let (own, client) = (geteuid(), peer(socket)?);
    if client == own || client.is_root() {
        return Ok(());
    }
    Err(format!("user {client} may not use this socket, which belongs to user {own}"))
}

fn peer(socket: &impl AsFd) -> Result<Uid, String> {
    let credentials = getsockopt(socket, PeerCredentials);
    credentials
        .map(|credentials| Uid::from_raw(credentials.uid()))
        .map_err(|errno| format!("cannot identify the peer: {}", errno.desc()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_alone::alone;
    use std::os::unix::fs::PermissionsExt;

    fn at(directory: &tempfile::TempDir, name: &str) -> Place {
        Place::Path(directory.path().join(name))
    }

    #[test]
    fn it_is_for_its_owner_only_and_is_removed_with_the_listener() {
        let directory = tempfile::tempdir().unwrap();
        let place = at(&directory, "a.sock");
        let listener = Listener::bind(std::slice::from_ref(&place)).unwrap();
        let Place::Path(path) = &place else { panic!() };
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        place.connect(Duration::from_secs(1)).unwrap();
        assert!(Listener::bind(std::slice::from_ref(&place)).unwrap_err().contains("another process is listening"));
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_link_to_a_socket_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (place, link) = (at(&directory, "a.sock"), directory.path().join("link.sock"));
        let _listener = Listener::bind(std::slice::from_ref(&place)).unwrap();
        std::os::unix::fs::symlink(directory.path().join("a.sock"), &link).unwrap();
        assert_eq!(place.own(Duration::from_secs(1)).unwrap().1, Some(std::process::id().cast_signed()));
        assert_eq!(Place::Path(link).own(Duration::from_secs(1)).unwrap_err(), NotOwn::Nobody);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_file_is_not() {
        alone(|| {
            let directory = tempfile::tempdir().unwrap();
            let (stale, file) = (at(&directory, "stale.sock"), at(&directory, "file.sock"));
            drop(UnixListener::bind(directory.path().join("stale.sock")).unwrap());
            Listener::bind(std::slice::from_ref(&stale)).unwrap();
            std::fs::write(directory.path().join("file.sock"), "precious").unwrap();
            assert!(Listener::bind(std::slice::from_ref(&file)).is_err());
            // The next place is used instead.
            assert_eq!(Listener::bind(&[file, stale.clone()]).unwrap().place(), &stale);
            assert_eq!(std::fs::read_to_string(directory.path().join("file.sock")).unwrap(), "precious");
        });
    }

    #[test]
    fn a_file_that_took_its_place_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let listener = Listener::bind(&[Place::Path(path.clone())]).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn without_a_file_system_a_name_will_do() {
        let name = format!("mcp-launch-test-{}", std::process::id());
        let places = [Place::Path("/nonexistent/a.sock".into()), Place::Abstract(name)];
        let listener = Listener::bind(&places).unwrap();
        assert_eq!(listener.place(), &places[1]);
        let client = places[1].connect(Duration::from_secs(1)).unwrap();
        check_client(&client).unwrap();
        assert_eq!(places[1].own(Duration::from_secs(1)).unwrap().1, Some(std::process::id().cast_signed()));
    }
}
