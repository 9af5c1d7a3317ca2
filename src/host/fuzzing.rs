//! What is fuzzed here: what the kernel says about control groups, processors and memory.

pub(crate) use super::python_source::fuzzing::python;

use super::cgroup::{Cgroups, Interface};
use super::root::unescape_octal;
use super::{cpu, memory};

/// `/proc/self/cgroup`, a NUL, the mount table, a NUL, and the contents of other files.
pub(crate) fn cgroups(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut parts = text.splitn(3, '\0');
    let mut next = || parts.next().unwrap_or_default();
    let (membership, mounts, values) = (next(), next(), next());
    let cgroups = Cgroups::parse(membership, mounts);
    for controller in ["cpu", "memory"] {
        let mut notes = Vec::new();
        let Some(found) = cgroups.of(controller, &mut notes) else { continue };
        let top = found.levels.last().expect("a group has its own level");
        assert!(found.levels.len() <= input.len() + 1 && notes.len() <= 1);
        assert!(found.levels.iter().all(|level| level.starts_with(top)));
    }
    assert!(unescape_octal(&text).as_os_str().len() <= text.len());
    for value in values.split('\0') {
        if let Ok(Some(cores)) = cpu::v2_cores(value) {
            assert!(cores.is_finite() && cores > 0.0);
        }
        let _ = cpu::processors(value, value);
        let _ = memory::kills(value);
        let _ = (memory::reclaimable(Interface::V1, value), memory::reclaimable(Interface::V2, value));
    }
}
