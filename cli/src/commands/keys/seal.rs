//! `keys seal`: a ring that is of no use without the node's age key.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use govc_loader::keyring::DomainKeys;

use super::{super::plural, keep, status::report};
use crate::{
    arguments::Seal,
    failure::Failure,
    input,
    output::{Style, json, line},
    ring,
};

pub fn run(arguments: &Seal, style: &Style) -> Result<(), Failure> {
    let dir = &arguments.ring.keys;
    let before = ring::identity_of(dir, arguments.ring.ring_identity.as_deref());
    let identity = arguments.identity.clone().or_else(|| before.clone());
    let identity = identity.ok_or_else(|| Failure::Usage {
        message: "nobody said what to seal the ring for".into(),
        help: "Name a file with an age key of this node, as `age-keygen -o FILE` makes it: \
               --identity FILE"
            .into(),
    })?;
    let link = arguments.identity.as_ref().map(|path| Link::new(dir, path)).transpose()?;
    // The link is about to lead elsewhere, and what it led to has to open what is there.
    let before = before.map(|path| fs::canonicalize(&path).unwrap_or(path));
    let sealed = ring::sealed_by(dir, identity.clone(), before);
    let lock = sealed.lock()?;
    let mut rings = lock.list()?;
    // Whoever dies in between leaves files that lie open beside an identity, which is no harm, or,
    // where the identity changes, some that the old one opens: --ring-identity names it.
    ring::prove(&identity)?;
    link.iter().try_for_each(Link::set)?;
    let lay_open = rings.iter().any(|keys| !keys.sealed);
    rings.iter_mut().try_for_each(|keys| keep(&lock, keys))?;
    if arguments.json {
        return json(&rings.iter().map(report).collect::<Vec<_>>());
    }
    if rings.is_empty() {
        return line(&format!("no ring is in {} yet; those to come are sealed", dir.display()));
    }
    let names = rings.iter().map(|keys: &DomainKeys| keys.domain.as_str());
    line(&format!(
        "{} {} in {}: {}",
        style.good("sealed"),
        plural(rings.len(), "ring"),
        dir.display(),
        names.collect::<Vec<_>>().join(", ")
    ))?;
    if lay_open {
        line("   backups may hold what lay open before: rotate the keys where they do")?;
    }
    Ok(())
}

/// The name in the key directory under which commands find the identity.
struct Link {
    at: PathBuf,
    /// Where it has to lead; nothing where it does already.
    to: Option<PathBuf>,
}

impl Link {
    fn new(dir: &Path, identity: &Path) -> Result<Self, Failure> {
        let at = dir.join(ring::IDENTITY);
        let target = fs::canonicalize(identity).map_err(input::file("read", identity))?;
        if fs::canonicalize(&at).is_ok_and(|there| there == target) {
            return Ok(Self { at, to: None });
        }
        // A file in its place is an age key, and may be the only one that opens something.
        if fs::symlink_metadata(&at).is_ok_and(|metadata| !metadata.is_symlink()) {
            return Err(Failure::Usage {
                message: format!("`{}` is an identity of its own", at.display()),
                help: "Move it away first, and name it with --ring-identity where rings are \
                       sealed for it."
                    .into(),
            });
        }
        // As it was said: links on the way, such as those of a service's credentials, stay.
        let to = std::path::absolute(identity).map_err(input::file("read", identity))?;
        Ok(Self { at, to: Some(to) })
    }

    fn set(&self) -> Result<(), Failure> {
        let Some(to) = &self.to else { return Ok(()) };
        let temporary = self.at.with_extension("tmp");
        let made = match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => symlink(to, &temporary).and_then(|()| fs::rename(&temporary, &self.at)),
        };
        made.map_err(input::file("make", &self.at))
    }
}
