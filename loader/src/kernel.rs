//! What the kernel must offer, checked before anything is changed.

use crate::error::LoadError;

/// First kernel with tcx.
const OLDEST: (u32, u32) = (6, 6);
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Checks kernel version and capabilities.
///
/// # Errors
/// What is missing.
pub fn check() -> Result<(), LoadError> {
    let (found, recent) = release();
    if !recent {
        return Err(LoadError::KernelTooOld { found });
    }
    match missing_capabilities().first() {
        Some(missing) => Err(LoadError::Privileges(missing)),
        None => Ok(()),
    }
}

/// The kernel's release, and whether it is one that govc runs on.
#[must_use]
pub fn release() -> (String, bool) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let recent = version(&release).is_none_or(|found| found >= OLDEST);
    (release, recent)
}

/// Capabilities that `apply` needs and this process lacks.
#[must_use]
pub fn missing_capabilities() -> Vec<&'static str> {
    missing(effective_capabilities().unwrap_or(u64::MAX))
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective & 1 << bit != 0;
    let mut missing = Vec::new();
    if !has(CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    // It stands for both of what follows, as it did before they were taken out of it.
    let admin = has(CAP_SYS_ADMIN);
    if !admin && !has(CAP_BPF) {
        missing.push("CAP_BPF");
    }
    // Programs compare and subtract pointers, which the verifier takes from nobody else.
    if !admin && !has(CAP_PERFMON) {
        missing.push("CAP_PERFMON");
    }
    missing
}

/// Whether programs can be attached to tcx hooks: asks which ones are, on the loopback interface.
///
/// # Errors
/// The kernel does not let this process ask, or has no tcx.
pub fn query_tcx() -> Result<(), LoadError> {
    use aya::programs::{SchedClassifier, TcAttachType};
    let what = "cannot ask for tcx programs";
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress)
        .map(drop)
        .map_err(crate::error::bpf(what))
}

/// Whether something keeps the wall clock right; `None` when the kernel does not tell.
#[must_use]
pub fn is_clock_kept() -> Option<bool> {
    // SAFETY: all zero is a `timex` that changes nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the structure lives through the call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    (state >= 0).then_some(state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0)
}

/// What to add to the TAI clock to get Unix time now, seconds.
#[must_use]
pub fn tai_offset_s() -> i64 {
    use rustix::time::{ClockId, DynamicClockId, clock_gettime, clock_gettime_dynamic};
    let ns = |time: rustix::time::Timespec| time.tv_sec * 1_000_000_000 + time.tv_nsec;
    let real = ns(clock_gettime(ClockId::Realtime));
    let offset = clock_gettime_dynamic(DynamicClockId::Tai).map_or(0, |tai| real - ns(tai));
    // Whole seconds: the two clocks are read one after the other.
    (offset + 500_000_000).div_euclid(1_000_000_000)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn effective_capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn capabilities_that_are_missing_are_named() {
        let of = |bits: &[u32]| super::missing(bits.iter().map(|bit| 1 << bit).sum());
        assert_eq!(of(&[12, 38, 39]), [""; 0]);
        assert_eq!(of(&[12, 21]), [""; 0]);
        assert_eq!(of(&[12, 39]), ["CAP_PERFMON"]);
        assert_eq!(of(&[]), ["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"]);
    }

    #[test]
    fn releases_are_read() {
        assert_eq!(super::version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(super::version("5.15.0"), Some((5, 15)));
        assert!(super::version("6.5.0-rc1").unwrap() < super::OLDEST);
    }
}
