//! The check that is made before anything is built.

use rustix::thread::{CapabilitySet, capabilities};

use crate::LabError;

/// What the laboratory needs: namespaces, links and addresses, raw sockets.
const NEEDED: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
];

/// Checks that the calling thread has the effective capabilities that the laboratory needs.
///
/// # Errors
///
/// [`LabError::MissingCapabilities`], whose [`help`](LabError::help) says what to do.
pub fn require_root() -> Result<(), LabError> {
    let effective =
        capabilities(None).map_err(|e| LabError::io("read the capabilities", e))?.effective;
    let missing = missing_from(effective);
    if missing.is_empty() {
        return Ok(());
    }
    Err(LabError::MissingCapabilities { missing: missing.join(", ") })
}

fn missing_from(effective: CapabilitySet) -> Vec<&'static str> {
    NEEDED.iter().filter(|(set, _)| !effective.contains(*set)).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        assert_eq!(
            missing_from(CapabilitySet::NET_ADMIN | CapabilitySet::CHOWN),
            ["CAP_SYS_ADMIN", "CAP_NET_RAW"]
        );
        assert!(missing_from(CapabilitySet::all()).is_empty());
    }
}
