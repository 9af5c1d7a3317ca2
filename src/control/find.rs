//! Finding the launcher that is meant.
//!
//! Any user can put a socket with a launcher's name into `/tmp`. One that belongs to another user is passed over, and
//! nothing that it says is trusted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::socket::{NotOwn, Place};
use crate::host::{Environment, Instance, runtime_directories};
use crate::problem::{Exit, Problem};
use crate::proc::unix_sockets::abstract_listeners;

/// Which launcher is meant. What is not named is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its control socket.
    pub socket: Option<PathBuf>,
    /// The Unix socket that it serves.
    pub uds: Option<PathBuf>,
    /// The address that it serves.
    pub host: Option<IpAddr>,
    /// The port that it serves.
    pub port: Option<u16>,
    /// The port that is meant where several launchers run and none is named.
    pub default_port: u16,
}

/// A launcher of our own or of root's, connected.
#[derive(Debug)]
pub struct Found {
    /// The connection.
    pub stream: UnixStream,
    /// Its control socket.
    pub place: Place,
}

/// Finds it.
///
/// # Errors
/// That there is none, that it cannot be asked, or that there are several.
pub fn find(wanted: &Wanted, env: &Environment, patience: Duration) -> Result<Found, Problem> {
    match &wanted.socket {
        Some(path) => at(Place::Path(path.clone()), patience),
        None => Search::new(wanted, env, patience).outcome(),
    }
}

/// The launcher whose control socket was named.
fn at(place: Place, patience: Duration) -> Result<Found, Problem> {
    match place.own(patience) {
        Ok((stream, _)) => Ok(Found { stream, place }),
        Err(NotOwn::Nobody) => Err(Problem::new(Exit::NoLauncher, format!("no launcher is running at {place}"))),
        Err(NotOwn::Stranger(uid)) => Err(Problem::new(Exit::NoLauncher, stranger(&place, uid))
            .hint(format!("run this as that user, for example with setpriv --reuid={uid}"))),
        Err(NotOwn::Denied(errno)) => Err(denied(&place, errno)),
    }
}

fn stranger(place: &Place, uid: u32) -> String {
    format!("{place} belongs to user {uid} and is ignored")
}

fn denied(place: &Place, errno: Errno) -> Problem {
    let problem = |why: &str| Problem::new(Exit::No, format!("cannot talk to the launcher at {place}: {why}"));
    match errno {
        Errno::EAGAIN => problem("it does not accept connections"),
        Errno::EACCES => problem("permission denied").hint("run this as the launcher's user, or as root"),
        _ => problem(errno.desc()),
    }
}

/// What was found under the names that launchers give to their sockets.
struct Search<'a> {
    wanted: &'a Wanted,
    found: BTreeMap<Instance, Found>,
    /// Those that were asked for and cannot be asked.
    denied: Vec<(Instance, Problem)>,
    /// Those that match and belong to another user.
    strangers: Vec<String>,
}

impl<'a> Search<'a> {
    fn new(wanted: &'a Wanted, env: &Environment, patience: Duration) -> Self {
        let mut search = Self { wanted, found: BTreeMap::new(), denied: Vec::new(), strangers: Vec::new() };
        let deadline = Instant::now() + patience;
        for (instance, place) in sockets(env) {
            // The first one of an instance that is ours wins.
            if search.found.contains_key(&instance) {
                continue;
            }
            match place.own(deadline.saturating_duration_since(Instant::now())) {
                Ok((stream, _)) => _ = search.found.insert(instance, Found { stream, place }),
                Err(NotOwn::Denied(errno)) => search.denied.push((instance, denied(&place, errno))),
                Err(NotOwn::Stranger(uid)) if wanted.admits(&instance) => {
                    search.strangers.push(stranger(&place, uid));
                }
                Err(NotOwn::Nobody | NotOwn::Stranger(_)) => {}
            }
        }
        search
    }

    fn outcome(mut self) -> Result<Found, Problem> {
        let there: Vec<Instance> = self.found.keys().copied().collect();
        let matching = self.wanted.choose(&there);
        match matching[..] {
            [only] => self.found.remove(&only).ok_or_else(|| self.missing(&there)),
            [] => Err(match self.denied.iter().position(|(instance, _)| self.wanted.admits(instance)) {
                Some(at) => self.denied.swap_remove(at).1,
                None => self.missing(&there),
            }),
            _ => Err(self.ambiguous(&matching)),
        }
    }

    fn missing(&self, others: &[Instance]) -> Problem {
        let mut message = format!("no launcher is running{}", self.wanted.described());
        for stranger in &self.strangers {
            message += "; ";
            message += stranger;
        }
        let problem = Problem::new(Exit::NoLauncher, message);
        if others.is_empty() {
            return problem.hint("name its address (--host, --port, --uds) or its socket (--socket)");
        }
        problem.hint(format!("there is one for {}", self.list(others)))
    }

    fn ambiguous(&self, matching: &[Instance]) -> Problem {
        let message = format!("{} launchers are running{}", matching.len(), self.wanted.described());
        Problem::new(Exit::NoLauncher, format!("{message}: {}", self.list(matching)))
            .hint("name one by its address (--host, --port) or its socket (--socket)")
    }

    fn list(&self, instances: &[Instance]) -> String {
        let described = |instance: &Instance| match self.found.get(instance) {
            Some(found) => format!("{instance} ({})", found.place),
            None => instance.to_string(),
        };
        instances.iter().map(described).collect::<Vec<_>>().join(", ")
    }
}

