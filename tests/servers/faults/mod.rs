//! What a hostile world does to a launcher and its server, one test for each thing.

mod binds;
mod exec;
mod respawn;
mod slow;
mod surroundings;
