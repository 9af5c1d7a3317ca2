//! What is fuzzed: a function for each kind of input that strangers or accidents can produce. Each takes any bytes, and
//! panics if the code that reads such input breaks a promise.
//!
//! `fuzz/` runs them with libFuzzer, which looks for inputs that reach new code. The tests here run them with the seeds
//! that it begins with, and with long inputs made of these. Compiled for these two only.

/// A target: its name in `fuzz/fuzz_targets` and `fuzz/corpus`, and its function.
type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("answer", crate::control::fuzzing::answer),
    ("cgroups", crate::host::fuzzing::cgroups),
    ("command_line", crate::cli::fuzzing::command_line),
    ("configuration_file", crate::settings::fuzzing::configuration_file),
    ("der", crate::tls::fuzzing::der),
    ("env_file", crate::settings::fuzzing::env_file),
    ("gunicorn_arguments", crate::plan::fuzzing::gunicorn_arguments),
    ("http_response", crate::probe::fuzzing::http_response),
    ("managers_file", crate::import::fuzzing::managers_file),
    ("option_value", crate::settings::fuzzing::option_value),
    ("pem_file", crate::tls::fuzzing::pem_file),
    ("process_files", crate::proc::fuzzing::process_files),
    ("python", crate::host::fuzzing::python),
    ("reports", crate::supervisor::fuzzing::reports),
    ("request", crate::control::fuzzing::request),
    ("socket_datagram", crate::proc::fuzzing::socket_datagram),
    ("yaml_file", crate::import::fuzzing::yaml_file),
];

/// Runs a target.
///
/// # Panics
/// If there is no such target, or a promise is broken.
pub fn run(target: &str, input: &[u8]) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target of the table");
    check(input);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use nix::time::{ClockId, clock_gettime};

    use super::*;

    fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries.map(|entry| stem(entry.unwrap().path())).collect()
    }

    fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(folder("corpus").join(target)).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
    }

    #[test]
    fn every_target_has_a_program_and_seeds() {
        let wanted: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names(&folder("fuzz_targets")), wanted);
        assert_eq!(names(&folder("corpus")), wanted);
        for target in &wanted {
            assert!(!seeds(target).is_empty(), "{target}");
        }
    }

    /// A panic names the seed: the test's output ends with it.
    #[test]
    fn what_is_read_from_the_seeds_keeps_every_promise() {
        for (target, check) in TARGETS {
            for (name, seed) in seeds(target) {
                println!("{name}");
                check(&seed);
                // Cut off, and continued by something else.
                check(&seed[..seed.len() / 2]);
                check(&[&seed[..], &seed[seed.len() / 2..]].concat());
            }
        }
    }

    /// The time of this thread on a processor, which no other load prolongs.
    fn worked() -> Duration {
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
    }

    /// Time that grows with the square of the length is seen at this length, and none that grows with the length.
    #[test]
    fn long_inputs_take_no_more_time_than_their_length_explains() {
        const LENGTH: usize = 12 << 10;
        /// An emulated processor is slower: `scripts/cross` says so when it compiles the tests.
        const MOST: Duration =
            Duration::from_secs(if option_env!("MCP_LAUNCH_TEST_EMULATED").is_some() { 20 } else { 1 });
        for (target, check) in TARGETS {
            let seeds = seeds(target);
            let lines = seeds.iter().flat_map(|(_, seed)| seed.split_inclusive(|byte| *byte == b'\n'));
            let units: BTreeSet<&[u8]> = lines.chain(seeds.iter().map(|(_, seed)| &seed[..])).collect();
            for unit in units.into_iter().filter(|unit| !unit.is_empty()) {
                let input = unit.repeat(LENGTH.div_ceil(unit.len()));
                let start = worked();
                check(&input);
                let took = worked().saturating_sub(start);
                assert!(took < MOST, "{target}: {took:?} for {}", String::from_utf8_lossy(unit));
            }
        }
    }
}
