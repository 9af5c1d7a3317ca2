//! `top`: the running launcher as a live view.

use super::launcher::Directions;
use crate::control::ask::PATIENCE;
use crate::problem::Problem;
use crate::settings::FlagLayer;
use crate::sys::SignalState;
use crate::top::{Options, run};

pub(super) fn top(flags: &FlagLayer, options: Options, inherited: SignalState) -> Result<u8, Problem> {
    run(Directions::read(flags).find(PATIENCE)?, options, inherited)
}
