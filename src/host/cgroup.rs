//! The control groups of this process: `cgroups(7)`, version 1, version 2, and both at once.
//!
//! `/proc/self/cgroup` names the group within its hierarchy, and `/proc/self/mountinfo` says which part of the
//! hierarchy is mounted where. In a container with a cgroup namespace both start at `/`. Without one the group is
//! `/docker/ID`, and the mount shows either the whole hierarchy or only the part below `/docker/ID`.

use std::path::{Component, Path, PathBuf};

use super::root::{Root, unescape_octal};

/// Which files a group has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface {
    V1,
    V2,
}

/// The groups whose limits apply to this process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cgroup {
    pub(super) interface: Interface,
    /// Their directories, from the process's own up to the highest one that is mounted.
    pub(super) levels: Vec<PathBuf>,
}

impl Cgroup {
    /// The values of a file, own group first. Not every level has every file: the root has no limits, and a controller
    /// may be off further down.
    pub(super) fn values<'a>(
        &'a self,
        root: &'a Root,
        file: &'a str,
        notes: &'a mut Vec<String>,
    ) -> impl Iterator<Item = (PathBuf, String)> + 'a {
        self.levels.iter().filter_map(move |level| {
            let path = level.join(file);
            root.value(&path, notes).map(|value| (path, value))
        })
    }
}

/// The contents of `/proc/self/cgroup` and of the mount table.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    memberships: Vec<Membership>,
    mounts: Vec<Mount>,
    /// Whether these could not be read, which differs from having no cgroups.
    unknown: bool,
}

/// A line of `/proc/self/cgroup`: `4:cpu,cpuacct:/docker/ID`, or `0::/path` for version 2.
#[derive(Debug, PartialEq, Eq)]
struct Membership {
    /// Empty for version 2, where each group decides about its controllers.
    controllers: Vec<String>,
    path: PathBuf,
}

/// A mounted hierarchy, or the part of it below `root`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    root: PathBuf,
    point: PathBuf,
    interface: Interface,
    /// The last field of the line, in which version 1 lists the controllers.
    options: Vec<String>,
}

impl Cgroups {
    /// Reads both files. Without them, the conventional mount points are used.
    pub(super) fn read(root: &Root, notes: &mut Vec<String>) -> Self {
        let mut unknown = false;
        let mut table = |path: &str| {
            root.read(path).unwrap_or_else(|error| {
                unknown = true;
                notes.push(format!("cannot read {path}: {error}"));
                String::new()
            })
        };
        let tables = Self::parse(&table("/proc/self/cgroup"), &table("/proc/self/mountinfo"));
        Self { unknown, ..tables }
    }

    /// From the contents of both files.
    pub(super) fn parse(cgroup: &str, mountinfo: &str) -> Self {
        let memberships = cgroup.lines().filter_map(membership).collect();
        let mounts = mountinfo.lines().filter_map(mount).collect();
        Self { memberships, mounts, unknown: false }
    }

    /// The groups through which `controller` (`cpu`, `memory`) limits this process.
    pub(super) fn of(&self, controller: &str, notes: &mut Vec<String>) -> Option<Cgroup> {
        let named = |list: &[String]| list.iter().any(|name| name == controller);
        let v1 = self.memberships.iter().find(|membership| named(&membership.controllers));
        let unified = || self.memberships.iter().find(|membership| membership.controllers.is_empty());
        let (interface, path) = match (v1, unified()) {
            (Some(membership), _) => (Interface::V1, membership.path.as_path()),
            (None, Some(membership)) => (Interface::V2, membership.path.as_path()),
            (None, None) if self.unknown => (Interface::V2, Path::new("/")),
            (None, None) => return None,
        };
        let mut mounts: Vec<_> = self
            .mounts
            .iter()
            .filter(|mount| mount.interface == interface && (interface == Interface::V2 || named(&mount.options)))
            .collect();
        // The mount that shows most of the hierarchy also shows most of the limits.
        mounts.sort_by_key(|mount| mount.root.components().count());
        let levels = mounts.iter().find_map(|mount| mount.levels(path)).or_else(|| {
            let point = match (mounts.first(), interface) {
                (Some(mount), _) => mount.point.clone(),
                (None, Interface::V2) => PathBuf::from("/sys/fs/cgroup"),
                (None, Interface::V1) => Path::new("/sys/fs/cgroup").join(controller),
            };
            notes.push(format!(
                "the {controller} cgroup {} is not below any known mount; using {} instead",
                path.display(),
                point.display()
            ));
            Some(vec![point])
        })?;
        Some(Cgroup { interface, levels })
    }
}

