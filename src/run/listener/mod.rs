//! Where clients arrive: the port is ours for as long as we live, whatever happens behind it.
//!
//! A Gunicorn generation inherits its listening socket from us, one per generation, in one group that shares the port
//! (`SO_REUSEPORT`). A classic BPF program on the group decides who gets new connections, so that a new generation gets
//! none before it is ready, and the old one none while it finishes its requests. While nothing serves, clients wait in
//! the queue of the socket that we keep.
//!
//! Granian's workers listen for themselves, in the same group. To steer, a copy of one of their sockets is enough: we
//! take one if the kernel permits it, and otherwise borrow it through the guard, unless the workers were spawned and
//! inherited nothing. `supervisor/steering.rs` describes the order in which the members of the group change their
//! numbers, which all of this depends on.
//!
//! Generations on a Unix socket bind their own path, which is renamed to the public one.

pub mod borrowed;
mod further;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr, ReusePort};
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, getsockname, listen,
    setsockopt, shutdown, socket,
};
use nix::unistd::Pid;

use self::further::Further;
use crate::ids::GenerationId;
use crate::plan::Bind;
use crate::problem::{Exit, Problem};
use crate::proc::process::name;
use crate::sys::reuseport::{share, steer, unsteer};

/// The place where clients arrive.
///
/// Each generation that takes its listening socket from us gets one of its own, so that new clients can be steered
/// to one generation while the other still accepts what waits for it. A socket whose generation is gone is kept if
/// it is the only one: clients wait in it until the next generation takes it over.
#[derive(Debug)]
pub struct Listeners {
    bind: Bind,
    /// Bound and never listening: it keeps the port. None for Unix sockets.
    #[allow(dead_code, reason = "held, not used")]
    holder: Option<OwnedFd>,
    /// In the order in which the kernel numbers the members of the group that share the port.
    sockets: Vec<Listener>,
    /// Listening, and never chosen: see [`Self::pad`].
    padding: Vec<OwnedFd>,
    /// What is served as well.
    further: Further,
}

/// A listening socket.
#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    /// Whose it is.
    generation: Option<GenerationId>,
}

impl Listeners {
    /// Takes the addresses, as [`Self::claim`] does: the first one, and those that are served as well.
    ///
    /// # Errors
    /// The problem, in the user's terms.
    pub fn claim_all(wanted: &Bind, further: &[Bind]) -> Result<Self, Problem> {
        let mut listeners = Self::claim(wanted)?;
        listeners.further = Further::claim(further)?;
        Ok(listeners)
    }

