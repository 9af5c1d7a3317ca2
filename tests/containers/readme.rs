//! The lines that the README recommends for a Containerfile make an image that works.

use std::fs;
use std::path::Path;

use super::engine::{Container, Image, engine, image, unique};
use crate::harness::ask::Answer;
use crate::harness::http::get;
use crate::harness::wait_until;

/// The README's block of this kind.
fn block(kind: &str) -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, rest) = readme.split_once(&format!("```{kind}\n")).expect("a block");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_image_in_the_readme_works() {
    let Some(base) = image() else { return };
    let directory = tempfile::tempdir().unwrap();
    let text = format!("FROM {base} AS build\nFROM {base}\nENTRYPOINT []\n{}", block("dockerfile"));
    fs::write(directory.path().join("Containerfile"), text).unwrap();
    let image = Image(unique("readme"));
    let file = directory.path().join("Containerfile");
    let build =
        engine().args(["build", "--tag", &image.0, "--file"]).arg(file).arg(directory.path()).output().unwrap();
    let build = Answer::from(build);
    assert_eq!(build.code, Some(0), "{build:?}");

    let mut container = Container::start_image(&image.0, &["--health-interval=1s"], &["--workers=1", "hello:app"]);
    container.running.wait_log(" ready generation=1 server=granian/");
    assert_eq!(get(container.running.port, "/").unwrap().status, 200);
    wait_until("the engine to call it healthy", || container.inspect("{{.State.Health.Status}}") == "healthy");
    container.stop_well();
}
