//! The state directory: what this node trusts, the bundle in force, grants, the audit log.
//!
//! | entry | contents |
//! | --- | --- |
//! | `trust.0`, `trust.1` | the trust state, see [`govc_authority::store`] |
//! | `node.pub` | public key of this node, to which grants are made |
//! | `policy.bundle` | the bundle that was applied last |
//! | `followed.json` | which grants the bundle takes back that was followed last |
//! | `grants/SERIAL.grant` | grants that this node holds |
//! | `mappings/FROM-TO.mapping` | what it may translate, by numbers of domains |
//! | `abroad/NUMBER/root`, `grants/` | the root of another domain, and its transit grants |
//! | `audit.log` | what was done |

mod remains;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use govc_authority::{
    audit::{self, Event, Record},
    bundle::{BUNDLE_LEN_MAX, Bundle},
    digest::Digest,
    envelope::Envelope,
    files, form,
    grant::{self, GRANT_LEN_MAX, Grant},
    key::{KeyId, PublicKey},
    mapping::{MAPPING_LEN_MAX, Mapping},
    revocations::Revocations,
    store::Store,
    trust::{ROOT_LEN_MAX, Root, Trust},
};

use serde::{Deserialize, Serialize};

pub use remains::note_of;

use crate::{arguments, failure::Failure, input, secrets, times};

/// Where it is unless told otherwise.
pub const DEFAULT_DIR: &str = "/var/lib/govc";
/// Bytes of what is kept of a followed bundle: its revocations, of 1 MiB at most, and a digest.
const FOLLOWED_LEN_MAX: usize = (1 << 20) + (1 << 10);
/// Grants that one node may hold.
const GRANTS_MAX: usize = 1024;

/// A state directory, which need not exist.
#[derive(Clone, Debug)]
pub struct State {
    dir: PathBuf,
}

/// What is kept of a bundle that was followed: which grants it takes back.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Followed {
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Grants that no longer hold.
    pub revoked: Revocations,
}

/// A grant that a node keeps, and whether it holds.
pub struct Kept {
    /// Its file.
    pub path: PathBuf,
    /// What it allows, or why nothing.
    pub verified: Result<grant::Verified, Failure>,
}

impl State {
    /// The directory that the command line names.
    pub fn new(arguments: &arguments::StateArguments) -> Self {
        Self { dir: arguments.state.clone() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The trust state's files.
    pub fn store(&self) -> Store {
        Store::new(&self.dir)
    }

    /// The audit log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// What the node trusts, if it was given a root. Damage of what is not needed is told.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn trust(&self) -> Result<Option<Trust>, Failure> {
        let Some(state) = self.store().read()? else { return Ok(None) };
        if let Some(damage) = state.damage {
            tracing::warn!(dir = %self.dir.display(), "the trust state is damaged: {damage}");
        }
        Ok(Some(state.trust))
    }

    /// What the node trusts.
    ///
    /// # Errors
    /// The state cannot be read, or no root was given.
    pub fn expect_trust(&self) -> Result<Trust, Failure> {
        self.trust()?.ok_or_else(|| Failure::Usage {
            message: format!("there is no root of trust in `{}`", self.dir.display()),
            help: "Give the node one with `govc trust init ROOT`, name another directory with \
                   --state, or a root with --root."
                .into(),
        })
    }

    /// Holds off others who change the state. Whoever has read access may hold it.
    ///
    /// # Errors
    /// The directory or file cannot be made.
    pub fn lock(&self) -> Result<File, Failure> {
        make_directory(&self.dir)?;
        let path = self.dir.join("state.lock");
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        file.and_then(|file| file.lock().map(|()| file)).map_err(input::file("lock", &path))
    }

    /// Appends a line to the audit log.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn record(
        &self,
        event: Event,
        note: String,
        digests: &[(&str, Digest)],
        keys: &[KeyId],
    ) -> Result<(), Failure> {
        let digests: BTreeMap<_, _> =
            digests.iter().map(|(what, digest)| ((*what).to_owned(), *digest)).collect();
        let record = Record { time: times::now(), event, note, digests, keys: keys.to_vec() };
        self.check_log()?;
        let entry = audit::append(&self.log(), record)?;
        self.store().note_log(&entry.head()?, false)?;
        Ok(())
    }

