//! Tests of the listening sockets. Those that depend on a socket being closed run alone.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, listen, socket};

use super::tcp::{listen_on, reuse_port_socket};
use super::unix::make as bind_unix;
use super::*;
use crate::problem::Exit;
use crate::test_alone::alone;

fn local(port: u16) -> Bind {
    Bind::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn address(front: &Listeners) -> SocketAddr {
    match front.bind() {
        Bind::Tcp(address) => *address,
        Bind::Unix(path) => panic!("{path:?} is no address"),
    }
}

fn accept_all(socket: &OwnedFd) -> usize {
    std::iter::from_fn(|| nix::sys::socket::accept(socket.as_raw_fd()).ok()).count()
}

/// How many clients wait to be accepted, by the generation whose socket they wait at.
fn waiting(front: &Listeners, generation: GenerationId) -> usize {
    front.lent(generation).into_iter().map(accept_all).sum()
}

fn connect(front: &Listeners, clients: usize) -> Vec<std::net::TcpStream> {
    (0..clients).map(|_| std::net::TcpStream::connect(address(front)).unwrap()).collect()
}

#[test]
fn port_zero_is_settled_and_a_second_claim_is_refused() {
    alone(|| {
        let mut front = Listeners::claim(&local(0)).unwrap();
        assert_ne!(address(&front).port(), 0);
        let problem = Listeners::claim(front.bind()).unwrap_err();
        assert_eq!(problem.exit, Exit::Taken);
        front.lend(GenerationId(1), 1, 16).unwrap();
        let problem = Listeners::claim(front.bind()).unwrap_err();
        assert!(problem.to_string().contains(&format!("process {}", std::process::id())), "{problem}");
    });
}

/// Leaves a connection in `TIME_WAIT` at the listener's port: the side that closes first keeps it.
fn leave_one_lingering(listener: i32, address: SocketAddr) {
    let mut client = std::net::TcpStream::connect(address).unwrap();
    nix::unistd::close(nix::sys::socket::accept(listener).unwrap()).unwrap();
    assert_eq!(io::Read::read(&mut client, &mut [0]).unwrap(), 0);
}

#[test]
fn our_connections_that_linger_do_not_keep_the_address_from_a_successor() {
    alone(|| {
        let mut front = Listeners::claim(&local(0)).unwrap();
        let (bind, address) = (front.bind().clone(), address(&front));
        leave_one_lingering(front.lend(GenerationId(1), 1, 16).unwrap()[0].as_raw_fd(), address);
        drop(front);
        Listeners::claim(&bind).unwrap().lend(GenerationId(1), 1, 16).unwrap();
    });
}

#[test]
fn lingering_connections_of_another_server_do_not_keep_the_address_from_us() {
    alone(|| {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        leave_one_lingering(other.as_raw_fd(), address);
        drop(other);
        Listeners::claim(&Bind::Tcp(address)).unwrap().lend(GenerationId(1), 1, 16).unwrap();
    });
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
    alone(|| {
        let mut front = Listeners::claim(&local(0)).unwrap();
        front.lend(GenerationId(1), 1, 128).unwrap();
        front.lend(GenerationId(2), 1, 128).unwrap();
        let clients = connect(&front, 40);
        assert_eq!((waiting(&front, GenerationId(1)), waiting(&front, GenerationId(2))), (40, 0));
        drop(clients);
        front.steer(&[(GenerationId(2), 1)]);
        let clients = connect(&front, 40);
        assert_eq!((waiting(&front, GenerationId(1)), waiting(&front, GenerationId(2))), (0, 40));
        drop(clients);
        front.release(GenerationId(1), Remaining::Lent);
        let clients = connect(&front, 40);
        assert_eq!(waiting(&front, GenerationId(2)), 40);
        drop(clients);
        front.lend(GenerationId(3), 1, 128).unwrap();
        front.steer(&[(GenerationId(3), 1)]);
        front.release(GenerationId(2), Remaining::Lent);
        let _clients = connect(&front, 40);
        assert_eq!(waiting(&front, GenerationId(3)), 40);
    });
}

#[test]
fn clients_are_distributed_in_the_given_proportions() {
    let mut front = Listeners::claim(&local(0)).unwrap();
    front.lend(GenerationId(1), 1, 512).unwrap();
    front.lend(GenerationId(2), 1, 512).unwrap();
    front.steer(&[(GenerationId(1), 3), (GenerationId(2), 1)]);
    let clients = connect(&front, 400);
    let (first, second) = (waiting(&front, GenerationId(1)), waiting(&front, GenerationId(2)));
    assert_eq!(first + second, 400);
    // Three in four, give or take five standard deviations.
    assert!((255..=345).contains(&first), "{first} of 400");
    drop(clients);
    front.steer(&[(GenerationId(1), 0), (GenerationId(2), 1)]);
    let _clients = connect(&front, 40);
    assert_eq!((waiting(&front, GenerationId(1)), waiting(&front, GenerationId(2))), (0, 40));
}

#[test]
fn a_shared_socket_waits_for_clients_and_is_emptied_without_waiting() {
    let mut front = Listeners::claim(&local(0)).unwrap();
    let waits = |socket: &OwnedFd| {
        let flags = nix::fcntl::fcntl(socket, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        flags & nix::fcntl::OFlag::O_NONBLOCK.bits() == 0
    };
    assert!(waits(front.lend_shared(GenerationId(1), 16).unwrap()[0]));
    front.lend(GenerationId(2), 2, 16).unwrap();
    assert!(front.lent(GenerationId(2)).into_iter().all(|socket| !waits(socket)));
    front.steer(&[(GenerationId(2), 1)]);
    front.release(GenerationId(1), Remaining::Lent);
    front.release(GenerationId(2), Remaining::Nobody);
    assert!(waits(front.lend_shared(GenerationId(3), 16).unwrap()[0]));
}

#[test]
fn clients_wait_while_nothing_serves() {
    alone(|| {
        let mut front = Listeners::claim(&local(0)).unwrap();
        front.lend(GenerationId(1), 1, 128).unwrap();
        front.release(GenerationId(1), Remaining::Nobody);
        let _clients = connect(&front, 10);
        front.lend(GenerationId(2), 1, 128).unwrap();
        assert_eq!(waiting(&front, GenerationId(2)), 10);
    });
}

#[test]
fn a_new_generation_that_is_discarded_ends_nothing_else() {
    alone(|| {
        let mut front = Listeners::claim(&local(0)).unwrap();
        front.lend(GenerationId(1), 1, 128).unwrap();
        front.lend(GenerationId(2), 1, 128).unwrap();
        front.release(GenerationId(2), Remaining::Lent);
        let _clients = connect(&front, 10);
        assert_eq!(waiting(&front, GenerationId(1)), 10);
    });
}

#[test]
fn while_older_members_leave_padding_keeps_the_newest_in_its_place() {
    alone(|| {
        let mut front = Listeners::claim(&local(0)).unwrap();
        let older = || reuse_port_socket(address(&front)).unwrap();
        let mut older: Vec<OwnedFd> = (0..3).map(|_| older()).collect();
        for socket in &older {
            listen_on(socket, 64).unwrap();
        }
        front.lend(GenerationId(1), 1, 512).unwrap();
        front.steer(&[(GenerationId(1), 1)]);
        front.pad(older.len());
        for leaving in [1, 0, 0] {
            older.remove(leaving);
            let _clients = connect(&front, 20);
            assert_eq!(waiting(&front, GenerationId(1)), 20);
        }
        front.release(GenerationId(9), Remaining::Lent);
        let _clients = connect(&front, 20);
        assert_eq!(waiting(&front, GenerationId(1)), 20);
    });
}

#[test]
fn an_address_of_another_machine_is_an_invalid_setting() {
    let problem = Listeners::claim(&Bind::Tcp("192.0.2.1:0".parse().unwrap())).unwrap_err();
    assert_eq!(problem.exit, Exit::Settings);
}

#[test]
fn a_unix_socket_with_a_full_queue_belongs_to_another_process_and_is_not_waited_for() {
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
    alone(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let mut front = Listeners::claim(&Bind::Unix(path.clone())).unwrap();
        front.lend(GenerationId(1), 1, 8).unwrap();
        assert_eq!(Listeners::claim(front.bind()).unwrap_err().exit, Exit::Taken);
        front.lend(GenerationId(2), 1, 8).unwrap();
        front.steer(&[(GenerationId(2), 1)]);
        front.release(GenerationId(1), Remaining::Lent);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(front);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(Listeners::claim(&Bind::Unix(path.clone())).unwrap_err().exit, Exit::Settings);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    });
}

/// How many clients wait at each of a generation's sockets.
fn waiting_at_each(front: &Listeners, generation: GenerationId) -> Vec<usize> {
    front.lent(generation).into_iter().map(accept_all).collect()
}

#[test]
fn workers_with_sockets_of_their_own_get_even_shares_and_one_that_is_withheld_gets_none() {
    let mut front = Listeners::claim(&local(0)).unwrap();
    let first = GenerationId(1);
    front.lend(first, 4, 512).unwrap();
    front.open_to(first);
    let clients = connect(&front, 400);
    // A quarter each, give or take five standard deviations.
    let counts = waiting_at_each(&front, first);
    assert!(counts.iter().all(|count| (56..=144).contains(count)), "{counts:?}");
    drop(clients);
    front.withhold(first, BTreeSet::from([0, 2]));
    let clients = connect(&front, 100);
    let counts = waiting_at_each(&front, first);
    assert_eq!((counts[0], counts[2], counts.iter().sum()), (0, 0, 100), "{counts:?}");
    drop(clients);
    front.withhold(first, (0..4).collect());
    let _clients = connect(&front, 100);
    assert_eq!(waiting(&front, first), 100, "the generation has to take them");
}

#[test]
fn generation_after_generation_clients_meet_only_the_one_that_they_are_steered_to() {
    alone(|| {
        let mut front = Listeners::claim(&local(0)).unwrap();
        front.lend(GenerationId(1), 3, 64).unwrap();
        front.open_to(GenerationId(1));
        for (old, workers) in (1..).zip([3, 1, 5, 2, 3]) {
            let (old, new) = (GenerationId(old), GenerationId(old + 1));
            front.lend(new, workers, 64).unwrap();
            let clients = connect(&front, 20);
            assert_eq!((waiting(&front, old), waiting(&front, new)), (20, 0), "{new}");
            drop(clients);
            front.steer(&[(new, 1)]);
            let clients = connect(&front, 20);
            assert_eq!((waiting(&front, old), waiting(&front, new)), (0, 20), "{new}");
            drop(clients);
            front.release(old, Remaining::Lent);
            let _clients = connect(&front, 20);
            assert_eq!(waiting(&front, new), 20, "{new}");
        }
        assert!(front.count() <= 8, "sockets are reused: {}", front.count());
    });
}

#[test]
fn who_waits_for_a_generation_with_fewer_workers_is_served_or_told_at_once() {
    alone(|| {
        let mut front = Listeners::claim(&local(0)).unwrap();
        front.lend(GenerationId(1), 4, 64).unwrap();
        front.open_to(GenerationId(1));
        front.release(GenerationId(1), Remaining::Nobody);
        let mut clients = connect(&front, 40);
        front.lend(GenerationId(2), 1, 64).unwrap();
        front.open_to(GenerationId(2));
        let served = waiting(&front, GenerationId(2));
        assert!(served > 0);
        let is_closed = |client: &mut std::net::TcpStream| {
            client.set_nonblocking(true).unwrap();
            matches!(io::Read::read(client, &mut [0]), Ok(0))
        };
        assert_eq!(served + clients.iter_mut().map(is_closed).filter(|closed| *closed).count(), 40);
        let _clients = connect(&front, 40);
        assert_eq!(waiting(&front, GenerationId(2)), 40);
    });
}

#[test]
fn no_client_can_connect_to_a_socket_that_is_shut_down_through_any_copy() {
    let mut front = Listeners::claim(&local(0)).unwrap();
    let copies: Vec<OwnedFd> =
        front.lend(GenerationId(1), 2, 64).unwrap().into_iter().map(|socket| socket.try_clone().unwrap()).collect();
    front.open_to(GenerationId(1));
    drop(connect(&front, 1));
    front.all_inodes().into_iter().for_each(|inode| front.close(inode, true));
    assert!(std::net::TcpStream::connect(address(&front)).is_err());
    drop(copies);
}
