//! Carries out the schedule.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;

use super::client;
use super::instance::Instance;
use super::load::{Command, Generator, Load, Outcome};
use super::measure::{Measured, Memory, MemorySample, Overload, OverloadLimit, RECOVERY, Reload, Results, Round};
use super::process::{Child, GLANCE, Order};
use super::progress::Progress;
use super::schedule::{ScheduleStep, overload, patience, schedule, warm_up};
use super::{Terms, Trouble};
use crate::control::protocol::{Answer, Request};
use crate::host::Environment;
use crate::problem::Exit;
use crate::sys::SignalState;

/// How long a client waits when the server is not overloaded.
const PATIENCE: Duration = Duration::from_secs(30);
/// Successful responses in a row before a server counts as recovered.
const IN_A_ROW: u32 = 5;
/// Descriptors that we and the load generator need in addition to those of connections.
const SPARE_FILES: u64 = 64;
/// Clients during a reload, and how long each pauses between two requests: enough to notice failures, but not so many
/// that ports run out.
const CLIENTS: usize = 4;
const REST: Duration = Duration::from_millis(5);
/// How long an old generation may take to end.
const LEAVING: Duration = Duration::from_mins(1);

/// Carries out all steps for those that have not failed yet.
///
/// # Errors
/// The signal that it was interrupted with.
pub fn run(terms: &Terms, mut all: Vec<Results>) -> Result<Vec<Results>, u8> {
    crate::sys::raise_open_files();
    let servers: Vec<_> =
        all.iter().filter(|results| results.failure.is_none()).map(|results| results.subject.server).collect();
    let steps = schedule(&servers, terms.options.rounds);
    let mut progress = Progress::new(&steps, &terms.options);
    // Distinguishing responses costs the load generator time, so it is done for both servers or for neither.
    let least_limit = all.iter().filter_map(|results| results.subject.limit).min();
    for step in steps {
        let found = all.iter_mut().find(|results| results.subject.server == step.server());
        let Some(results) = found.filter(|results| results.failure.is_none()) else { continue };
        progress.begin(step, &terms.options);
        let taken = match step {
            ScheduleStep::Try(_) => try_out(terms, results, &progress),
            ScheduleStep::Round(_, number) => {
                round(terms, results, least_limit, &progress, number == terms.options.rounds)
            }
            ScheduleStep::Stress(..) => stress(terms, results, &progress),
        };
        progress.end(step, &terms.options);
        match taken {
            Ok(()) => {}
            Err(Trouble::Interrupted(signal)) => return Err(signal),
            Err(Trouble::Failed(failure)) => results.failure = Some(failure),
        }
    }
    Ok(all)
}

/// What would otherwise be repeated at every start.
fn without_preparations() -> Vec<String> {
    ["--pre-start=", "--reload-plugin-requirements-txt=false"].map(str::to_owned).into()
}

/// Starts the server as the user would, and checks whether its response is worth measuring.
fn try_out(terms: &Terms, results: &mut Results, progress: &Progress) -> Result<(), Trouble> {
    let mut instance = Instance::start(terms, &results.subject, &[])?;
    instance.wait_until_ready()?;
    progress.say("asking");
    let request = &terms.options.request;
    match ask_patiently(terms, instance.address)? {
        Ok(answer) if answer.is_good() => {}
        Ok(answer) => {
            let to = answer.location.map_or_else(String::new, |to| format!(" to {to}"));
            let why = format!("{request} returned {}{to}; {}", answer.status, what_to_do_about(answer.status));
            return Err(Trouble::failed(Exit::No, why));
        }
        Err(why) => return Err(Trouble::failed(Exit::No, format!("{request} failed: {why}"))),
    }
    results.http2 = Some(client::speaks_http2(instance.address, Duration::from_secs(2)));
    Ok(())
}

/// Makes one request, and gives up when interrupted.
fn ask_patiently(terms: &Terms, address: SocketAddr) -> Result<Result<client::HttpAnswer, String>, Trouble> {
    let request = terms.request_bytes();
    // The thread may outlive this function by as long as the request takes.
    let asking = std::thread::spawn(move || client::ask(address, &request, PATIENCE));
    while !asking.is_finished() {
        terms.go_on()?;
        std::thread::sleep(GLANCE);
    }
    Ok(asking.join().unwrap_or_else(|_| Err("no response".to_owned())))
}

const fn what_to_do_about(status: u16) -> &'static str {
    match status {
        300..400 => "use --path to name the path that it redirects to",
        401 | 403 => "use --header to authenticate, such as --header 'Authorization: Bearer TOKEN'",
        404 => "use --path to name a path that exists",
        405 => "use --method to choose another method",
        400..500 => "use --path, --method, --header or --body to make a request that it accepts",
        _ => "use --path to name a path that works, or see the app's log for the cause",
    }
}