    /// Whether the audit log can be gone on with where the trust state knows it to end. Asked before anything is
    /// done that has to stand in it. Where there is no root of trust, nothing has to.
    ///
    /// # Errors
    /// It cannot be written, or is not what it was.
    pub fn check_log(&self) -> Result<(), Failure> {
        let Some(state) = self.store().read()? else { return Ok(()) };
        Ok(audit::check_end(&self.log(), state.log.as_ref())?)
    }

    /// As [`Self::record`], where there is a root of trust; others keep no log.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn record_if_kept(
        &self,
        event: Event,
        note: String,
        digests: &[(&str, Digest)],
        keys: &[KeyId],
    ) -> Result<(), Failure> {
        match self.trust()? {
            Some(_) => self.record(event, note, digests, keys),
            None => Ok(()),
        }
    }

    /// Keeps the bundle that was applied.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_bundle(&self, bytes: &[u8]) -> Result<(), Failure> {
        input::write_whole(&self.bundle_path(), bytes)
    }

    fn bundle_path(&self) -> PathBuf {
        self.dir.join("policy.bundle")
    }

    /// Grants that no longer hold, by the bundle that was accepted last.
    ///
    /// # Errors
    /// Neither the bundle that lies there nor what was kept of one that was followed is of that one.
    pub fn revocations(&self, trust: &Trust) -> Result<Revocations, Failure> {
        let Some(last) = trust.last() else { return Ok(Revocations::default()) };
        for known in self.known_revocations()? {
            if known.manifest == *last.manifest() {
                return Ok(known.revoked);
            }
        }
        Err(Failure::Machine {
            message: format!(
                "`{}` is not the bundle that was accepted last, so that revocations are not known",
                self.bundle_path().display()
            ),
            help: Some("Apply or follow the bundle of that generation again.".into()),
        })
    }

    /// As [`Self::revocations`]; where they are not known, those that were last, which is told. For what enforces
    /// nothing: `apply` holds grants to the bundle that it applies.
    ///
    /// # Errors
    /// What was kept cannot be read.
    pub fn last_revocations(&self, trust: &Trust) -> Result<Revocations, Failure> {
        match self.revocations(trust) {
            Err(failure @ Failure::Machine { .. }) => {
                tracing::warn!("{failure}; those of an earlier one are taken");
                let mut all = Revocations::default();
                for known in self.known_revocations()? {
                    all = all.union(&known.revoked)?;
                }
                Ok(all)
            }
            known => known,
        }
    }

    /// What is known of revocations, by bundle: the one that was applied last, and the one that was followed last.
    /// What is damaged is not known.
    fn known_revocations(&self) -> Result<Vec<Followed>, Failure> {
        let applied = self.kept_bundle()?.and_then(|bundle| {
            // Its manifest is compared with the one that was verified.
            let manifest = bundle.unverified_manifest().ok()?.digest().ok()?;
            Some(Followed { manifest, revoked: bundle.revocations_of_manifest().ok()? })
        });
        let path = self.followed_path();
        let bytes = files::read(&path, FOLLOWED_LEN_MAX).map_err(input::file("read", &path))?;
        let followed = bytes.and_then(|bytes| form::read(&bytes, FOLLOWED_LEN_MAX).ok());
        Ok(applied.into_iter().chain(followed).collect())
    }

    /// Keeps what a bundle that is followed takes back.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_followed(&self, followed: &Followed) -> Result<(), Failure> {
        input::write_whole(&self.followed_path(), &form::write(followed)?)
    }

    fn followed_path(&self) -> PathBuf {
        self.dir.join("followed.json")
    }

    /// This node's public key, if it has one.
    ///
    /// # Errors
    /// The file cannot be read or holds something else.
    pub fn node(&self) -> Result<Option<PublicKey>, Failure> {
        let path = self.dir.join("node.pub");
        if path.exists() { secrets::public_key(&path).map(Some) } else { Ok(None) }
    }

    /// Why no grant is made to this node.
    pub fn nobody(&self) -> Failure {
        Failure::Refused {
            message: format!("there is no key of this node in `{}`", self.dir.display()),
            help: Some(
                "Make one with `govc signer new`, and name it: govc trust init ROOT --node FILE.pub"
                    .into(),
            ),
        }
    }

    /// Sets this node's public key.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_node(&self, key: &PublicKey) -> Result<(), Failure> {
        input::write_whole(&self.dir.join("node.pub"), format!("{key}\n").as_bytes())
    }

    /// Keeps a grant.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_grant(&self, serial: u16, bytes: &[u8]) -> Result<PathBuf, Failure> {
        let dir = self.grants_dir();
        make_directory(&dir)?;
        let path = dir.join(format!("{serial}.grant"));
        input::write_whole(&path, bytes)?;
        Ok(path)
    }

    fn grants_dir(&self) -> PathBuf {
        self.dir.join("grants")
    }

    /// The grants that this node keeps, by file name, held to who may grant now.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn grants(
        &self,
        authority: &Root,
        revoked: &Revocations,
        now: u64,
    ) -> Result<Vec<Kept>, Failure> {
        let dir = self.grants_dir();
        let paths = files_in(&dir, "grant")?;
        if paths.len() > GRANTS_MAX {
            return Err(Failure::Machine {
                message: format!(
                    "{} grants in `{}`, more than {GRANTS_MAX}",
                    paths.len(),
                    dir.display()
                ),
                help: Some(
                    "Remove those that no longer hold; `govc trust show` lists them.".into(),
                ),
            });
        }
        let node = self.node()?;
        let kept = paths.into_iter().map(|path| {
            let verified = read_grant(&path).and_then(|(grant, _)| {
                let verified = grant.verify(authority, revoked, now);
                let verified = verified.map_err(|error| Failure::refused_in(&path, &error))?;
                let node = node.as_ref().ok_or_else(|| self.nobody())?;
                verified.check_holder(node).map_err(|error| Failure::refused_in(&path, &error))?;
                Ok(verified)
            });
            Kept { path, verified }
        });
        Ok(kept.collect())
    }
}