    /// The listening socket for one of the further addresses, which all generations share.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn lend_further(&mut self, bind: &Bind, backlog: u32) -> nix::Result<&OwnedFd> {
        self.further.lend(bind, backlog)
    }

    /// Takes the address, which fails if anybody else has it: the socket is bound without `SO_REUSEPORT`.
    /// Afterwards it is opened to others that ask for `SO_REUSEPORT`, as our listeners and Granian's workers do.
    ///
    /// # Errors
    /// The problem, in the user's terms.
    pub fn claim(wanted: &Bind) -> Result<Self, Problem> {
        let (bind, holder) = match wanted {
            Bind::Tcp(address) => {
                let (socket, bound) = claim_tcp(*address).map_err(|errno| explain_tcp(*address, errno))?;
                (Bind::Tcp(bound), Some(socket))
            }
            Bind::Unix(path) => {
                clear_unix(path)?;
                // Whatever would keep the socket from being made is found out by making one.
                drop(bind_unix(path).map_err(|errno| cannot(path, &errno.into()))?);
                let _ = std::fs::remove_file(path);
                (wanted.clone(), None)
            }
        };
        Ok(Self { bind, holder, sockets: Vec::new(), padding: Vec::new(), further: Further::default() })
    }

    /// Where it is bound, with the port that was picked for port 0.
    #[must_use]
    pub const fn bind(&self) -> &Bind {
        &self.bind
    }

    /// The listening socket for a generation: one that waits for a new owner, or a new one. No client gets to a
    /// new one beside another until [`Self::steer`] says so.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn lend(&mut self, generation: GenerationId, backlog: u32) -> nix::Result<&OwnedFd> {
        let free = self.sockets.iter().position(|listener| listener.generation.is_none());
        let index = match free {
            Some(index) => index,
            None => self.open(generation, backlog)?,
        };
        self.sockets[index].generation = Some(generation);
        Ok(&self.sockets[index].socket)
    }

    fn open(&mut self, generation: GenerationId, backlog: u32) -> nix::Result<usize> {
        let socket = match &self.bind {
            Bind::Tcp(address) => {
                let socket = reuse_port_socket(*address)?;
                if let Some(first) = self.sockets.first() {
                    // The group has a program from now on: the newcomer is not chosen when it joins.
                    steer(&first.socket, 0)?;
                }
                socket
            }
            Bind::Unix(path) if self.sockets.is_empty() && !path.exists() => bind_unix(path)?,
            Bind::Unix(path) => bind_unix(&generation_path(path, generation))?,
        };
        listen_on(&socket, backlog)?;
        self.sockets.push(Listener { socket, generation: None });
        Ok(self.sockets.len() - 1)
    }

    /// From now on new clients go to this generation alone, if it has its socket from us. `before` is how many
    /// members the group has that are older than ours and not ours.
    pub fn steer(&self, generation: GenerationId, before: usize) {
        let index = self.sockets.iter().position(|listener| listener.generation == Some(generation));
        match (&self.bind, index) {
            (Bind::Tcp(_), Some(index)) if before + self.sockets.len() > 1 => {
                if let Err(errno) = steer(&self.sockets[index].socket, before + index) {
                    tracing::warn!(error = errno.desc(), "cannot steer new connections: a few may be lost");
                }
            }
            // Whoever made the socket: the path leads to the new one from one moment to the next.
            (Bind::Unix(path), _) => {
                let _ = std::fs::rename(generation_path(path, generation), path);
            }
            _ => {}
        }
    }

    /// From now on new clients are shared out between two generations that have their sockets from us.
    pub fn share(&self, parts: [(GenerationId, u32); 2]) {
        let member = |generation| self.sockets.iter().position(|listener| listener.generation == Some(generation));
        let [Some(first), Some(second)] = parts.map(|(generation, _)| member(generation)) else { return };
        if let Err(errno) = share(&self.sockets[first].socket, [(first, parts[0].1), (second, parts[1].1)]) {
            tracing::warn!(error = errno.desc(), "cannot distribute new connections");
        }
    }

    /// The inode of the socket that a generation has from us, by which `/proc` names it.
    #[must_use]
    pub fn inode(&self, generation: GenerationId) -> Option<u64> {
        let listener = self.sockets.iter().find(|listener| listener.generation == Some(generation))?;
        nix::sys::stat::fstat(&listener.socket).ok().map(|status| status.st_ino)
    }

    /// Whether a generation has its socket from us.
    #[must_use]
    pub fn serves(&self, generation: GenerationId) -> bool {
        self.sockets.iter().any(|listener| listener.generation == Some(generation))
    }

    /// How many listening sockets are ours.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sockets.len() + self.padding.len()
    }

    /// Adds members to the group that are never chosen, until [`Self::release`] takes them out again: in those
    /// microseconds the choice falls back to the kernel's hash, and a client may be reset. As older members leave,
    /// the kernel moves these into their places, and not the one that clients are steered to.
    pub fn pad(&mut self, count: usize) {
        let Bind::Tcp(address) = self.bind else { return };
        self.padding.extend((0..count).map_while(|_| {
            let socket = reuse_port_socket(address).ok()?;
            listen_on(&socket, 1).ok().map(|()| socket)
        }));
    }

    /// Takes the socket back from a generation that is gone. It is closed if others serve, and kept if not.
    pub fn release(&mut self, generation: GenerationId, others_serve: bool) {
        if let Bind::Unix(path) = &self.bind {
            let _ = std::fs::remove_file(generation_path(path, generation));
        }
        for padding in self.padding.drain(..) {
            let _ = shutdown(padding.as_raw_fd(), Shutdown::Both);
        }
        let position = self.sockets.iter().position(|listener| listener.generation == Some(generation));
        if let Some(index) = position {
            self.sockets[index].generation = None;
            if others_serve {
                self.close(index);
            }
        }
        if let [only] = &self.sockets[..] {
            let _ = unsteer(&only.socket);
        }
    }

    fn close(&mut self, index: usize) {
        let other = self.sockets.iter().find_map(|listener| listener.generation);
        let _ = other.map(|generation| self.steer(generation, 0));
        // The kernel puts the last member in the place of the one that leaves, as `swap_remove` does. A descendant
        // that strayed may have the socket still: shut down, it is out of the group all the same.
        let leaving = self.sockets.swap_remove(index);
        if matches!(self.bind, Bind::Tcp(_)) {
            let _ = shutdown(leaving.socket.as_raw_fd(), Shutdown::Both);
        }
    }

    /// The address of a Unix socket that a generation makes by itself; it takes the place of the old one when the
    /// generation is ready.
    #[must_use]
    pub fn own_path(&self, generation: GenerationId) -> Option<PathBuf> {
        match &self.bind {
            Bind::Unix(path) => Some(generation_path(path, generation)),
            Bind::Tcp(_) => None,
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        if let Bind::Unix(path) = &self.bind {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn generation_path(path: &Path, generation: GenerationId) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".g{generation}"));
    name.into()
}

