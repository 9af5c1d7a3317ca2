use std::ffi::OsStr;

use super::*;
use crate::plan::Plan;
use crate::plan::tests::{installed_host, planned, problems};
use crate::settings::OPTIONS;

const OTHER: (&str, &str) = ("APP_MODULE", "my.app:app");

fn value<'a>(plan: &'a Plan, name: &str) -> Option<&'a str> {
    plan.env.get(OsStr::new(name)).map(|value| value.to_str().unwrap())
}

#[test]
fn it_is_the_default_application() {
    let default = OPTIONS.iter().find(|opt| opt.id == "app_module").unwrap().default;
    assert!(is(&App::parse(default).unwrap()));
}

#[test]
fn empty_variables_become_what_the_entrypoint_made_of_them() {
    let given: Vec<(&str, &str)> = EMPTY.iter().map(|(name, _)| (*name, "")).collect();
    let plan = planned(&given, &installed_host());
    for (name, wanted) in EMPTY {
        assert_eq!(value(&plan, name), *wanted, "{name}");
    }
    assert_eq!(value(&planned(&[], &installed_host()), RUNTIME_ENABLED), None, "only what is given");
}

#[test]
fn one_variable_stands_for_another_as_with_the_entrypoint() {
    let given = [("RUST_MCP_SESSION_AUTH_REUSE", "true"), (SESSION_AUTH_REUSE_ENABLED, "")];
    assert_eq!(value(&planned(&given, &installed_host()), SESSION_AUTH_REUSE_ENABLED), Some("true"));
}

#[test]
fn a_sidecar_is_not_managed_here_and_one_elsewhere_is_the_gateways_business() {
    for (name, wrong) in [(MODE, "full"), (MODE, "shadow"), (RUNTIME_ENABLED, "true"), (RUNTIME_ENABLED, "1")] {
        let found = problems(&[(name, wrong)], &installed_host());
        assert!(found.len() == 1 && found[0].contains(&format!("{name} = \"{wrong}\"")), "{found:?}");
    }
    for fine in [(MODE, "OFF"), (MODE, ""), (RUNTIME_ENABLED, "false"), (RUNTIME_ENABLED, "")] {
        assert!(problems(&[fine], &installed_host()).is_empty(), "{fine:?}");
    }
    assert!(problems(&[(RUNTIME_ENABLED, "true"), (RUNTIME_MANAGED, "false")], &installed_host()).is_empty());
}

#[test]
fn sessions_that_other_workers_do_not_know_are_warned_about() {
    let warned = |env: &[(&str, &str)]| {
        let all = [env, &[("USE_STATEFUL_SESSIONS", "true")]].concat();
        planned(&all, &installed_host()).warnings.into_iter().find(|it| it.contains("USE_STATEFUL_SESSIONS"))
    };
    let (two, redis) = (("GUNICORN_WORKERS", "2"), ("CACHE_TYPE", "redis"));
    let affinity = ("MCPGATEWAY_SESSION_AFFINITY_ENABLED", "true");
    assert!(warned(&[two]).unwrap().contains("CACHE_TYPE=redis, REDIS_URL and MCPGATEWAY_SESSION_AFFINITY_ENABLED"));
    assert!(warned(&[two, affinity]).unwrap().contains("set CACHE_TYPE=redis and REDIS_URL, or"));
    assert!(warned(&[two, redis]).unwrap().contains("set MCPGATEWAY_SESSION_AFFINITY_ENABLED=true, or"));
    for fine in [&[("GUNICORN_WORKERS", "1")][..], &[two, redis, affinity], &[two, OTHER]] {
        assert_eq!(warned(fine), None, "{fine:?}");
    }
}

#[test]
fn probes_and_metrics_of_the_gateway_are_never_refused_by_default() {
    let exempt = |env: &[(&str, &str)]| {
        let plan = planned(env, &installed_host());
        let modules = plan.descriptors.iter().find_map(|descriptor| match &descriptor.what {
            crate::plan::Inherited::Modules(modules) => Some(modules.clone()),
            _ => None,
        });
        let guard = modules.unwrap().into_iter().find(|module| module.name == crate::guard::MODULE).unwrap().source;
        guard.lines().find(|line| line.starts_with("EXEMPT")).unwrap().to_owned()
    };
    assert_eq!(exempt(&[]), "EXEMPT = (\"/ready\", \"/metrics\", )");
    assert_eq!(exempt(&[OTHER]), "EXEMPT = ()");
    assert_eq!(exempt(&[("MCP_LAUNCH_GUARD_EXEMPT", "none")]), "EXEMPT = ()");
    assert_eq!(exempt(&[("MCP_LAUNCH_GUARD_EXEMPT", "/a")]), "EXEMPT = (\"/a\", )");
}