impl State {
    /// Keeps a mapping between two domains, in the place of an earlier one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_mapping(&self, between: (u16, u16), bytes: &[u8]) -> Result<(), Failure> {
        make_directory(&self.mappings_dir())?;
        input::write_whole(&self.mapping_path(between), bytes)
    }

    /// The file that a mapping between two domains is kept in, whether there is one or not.
    pub fn mapping_path(&self, (from, to): (u16, u16)) -> PathBuf {
        self.mappings_dir().join(format!("{from}-{to}.mapping"))
    }

    fn mappings_dir(&self) -> PathBuf {
        self.dir.join("mappings")
    }

    /// Files of the mappings that are kept.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn mapping_paths(&self) -> Result<Vec<PathBuf>, Failure> {
        files_in(&self.mappings_dir(), "mapping")
    }

    /// The root of another domain, whose labels this node is to write, as somebody names it. What is kept of that
    /// domain lies in a state directory of its own; nothing is kept before [`Foreign::keep`].
    ///
    /// # Errors
    /// It is another root than the one that is there, or one of this node's own domain.
    pub fn root_abroad(&self, trust: &Trust, path: &Path) -> Result<Foreign, Failure> {
        let root = read_root(path)?;
        let refused =
            |message: String, help: String| Err(Failure::Refused { message, help: Some(help) });
        if root.domain.number == trust.root().domain.number {
            let message = format!("`{}` is a root of this node's own domain", path.display());
            return refused(message, "Leave out --root.".into());
        }
        let state = Self { dir: self.abroad_dir().join(root.domain.number.to_string()) };
        let kept = state.dir.join("root");
        let known = kept.exists();
        if known && read_root(&kept)? != root {
            return refused(
                format!("this node knows another root of {}", root.domain),
                format!(
                    "Compare their digests with the domain's owners. Where the new one is right, remove `{}` and \
                     say this again: what mappings took back holds on.",
                    kept.display()
                ),
            );
        }
        Ok(Foreign { root, state, known })
    }

    fn abroad_dir(&self) -> PathBuf {
        self.dir.join("abroad")
    }

    /// Other domains whose labels this node writes: their roots, and what is kept of them. Directories without
    /// a root are none: whatever needs one tells.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn abroad(&self) -> Result<Vec<(Root, Self)>, Failure> {
        let dir = self.abroad_dir();
        if !dir.is_dir() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&dir).map_err(input::file("list", &dir))?;
        let mut dirs = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<PathBuf>, _>>()
            .map_err(input::file("list", &dir))?;
        dirs.retain(|dir| dir.join("root").exists());
        dirs.sort_unstable();
        dirs.into_iter().map(|dir| Ok((read_root(&dir.join("root"))?, Self { dir }))).collect()
    }
}

