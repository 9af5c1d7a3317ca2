//! The Helm chart: as Helm wants it, following the published schemas, and right for the program's settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::kubernetes::{MARGIN, VERSIONS, container, documents, patience, pod, seconds, settings_with, validate};
use crate::harness::{has, tools};
use mcp_launch::settings::Resolution;
use serde_json::{Value, json};

const IMAGE: &str = "image.repository=registry.example.com/shop";
/// What users choose, each as `NAME=VALUE`.
const CHOICES: [&[&str]; 5] = [
    &[],
    &["app=shop.asgi:application", "server=granian", "workers=3", "resources.requests.cpu=1500m", "backpressure=0"],
    &["tls.enabled=true", "tls.secretName=shop-tls", "server=auto", "service.type=LoadBalancer"],
    &[
        "metrics.enabled=true",
        "metrics.serviceMonitor.enabled=true",
        "metrics.serviceMonitor.labels.release=prometheus",
    ],
    &[
        "autoscaling.enabled=true",
        "stop.delay=10",
        "stop.timeout=60",
        "env.DATABASE_URL=postgresql://db/shop",
        "env.MCP_LAUNCH_CPUS=2",
        "envFrom[0].secretRef.name=shop",
        "serviceAccountName=shop",
        "podSecurityContext.runAsUser=1001",
    ],
];

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/helm/mcp-launch")
}

/// Helm, and the tools that check its results.
fn helm() -> Option<(PathBuf, PathBuf)> {
    let tools = tools()?;
    let own = tools.join("bin/helm");
    if own.is_file() { Some((own, tools)) } else { has("helm").then(|| ("helm".into(), tools)) }
}

fn run(helm: &Path, command: &[&str], values: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let mut helm = Command::new(helm);
    helm.args(command).arg(chart()).env("HOME", directory.path());
    for value in values {
        helm.args(["--set", value]);
    }
    helm.output().unwrap()
}

fn template(helm: &Path, values: &[&str]) -> Output {
    run(helm, &["template", "shop"], &[&[IMAGE], values].concat())
}

