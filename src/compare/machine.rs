//! The machine that was measured on, for the reader who compares two results.
//!
//! The `sysinfo` crate knows how each architecture and distribution names these. It does not know the proportional
//! set size of a process, nor the processor time of children that are gone, which are read from `/proc` elsewhere.

use serde::Serialize;
use sysinfo::System;

/// The machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// Processors that we may use.
    pub cores: usize,
    /// The model of the processor.
    pub cpu: String,
    /// In bytes.
    pub memory: u64,
    /// The distribution.
    pub system: String,
    /// The kernel's version.
    pub kernel: String,
    /// How many processes wanted a processor during the minute before.
    pub load: f64,
}

impl Machine {
    /// Looks at it.
    #[must_use]
    pub fn look() -> Self {
        let system = System::new().map(|mut system| {
            system.refresh_cpu_all();
            system.refresh_memory();
            system
        });
        let brand = system.as_ref().ok().and_then(|it| it.cpus().first()).map_or("", |cpu| cpu.brand()).trim();
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            cpu: if brand.is_empty() { std::env::consts::ARCH.to_owned() } else { brand.to_owned() },
            memory: system.as_ref().map_or(0, System::total_memory),
            system: System::long_os_version().unwrap_or_else(|_| "Linux".to_owned()),
            kernel: System::kernel_version().unwrap_or_default(),
            load: System::load_average().map_or(0.0, |load| load.one),
        }
    }

    /// Whether others were busy on it just before.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "no machine has 2^52 processors")]
    pub fn is_busy(&self) -> bool {
        self.load > 0.25 * self.cores as f64
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let memory = self.memory >> 30;
        write!(f, "{} cores ({}), {memory} GiB, {}, kernel {}", self.cores, self.cpu, self.system, self.kernel)
    }
}