/// One round: the start, then each number of connections, and after the last round a reload.
fn round(
    terms: &Terms,
    results: &mut Results,
    least_limit: Option<u64>,
    progress: &Progress,
    is_last: bool,
) -> Result<(), Trouble> {
    let options = &terms.options;
    let mut instance = Instance::start(terms, &results.subject, &without_preparations())?;
    let start = instance.wait_for_answer()?;
    instance.wait_until_ready()?;
    let mut memory_over_time = Vec::new();
    let mut look = |connections| {
        let memory = instance.memory();
        memory_over_time.push(MemorySample { seconds: instance.age(), connections, total: memory.total });
        memory
    };
    let idle = look(None);
    let load = |connections: u32, duration| Load {
        address: instance.address,
        request: &options.request,
        connections,
        duration,
        patience: PATIENCE,
        tell_rejected: least_limit.is_some_and(|limit| u64::from(connections) >= limit),
    };
    progress.say("warming up");
    let middle = options.connections[options.connections.len() / 2];
    drive(terms, &load(middle, warm_up(options.duration)), || {})?;
    instance.settle()?;
    let (mut loaded, mut after) = (Memory::default(), idle);
    let mut loads = Vec::new();
    for connections in &options.connections {
        progress.say(&format!("{connections} connections"));
        let before = instance.cpu();
        let outcome = drive(terms, &load(*connections, options.duration), || {
            let now = look(Some(*connections));
            if now.total > loaded.total {
                loaded = now;
            }
        })?;
        let cpu = instance.cpu().saturating_sub(before);
        loads.push(Measured { connections: *connections, outcome, cpu_seconds: cpu.as_secs_f64() });
        instance.settle()?;
        after = look(None);
    }
    if let Some(failure) = instance.ended() {
        return Err(Trouble::Failed(failure));
    }
    results.rounds.push(Round { start_seconds: start.as_secs_f64(), idle, loaded, after, memory_over_time, loads });
    if is_last {
        progress.say("reloading");
        results.reload = Some(reload(terms, &mut instance)?);
    }
    Ok(())
}

/// How often memory is looked at during a load. Adding it up takes the kernel a while, so this is not much.
const LOOKS: u32 = 3;

/// Runs the load generator to its end. Meanwhile, `look` is called at regular intervals.
fn drive(terms: &Terms, load: &Load<'_>, mut look: impl FnMut()) -> Result<Outcome, Trouble> {
    let Command { argv, script } = terms.generator.command(load);
    let order = Order {
        program: &terms.generator.program,
        argv: &argv,
        env: &terms.env,
        script: script.as_deref(),
        death_signal: Signal::SIGKILL,
        signals: terms.signals,
    };
    let failed = |why: String| Trouble::failed(Exit::NotExecutable, why);
    let mut child = Child::start(&order).map_err(failed)?;
    let length = terms.generator.duration(load.duration);
    let began = Instant::now();
    let mut looks = 0;
    let status = loop {
        if let Some(status) = child.ended() {
            break status;
        }
        terms.go_on()?;
        if looks < LOOKS && began.elapsed() > length * (looks + 1) / (LOOKS + 1) {
            looks += 1;
            look();
        }
        if began.elapsed() > length + load.patience + Duration::from_secs(10) {
            return Err(failed(format!("{} does not exit", terms.generator.kind.name())));
        }
        std::thread::sleep(GLANCE);
    };
    let (output, log) = (child.output(), child.log());
    let name = terms.generator.kind.name();
    if !status.success() {
        let why = log.lines().chain(output.lines()).find(|line| !line.trim().is_empty()).unwrap_or("no word");
        return Err(failed(format!("{name} failed ({status}): {}", why.trim())));
    }
    terms.generator.read(&output).map_err(failed)
}

/// More clients than the capacity.
fn stress(terms: &Terms, results: &mut Results, progress: &Progress) -> Result<(), Trouble> {
    let subject = &results.subject;
    let OverloadLimit { in_force: limit, backpressure } = subject.overload_limit;
    let mut more = without_preparations();
    more.extend(backpressure.map(|backpressure| format!("--{}-backpressure={backpressure}", subject.server)));
    let mut instance = Instance::start(terms, subject, &more)?;
    instance.wait_for_answer()?;
    instance.wait_until_ready()?;
    let capacity = limit * u64::from(subject.workers);
    let connections = u32::try_from(capacity * 2).unwrap_or(u32::MAX).min(most_connections());
    let duration = overload(terms.options.duration);
    let load = Load {
        address: instance.address,
        request: &terms.options.request,
        connections,
        duration,
        patience: patience(terms.options.duration),
        tell_rejected: true,
    };
    progress.say(&format!("{connections} connections, capacity {capacity}"));
    let outcome = drive(terms, &load, || {})?;
    let recovery = recovery(terms, &instance)?;
    results.overloads.push(Overload {
        limit,
        limit_was_set: backpressure.is_some(),
        capacity,
        connections,
        patience_seconds: terms.generator.duration(load.patience).as_secs_f64(),
        outcome,
        recovery_seconds: recovery.map(|time| time.as_secs_f64()),
    });
    Ok(())
}

