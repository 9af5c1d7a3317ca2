//! mcp-launch: init, launcher and supervisor for Python web servers.
//!
//! # Map
//!
//! Data flows one way. Everything up to the plan is plain data made from plain data, and is tested without starting a
//! process.
//!
//! ```text
//!  argv ────────┐
//!  environment ─┼─▶ settings ─┐
//!  file ────────┘             ├─▶ plan ─▶ run ─┬─▶ exec: become the server
//!  /proc, cgroups, ─▶ host ───┘                └─▶ supervisor: start it and stay
//!  Python environment
//!
//!                         the supervisor: one loop, one poll
//!
//!   signals, children, workers, ┌────────────┐ events  ┌─────────┐ actions ┌─────────┐
//!   files, clients  ───────────▶│ components │────────▶│ machine │────────▶│ effects │────▶ processes, sockets
//!                               └────────────┘         └─────────┘         └─────────┘
//!                                  each has its turn      pure              acts, decides nothing
//! ```
//!
//! - `settings` has the table of options, from which `cli` and `docs` are generated. It merges the layers, keeps for
//!   each value where it came from, and reports all problems together.
//! - `host` looks at the machine once: cores, quotas, memory, interpreter, installed versions. It starts nothing. `tls`
//!   reads and checks certificates and keys.
//! - `plan` turns these into the server, the number of workers, argv and environment, with a reason for each decision, or
//!   into a list of problems.
//! - `run` has what it takes to carry out a plan: executing, listening sockets, signals, memory files, the lock.
//! - `supervisor` supervises the server. `proc` reads what the kernel reports about processes.
//! - `guard` is the Python code inside each worker, and the shared memory through which it reports.
//! - `control` is how a running launcher is queried, from both ends. `probe` is one HTTP request.
//! - `import` turns another manager's configuration into a file of settings: text in, text out.
//! - `commands` has what the user can ask for by name; `compare` runs and measures both servers; `top` is the live view;
//!   `report` explains.
//! - `sys` has the only unsafe code.
//!
//! # Where to start reading
//!
//! | question | from the event to the action |
//! |---|---|
//! | A hung worker is replaced | `supervisor/watchdog/policy.rs` decides, `supervisor/watchdog/mod.rs` observes, `supervisor/effects.rs` signals |
//! | A reload is refused | `supervisor/machine/reload.rs`; for lack of memory `supervisor/machine/stepwise.rs`, which asks `supervisor/machine/memory_budget.rs` |
//! | What SIGUSR1 does | `supervisor/signals.rs`; which server takes it: `plan/capabilities.rs` |
//! | How many workers are planned | `plan/workers.rs` |
//! | How workers are counted | which there are: `supervisor/workers/mod.rs`; how many, during a step-by-step replacement: `supervisor/headcount.rs` |
//! | What the record of an end says | `supervisor/ends/story.rs`; what workers report for it: `guard/report.py` |
//! | A client is steered | `supervisor/steering.rs` and `run/listener/mod.rs`; the kernel's rules: `sys/reuseport.rs` |
//! | When a generation is ready | `supervisor/readiness/mod.rs` |
//! | What happens after a crash | `supervisor/machine/failure.rs`, `supervisor/machine/backoff.rs` |
//! | How a stop proceeds | `supervisor/machine/shutdown.rs`, `run/stop_sequence.rs` |
//! | Which stages there are | the state diagram at the top of `supervisor/machine/mod.rs` |
//! | A large or old worker is replaced | `supervisor/recycling/policy.rs`, `supervisor/recycling/mod.rs` |
//! | A reload when a certificate was renewed | `supervisor/file_watch/mod.rs` |
//! | A CPU or memory limit changes | `supervisor/host_limits/policy.rs`, `supervisor/host_limits/mod.rs` |
//! | What the workers are doing (`stacks`) | `supervisor/stacks/mod.rs` asks, `guard/stacks.py` answers, `control/stacks/mod.rs` shows |
//! | A worker that spins is found | `supervisor/spin/policy.rs` decides, `supervisor/spin/mod.rs` observes, `guard/spin.py` says so |
//! | A 503 | `guard/asgi.py` |
//! | A limit of requests that adapts (`auto`) | `supervisor/backpressure/policy.rs` |
//! | What a setting means | `settings/options.rs` |
//!
//! How things work is described at the top of the module that does them. The words used everywhere are in the glossary
//! of `CONTRIBUTING.md`.

pub mod cli;
pub mod commands;
mod compare;
mod control;
pub mod docs;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod guard;
pub mod host;
mod ids;
mod import;
pub mod log;
pub mod plan;
mod probe;
pub mod problem;
mod proc;
mod report;
pub mod run;
pub mod settings;
mod supervisor;
pub mod sys;
#[cfg(test)]
mod test_alone;
#[cfg(test)]
mod test_time;
pub mod tls;
mod top;