impl Wanted {
    /// Whether an instance is what was named, or serves it.
    fn admits(&self, instance: &Instance) -> bool {
        match (instance, &self.uds) {
            (Instance::Unix(_), Some(path)) => *instance == Instance::unix(path),
            (Instance::Tcp(_), Some(_)) => false,
            (Instance::Unix(_), None) => self.host.is_none() && self.port.is_none(),
            (Instance::Tcp(address), None) => {
                let host = self.host.map(|host| host.to_canonical());
                let serves = |host: IpAddr| {
                    address.ip() == host || address.ip().is_unspecified() && address.is_ipv4() == host.is_ipv4()
                };
                self.port.is_none_or(|port| address.port() == port) && host.is_none_or(serves)
            }
        }
    }

    /// Those that are meant: one, if that is clear.
    fn choose(&self, there: &[Instance]) -> Vec<Instance> {
        let mut matching: Vec<Instance> = there.iter().filter(|instance| self.admits(instance)).copied().collect();
        let narrow = |matching: &mut Vec<Instance>, condition: &dyn Fn(&Instance) -> bool| {
            if matching.iter().any(condition) {
                matching.retain(condition);
            }
        };
        if self.port.is_none() && self.uds.is_none() {
            let port = self.default_port;
            narrow(&mut matching, &|it| matches!(it, Instance::Tcp(address) if address.port() == port));
        }
        if let Some(host) = self.host.map(|host| host.to_canonical()) {
            narrow(&mut matching, &|it| matches!(it, Instance::Tcp(address) if address.ip() == host));
        }
        matching
    }

    fn described(&self) -> String {
        match (&self.uds, self.host, self.port) {
            (Some(path), _, _) => format!(" on the Unix socket {}", path.display()),
            (None, Some(host), Some(port)) => format!(" on {}", std::net::SocketAddr::new(host, port)),
            (None, Some(host), None) => format!(" on {host}"),
            (None, None, Some(port)) => format!(" on port {port}"),
            (None, None, None) => String::new(),
        }
    }
}

/// Sockets with the name of a launcher's, best place first.
fn sockets(env: &Environment) -> Vec<(Instance, Place)> {
    let mut found = Vec::new();
    for directory in runtime_directories(env) {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries.filter_map(|entry| instance_of(entry.path())).collect();
        files.sort_by_key(|(instance, _)| *instance);
        found.extend(files);
    }
    let names = abstract_listeners().into_iter();
    found.extend(names.filter_map(|name| Some((Instance::from_file_stem(&name)?, Place::Abstract(name)))));
    found
}

fn instance_of(path: PathBuf) -> Option<(Instance, Place)> {
    let instance = Instance::from_file_stem(path.file_name()?.to_str()?.strip_suffix(".sock")?)?;
    Some((instance, Place::Path(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(addresses: &[&str]) -> Vec<Instance> {
        addresses.iter().map(|address| Instance::tcp(address.parse().unwrap())).collect()
    }

    fn wanted(host: Option<&str>, port: Option<u16>) -> Wanted {
        let host = host.map(|host| host.parse().unwrap());
        Wanted { host, port, default_port: 4444, ..Wanted::default() }
    }

    fn chosen(wanted: &Wanted, there: &[&str]) -> Vec<String> {
        wanted.choose(&tcp(there)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_port_alone_means_every_address_of_it() {
        let port = wanted(None, Some(80));
        assert_eq!(chosen(&port, &["127.0.0.1:80", "127.0.0.1:81"]), ["127.0.0.1:80"]);
        assert_eq!(chosen(&port, &["127.0.0.1:80", "[::1]:80", "[::1]:81"]), ["127.0.0.1:80", "[::1]:80"]);
        assert!(chosen(&port, &["127.0.0.1:81"]).is_empty(), "what is named has no fallback");
    }

    #[test]
    fn an_address_means_the_one_that_serves_it() {
        let address = wanted(Some("127.0.0.1"), Some(80));
        assert_eq!(chosen(&address, &["127.0.0.1:80", "127.0.0.2:80", "[::]:80"]), ["127.0.0.1:80"]);
        assert_eq!(chosen(&address, &["0.0.0.0:80", "[::]:80"]), ["0.0.0.0:80"]);
        assert!(chosen(&wanted(Some("0.0.0.0"), Some(80)), &["127.0.0.1:80"]).is_empty());
        assert_eq!(chosen(&wanted(Some("::1"), None), &["[::1]:9000", "127.0.0.1:4444"]), ["[::1]:9000"]);
    }

    #[test]
    fn without_a_name_it_is_the_default_port_or_the_only_one() {
        let any = wanted(None, None);
        assert_eq!(chosen(&any, &["127.0.0.1:4444", "127.0.0.1:80"]), ["127.0.0.1:4444"]);
        assert_eq!(chosen(&any, &["127.0.0.1:80"]), ["127.0.0.1:80"]);
        assert_eq!(chosen(&any, &["127.0.0.1:80", "127.0.0.1:81"]).len(), 2);
        assert_eq!(any.choose(&[Instance::unix("/a".as_ref())]).len(), 1);
        assert!(wanted(None, Some(80)).choose(&[Instance::unix("/a".as_ref())]).is_empty());
    }

    #[test]
    fn a_unix_socket_means_its_launcher_alone() {
        let unix = Wanted { uds: Some("/nonexistent/a".into()), default_port: 4444, ..Wanted::default() };
        let own = Instance::unix("/nonexistent/a".as_ref());
        let there = [tcp(&["127.0.0.1:4444"]), vec![own, Instance::unix("/nonexistent/b".as_ref())]].concat();
        assert_eq!(unix.choose(&there), [own]);
    }
}
