//! A value with its origin, and what it took precedence over.

use std::ops::Deref;

use serde::Serialize;

use crate::problem::Origin;

/// A value that lost to one of higher precedence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shadowed {
    /// As it was written; redacted for a secret.
    pub text: String,
    /// Where it stands.
    pub origin: Origin,
}

/// A resolved option: its value, where it came from and what it shadows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value in force.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
    /// What was also given, highest precedence first, the default left out.
    pub shadowed: Vec<Shadowed>,
}

impl<T> Setting<T> {
    /// Whether somebody chose the value.
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
