//! What the figures were measured on.

use std::{fmt, sync::OnceLock};

use crate::error::{BenchError, io};

/// The machine, as far as it matters.
pub struct Machine {
    kernel: String,
    processor: String,
    cores: usize,
}

impl Machine {
    /// Asks the kernel.
    pub fn find() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned());
        let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        // What builders append says nothing about speed.
        let kernel = release.split('-').next().unwrap_or_default().to_owned();
        Self { kernel, processor, cores }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, processor, cores } = self;
        write!(f, "Linux {kernel}, {processor}, {cores} cores")
    }
}

/// A core of those that this process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// Where interrupts tend to be.
    First,
    /// Where everything runs that is measured alone.
    Last,
}

/// Keeps this thread and those that it starts on one core.
pub fn stay_on(core: Core) -> Result<(), BenchError> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let what = "choose a core";
    let (first, last) = *CORES.get_or_init(allowed);
    let mut only = CpuSet::new();
    only.set(if core == Core::First { first } else { last });
    sched_setaffinity(None, &only).map_err(|e| io(what)(e.into()))
}

/// The first and the last core that this process could use when it began.
static CORES: OnceLock<(usize, usize)> = OnceLock::new();

fn allowed() -> (usize, usize) {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let Ok(allowed) = sched_getaffinity(None) else { return (0, 0) };
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    let first = cores.next().unwrap_or(0);
    (first, cores.next_back().unwrap_or(first))
}

/// Time that this thread has had a core for, nanoseconds. Unlike the wall clock it stands still
/// while others run here.
pub fn thread_ns() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
