//! What a hostile world does to a launcher and its server, one test for each thing.

mod harness;

#[path = "faults/binds.rs"]
mod binds;
#[path = "faults/exec.rs"]
mod exec;
#[path = "faults/respawn.rs"]
mod respawn;
#[path = "faults/surroundings.rs"]
mod surroundings;