impl Mount {
    /// The directories of the group `path` and of its parents, if the mount shows them.
    fn levels(&self, path: &Path) -> Option<Vec<PathBuf>> {
        let below = path.strip_prefix(&self.root).ok()?;
        // Both names are relative to the root of our namespace; a group outside of it cannot be found.
        if below.components().any(|part| part == Component::ParentDir) {
            return None;
        }
        let own = self.point.join(below);
        let depth = below.components().count() + 1;
        Some(own.ancestors().take(depth).map(Path::to_path_buf).collect())
    }
}

fn membership(line: &str) -> Option<Membership> {
    let mut fields = line.splitn(3, ':').skip(1);
    let controllers = fields.next()?.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let path = fields.next()?;
    Some(Membership { controllers, path: path.strip_suffix(" (deleted)").unwrap_or(path).into() })
}

/// A line of the mount table, `proc_pid_mountinfo(5)`:
/// `31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw`.
fn mount(line: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let interface = match kind.next()? {
        "cgroup" => Interface::V1,
        "cgroup2" => Interface::V2,
        _ => return None,
    };
    let options = kind.nth(1).unwrap_or_default().split(',').map(str::to_owned).collect();
    let mut place = place.split(' ').skip(3);
    let root = unescape_octal(place.next()?);
    let point = unescape_octal(place.next()?);
    Some(Mount { root, point, interface, options })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn levels(root: &str, point: &str, path: &str) -> Option<Vec<PathBuf>> {
        let mount = Mount { root: root.into(), point: point.into(), interface: Interface::V2, options: vec![] };
        mount.levels(Path::new(path))
    }

    #[test]
    fn a_group_is_found_below_its_mount() {
        let all = ["/m/docker/1", "/m/docker", "/m"].map(PathBuf::from).to_vec();
        assert_eq!(levels("/", "/m", "/docker/1"), Some(all));
        assert_eq!(levels("/docker/1", "/m", "/docker/1"), Some(vec!["/m".into()]));
        assert_eq!(levels("/", "/m", "/"), Some(vec!["/m".into()]));
        assert_eq!(levels("/docker/2", "/m", "/docker/1"), None);
        assert_eq!(levels("/docker/1", "/m", "/docker/11"), None, "names count whole");
        assert_eq!(levels("/", "/m", "/../other"), None, "outside the namespace");
    }

    #[test]
    fn lines_are_read_as_the_kernel_writes_them() {
        let line =
            r"36 31 0:33 /a\040b /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct";
        let found = mount(line).unwrap();
        assert_eq!((found.root.to_str(), found.interface), (Some("/a b"), Interface::V1));
        assert_eq!(found.options, ["rw", "cpu", "cpuacct"]);
        assert_eq!(mount("22 1 0:20 / /proc rw - proc proc rw"), None);
        let group = membership("0::/a:b (deleted)").unwrap();
        assert_eq!((group.controllers.len(), group.path.to_str()), (0, Some("/a:b")));
    }

    proptest! {
        /// Whatever is mounted, the search ends at the mount point.
        #[test]
        fn the_walk_stays_within_the_mount(
            above in prop::collection::vec("[a-c]{1,2}", 0..3),
            below in prop::collection::vec("[a-c]{1,2}", 0..4),
        ) {
            let root = format!("/{}", above.join("/"));
            let path = format!("{root}/{}", below.join("/"));
            let found = levels(&root, "/m/n", &path).unwrap();
            prop_assert_eq!(found.len(), below.len() + 1);
            prop_assert_eq!(found.last().unwrap(), Path::new("/m/n"));
            prop_assert!(found.iter().all(|level| level.starts_with("/m/n")));
        }

        #[test]
        fn no_line_is_too_odd(line in ".{0,60}") {
            let _ = (membership(&line), mount(&line));
        }
    }
}