/// The root of another domain, and where what belongs to it is kept.
pub struct Foreign {
    /// The root.
    pub root: Root,
    state: State,
    /// The node has it already.
    known: bool,
}

impl Foreign {
    /// Where what belongs to the domain is kept, or will be.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Keeps the root, once something that it signed was verified: a root is believed for good, and what was
    /// refused must not choose it. The log of the node's own state tells.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(self, own: &State) -> Result<State, Failure> {
        let Self { root, state, known } = self;
        if known {
            return Ok(state);
        }
        let bytes = root.to_bytes()?;
        let keys: Vec<_> = root.signers.keys().map(|key| key.id()).collect();
        let digests = [("root", Digest::of(&bytes))];
        own.record(Event::ForeignRootSet, root.domain.to_string(), &digests, &keys)?;
        make_directory(&state.dir)?;
        input::write_whole(&state.dir.join("root"), &bytes)?;
        if let Some(node) = own.node()? {
            state.set_node(&node)?;
        }
        Ok(state)
    }
}

/// Files of a directory with a suffix, by name; none where there is no directory.
fn files_in(dir: &Path, suffix: &str) -> Result<Vec<PathBuf>, Failure> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir).map_err(input::file("list", dir))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: Result<Vec<PathBuf>, _> = paths.collect();
    let mut paths = paths.map_err(input::file("list", dir))?;
    paths.retain(|path| path.extension().is_some_and(|found| found == suffix));
    paths.sort_unstable();
    Ok(paths)
}

/// A mapping in its envelope, and its bytes.
///
/// # Errors
/// The file cannot be read or holds something else.
pub fn read_mapping(path: &Path) -> Result<(Envelope, Vec<u8>), Failure> {
    // An envelope holds its payload as base64, and signatures.
    let bytes = secrets::read(path, MAPPING_LEN_MAX * 2)?;
    let envelope = Envelope::read(&bytes).map_err(|error| Failure::refused_in(path, &error))?;
    Mapping::unverified(&envelope).map_err(|error| Failure::refused_in(path, &error))?;
    Ok((envelope, bytes))
}

/// A grant and its bytes.
///
/// # Errors
/// The file cannot be read or holds something else.
pub fn read_grant(path: &Path) -> Result<(Grant, Vec<u8>), Failure> {
    let bytes = secrets::read(path, GRANT_LEN_MAX)?;
    let grant = Grant::read(&bytes).map_err(|error| Failure::refused_in(path, &error))?;
    Ok((grant, bytes))
}

/// A root of trust.
///
/// # Errors
/// The file cannot be read or holds something else.
pub fn read_root(path: &Path) -> Result<Root, Failure> {
    let bytes = secrets::read(path, ROOT_LEN_MAX)?;
    Root::read(&bytes).map_err(|error| Failure::refused_in(path, &error))
}

/// A bundle and its bytes.
///
/// # Errors
/// The file cannot be read or holds something else.
pub fn read_bundle(path: &Path) -> Result<(Bundle, Vec<u8>), Failure> {
    let bytes = secrets::read(path, BUNDLE_LEN_MAX)?;
    let bundle = Bundle::read(&bytes).map_err(|error| Failure::refused_in(path, &error))?;
    Ok((bundle, bytes))
}

/// Whether a file is a bundle rather than a policy or image: the archive starts with the name of
/// its first member.
///
/// # Errors
/// It cannot be read.
pub fn is_bundle(path: &Path) -> Result<bool, Failure> {
    use std::io::Read as _;
    const START: &[u8] = b"manifest.json\0";
    let mut start = Vec::new();
    let file = File::open(path).map_err(input::file("read", path))?;
    match file.take(START.len() as u64).read_to_end(&mut start) {
        Ok(_) => Ok(start == START),
        Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => Ok(false),
        Err(error) => Err(input::file("read", path)(error)),
    }
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(input::file("make", path))
}
