//! Faults in the environment of a launcher and its server, one test for each.

mod binds;
mod exec;
mod resources;
mod respawn;
mod slow;
