//! The machine on which the measurement ran, for comparing two results.
//!
//! The `sysinfo` crate knows how each architecture and distribution names these. It does not know the proportional set
//! size of a process, nor the CPU time of children that have ended, which are read from `/proc` elsewhere.

use std::time::Duration;

use serde::Serialize;
use sysinfo::System;

/// How long it is observed.
const LOOK: Duration = Duration::from_millis(500);
/// Other programs disturb the measurement if they use at least this share of the CPUs, in percent.
const BUSY: f32 = 10.0;

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
    /// The share of CPU time that other programs used just before, in percent.
    pub busy_percent: f32,
}

impl Machine {
    /// Observes it for half a second. (The load average would include the measurement just before this one.)
    #[must_use]
    pub fn look() -> Self {
        let system = System::new().map(|mut system| {
            system.refresh_cpu_all();
            system.refresh_memory();
            std::thread::sleep(LOOK.max(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL));
            system.refresh_cpu_usage();
            system
        });
        let brand = system.as_ref().ok().and_then(|it| it.cpus().first()).map_or("", |cpu| cpu.brand()).trim();
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            cpu: if brand.is_empty() { std::env::consts::ARCH.to_owned() } else { brand.to_owned() },
            memory: system.as_ref().map_or(0, System::total_memory),
            system: System::long_os_version().unwrap_or_else(|_| "Linux".to_owned()),
            kernel: System::kernel_version().unwrap_or_default(),
            busy_percent: system.as_ref().map_or(0.0, System::global_cpu_usage),
        }
    }

    /// Whether other programs kept it busy just before.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy_percent > BUSY
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let memory = self.memory >> 30;
        write!(f, "{} cores ({}), {memory} GiB, {}, kernel {}", self.cores, self.cpu, self.system, self.kernel)
    }
}