/// How many connections the load generator and the server can have open.
fn most_connections() -> u32 {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    // Beyond that, ports run out.
    u32::try_from(soft.saturating_sub(SPARE_FILES)).unwrap_or(u32::MAX).clamp(1, 25_000)
}

/// The time until requests are answered again, one after the other.
fn recovery(terms: &Terms, instance: &Instance<'_>) -> Result<Option<Duration>, Trouble> {
    let request = terms.request_bytes();
    let began = Instant::now();
    let mut in_a_row = 0;
    let mut first = Duration::ZERO;
    while began.elapsed() < RECOVERY {
        terms.go_on()?;
        match client::ask(instance.address, &request, Duration::from_secs(1)) {
            Ok(answer) if answer.is_good() => {
                if in_a_row == 0 {
                    first = began.elapsed();
                }
                in_a_row += 1;
            }
            _ => in_a_row = 0,
        }
        if in_a_row == IN_A_ROW {
            return Ok(Some(first));
        }
    }
    Ok(None)
}

/// A reload under load.
fn reload(terms: &Terms, instance: &mut Instance<'_>) -> Result<Reload, Trouble> {
    let request = terms.request_bytes();
    let address = instance.address;
    let tally = Mutex::new(Reload::default());
    let over = AtomicBool::new(false);
    let client = || {
        while !over.load(Ordering::Relaxed) {
            let answer = client::ask(address, &request, PATIENCE);
            let Ok(mut tally) = tally.lock() else { return };
            tally.requests += 1;
            let cause = match answer {
                Ok(answer) if answer.is_good() => None,
                Ok(answer) => Some(format!("status {}", answer.status)),
                Err(why) => Some(why),
            };
            if let Some(cause) = cause {
                tally.failed += 1;
                *tally.causes.entry(cause).or_default() += 1;
            }
            drop(tally);
            std::thread::sleep(REST);
        }
    };
    let reloaded = std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(client);
        }
        let reloaded = hand_over(terms, instance);
        over.store(true, Ordering::Relaxed);
        reloaded
    });
    let (took, kept) = reloaded?;
    let tally = tally.into_inner().unwrap_or_default();
    Ok(Reload { seconds: took.as_secs_f64(), kept, ..tally })
}

/// Reloads, and waits until the old generation has ended. Returns how long the reload took, and why the old one was
/// kept, if it was.
fn hand_over(terms: &Terms, instance: &mut Instance<'_>) -> Result<(Duration, Option<String>), Trouble> {
    let launcher = instance.connect();
    let launcher = launcher.ok_or_else(|| Trouble::failed(Exit::No, "it does not respond on its control socket"))?;
    let began = Instant::now();
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(move || launcher.ask(&Request::Reload { server: None }, None));
        while !asked.is_finished() {
            if terms.go_on().is_err() {
                // The launcher ends, and the connection with it.
                instance.terminate();
            }
            std::thread::sleep(GLANCE);
        }
        asked.join()
    });
    terms.go_on()?;
    let took = began.elapsed();
    let kept = match asked {
        Ok(Ok(Answer::Reloaded { .. })) => None,
        Ok(Ok(Answer::Kept { why, .. })) => Some(why),
        Ok(Ok(_)) => Some("an unexpected response".to_owned()),
        Ok(Err(problem)) => Some(problem.to_string()),
        Err(_) => Some("no answer".to_owned()),
    };
    let deadline = Instant::now() + LEAVING;
    while Instant::now() < deadline && instance.status().is_some_and(|status| status.generations.len() > 1) {
        terms.go_on()?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((took, kept))
}

/// The load generator with its version, from its own output.
#[must_use]
pub fn load_generator(generator: &Generator, env: &Environment, signals: SignalState) -> String {
    let argv = [generator.kind.name(), generator.version_flag()].map(OsString::from);
    let order =
        Order { program: &generator.program, argv: &argv, env, script: None, death_signal: Signal::SIGKILL, signals };
    let said = Child::start(&order).map(|mut child| {
        child.wait(Duration::from_secs(5));
        child.output() + &child.log()
    });
    generator.name_with_version(&said.unwrap_or_default())
}
