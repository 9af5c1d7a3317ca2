//! In real containers, from the image that users run. `scripts/test` builds it and names it in `MCP_LAUNCH_TEST_IMAGE`.

mod harness;

#[path = "container/compose.rs"]
mod compose;
#[path = "container/engine.rs"]
mod engine;
#[path = "container/life.rs"]
mod life;
#[path = "container/limits.rs"]
mod limits;
#[path = "container/plugins.rs"]
mod plugins;
#[path = "container/readme.rs"]
mod readme;
#[path = "container/surroundings.rs"]
mod surroundings;
#[path = "container/terminal.rs"]
mod terminal;
