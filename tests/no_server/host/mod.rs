//! The host probe: on described machines, file by file as their kernels show them, and on this one.

mod app;
mod cgroups;
mod live;
mod python;
mod tree;
