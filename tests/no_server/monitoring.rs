//! The alert rules and the dashboard are well-formed. A test of the metrics' names is where the metrics are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::tools;
use serde_json::Value;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/monitoring").join(name)
}

#[test]
fn every_alert_has_an_expression_a_severity_and_a_summary() {
    let Some(tools) = tools() else { return };
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let output = Command::new(tools.join("bin/python"))
        .args(["-c", script])
        .stdin(fs::File::open(file("alerts.yaml")).unwrap())
        .output()
        .unwrap();
    let rules: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    let mut names = BTreeSet::new();
    for rule in rules {
        assert!(names.insert(rule["alert"].as_str().unwrap()), "{rule}");
        assert!(rule["expr"].as_str().unwrap().contains("mcp_launch_"), "{rule}");
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{rule}");
        assert!(rule["annotations"]["summary"].as_str().unwrap().contains("$labels.instance"), "{rule}");
    }
    for about in ["NotReady", "CrashLoop", "Refusals", "EventLoopLag", "MemoryNearLimit", "CertificateExpires"] {
        assert!(names.iter().any(|name| name.ends_with(about)), "no alert about {about}");
    }
}

#[test]
fn panels_of_the_dashboard_do_not_overlap_and_have_queries() {
    let dashboard: Value = serde_json::from_slice(&fs::read(file("grafana-dashboard.json")).unwrap()).unwrap();
    let mut cells = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(panel["targets"].as_array().unwrap().iter().all(|target| target["expr"] != ""), "{panel}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().unwrap());
        assert!(x + w <= 24, "{panel}");
        let own = (x..x + w).flat_map(|column| (y..y + h).map(move |row| (column, row)));
        assert!(own.into_iter().all(|cell| cells.insert(cell)), "{panel}");
    }
}