/// What the chart makes with these values.
#[track_caller]
fn rendered(helm: &Path, values: &[&str]) -> String {
    let output = template(helm, values);
    assert!(output.status.success(), "{values:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    documents.iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("there is no {kind}"))
}

fn settings(documents: &[Value]) -> Resolution {
    let file = of_kind(documents, "ConfigMap")["data"]["mcp-launch.toml"].as_str().unwrap();
    settings_with(container(pod(documents)), file.into())
}

#[test]
fn helm_finds_nothing_wrong_with_it() {
    let Some((helm, _)) = helm() else { return };
    let output = run(&helm, &["lint", "--strict", "--quiet"], &[IMAGE]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn its_version_is_the_one_of_the_program() {
    let text = fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    for key in ["version", "appVersion"] {
        let line = format!("{key}: {}", env!("CARGO_PKG_VERSION"));
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn what_it_makes_follows_the_published_schemas() {
    let Some((helm, tools)) = helm() else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (nth, values) in CHOICES.iter().enumerate() {
        let text = rendered(&helm, values);
        // The operator's own kind has no place among the schemas of Kubernetes.
        let known: Vec<&str> = text.split("\n---\n").filter(|part| !part.contains("kind: ServiceMonitor")).collect();
        let path = directory.path().join(format!("{nth}.yaml"));
        fs::write(&path, known.join("\n---\n")).unwrap();
        files.push(path);
    }
    for version in VERSIONS {
        let output = validate(&tools, version, &files);
        assert!(output.status.success(), "{version:?}: {output:?}");
    }
}

#[test]
fn the_settings_are_right_in_every_pod() {
    let Some((helm, tools)) = helm() else { return };
    for values in CHOICES {
        let documents = documents(&tools, &rendered(&helm, values));
        let found = settings(&documents);
        assert!(found.problems.is_empty() && found.warnings.is_empty(), "{:?} {:?}", found.problems, found.warnings);
        let (pod, settings) = (pod(&documents), found.settings);
        let (stop, startup) = (settings.stop_timeout.value.0, settings.startup_timeout.value.0);
        assert!(seconds(&pod["terminationGracePeriodSeconds"]) >= stop + MARGIN, "{values:?}");
        assert!(patience(&container(pod)["startupProbe"]) >= startup + MARGIN, "{values:?}");
        let healing = settings.worker_timeout.value.0.max(settings.backoff_max.value.0 + startup);
        assert!(patience(&container(pod)["livenessProbe"]) >= healing + MARGIN, "{values:?}");
    }
}

#[test]
fn the_values_decide_what_is_served_and_how() {
    let Some((helm, tools)) = helm() else { return };
    let of = |nth: usize| documents(&tools, &rendered(&helm, CHOICES[nth]));
    let settings_of = |nth| settings(&of(nth)).settings;

    let served = settings_of(1);
    assert_eq!(served.app_module.value.to_string(), "shop.asgi:application");
    assert_eq!(served.http_server.value.to_string(), "granian");
    assert!((served.cpus.value.unwrap().cores() - 1.5).abs() < 1e-9);

    let encrypted = settings_of(2);
    assert!(encrypted.ssl.value && encrypted.watch_certs.value);
    let mounts = container(pod(&of(2)))["volumeMounts"].as_array().unwrap().clone();
    let mount = mounts.iter().find(|mount| mount["name"] == "tls").unwrap();
    assert_eq!(encrypted.cert_file.value.parent().unwrap(), Path::new(mount["mountPath"].as_str().unwrap()));

    let measured = of(3);
    assert!(settings(&measured).settings.metrics.value.is_some());
    let monitor = of_kind(&measured, "ServiceMonitor");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(monitor["spec"]["endpoints"], json!([{"port": "metrics", "path": "/metrics", "interval": "30s"}]));
    let service = of_kind(&measured, "Service");
    assert!(service["spec"]["ports"].as_array().unwrap().iter().any(|port| port["name"] == "metrics"));
    let labels = &service["metadata"]["labels"];
    for (name, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&labels[name], value, "the monitor does not select the service");
    }

    let scaled = of(4);
    assert!(of_kind(&scaled, "Deployment")["spec"]["replicas"].is_null(), "the autoscaler decides");
    assert_eq!(of_kind(&scaled, "HorizontalPodAutoscaler")["spec"]["maxReplicas"], 10);
    let names: Vec<&str> =
        container(pod(&scaled))["env"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names.iter().filter(|name| **name == "MCP_LAUNCH_CPUS").count(), 1, "{names:?}");
}

#[test]
fn the_binary_can_come_from_an_image_of_its_own() {
    let Some((helm, tools)) = helm() else { return };
    let values = ["launcher.image=registry.example.com/mcp-launch:1"];
    let text = rendered(&helm, &values);
    let documents = documents(&tools, &text);
    let pod = pod(&documents);
    assert_eq!(container(pod)["command"], json!(["/opt/mcp-launch/mcp-launch"]));
    assert_eq!(container(pod)["livenessProbe"]["exec"]["command"][0], "/opt/mcp-launch/mcp-launch");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("launcher.yaml");
    fs::write(&path, text).unwrap();
    let newest = validate(&tools, &[], &[path]);
    assert!(newest.status.success(), "{newest:?}");
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    let Some((helm, _)) = helm() else { return };
    for (values, names) in [
        (["sever=granian"], "sever"),
        (["server=nginx"], "server"),
        (["tls.enabled=true"], "secretName"),
        (["image.repository="], "repository"),
        (["workers=0"], "workers"),
        (["app=shop/wsgi.py"], "app"),
    ] {
        let output = template(&helm, &values);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(names), "{values:?}: {said}");
    }
}
