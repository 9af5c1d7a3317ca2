//! One of Gunicorn's settings with the value that we give it.

/// A Python value, of the types that occur.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Python {
    None,
    Bool(bool),
    Int(u64),
    Text(String),
}

/// A setting and its value: a line of a configuration, or a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// The setting's name in a configuration.
    pub setting: &'static str,
    /// The flag that sets it.
    pub flag: &'static str,
    pub value: Python,
    /// Whether it was set explicitly, so that it takes precedence over the user's file and arguments.
    pub explicit: bool,
}

impl Directive {
    pub const fn new(setting: &'static str, flag: &'static str, value: Python, explicit: bool) -> Self {
        Self { setting, flag, value, explicit }
    }

    pub const fn explicit(setting: &'static str, flag: &'static str, value: Python) -> Self {
        Self::new(setting, flag, value, true)
    }

    pub const fn default_value(setting: &'static str, flag: &'static str, value: Python) -> Self {
        Self::new(setting, flag, value, false)
    }

    /// As arguments. A flag can switch something on, but nothing off.
    pub fn arguments(&self) -> Option<Vec<String>> {
        match &self.value {
            Python::None | Python::Bool(false) => None,
            Python::Bool(true) => Some(vec![self.flag.into()]),
            Python::Int(number) => Some(vec![self.flag.into(), number.to_string()]),
            Python::Text(text) => Some(vec![self.flag.into(), text.clone()]),
        }
    }
}