fn listen_on(socket: &OwnedFd, backlog: u32) -> nix::Result<()> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX).min(65_535);
    listen(socket, Backlog::new(backlog).unwrap_or(Backlog::MAXCONN))
}

fn tcp_socket(address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        // As Python and so both servers have it: `::` is IPv4 too unless the system says otherwise.
        let only_v6 = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.trim() == "1");
        setsockopt(&socket, Ipv6V6Only, &only_v6)?;
    }
    Ok(socket)
}

/// A socket that shares its address with the others of the group.
fn reuse_port_socket(address: SocketAddr) -> nix::Result<OwnedFd> {
    let socket = tcp_socket(address)?;
    // Connections inherit it, and those that linger in TIME_WAIT are in the way of whoever comes after, unless both
    // have it. Nobody else gets the address by it: the holder does not have it.
    setsockopt(&socket, ReuseAddr, &true)?;
    setsockopt(&socket, ReusePort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

fn claim_tcp(address: SocketAddr) -> nix::Result<(OwnedFd, SocketAddr)> {
    let socket = tcp_socket(address)?;
    // Without it, connections of a predecessor that linger in TIME_WAIT would keep the address taken.
    setsockopt(&socket, ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    // And with it, a plain bind of somebody else would succeed for as long as nobody listens.
    setsockopt(&socket, ReuseAddr, &false)?;
    setsockopt(&socket, ReusePort, &true)?;
    let bound: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let port = match (bound.as_sockaddr_in(), bound.as_sockaddr_in6()) {
        (Some(v4), _) => v4.port(),
        (_, Some(v6)) => v6.port(),
        _ => address.port(),
    };
    Ok((socket, SocketAddr::new(address.ip(), port)))
}

fn explain_tcp(address: SocketAddr, errno: Errno) -> Problem {
    let exit = if errno == Errno::EADDRINUSE { Exit::Taken } else { Exit::Settings };
    let problem = Problem::new(exit, format!("cannot listen on {address}: {}", errno.desc()));
    match errno {
        Errno::EADDRINUSE => problem.hint(holder(address.port()).map_or_else(
            || "another process has that port: stop it or choose another port".to_owned(),
            |holder| format!("{holder} has that port: stop it or choose another port"),
        )),
        Errno::EACCES => problem.hint("a port below 1024 needs the capability CAP_NET_BIND_SERVICE"),
        Errno::EADDRNOTAVAIL => problem.hint("the address must be one of this machine's, 0.0.0.0 or ::"),
        _ => problem,
    }
}

/// Who listens on a port, as far as we may know.
fn holder(port: u16) -> Option<String> {
    let inodes = crate::proc::sockets::listening(port).into_iter().map(|(_, inode)| inode).collect();
    let entries = std::fs::read_dir("/proc").ok()?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let pid = pids.into_iter().find(|pid| crate::proc::sockets::owns(*pid, &inodes))?;
    let name = name(Pid::from_raw(pid)).unwrap_or_default();
    Some(format!("process {pid} ({name})"))
}

fn cannot(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Exit::Settings, format!("cannot listen on the Unix socket {}: {error}", path.display()))
        .hint("its directory must exist and be writable, and the path must have at most 107 bytes")
}

/// Makes sure that nothing of worth is at the path, and removes what a predecessor that was killed left there.
fn clear_unix(path: &Path) -> Result<(), Problem> {
    let shown = path.display();
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !std::os::unix::fs::FileTypeExt::is_socket(&there.file_type()) {
        let message = format!("cannot create the Unix socket {shown}: the path exists and is not a socket");
        return Err(Problem::new(Exit::Settings, message).hint("remove it or choose another path"));
    }
    if is_listening(path) {
        let message = format!("another process is listening on the Unix socket {shown}");
        return Err(Problem::new(Exit::Taken, message).hint("stop it or choose another path"));
    }
    std::fs::remove_file(path).map_err(|error| cannot(path, &error))
}

/// Whether somebody listens on a Unix socket. One whose queue is full does, too, and would keep us waiting for a place
/// in it.
fn is_listening(path: &Path) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let connected = socket(AddressFamily::Unix, SockType::Stream, flags, None)
        .and_then(|socket| nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?));
    matches!(connected, Ok(()) | Err(Errno::EAGAIN))
}

