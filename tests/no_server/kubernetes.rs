//! The files for Kubernetes follow the published schemas, and fit the program's settings.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::harness::{self, has, tools};
use mcp_launch::host::Environment;
use mcp_launch::problem::Exit;
use mcp_launch::settings::{FlagLayer, Resolution, resolve};
use serde_json::Value;

/// The oldest version that the files support, and the newest that the validator supports.
pub(super) const VERSIONS: [&[&str]; 2] = [&["--kubernetes-version", "1.27.0"], &[]];
const OVERLAYS: [&str; 3] = ["gunicorn", "granian", "tls"];
/// The time that kubelet and container runtime may add to what was measured.
pub(super) const MARGIN: Duration = Duration::from_secs(3);

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/kubernetes").join(path)
}

pub(super) fn validate(tools: &Path, version: &[&str], files: &[PathBuf]) -> Output {
    let validator = tools.join("bin/kubernetes-validate");
    Command::new(validator).arg("--strict").args(version).args(files).output().unwrap()
}

/// The resources of the base, and the example that is not part of it.
fn resources() -> Vec<PathBuf> {
    let names = ["deployment", "service", "autoscaler", "disruption-budget"];
    let base = names.iter().map(|name| file(&format!("base/{name}.yaml")));
    base.chain([file("secret.example.yaml")]).collect()
}

