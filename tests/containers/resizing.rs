//! Limits that the engine changes while requests come: from one worker to two and back. At most one change a minute is
//! followed, so this takes minutes and only runs if `MCP_LAUNCH_TEST_LONG` is set, as in `scripts/test --all`.

use std::time::{Duration, Instant};

use super::host_files::Container;
use crate::harness::http::Load;
use crate::harness::{skipped, wait_until};

crate::for_both_servers!(
    a_quota_that_doubles_and_halves_is_followed_without_a_lost_request,
    a_memory_limit_that_doubles_and_halves_is_followed_without_a_lost_request
);

/// A change is followed within this time.
const FOLLOWED: Duration = Duration::from_secs(30);
/// Unless the last one was less than this ago.
const APART: Duration = Duration::from_mins(1);

fn is_wanted() -> bool {
    let wanted = std::env::var_os("MCP_LAUNCH_TEST_LONG").is_some();
    if !wanted {
        skipped("it takes minutes; scripts/test --all runs it");
    }
    wanted
}

/// The workers of the generation that serves; 0 while there are several.
fn workers(container: &Container) -> usize {
    let status = container.ask(&["status", "--json"]).json();
    match status["generations"].as_array().map(Vec::as_slice) {
        Some([only]) => only["workers"].as_array().map_or(0, Vec::len),
        _ => 0,
    }
}

/// A launcher with one worker, whose limit changes so that it has two, and back. `shown` is what the plan then shows.
fn resized(server: &str, environment: &[(&str, &str)], limits: [&[&str]; 2], shown: [&str; 2]) {
    if !is_wanted() {
        return;
    }
    let options: Vec<String> = limits[0].iter().map(|option| (*option).to_owned()).collect();
    let arguments = ["--server", server, "hello:app"];
    let Some(mut container) = Container::start(&options, &[], environment, &arguments) else { return };
    container.running.wait_log(" ready ");
    assert_eq!(workers(&container), 1, "{}", container.running.log());
    let load = Load::start(container.running.port, "/", 8);
    let mut last = None;
    for (change, (limit, (shown, number))) in
        [(limits[1], (shown[1], 2)), (limits[0], (shown[0], 1))].into_iter().enumerate()
    {
        let changed = Instant::now();
        if !container.update(limit) {
            return;
        }
        let patience = FOLLOWED + last.map_or(Duration::ZERO, |last: Instant| APART.saturating_sub(last.elapsed()));
        container.running.wait_log_within("the number of workers follows", change + 1, patience);
        last = Some(Instant::now());
        wait_until("the workers", || workers(&container) == number);
        let took = changed.elapsed();
        let plan = container.ask(&["explain", "--running"]).out;
        assert!(plan.contains(&format!("limits       {shown}, read ")), "{plan}");
        let since = container.ask(&["explain", "--running", "--json"]).json()["limits"]["seconds_ago"].as_f64();
        assert!(since.is_some_and(|since| since <= changed.elapsed().as_secs_f64()), "{since:?} {plan}");
        eprintln!("{limit:?} after {took:?}");
    }
    load.assert_nothing_lost();
    let exits = &container.ask(&["status", "--json"]).json()["worker_exits"];
    assert_eq!((&exits["oom"], &exits["unknown"]), (&0.into(), &0.into()), "{exits}");
    assert_eq!(container.running.stop(), 0, "{}", container.running.log());
}

fn a_quota_that_doubles_and_halves_is_followed_without_a_lost_request(server: &str) {
    let shown = ["1 core, no memory limit", "2 cores, no memory limit"];
    resized(server, &[], [&["--cpus=1"], &["--cpus=2"]], shown);
}

/// 80 % of the limit is for workers, of 160 MiB each.
fn a_memory_limit_that_doubles_and_halves_is_followed_without_a_lost_request(server: &str) {
    let environment = [("MCP_LAUNCH_CPUS", "2"), ("MCP_LAUNCH_WORKER_MEMORY", "160M")];
    let limits: [&[&str]; 2] = [&["--memory=200m", "--memory-swap=200m"], &["--memory=400m", "--memory-swap=400m"]];
    resized(server, &environment, limits, ["2 cores, 200 MiB", "2 cores, 400 MiB"]);
}
