//! The image that holds the binary alone, and what it is for: a Containerfile that copies from it.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::engine::{Container, Image, engine, image, unique};
use crate::harness::ask::Answer;
use crate::harness::http::get;
use crate::harness::release;

/// Built by the script, from the release that is tested.
fn launcher(release: &Path) -> Image {
    let name = unique("launcher");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/container");
    let mut build = Command::new(script);
    let build = build.arg("launcher").env("LAUNCHER_IMAGE", &name).env("RELEASE", release).output().unwrap();
    let build = Answer::from(build);
    assert_eq!(build.code, Some(0), "{build:?}");
    Image(name)
}

/// The lines that the documents recommend.
fn recommended() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/install.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("```dockerfile\n").expect("a block");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn an_image_of_the_binary_alone_runs_and_is_copied_from() {
    let (Some(base), Some(release)) = (image(), release()) else { return };
    let launcher = launcher(&release);
    let version = Answer::from(engine().args(["run", "--rm", &launcher.0, "--version"]).output().unwrap());
    assert_eq!(version.out.trim(), concat!("mcp-launch ", env!("CARGO_PKG_VERSION")), "{version:?}");
    let layers = engine().args(["image", "inspect", "--format", "{{len .RootFS.Layers}}", &launcher.0]).output();
    assert_eq!(Answer::from(layers.unwrap()).out.trim(), "1");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("Containerfile");
    let lines = recommended().replace("--from=mcp-launch ", &format!("--from={} ", launcher.0));
    assert!(lines.contains(&launcher.0), "{lines}");
    let with_base =
        lines.lines().map(|line| if line.starts_with("FROM ") { format!("FROM {base}") } else { line.into() });
    let text: Vec<String> = with_base.collect();
    // The base's own binary must not be what runs.
    let text = text
        .join("\n")
        .replace("COPY --from", "ENTRYPOINT []\nUSER root\nRUN rm $(command -v mcp-launch)\nCOPY --from");
    fs::write(&file, text).unwrap();
    let own = Image(unique("copied"));
    let build =
        engine().args(["build", "--tag", &own.0, "--file"]).arg(&file).arg(directory.path()).output().unwrap();
    let build = Answer::from(build);
    assert_eq!(build.code, Some(0), "{build:?}");
    let mut container = Container::start_image(&own.0, &[], &["--workers=1", "hello:app"]);
    container.running.wait_log(" ready generation=1 server=gunicorn/");
    assert_eq!(get(container.running.port, "/").unwrap().status, 200);
    container.stop_well();
}