fn rendered(overlay: &str) -> String {
    let output = Command::new("kubectl").arg("kustomize").arg(file(overlay)).output().unwrap();
    assert!(output.status.success(), "{overlay}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The documents of a YAML file.
pub(super) fn documents(tools: &Path, text: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)";
    let mut python = Command::new(tools.join("bin/python"))
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(super) fn pod(documents: &[Value]) -> &Value {
    let deployment = documents.iter().find(|document| document["kind"] == "Deployment").unwrap();
    &deployment["spec"]["template"]["spec"]
}

fn base_pod(tools: &Path) -> Value {
    pod(&documents(tools, &fs::read_to_string(file("base/deployment.yaml")).unwrap())).clone()
}

pub(super) fn container(pod: &Value) -> &Value {
    &pod["containers"][0]
}

/// A quantity of CPU in thousandths.
fn millis(quantity: &str) -> u64 {
    match quantity.strip_suffix('m') {
        Some(millis) => millis.parse().unwrap(),
        None => quantity.parse::<u64>().unwrap() * 1000,
    }
}

/// The environment as the kubelet makes it: in order, so that earlier variables can be referred to.
pub(super) fn environment(container: &Value) -> Environment {
    let requested = millis(container["resources"]["requests"]["cpu"].as_str().unwrap());
    let mut known = BTreeMap::<String, String>::new();
    for variable in container["env"].as_array().unwrap() {
        let field = &variable["valueFrom"]["resourceFieldRef"];
        let value = match variable["value"].as_str() {
            Some(text) => {
                known.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
            }
            None if field["resource"] == "requests.cpu" => {
                requested.div_ceil(millis(field["divisor"].as_str().unwrap())).to_string()
            }
            None => panic!("how does this get its value? {variable}"),
        };
        known.insert(variable["name"].as_str().unwrap().to_owned(), value);
    }
    known.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// The settings in the pod.
fn settings(container: &Value) -> Resolution {
    settings_with(container, fs::read(file("base/mcp-launch.toml")).unwrap())
}

/// The settings in a pod whose `mcp-launch.toml` has this text.
pub(super) fn settings_with(container: &Value, text: Vec<u8>) -> Resolution {
    resolve(&FlagLayer::default(), &environment(container), &move |path| {
        assert_eq!(path, Path::new("/etc/mcp-launch/mcp-launch.toml"));
        Ok(text.clone())
    })
}

pub(super) fn seconds(value: &Value) -> Duration {
    Duration::from_secs(value.as_u64().unwrap())
}

/// How long a probe may fail.
pub(super) fn patience(probe: &Value) -> Duration {
    seconds(&probe["periodSeconds"]) * u32::try_from(probe["failureThreshold"].as_u64().unwrap()).unwrap()
}

#[test]
fn the_resources_follow_the_published_schemas() {
    let Some(tools) = tools() else { return };
    for version in VERSIONS {
        let output = validate(&tools, version, &resources());
        assert!(output.status.success(), "{version:?}: {output:?}");
    }
}

#[test]
fn a_misspelt_field_would_be_found() {
    let Some(tools) = tools() else { return };
    let directory = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(file("base/deployment.yaml")).unwrap();
    let wrong = directory.path().join("deployment.yaml");
    fs::write(&wrong, text.replace("readOnlyRootFilesystem", "readonlyRootFilesystem")).unwrap();
    assert!(!validate(&tools, &[], &[wrong]).status.success());
}

#[test]
fn the_overlays_follow_the_published_schemas() {
    let (Some(tools), true) = (tools(), has("kubectl")) else { return };
    let directory = tempfile::tempdir().unwrap();
    for overlay in OVERLAYS {
        let path = directory.path().join(format!("{overlay}.yaml"));
        fs::write(&path, rendered(overlay)).unwrap();
        for version in VERSIONS {
            let output = validate(&tools, version, std::slice::from_ref(&path));
            assert!(output.status.success(), "{overlay} {version:?}: {output:?}");
        }
    }
}

#[test]
fn the_overlays_say_which_server_and_carry_the_settings() {
    let (Some(tools), true) = (tools(), has("kubectl")) else { return };
    for (overlay, server) in [("gunicorn", "gunicorn"), ("granian", "granian"), ("tls", "granian")] {
        let documents = documents(&tools, &rendered(overlay));
        let pod = pod(&documents);
        let command = &container(pod)["command"];
        assert_eq!(command, &serde_json::json!(["mcp-launch", "--server", server]), "{overlay}");
        let map = documents.iter().find(|document| document["kind"] == "ConfigMap").unwrap();
        let text = fs::read_to_string(file("base/mcp-launch.toml")).unwrap();
        assert_eq!(map["data"]["mcp-launch.toml"], text);
        let volumes = pod["volumes"].as_array().unwrap();
        assert!(volumes.iter().any(|volume| volume["configMap"]["name"] == map["metadata"]["name"]), "{overlay}");
    }
}

#[test]
fn the_settings_are_right_in_every_pod() {
    let Some(tools) = tools() else { return };
    let mut pods = vec![base_pod(&tools)];
    if has("kubectl") {
        pods.extend(OVERLAYS.map(|overlay| pod(&documents(&tools, &rendered(overlay))).clone()));
    }
    for pod in pods {
        let found = settings(container(&pod));
        assert!(found.problems.is_empty() && found.warnings.is_empty(), "{:?} {:?}", found.problems, found.warnings);
    }
}

#[test]
fn the_certificate_is_mounted_where_the_settings_look_for_it() {
    let (Some(tools), true) = (tools(), has("kubectl")) else { return };
    let documents = documents(&tools, &rendered("tls"));
    let pod = pod(&documents);
    let settings = settings(container(pod)).settings;
    assert!(settings.ssl.value && settings.watch_certs.value);
    let volumes = pod["volumes"].as_array().unwrap();
    let secret = volumes.iter().find(|volume| volume["secret"].is_object()).unwrap();
    // Readable for the group, which a container without root privileges has, and for no other user.
    assert_eq!(secret["secret"]["defaultMode"], 0o440);
    let mounts = container(pod)["volumeMounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["name"] == secret["name"]).unwrap();
    assert!(mount["subPath"].is_null(), "files mounted with subPath never change");
    let folder = Path::new(mount["mountPath"].as_str().unwrap());
    assert_eq!(settings.cert_file.value, folder.join("tls.crt"));
    assert_eq!(settings.key_file.value, folder.join("tls.key"));
}

#[test]
fn a_pod_gets_a_worker_for_each_core_that_it_asks_for() {
    let Some(tools) = tools() else { return };
    let mut pod = base_pod(&tools);
    for (request, cores) in [("2", 2.0), ("500m", 0.5), ("1500m", 1.5), ("1", 1.0)] {
        pod["containers"][0]["resources"]["requests"]["cpu"] = request.into();
        let found = settings(container(&pod));
        assert!(found.problems.is_empty(), "{request}: {:?}", found.problems);
        let cpus = found.settings.cpus.value.unwrap().cores();
        assert!((cpus - cores).abs() < 1e-9, "{request}: {cpus}");
    }
}

#[test]
fn the_memory_has_room_for_two_generations() {
    let Some(tools) = tools() else { return };
    let pod = base_pod(&tools);
    let settings = settings(container(&pod)).settings;
    let resources = &container(&pod)["resources"];
    assert_eq!(resources["requests"]["memory"], resources["limits"]["memory"]);
    let limit = resources["limits"]["memory"].as_str().unwrap().strip_suffix("Mi").unwrap();
    let limit = limit.parse::<u64>().unwrap() << 20;
    let workers = settings.cpus.value.unwrap().millis / 1000;
    let generation = workers * settings.worker_memory.value.0;
    assert!(limit * 8 / 10 >= generation, "fewer workers than cores");
    assert!(limit >= 2 * generation, "a reload would have to go step by step");
}

#[test]
fn a_stop_fits_into_the_grace_period() {
    let Some(tools) = tools() else { return };
    let pod = base_pod(&tools);
    let grace = seconds(&pod["terminationGracePeriodSeconds"]);
    let (chosen, default) = (settings(container(&pod)).settings, defaults().settings);
    for settings in [&chosen, &default] {
        assert!(settings.stop_timeout.value.0 + MARGIN <= grace);
    }
    let delay = chosen.stop_delay.value.0;
    assert!(delay >= seconds(&container(&pod)["readinessProbe"]["periodSeconds"]), "no probe would notice it");
    // The server's own grace is what remains less 2 s.
    assert!(chosen.stop_timeout.value.0 >= delay + Duration::from_secs(12), "too little is left for requests");
}

fn defaults() -> Resolution {
    resolve(&FlagLayer::default(), &Environment::new(), &|_| Err(std::io::ErrorKind::NotFound.into()))
}

#[test]
fn the_kubelet_leaves_the_launcher_the_time_that_it_takes() {
    let Some(tools) = tools() else { return };
    let pod = base_pod(&tools);
    let settings = settings(container(&pod)).settings;
    let probe = |name: &str| container(&pod)[name].clone();
    let startup = settings.startup_timeout.value.0;
    assert!(patience(&probe("startupProbe")) >= startup + MARGIN);
    let healing = settings.worker_timeout.value.0.max(settings.backoff_max.value.0 + startup);
    assert!(patience(&probe("livenessProbe")) >= healing + MARGIN);
}

#[test]
fn the_probes_are_commands_that_end_in_time() {
    let Some(tools) = tools() else { return };
    let pod = base_pod(&tools);
    let default = "--timeout <DURATION>";
    let help = Command::new(harness::PROGRAM).args(["health", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let own = help[help.find(default).unwrap()..].split("[default: ").nth(1).unwrap().split('s').next().unwrap();
    for name in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let probe = &container(&pod)[name];
        // An answer of `health` is more useful than a timeout.
        assert!(probe["timeoutSeconds"].as_u64().unwrap() > own.parse().unwrap(), "{name}");
        let words: Vec<_> = probe["exec"]["command"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(words[0], "mcp-launch");
        let nobody = harness::Launch::new(&words[1..]).without_launcher().finish();
        assert_eq!(nobody.code, i32::from(Exit::NoLauncher.code()), "{name}: {}", nobody.log);
    }
}

#[test]
fn the_pod_has_no_right_that_it_does_not_need() {
    let Some(tools) = tools() else { return };
    let pod = base_pod(&tools);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod["enableServiceLinks"], false);
    assert_eq!(pod["automountServiceAccountToken"], false);
    let context = &container(&pod)["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["capabilities"], serde_json::json!({ "drop": ["ALL"] }));
}

#[test]
fn the_example_holds_no_secret() {
    let Some(tools) = tools() else { return };
    let text = fs::read_to_string(file("secret.example.yaml")).unwrap();
    let documents = documents(&tools, &text);
    for (name, value) in documents[0]["stringData"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        let secret = ["SECRET", "PASSWORD"].iter().any(|part| name.contains(part));
        assert!(!secret || value == "replace-me", "{name}");
        assert!(!value.contains("://") || value.contains("HOST"), "{name}");
    }
}
