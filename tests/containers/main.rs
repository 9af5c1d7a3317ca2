//! Tests in real containers, with the image that users run. `scripts/test` builds it and names it in
//! `MCP_LAUNCH_TEST_IMAGE`.

#[path = "../harness/mod.rs"]
mod harness;

mod compose;
mod engine;
mod host_files;
mod launcher_image;
mod life;
mod limits;
mod memory_budget;
mod plugins;
mod readme;
mod resizing;
mod restricted;
mod terminal;
