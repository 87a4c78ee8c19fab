//! What keeps policies that nobody signed from where signed ones are in force, or were.
//!
//! Whether a node takes signed bundles only, its state directory says. One that is not mounted, was lost or is
//! not the right one must not mean that anything goes: the kernel knows what came in a bundle too.

use govc_authority::audit::Event;
use govc_loader::{instance::Place, status};

use crate::{failure::Failure, state::State};

/// What is given up when a policy that nobody signed comes into force.
pub struct GivenUp(Option<String>);

/// Whether this node may do without signatures: it has no root of trust, which the caller knows, and nothing
/// tells of one that it had.
///
/// # Errors
/// Something does, and nobody said that it is meant.
pub fn check(state: &State, place: &Place, replace_signed: bool) -> Result<GivenUp, Failure> {
    let dir = state.dir().display();
    let why = if status::signed(place)? {
        format!(
            "what instance `{}` enforces came in a signed bundle, and `{dir}` holds no root of trust",
            place.name()
        )
    } else if let Some(path) = state.remains() {
        format!("`{dir}` has lost its root of trust: `{}` is there", path.display())
    } else {
        return Ok(GivenUp(None));
    };
    if replace_signed {
        return Ok(GivenUp(Some(why)));
    }
    Err(Failure::Refused {
        message: why,
        help: Some(
            "Name the state directory with --state, mount it or bring it back, and apply a signed bundle; \
             --replace-signed gives up what the signers put in force, and is noted in the audit log."
                .into(),
        ),
    })
}

impl GivenUp {
    /// Notes what is given up, before it is.
    ///
    /// # Errors
    /// The audit log cannot be written.
    pub fn record(&self, state: &State, what: &str) -> Result<(), Failure> {
        let Some(why) = &self.0 else { return Ok(()) };
        tracing::warn!("{what} without a signature: {why}");
        let _lock = state.lock()?;
        state.record(Event::AuthorityGivenUp, format!("{what}: {why}"), &[], &[])
    }
}
