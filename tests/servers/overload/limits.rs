//! The limit of concurrent requests, at the capacity and beyond it.

use std::path::PathBuf;
use std::time::Duration;

use super::{LIMIT, Volley, board, in_flight, launch, start};
use crate::harness::http::{Connection, get};
use crate::harness::{Running, wait_until};

fn exactly_the_excess_is_refused_at_once_and_the_capacity_is_free_again(server: &str) {
    const EXCESS: usize = 3;
    let Some((mut running, gate)) = start(server, &["--workers", "1"]) else { return };
    for _ in 0..2 {
        let volley = Volley::fire(running.port, "/wait", LIMIT + u32::try_from(EXCESS).unwrap());
        wait_until("the excess to be refused", || volley.count(503) == EXCESS);
        wait_until("the others to be inside", || in_flight(&running) == LIMIT);
        // While it is saturated, the answer is immediate.
        let refused = Volley::fire(running.port, "/", 5).finish();
        assert!(refused.iter().all(|(status, took)| *status == 503 && *took < Duration::from_secs(2)), "{refused:?}");
        std::fs::write(&gate, "").unwrap();
        let answers = volley.finish();
        assert_eq!(answers.iter().filter(|answer| answer.0 == 200).count(), LIMIT as usize, "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer.0 == 503).count(), EXCESS, "{answers:?}");
        wait_until("all to be outside", || in_flight(&running) == 0);
        std::fs::remove_file(&gate).unwrap();
    }
    let slot = board(&running)[0];
    assert_eq!((slot.high_water, slot.rejected), (LIMIT, 16));
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn two_workers_never_have_more_in_flight_than_their_capacity(server: &str) {
    let Some((mut running, gate)) = start(server, &["--workers", "2"]) else { return };
    let volley = Volley::fire(running.port, "/wait", 4 * LIMIT);
    wait_until("everybody to be inside or refused", || {
        volley.count(503) + in_flight(&running) as usize == 4 * LIMIT as usize
    });
    assert_eq!(volley.count(503), 2 * LIMIT as usize);
    std::fs::write(&gate, "").unwrap();
    let answers = volley.finish();
    assert!(answers.iter().all(|answer| [200, 503].contains(&answer.0)), "{answers:?}");
    // One may have more than its own share, if clients are distributed unevenly, but never more than twice that.
    assert!(board(&running).iter().all(|slot| slot.high_water <= 2 * LIMIT), "{:?}", board(&running));
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn idle_connections_keep_no_client_out(server: &str) {
    let Some((mut running, _)) = start(server, &["--workers", "1"]) else { return };
    let mut idle: Vec<Connection> = (0..3 * LIMIT).map(|_| Connection::open(running.port).unwrap()).collect();
    for connection in &mut idle {
        assert_eq!(connection.get("/", "").unwrap().status, 200);
    }
    for path in ["/", "/health"] {
        assert_eq!(get(running.port, path).unwrap().status, 200, "{path}");
    }
    drop(idle);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn the_health_path_and_exempt_paths_are_answered_while_it_is_saturated(server: &str) {
    let arguments = ["--workers", "1", "--guard-exempt", "/free/,/wait/free", "--health-path", "/wait/healthy"];
    let Some((mut running, gate)) = start_gated(server, &arguments) else { return };
    let free = ["/wait/free", "/wait/healthy"].map(|path| Volley::fire(running.port, path, 2));
    let full = Volley::fire(running.port, "/wait", LIMIT);
    wait_until("it to be saturated", || in_flight(&running) == LIMIT);
    assert_eq!(get(running.port, "/").unwrap().status, 503);
    assert_eq!(get(running.port, "/free/lunch").unwrap().status, 200);
    std::fs::write(&gate, "").unwrap();
    for volley in free.into_iter().chain([full]) {
        assert!(volley.finish().iter().all(|answer| answer.0 == 200));
    }
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// The gate is open until it is ready, because the readiness probe uses the health path.
fn start_gated(server: &str, arguments: &[&str]) -> Option<(Running, PathBuf)> {
    let (launch, gate) = launch(server, "overload:app", arguments)?;
    std::fs::write(&gate, "").unwrap();
    let mut running = launch.start();
    running.wait_log(" ready ");
    std::fs::remove_file(&gate).unwrap();
    Some((running, gate))
}

fn in_exec_mode_the_excess_is_refused_as_well(server: &str) {
    let Some((launch, gate)) = launch(server, "overload:app", &["--workers", "1", "--mode", "exec"]) else { return };
    let mut running = launch.start();
    wait_until("it to serve", || get(running.port, "/").is_ok());
    let volley = Volley::fire(running.port, "/wait", LIMIT + 2);
    wait_until("the excess to be refused", || volley.count(503) == 2);
    std::fs::write(&gate, "").unwrap();
    volley.finish();
    running.stop();
}

crate::for_both_servers!(
    exactly_the_excess_is_refused_at_once_and_the_capacity_is_free_again,
    two_workers_never_have_more_in_flight_than_their_capacity,
    idle_connections_keep_no_client_out,
    the_health_path_and_exempt_paths_are_answered_while_it_is_saturated,
    in_exec_mode_the_excess_is_refused_as_well,
);

/// Gunicorn's own worker class has its own HTTP server.
mod asgi {
    #[test]
    fn exactly_the_excess_is_refused_at_once_and_the_capacity_is_free_again() {
        super::exactly_the_excess_is_refused_at_once_and_the_capacity_is_free_again("asgi");
    }
}