fn bind_unix(path: &Path) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// A listening socket that only we know: whoever answers there is the generation that inherited it.
///
/// # Errors
/// What the kernel says.
pub fn private_listener() -> nix::Result<(OwnedFd, SocketAddr)> {
    let (socket, address) = claim_tcp(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    listen_on(&socket, 128)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(port: u16) -> Bind {
        Bind::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn address(front: &Listeners) -> SocketAddr {
        match front.bind() {
            Bind::Tcp(address) => *address,
            Bind::Unix(path) => panic!("{path:?} is no address"),
        }
    }

    /// How many clients wait to be accepted, by the generation whose socket they wait at.
    fn waiting(front: &Listeners, generation: GenerationId) -> usize {
        let listener = front.sockets.iter().find(|listener| listener.generation == Some(generation)).unwrap();
        nix::fcntl::fcntl(&listener.socket, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        std::iter::from_fn(|| nix::sys::socket::accept(listener.socket.as_raw_fd()).ok()).count()
    }

    fn connect(front: &Listeners, clients: usize) -> Vec<std::net::TcpStream> {
        (0..clients).map(|_| std::net::TcpStream::connect(address(front)).unwrap()).collect()
    }

    #[test]
    fn port_zero_is_settled_and_a_second_claim_is_refused() {
        let mut front = Listeners::claim(&local(0)).unwrap();
        assert_ne!(address(&front).port(), 0);
        let problem = Listeners::claim(front.bind()).unwrap_err();
        assert_eq!(problem.exit, Exit::Taken);
        front.lend(GenerationId(1), 16).unwrap();
        let problem = Listeners::claim(front.bind()).unwrap_err();
        assert!(problem.to_string().contains(&format!("process {}", std::process::id())), "{problem}");
    }

    /// Leaves a connection in `TIME_WAIT` at the listener's port: who closes first lingers.
    fn leave_one_lingering(listener: i32, address: SocketAddr) {
        let mut client = std::net::TcpStream::connect(address).unwrap();
        nix::unistd::close(nix::sys::socket::accept(listener).unwrap()).unwrap();
        assert_eq!(io::Read::read(&mut client, &mut [0]).unwrap(), 0);
    }

    #[test]
    fn our_connections_that_linger_do_not_keep_the_address_from_a_successor() {
        let mut front = Listeners::claim(&local(0)).unwrap();
        let (bind, address) = (front.bind().clone(), address(&front));
        leave_one_lingering(front.lend(GenerationId(1), 16).unwrap().as_raw_fd(), address);
        drop(front);
        Listeners::claim(&bind).unwrap().lend(GenerationId(1), 16).unwrap();
    }

    #[test]
    fn lingering_connections_of_another_server_do_not_keep_the_address_from_us() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        leave_one_lingering(other.as_raw_fd(), address);
        drop(other);
        Listeners::claim(&Bind::Tcp(address)).unwrap().lend(GenerationId(1), 16).unwrap();
    }

    #[test]
    fn a_listener_that_shares_the_port_is_let_in_later() {
        let front = Listeners::claim(&local(0)).unwrap();
        let other = reuse_port_socket(address(&front)).unwrap();
        listen_on(&other, 8).unwrap();
        connect(&front, 1);
    }

    #[test]
    fn clients_go_where_they_are_steered_and_only_there() {
        let mut front = Listeners::claim(&local(0)).unwrap();
        front.lend(GenerationId(1), 128).unwrap();
        front.lend(GenerationId(2), 128).unwrap();
        let clients = connect(&front, 40);
        assert_eq!((waiting(&front, GenerationId(1)), waiting(&front, GenerationId(2))), (40, 0));
        drop(clients);
        front.steer(GenerationId(2), 0);
        let clients = connect(&front, 40);
        assert_eq!((waiting(&front, GenerationId(1)), waiting(&front, GenerationId(2))), (0, 40));
        drop(clients);
        front.release(GenerationId(1), true);
        let clients = connect(&front, 40);
        assert_eq!(waiting(&front, GenerationId(2)), 40);
        drop(clients);
        front.lend(GenerationId(3), 128).unwrap();
        front.steer(GenerationId(3), 0);
        front.release(GenerationId(2), true);
        let _clients = connect(&front, 40);
        assert_eq!(waiting(&front, GenerationId(3)), 40);
    }

    #[test]
    fn clients_are_shared_out_as_was_said() {
        let mut front = Listeners::claim(&local(0)).unwrap();
        front.lend(GenerationId(1), 512).unwrap();
        front.lend(GenerationId(2), 512).unwrap();
        front.share([(GenerationId(1), 3), (GenerationId(2), 1)]);
        let clients = connect(&front, 400);
        let (first, second) = (waiting(&front, GenerationId(1)), waiting(&front, GenerationId(2)));
        assert_eq!(first + second, 400);
        // Three in four, give or take five standard deviations.
        assert!((255..=345).contains(&first), "{first} of 400");
        drop(clients);
        front.share([(GenerationId(1), 0), (GenerationId(2), 1)]);
        let _clients = connect(&front, 40);
        assert_eq!((waiting(&front, GenerationId(1)), waiting(&front, GenerationId(2))), (0, 40));
    }

    #[test]
    fn clients_wait_while_nobody_serves() {
        let mut front = Listeners::claim(&local(0)).unwrap();
        front.lend(GenerationId(1), 128).unwrap();
        front.release(GenerationId(1), false);
        let _clients = connect(&front, 10);
        front.lend(GenerationId(2), 128).unwrap();
        assert_eq!(waiting(&front, GenerationId(2)), 10);
    }

    #[test]
    fn a_newcomer_that_is_discarded_takes_nobody_with_it() {
        let mut front = Listeners::claim(&local(0)).unwrap();
        front.lend(GenerationId(1), 128).unwrap();
        front.lend(GenerationId(2), 128).unwrap();
        front.release(GenerationId(2), true);
        let _clients = connect(&front, 10);
        assert_eq!(waiting(&front, GenerationId(1)), 10);
    }

    #[test]
    fn while_older_members_leave_padding_keeps_the_newest_in_its_place() {
        let mut front = Listeners::claim(&local(0)).unwrap();
        let older = || reuse_port_socket(address(&front)).unwrap();
        let mut older: Vec<OwnedFd> = (0..3).map(|_| older()).collect();
        for socket in &older {
            listen_on(socket, 64).unwrap();
        }
        front.lend(GenerationId(1), 512).unwrap();
        front.steer(GenerationId(1), older.len());
        front.pad(older.len());
        for leaving in [1, 0, 0] {
            older.remove(leaving);
            let _clients = connect(&front, 20);
            assert_eq!(waiting(&front, GenerationId(1)), 20);
        }
        front.release(GenerationId(9), true);
        let _clients = connect(&front, 20);
        assert_eq!(waiting(&front, GenerationId(1)), 20);
    }

    #[test]
    fn an_address_of_another_machine_is_an_invalid_setting() {
        let problem = Listeners::claim(&Bind::Tcp("192.0.2.1:0".parse().unwrap())).unwrap_err();
        assert_eq!(problem.exit, Exit::Settings);
    }

    #[test]
    fn a_unix_socket_whose_queue_is_full_is_somebody_elses_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let busy = bind_unix(&path).unwrap();
        listen(&busy, Backlog::new(1).unwrap()).unwrap();
        let client = || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
            let connected = nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(&path).unwrap());
            connected.is_ok().then_some(socket)
        };
        let waiting: Vec<OwnedFd> = std::iter::from_fn(client).take(100).collect();
        assert!(waiting.len() < 100, "the queue must be full");
        assert_eq!(Listeners::claim(&Bind::Unix(path.clone())).unwrap_err().exit, Exit::Taken);
        drop((busy, waiting));
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let mut front = Listeners::claim(&Bind::Unix(path.clone())).unwrap();
        front.lend(GenerationId(1), 8).unwrap();
        assert_eq!(Listeners::claim(front.bind()).unwrap_err().exit, Exit::Taken);
        front.lend(GenerationId(2), 8).unwrap();
        front.steer(GenerationId(2), 0);
        front.release(GenerationId(1), true);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(front);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(Listeners::claim(&Bind::Unix(path.clone())).unwrap_err().exit, Exit::Settings);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
