//! Arguments of `keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{InstanceArguments, Signing, StateArguments};

#[derive(Subcommand)]
pub enum Keys {
    /// Make a ring of random keys for a domain
    New(New),
    /// Make keys for the epochs that come next, and hand them to a running instance
    ///
    /// Rings that were imported get none: their keys are made where they come from.
    Stage(Staging),
    /// Replace the keys of all epochs behind the present one, because somebody may know them
    Rotate(Rotate),
    /// Write a domain's keys for other nodes: sealed for their age keys, and signed
    Export(Export),
    /// Seal the files of the ring for the node's age key
    ///
    /// Files that lie open are sealed, and every later one as it is written. With --identity they
    /// are sealed for that key from now on, and a link `identity` in the key directory leads every
    /// command to it, `govc apply` at boot too.
    Seal(Seal),
    /// Take keys that were exported, in the place of those that the domain has here
    ///
    /// Keys that were made before those that are here are refused.
    Import(Import),
    /// Show which epochs have keys and until when they last, never the keys
    #[command(alias = "list")]
    Status {
        #[command(flatten)]
        ring: RingArguments,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// A new ring.
#[derive(Args)]
pub struct New {
    /// Name of the domain
    pub domain: String,
    /// Number of the domain in labels, as in `domain acme = 7`
    #[arg(long)]
    pub number: u16,
    /// Length of an epoch: 2^SHIFT slots of two seconds; 14 is 9.1 hours
    #[arg(long, value_name = "SHIFT", default_value_t = govc_loader::keyring::EPOCH_SHIFT_DEFAULT,
          value_parser = clap::value_parser!(u32).range(4..=15))]
    pub epoch_shift: u32,
    /// Epochs to make keys for beyond the present one
    #[arg(long, value_name = "N", default_value_t = govc_loader::keyring::EPOCHS_STAGED_MAX,
          value_parser = clap::value_parser!(u64).range(0..=14))]
    pub staged: u64,
    /// Give each sender keys of its own, so that nodes that only stamp need no others
    #[arg(long)]
    pub per_subject: bool,
    #[command(flatten)]
    pub ring: RingArguments,
    #[command(flatten)]
    pub state: StateArguments,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Further keys.
#[derive(Args)]
pub struct Staging {
    /// Number of the domain; all whose keys are made here when not given
    #[arg(long)]
    pub number: Option<u16>,
    /// Epochs that shall have keys beyond the present one
    #[arg(long, value_name = "N", default_value_t = govc_loader::keyring::EPOCHS_STAGED_MAX,
          value_parser = clap::value_parser!(u64).range(0..=14))]
    pub staged: u64,
    #[command(flatten)]
    pub ring: RingArguments,
    #[command(flatten)]
    pub state: StateArguments,
    #[command(flatten)]
    pub instance: InstanceArguments,
}

/// Other keys.
#[derive(Args)]
pub struct Rotate {
    /// Number of the domain
    #[arg(long)]
    pub number: u16,
    /// Epochs that shall have keys beyond the present one
    #[arg(long, value_name = "N", default_value_t = govc_loader::keyring::EPOCHS_STAGED_MAX,
          value_parser = clap::value_parser!(u64).range(1..=14))]
    pub staged: u64,
    #[command(flatten)]
    pub ring: RingArguments,
    #[command(flatten)]
    pub state: StateArguments,
    #[command(flatten)]
    pub instance: InstanceArguments,
}

/// Sealing at rest.
#[derive(Args)]
pub struct Seal {
    /// File with the node's age key, best on another disk than the ring; the one that the ring has
    /// already when not given
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    #[command(flatten)]
    pub ring: RingArguments,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Keys that come from another node.
#[derive(Args)]
pub struct Import {
    /// The keys
    pub file: PathBuf,
    /// Name of the domain whose keys are wanted
    #[arg(long)]
    pub domain: String,
    /// Number of the domain
    #[arg(long)]
    pub number: u16,
    /// Public key of somebody who may have exported them; may be given several times
    #[arg(long = "signer", value_name = "FILE.pub", required = true)]
    pub signers: Vec<PathBuf>,
    /// File with the age key that they were sealed for; the one of the key ring when not given
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Make the domain's keys here from now on: for the node that takes the place of the one that
    /// made them, which must not go on
    #[arg(long)]
    pub own: bool,
    #[command(flatten)]
    pub ring: RingArguments,
    #[command(flatten)]
    pub state: StateArguments,
    #[command(flatten)]
    pub instance: InstanceArguments,
}

/// Keys that go to other nodes.
#[derive(Args)]
pub struct Export {
    /// Number of the domain
    #[arg(long)]
    pub number: u16,
    /// Only the keys of these senders, for nodes that only stamp as one of them: `17`, `17-20`,
    /// `plant.sensors.**`; may be given several times
    #[arg(long, value_name = "SET")]
    pub subject: Vec<String>,
    /// Policy or image in which names of subjects are looked up
    #[arg(long, value_name = "FILE", requires = "subject")]
    pub names: Option<PathBuf>,
    /// Policy is looked for with its packages in this directory too
    #[arg(short = 'I', long = "include", value_name = "DIR", requires = "names")]
    pub include: Vec<PathBuf>,
    /// Age key of somebody who may open it, `age1..`; may be given several times
    #[arg(long, value_name = "AGE", required = true)]
    pub recipient: Vec<String>,
    #[command(flatten)]
    pub signing: Signing,
    #[command(flatten)]
    pub ring: RingArguments,
    #[command(flatten)]
    pub state: StateArguments,
    /// Where the keys go; for several senders a directory, with a file SUBJECT.keys for each
    #[arg(short, long, value_name = "FILE|DIR")]
    pub output: PathBuf,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Which key ring.
#[derive(Args, Clone)]
pub struct RingArguments {
    /// Directory of the key ring
    #[arg(long, default_value = govc_loader::keyring::DEFAULT_DIR, value_name = "DIR", env = "GOVC_KEYS")]
    pub keys: PathBuf,
    /// File with the node's age key, for which the files of the ring are sealed; `identity` in the
    /// key directory when not given, if that is there
    #[arg(long, value_name = "FILE", env = "GOVC_IDENTITY")]
    pub ring_identity: Option<PathBuf>,
}
