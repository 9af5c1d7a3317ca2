//! What the probe makes of machines: described ones, file by file as their kernels show them, and this one.

mod app;
mod cgroups;
mod live;
mod python;
mod tree;
