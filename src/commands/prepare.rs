//! From the command line and the environment to a plan.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use crate::host::{self, Activation, AppRoot, Environment, GunicornFile, Host, Program, Query};
use crate::plan::{self, Addresses, Bind, Plan};
use crate::problem::Problem;
use crate::settings::value::{BindHost, Int, Server, ServerChoice, Value, Workers};
use crate::settings::{self, FlagLayer, NativeVariable, Origin, Resolution, Settings};
use crate::supervisor::machine::plan_facts::Choice;
use crate::tls;

/// No file of settings is larger.
const LARGEST_FILE: u64 = 1 << 20;

/// Reads a file of settings.
pub(super) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    host::regular_file::read(path, LARGEST_FILE)
}

/// What plans are made from: what was given at the start and cannot change, and what has been decided since.
#[derive(Debug, Clone)]
pub(super) struct Planner {
    flags: FlagLayer,
    env: Environment,
    /// The sockets that were passed to us.
    activation: Activation,
    decided: Decided,
}

/// What has been decided since the start.
#[derive(Debug, Clone, Default)]
struct Decided {
    /// The port that was picked for port 0.
    port: Option<u16>,
    /// The address, which no reload changes: lock and control socket are named after it, and clients use it.
    bind: Option<Bind>,
    /// The server that was started first, to which the arguments after `--` belong.
    first: Option<Server>,
    /// The app that it was started with: another server would guess another attribute.
    app: Option<String>,
    /// The server of the last `reload --server`.
    server: Option<Server>,
    /// The workers of the last SIGTTIN or SIGTTOU.
    workers: Option<u32>,
}

/// A plan, or the problems that prevent one, and what it was made from.
#[derive(Debug)]
pub(super) struct Prepared {
    pub resolution: Resolution,
    pub host: Host,
    pub plan: Result<Plan, Vec<Problem>>,
}

impl Planner {
    pub fn new(flags: FlagLayer) -> Self {
        let env: Environment = std::env::vars_os().collect();
        let activation = Activation::look(&env);
        Self { flags, env, activation, decided: Decided::default() }
    }

    /// Port 0 means this port from now on.
    pub fn settle_port(&mut self, port: u16) {
        self.decided.port = Some(port);
    }

    /// This plan is the first one to be started.
    pub fn settle(&mut self, plan: &Plan) {
        self.decided.first = Some(plan.server);
        self.decided.app = Some(plan.app.clone());
    }

    /// This address is served from now on.
    pub fn settle_address(&mut self, bind: &Bind) {
        self.decided.bind = Some(bind.clone());
    }

    /// Reads everything again and applies what a reload asked for.
    pub fn replan(&self, choice: Choice, change: i32) -> Result<(Plan, Choice), Vec<Problem>> {
        let mut chosen = self.clone();
        chosen.decided.server = choice.server;
        chosen.decided.workers = None;
        let plan = chosen.plan_here()?;
        let choice = choice.with_workers(plan.workers, change);
        if choice.workers.is_none() {
            return Ok((plan, choice));
        }
        chosen.decided.workers = choice.workers.map(|chosen| chosen.count);
        Ok((chosen.plan_here()?, choice))
    }

    /// A plan for the address that is being served, even if the settings, or those of another server, now name a
    /// different one.
    fn plan_here(&self) -> Result<Plan, Vec<Problem>> {
        let plan = self.prepare().plan?;
        match &self.decided.bind {
            Some(bind) if plan.bind != *bind => {
                let mut here = self.prepare_with(|settings| keep_address(settings, bind)).plan?;
                here.warnings.push(format!(
                    "{} is not served: a reload keeps the address, {bind}; stop and start the launcher to change it",
                    plan.bind
                ));
                Ok(here)
            }
            _ => Ok(plan),
        }
    }

    /// Resolves the settings, looks at the machine and makes the plan.
    pub fn prepare(&self) -> Prepared {
        self.prepare_with(|_| {})
    }

    fn prepare_with(&self, change: impl FnOnce(&mut Settings)) -> Prepared {
        let mut resolution = settings::resolve(&self.flags, &self.env, &read_file);
        self.decided.apply(&mut resolution);
        change(&mut resolution.settings);
        let left = leave_app_root(&mut resolution);
        let since = Instant::now();
        let host = Host { activation: self.activation.clone(), ..look(&resolution, left.as_deref()) };
        if let Some(file) = &host.gunicorn_settings {
            resolution.forgive_unread(|name| file.mentions(name));
        }
        let certificates = tls::read(&resolution.settings)
            .map(|files| tls::check(&files, SystemTime::now(), resolution.settings.force_start.value));
        let mut problems = resolution.problems.clone();
        let plan = match plan::plan(&resolution, &host, &certificates.unwrap_or_default()) {
            Ok(mut plan) if problems.is_empty() => {
                plan.sizing.since = Some(since);
                Ok(plan)
            }
            Ok(_) => Err(problems),
            Err(more) => {
                problems.extend(more);
                Err(problems)
            }
        };
        Prepared { resolution, host, plan }
    }
}

