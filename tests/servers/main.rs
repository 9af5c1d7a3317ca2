//! Launchers with servers, fake ones (`tests/fake`) and real ones.

#[path = "../harness/mod.rs"]
mod harness;

mod activation;
mod applications;
mod browser;
mod compare;
mod control;
mod dealing;
mod ends;
mod env_file;
mod faults;
mod gateway;
mod gateway_after_fork;
mod gateway_sessions;
mod generations;
mod guard_in_servers;
mod gunicorn_file;
mod health;
mod host_limits;
mod hung_workers;
mod lagging;
mod latency;
mod leaving;
mod listening;
mod notify;
mod old_environment;
mod overload;
mod pre_start;
mod readme;
mod request_timeout;
mod secrets;
mod signals;
mod spin;
mod stacks;
mod status_page;
mod stop;
mod strangers;
mod terminal;
mod tls;
mod top;
mod warm_up;
mod which_launcher;
mod worker_limits;
mod wsgi;
