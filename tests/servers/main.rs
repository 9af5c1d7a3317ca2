//! Launchers with servers behind them, fake ones (`tests/fake`) and real ones.

#[path = "../harness/mod.rs"]
mod harness;

mod applications;
mod compare;
mod control;
mod dealing;
mod faults;
mod gateway;
mod gateway_after_fork;
mod gateway_sessions;
mod generations;
mod guard_in_servers;
mod gunicorn_file;
mod health;
mod hung_workers;
mod leaving;
mod notify;
mod old_environment;
mod overload;
mod pre_start;
mod readme;
mod secrets;
mod signals;
mod stop;
mod strangers;
mod terminal;
mod tls;
mod which_launcher;
mod worker_limits;
