//! A value with its origin and the values it took precedence over.

use std::ops::Deref;

use serde::Serialize;

use crate::problem::Origin;

/// A value that was overridden by one of higher precedence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shadowed {
    /// As it was written; redacted if it is a secret.
    pub text: String,
    /// Where it was set.
    pub origin: Origin,
}

/// A resolved option: its value, where it came from and what it shadows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value in force.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
    /// Other values that were set, highest precedence first, without the default.
    pub shadowed: Vec<Shadowed>,
}

impl<T> Setting<T> {
    /// Whether the value was set explicitly.
    pub const fn is_explicit(&self) -> bool {
        self.origin.is_explicit()
    }
}

impl<T> Deref for Setting<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
