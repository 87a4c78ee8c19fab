//! What the kernel must offer, checked before anything is changed.

use crate::error::LoadError;

/// First kernel with tcx.
const OLDEST: (u32, u32) = (6, 6);
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Checks kernel version and capabilities.
///
/// # Errors
/// What is missing.
pub fn check() -> Result<(), LoadError> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    if version(&release).is_some_and(|found| found < OLDEST) {
        return Err(LoadError::KernelTooOld { found: release });
    }
    let effective = effective_capabilities().unwrap_or(u64::MAX);
    let has = |bit: u32| effective & 1 << bit != 0;
    if !has(CAP_NET_ADMIN) {
        return Err(LoadError::Privileges("CAP_NET_ADMIN"));
    }
    if !has(CAP_SYS_ADMIN) && !has(CAP_BPF) {
        return Err(LoadError::Privileges("CAP_BPF"));
    }
    Ok(())
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
    fn releases_are_read() {
        assert_eq!(super::version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(super::version("5.15.0"), Some((5, 15)));
        assert!(super::version("6.5.0-rc1").unwrap() < super::OLDEST);
    }
}
