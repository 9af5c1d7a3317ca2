//! Python modules that the server gets in one archive in memory.

use std::ffi::{OsStr, OsString};

use super::{Descriptor, Inherited, Launch};
use crate::settings::Resolution;
use crate::settings::value::Mode;

/// A Python module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The name to import it by.
    pub name: String,
    /// Its text.
    pub source: String,
}

/// The module that is imported first: it removes the path entry through which the others are imported.
const FIRST: &str = "mcp_launch_modules";
/// The import at the beginning of each of them.
const IMPORT_FIRST: &str = "import mcp_launch_modules\n";

const SOURCE: &str = include_str!("modules.py");

impl Launch {
    /// In exec mode, low numbers may be taken by the lock and by what systemd passes (`LISTEN_FDS`).
    const FIRST_IN_EXEC_MODE: i32 = 64;

    /// The number for the next descriptor.
    pub(super) fn next_number(&self, resolution: &Resolution) -> i32 {
        let first = if resolution.settings.mode.value == Mode::Exec { Self::FIRST_IN_EXEC_MODE } else { 3 };
        self.descriptors.iter().map(|descriptor| descriptor.number + 1).fold(first, i32::max)
    }

    /// Makes the server inherit Python modules, which it can import by their names.
    pub(super) fn carry(&mut self, mut modules: Vec<Module>, resolution: &Resolution) {
        if modules.is_empty() {
            return;
        }
        let names: Vec<String> = modules.iter().map(|module| format!("{:?}", module.name)).collect();
        for module in &mut modules {
            module.source.insert_str(0, IMPORT_FIRST);
        }
        modules.push(Module { name: FIRST.into(), source: format!("{SOURCE}_settle([{}])\n", names.join(", ")) });
        let number = self.next_number(resolution);
        let mut path = OsString::from(format!("/proc/self/fd/{number}"));
        if let Some(own) = resolution.env.get(OsStr::new("PYTHONPATH")).filter(|own| !own.is_empty()) {
            path.push(":");
            path.push(own);
        }
        self.env.push(("PYTHONPATH".into(), Some(path)));
        self.descriptors.push(Descriptor { number, what: Inherited::Modules(modules) });
    }
}
