//! Tests run in parallel, in threads of one process. Those that keep all cores busy, and those that measure time, take
//! turns, because they would disturb each other.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A turn, until the last copy is dropped.
pub type Turn = Rc<MutexGuard<'static, ()>>;

static MACHINE: Mutex<()> = Mutex::new(());

thread_local! {
    static HELD: RefCell<Weak<MutexGuard<'static, ()>>> = RefCell::default();
}

/// Waits for this test's turn; a test that already has it continues.
pub fn take_turn() -> Turn {
    HELD.with_borrow_mut(|held| {
        held.upgrade().unwrap_or_else(|| {
            // A test that failed has ended its turn as well.
            let turn = Rc::new(MACHINE.lock().unwrap_or_else(PoisonError::into_inner));
            *held = Rc::downgrade(&turn);
            turn
        })
    })
}