impl Decided {
    fn apply(&self, resolution: &mut Resolution) {
        let settings = &mut resolution.settings;
        if let (Some(server), Some(first)) = (self.server, self.first)
            && server != first
            && !resolution.server_args.is_empty()
        {
            resolution.server_args.clear();
            resolution
                .warnings
                .push(format!("the arguments after -- are for {first} and are not passed to {server}"));
        }
        if let Some(server) = self.server {
            settings.http_server.value = server.into();
            settings.http_server.origin = Origin::Flag("reload --server".into());
        }
        if let (Some(server), Some(app)) = (self.server, &self.app)
            && Some(server) != self.first
            && let Some((module, attribute)) = app.split_once(':')
            && settings.app_module.value.module == module
        {
            settings.app_module.value.attribute.get_or_insert_with(|| attribute.to_owned());
        }
        // Port 0 may also come from Gunicorn's own configuration; then ours is a default.
        if let Some(port) = self.port.filter(|_| settings.port.value.0 == 0 || !settings.port.is_explicit()) {
            settings.port.value = Int(port.into());
            if !settings.port.is_explicit() {
                settings.port.origin = Origin::Flag("the port that was picked".into());
            }
        }
        if let Some(workers) = self.workers {
            for setting in [&mut settings.gunicorn_workers, &mut settings.granian_workers] {
                setting.value = Workers::Exactly(workers);
                setting.origin = Origin::Flag("SIGTTIN and SIGTTOU".into());
            }
        }
    }
}

/// Sets this address in the settings.
fn keep_address(settings: &mut Settings, bind: &Bind) {
    let origin = Origin::Flag("of the start".into());
    settings.uds.origin = origin.clone();
    match bind {
        Bind::Unix(path) => settings.uds.value = Some(path.clone()),
        Bind::Tcp(address) => {
            settings.uds.value = None;
            settings.host.value = BindHost(address.ip());
            settings.port.value = Int(address.port().into());
            settings.host.origin = origin.clone();
            settings.port.origin = origin;
        }
    }
}

fn current_directory() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| "/".into())
}

/// If the app is in the current directory and not in `APP_ROOT`, that directory is not used, and returned. One that
/// cannot be the working directory is a problem.
fn leave_app_root(resolution: &mut Resolution) -> Option<PathBuf> {
    let setting = &mut resolution.settings.app_root;
    let app = resolution.settings.app_module.value.show();
    match AppRoot::look(setting.value.as_deref(), &current_directory(), &app) {
        AppRoot::Taken => None,
        AppRoot::Left => setting.value.take(),
        AppRoot::Unusable(why) => {
            let message = format!("app_root = {} {why}", setting.value.take()?.display());
            let hint = "it is the server's working directory; create it, or unset it";
            resolution.problems.push(Problem::setting(message, &setting.origin).hint(hint));
            None
        }
    }
}

/// Where a launcher with these settings serves, found without starting anything.
pub(super) fn addresses(mut resolution: Resolution) -> Addresses {
    let left = leave_app_root(&mut resolution);
    plan::addresses(&resolution, &look_only(&resolution, left.as_deref()))
}

/// Looks at the machine as the settings direct, and runs the server for its version if that is not known otherwise.
fn look(resolution: &Resolution, left: Option<&Path>) -> Host {
    let mut host = look_only(resolution, left);
    ask_for_version(resolution.settings.http_server.value, &mut host);
    host
}

fn look_only(resolution: &Resolution, left: Option<&Path>) -> Host {
    let settings = &resolution.settings;
    let query = Query::new(&resolution.env, current_directory());
    let places = plan::places(resolution);
    let config = &settings.gunicorn_config;
    let gunicorn_file = match (&config.value, places.config) {
        (Some(path), _) => GunicornFile::Named(path.into()),
        (None, _) if config.is_explicit() => GunicornFile::None,
        (None, Some(path)) => GunicornFile::Named(path.into()),
        (None, None) => GunicornFile::Found,
    };
    host::probe(&Query {
        python_path: python_path(resolution, query.python_path.clone()),
        virtual_env: settings.virtual_env.value.clone(),
        python: settings.python.value.clone(),
        app_root: settings.app_root.value.clone().or_else(|| left.map(Path::to_owned)),
        leaves_app_root: left.is_some(),
        app: Some(settings.app_module.value.show()),
        app_is_named: settings.app_module.is_explicit(),
        gunicorn_file,
        gunicorn_directory: places.chdir.map(Into::into),
        gunicorn_python_path: places.python_path,
        prefer_granian: settings.http_server.value == ServerChoice::Granian,
        ..query
    })
}

/// The import path, starting with the directory that Granian adds (`--working-dir`).
fn python_path(resolution: &Resolution, path: Option<OsString>) -> Option<OsString> {
    let choice = resolution.settings.http_server.value;
    let is_meant = |native: &&NativeVariable| {
        native.name == "GRANIAN_WORKING_DIR" && choice.candidates().contains(&native.server)
    };
    let directory = resolution.native.iter().find(is_meant).map(|native| native.value.clone().into());
    let entries: Vec<OsString> = directory.into_iter().chain(path).collect();
    (!entries.is_empty()).then(|| entries.join(std::ffi::OsStr::new(":")))
}

/// If the layout of the installation does not show the server's version, the server is run to print it, for a limited
/// time.
fn ask_for_version(choice: ServerChoice, host: &mut Host) {
    for server in choice.candidates() {
        if let Program::Found(path) = host.python.program(server.word())
            && !host.python.packages.contains_key(server.word())
            && let Some(version) = host::python::version_of(path, host::python::DEADLINE)
        {
            host.python.packages.insert(server.word().to_owned(), version);
        }
    }
}
