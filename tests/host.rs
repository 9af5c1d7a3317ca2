//! What the probe makes of machines: described ones, file by file as their kernels show them, and this one.

#[path = "host/app.rs"]
mod app;
#[path = "host/cgroups.rs"]
mod cgroups;
#[path = "host/live.rs"]
mod live;
#[path = "host/python.rs"]
mod python;
#[path = "host/tree.rs"]
mod tree;
