//! The plan with the real servers: their parsers accept what it passes, and their precedence is the documented one.
//!
//! They come from the virtual environment that `MCP_LAUNCH_TEST_VENV` names, which `scripts/test` makes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::venv;
use mcp_launch::host::{self, Environment, Host, Query};
use mcp_launch::plan::{Inherited, Plan, plan};
use mcp_launch::run::memfd::modules::memory_file;
use mcp_launch::settings::{FlagLayer, Resolution, resolve};

/// A directory with an app that reports which traces of the launcher it sees.
struct Site {
    directory: tempfile::TempDir,
    venv: PathBuf,
}

const APP: &str = "
import os, sys

async def app(scope, receive, send):
    pass

print('SEEN PYTHONPATH', os.environ.get('PYTHONPATH'))
print('SEEN TRACES', [entry for entry in sys.path if entry.startswith('/proc/')])
";

impl Site {
    fn new() -> Option<Self> {
        let site = Self { directory: tempfile::tempdir().unwrap(), venv: venv()? };
        site.write("told.py", APP);
        Some(site)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn look(&self) -> Host {
        let query =
            Query { virtual_env: Some(self.venv.clone()), ..Query::new(&Environment::new(), self.root().into()) };
        host::probe(&Query { app: Some("told:app".into()), ..query })
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn resolve(&self, env: &[(&str, &str)], server_args: &[&str]) -> Resolution {
        let root = self.root().to_str().unwrap();
        let own = [("APP_MODULE", "told:app"), ("APP_ROOT", root), ("PATH", "/usr/bin:/bin")];
        let env = own.iter().chain(env).map(|(name, value)| (name.into(), value.into())).collect();
        let flags = FlagLayer { server_args: server_args.iter().map(Into::into).collect(), ..FlagLayer::default() };
        resolve(&flags, &env, &|_| Err(std::io::ErrorKind::NotFound.into()))
    }

    fn plan(&self, env: &[(&str, &str)], server_args: &[&str]) -> Plan {
        let resolution = self.resolve(env, server_args);
        assert!(resolution.problems.is_empty(), "{:?}", resolution.problems);
        plan(&resolution, &self.look(), &mcp_launch::tls::Findings::default())
            .unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    /// Runs the plan's command with its module, but without its sockets, only to read its configuration.
    fn run(&self, plan: &Plan) -> Output {
        let mut script = String::from("exec \"$@\"");
        for descriptor in &plan.descriptors {
            if let Inherited::Modules(modules) = &descriptor.what {
                use std::os::fd::AsRawFd;
                let memory = memory_file(modules).unwrap();
                let archive = self.root().join("archive.zip");
                fs::copy(format!("/proc/self/fd/{}", memory.as_raw_fd()), &archive).unwrap();
                script += &[" ", &descriptor.number.to_string(), "<", archive.to_str().unwrap()].concat();
            }
        }
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).arg("sh").args(&plan.argv).env_clear().envs(&plan.env);
        command.current_dir(plan.cwd.as_deref().unwrap_or(self.root())).output().unwrap()
    }

    /// The resulting settings of Gunicorn, and the output of the app.
    fn configuration(&self, env: &[(&str, &str)]) -> (BTreeMap<String, String>, String) {
        let plan = self.plan(env, &["--print-config"]);
        let output = self.run(&plan);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        let pairs = text.lines().filter_map(|line| line.split_once(" = "));
        (pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect(), text)
    }
}

#[test]
fn gunicorn_takes_defaults_user_file_arguments_and_settings_in_this_order() {
    let Some(site) = Site::new() else { return };
    let defaults = site.configuration(&[]).0;
    // The launcher replaces workers that have reached their number of requests.
    for (setting, value) in [("timeout", "600"), ("max_requests", "0"), ("keepalive", "2"), ("accesslog", "None")] {
        assert_eq!(defaults[setting], value, "{setting}");
    }

    site.write(
        "gunicorn.conf.py",
        "timeout = 11\nkeepalive = 12\nmax_requests = 13\nbacklog = 14\nworkers = 15\nbind = ['127.0.0.1:1']\n\
         daemon = True\npidfile = '/nowhere/pid'\nreuse_port = True\npreload_app = True\naccesslog = '-'\n",
    );
    let found = site.configuration(&[]).0;
    for (setting, value) in [
        ("timeout", "11"),
        ("keepalive", "12"),
        ("max_requests_jitter", "100"),
        ("daemon", "False"),
        ("pidfile", "None"),
        ("reuse_port", "False"),
        ("preload_app", "True"),
        ("accesslog", "-"),
        ("bind", "['127.0.0.1:1']"),
    ] {
        assert_eq!(found[setting], value, "{setting}");
    }
    assert_eq!(found["workers"], "15");

    let env = [
        ("GUNICORN_CMD_ARGS", "--keep-alive 22 --max-requests=23 --bind :1 -D --preload"),
        ("GUNICORN_MAX_REQUESTS", "33"),
        ("GUNICORN_PRELOAD_APP", "false"),
        ("DISABLE_ACCESS_LOG", "true"),
        ("GUNICORN_WORKERS", "3"),
    ];
    let told = site.configuration(&env).0;
    for (setting, value) in [
        ("timeout", "11"),
        ("keepalive", "22"),
        ("max_requests", "0"),
        ("backlog", "14"),
        ("workers", "3"),
        ("daemon", "False"),
        ("preload_app", "False"),
        ("accesslog", "None"),
        ("bind", "['0.0.0.0:1']"),
    ] {
        assert_eq!(told[setting], value, "{setting}");
    }
}

#[test]
fn neither_app_nor_environment_shows_how_the_module_was_loaded() {
    let Some(site) = Site::new() else { return };
    site.write("gunicorn.conf.py", "timeout = 11\n");
    let said = site.configuration(&[]).1;
    assert!(said.contains("SEEN PYTHONPATH None\nSEEN TRACES []"), "{said}");
    let said = site.configuration(&[("PYTHONPATH", "/a:/b")]).1;
    assert!(said.contains("SEEN PYTHONPATH /a:/b\nSEEN TRACES []"), "{said}");
}

#[test]
fn a_users_file_works_as_if_gunicorn_had_read_it() {
    let Some(site) = Site::new() else { return };
    let file = site.write(
        "my settings.cfg",
        "import os\nfrom gunicorn.workers.sync import SyncWorker\n\nBASE = 40\n\nclass Mine(SyncWorker):\n    pass\n\n\
         def post_fork(server, worker):\n    return BASE\n\nproc_name = os.path.basename(__file__)\n\
         worker_class = '__config__.Mine'\ntimeout = BASE + post_fork(None, None)\n",
    );
    let env = [("GUNICORN_CONFIG", file.to_str().unwrap())];
    // The class is a reference that is only resolved when workers are started.
    let plan = site.plan(&env, &["--check-config"]);
    let output = site.run(&plan);
    assert!(output.status.success(), "{output:?}");
    let found = site.configuration(&env).0;
    assert_eq!((found["timeout"].as_str(), found["proc_name"].as_str()), ("80", "my settings.cfg"));
    assert!(found["post_fork"].contains("post_fork"), "{}", found["post_fork"]);
}

#[test]
fn a_broken_users_file_is_named_with_its_traceback() {
    let Some(site) = Site::new() else { return };
    site.write("gunicorn.conf.py", "timeout = 1 / 0\n");
    let output = site.run(&site.plan(&[], &["--check-config"]));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("Failed to read config file") && errors.contains("ZeroDivisionError"), "{errors}");
    assert!(errors.contains("gunicorn.conf.py\", line 1"), "{errors}");
}

#[test]
fn granian_has_every_flag_that_it_is_given() {
    let Some(site) = Site::new() else { return };
    let help = Command::new(site.venv.join("bin/granian")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let known: Vec<&str> = help
        .split_whitespace()
        .map(|word| word.trim_end_matches(','))
        .filter(|word| word.starts_with("--"))
        .collect();
    let everything = [
        ("HTTP_SERVER", "granian"),
        ("MCP_LAUNCH_MODE", "exec"),
        ("GRANIAN_WORKERS_MAX_RSS", "500"),
        ("GRANIAN_WORKERS_LIFETIME", "1h"),
        ("GRANIAN_DEV_MODE", "true"),
        ("SSL", "true"),
        ("SSL_CA_FILE", "ca.pem"),
        ("SSL_CLIENT_VERIFY", "required"),
        ("APP_MODULE", "told:make()"),
    ];
    let socket = [("HTTP_SERVER", "granian"), ("GRANIAN_UDS", "/run/a.sock"), ("DISABLE_ACCESS_LOG", "false")];
    for env in [&everything[..], &socket[..]] {
        for flag in site.plan(env, &[]).argv.iter().filter_map(|word| word.to_str()) {
            assert!(!flag.starts_with("--") || known.contains(&flag), "{flag} in {help}");
        }
    }
}

/// If one of its own variables is invalid, Granian exits before it checks its flags.
#[test]
fn granian_takes_the_environment_that_it_is_given() {
    let Some(site) = Site::new() else { return };
    let env = [
        ("HTTP_SERVER", "granian"),
        ("MCP_LAUNCH_MODE", "exec"),
        ("GRANIAN_WORKERS", "auto"),
        ("GRANIAN_HTTP1_BUFFER_SIZE", "512K"),
        ("GRANIAN_WORKERS_MAX_RSS", "1G"),
        ("GRANIAN_WORKERS_LIFETIME", "none"),
        ("GRANIAN_LOOP", "AsyncIO"),
        ("GRANIAN_LOG_LEVEL", "WARN"),
        ("GRANIAN_PORT", "tcp://10.0.0.1:80"),
        ("GRANIAN_VERSION", "2.8.7"),
        ("APP_MODULE", "told:app"),
    ];
    let plan = site.plan(&env, &[]);
    // Its own parser, which prints its result instead of starting the server.
    let script = "import sys, granian.cli as cli\ncli.cli.callback = lambda **given: print(sorted(given.items()))\n\
                  cli.cli(sys.argv[1:], auto_envvar_prefix='GRANIAN')";
    for args in [&plan.argv[1..], &["told:app".into()][..]] {
        let python = Command::new(site.venv.join("bin/python"))
            .arg("-c")
            .arg(script)
            .args(args)
            .env_clear()
            .envs(&plan.env)
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&python.stdout).into_owned();
        assert!(python.status.success(), "{args:?}: {python:?}");
        assert!(printed.contains("('http1_buffer_size', 524288)"), "{printed}");
        assert!(printed.contains("('workers_max_rss', 1024)"), "{printed}");
    }
}
