//! Arguments of the commands that make keys, bundles and grants, and say whom a node trusts.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use govc_authority::bundle::GENERATION_MAX;

use super::{JsonShorthand, Sources};
use crate::state;

/// Where a node keeps what it trusts.
#[derive(Args, Clone)]
pub struct StateArguments {
    /// Directory of what this node trusts: its root, the bundle in force, grants, the audit log
    #[arg(long, default_value = state::DEFAULT_DIR, value_name = "DIR", env = "GOVC_STATE")]
    pub state: PathBuf,
}

/// What translated labels are written under.
#[derive(Args, Clone)]
pub struct Transit {
    /// Tell the transit grants of translated labels: those that the node with this state directory holds
    #[arg(long, value_name = "DIR")]
    pub authority: Option<PathBuf>,
}

/// Whose signatures count.
#[derive(Args, Clone)]
pub struct Authority {
    /// Root of trust, as `govc trust new` writes it; this node's own when not given
    #[arg(long, value_name = "FILE")]
    pub root: Option<PathBuf>,
    #[command(flatten)]
    pub state: StateArguments,
}

/// What opens a sealed file. Without any of these, GOVC_PASSPHRASE or a question.
#[derive(Args, Clone)]
pub struct Unlock {
    /// File with the passphrase; otherwise GOVC_PASSPHRASE is taken, or you are asked
    #[arg(long, value_name = "FILE", conflicts_with = "identity")]
    pub passphrase_file: Option<PathBuf>,
    /// File with the age key that it was sealed for
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
}

/// A private key that signs.
#[derive(Args, Clone)]
pub struct Signing {
    /// Sealed private key that signs, as `govc signer new` made it
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    #[command(flatten)]
    pub unlock: Unlock,
}

#[derive(Subcommand)]
pub enum Signer {
    /// Make a signing key: the sealed private half in FILE, the public half in FILE.pub
    New {
        /// Where the private half goes
        file: PathBuf,
        /// Seal it for this age key, `age1..`, instead of a passphrase; may be given several times
        #[arg(long, value_name = "AGE", conflicts_with = "passphrase_file")]
        recipient: Vec<String>,
        /// File with the passphrase; otherwise GOVC_PASSPHRASE is taken, or you are asked
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a public key, or the public half of a private one, which has to be opened for that
    Show {
        /// FILE.pub, or the sealed FILE
        file: PathBuf,
        #[command(flatten)]
        unlock: Unlock,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub enum Trust {
    /// Write down a root of trust: a domain, who signs for it, and how many of them have to
    New {
        /// Name of the domain
        #[arg(long)]
        domain: String,
        /// Number of the domain in labels, as in `domain acme = 7`
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        number: u16,
        /// Public key of somebody who signs; may be given several times
        #[arg(long = "signer", value_name = "FILE.pub", required = true)]
        signers: Vec<PathBuf>,
        /// How many of them have to sign
        #[arg(long, value_name = "N")]
        threshold: usize,
        /// Where the root goes
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Give this node its root of trust; from then on it takes signed bundles only
    Init {
        /// The root, as `govc trust new` writes it
        root: PathBuf,
        /// Public key of this node, to which grants are made
        #[arg(long, value_name = "FILE.pub")]
        node: Option<PathBuf>,
        #[command(flatten)]
        state: StateArguments,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Take note of bundles that this node missed, in their order, without enforcing them
    Follow {
        /// Bundles between the last one applied and the one to be applied
        #[arg(required = true, value_name = "BUNDLE")]
        bundles: Vec<PathBuf>,
        #[command(flatten)]
        state: StateArguments,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show whom a node trusts, what it accepted last and the grants that it holds
    Show {
        #[command(flatten)]
        authority: Authority,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub struct Bundle {
    #[command(flatten)]
    pub sources: Sources,
    #[command(flatten)]
    pub shorthand: JsonShorthand,
    /// The policy file is an image made by `govc build`
    #[arg(long)]
    pub image: bool,
    /// For the first bundle: the root of trust
    #[arg(long, value_name = "FILE", required_unless_present = "previous")]
    pub root: Option<PathBuf>,
    /// For every later bundle: the one before, from which domain, generation, signers and
    /// revocations follow
    #[arg(long, value_name = "BUNDLE", conflicts_with = "root")]
    pub previous: Option<PathBuf>,
    /// Generation, if not the one behind the previous; nobody can go back behind it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=GENERATION_MAX))]
    pub generation: Option<u64>,
    /// When it may first be applied: a time such as 2027-01-31T00:00:00Z; now when not given
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// When it may last be applied: a time, or a duration from the first one such as 30d or 12h
    #[arg(long, value_name = "TIME|DURATION", default_value = "90d")]
    pub until: String,
    /// Public key of somebody who signs the next bundle; those who sign this one when not given
    #[arg(long, value_name = "FILE.pub", requires = "next_threshold")]
    pub next_signer: Vec<PathBuf>,
    /// How many of them have to sign the next one
    #[arg(long, value_name = "N", requires = "next_signer")]
    pub next_threshold: Option<usize>,
    /// Grants that no longer hold, as `govc grant revoke` notes them, besides those of the previous
    #[arg(long, value_name = "FILE")]
    pub revocations: Option<PathBuf>,
    /// Where the bundle goes
    #[arg(short, long, value_name = "BUNDLE")]
    pub output: PathBuf,
}

#[derive(Args)]
pub struct Sign {
    /// The bundle, grant or mapping, to which the signature is added
    pub file: PathBuf,
    /// Take signatures away first that are none of the keys of the roots, such as those that fill a file up
    #[arg(long, requires = "roots")]
    pub drop_unknown: bool,
    /// With --drop-unknown: root of trust whose keys sign; may be given several times, where signers change
    #[arg(long = "root", value_name = "FILE", requires = "drop_unknown")]
    pub roots: Vec<PathBuf>,
    #[command(flatten)]
    pub signing: Signing,
    #[command(flatten)]
    pub state: StateArguments,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Verify {
    /// The bundle, behind those that come before it, if there are any to be followed
    #[arg(required = true, value_name = "BUNDLE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub authority: Authority,
    /// At this time instead of now
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum Grant {
    /// Write a grant of a domain, which its signers have to sign
    New {
        #[command(flatten)]
        authority: Authority,
        #[command(flatten)]
        terms: Terms,
        /// Where the grant goes
        #[arg(short, long, value_name = "GRANT")]
        output: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Hand a part of a grant on, signed with the key that it was made to
    Narrow {
        /// The grant
        grant: PathBuf,
        #[command(flatten)]
        signing: Signing,
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        state: StateArguments,
        /// Where the new grant goes
        #[arg(short, long, value_name = "GRANT")]
        output: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a grant says, whoever signed it
    Show {
        /// The grant
        grant: PathBuf,
        /// Policy or image in which names are looked up
        #[arg(long, value_name = "FILE")]
        names: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell whether a grant holds
    Verify {
        /// The grant
        grant: PathBuf,
        #[command(flatten)]
        authority: Authority,
        /// Public key that it has to be made to
        #[arg(long, value_name = "FILE.pub")]
        holder: Option<PathBuf>,
        /// Grants that no longer hold; those of the bundle in force when no root is given
        #[arg(long, value_name = "FILE")]
        revocations: Option<PathBuf>,
        /// At this time instead of now
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Note serials of grants that no longer hold, for the next `govc bundle --revocations`
    Revoke {
        /// Serials
        #[arg(required_unless_present = "grants", value_name = "SERIAL",
              value_parser = clap::value_parser!(u16).range(1..))]
        serials: Vec<u16>,
        /// A grant: its serial and all that its holder may hand on, whose labels bear those; may be
        /// given several times
        #[arg(long = "grant", value_name = "FILE")]
        grants: Vec<PathBuf>,
        /// File with the serials, which is made when there is none
        #[arg(long, value_name = "FILE")]
        revocations: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Let this node hold a grant that was made to it
    Accept {
        /// The grant
        grant: PathBuf,
        /// Root of the domain that grants, when it is not this node's own: a transit grant
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
        /// Take what holds once this bundle is in force, which is the next one: by the signers that it names, and
        /// what it takes back
        #[arg(long, value_name = "BUNDLE", conflicts_with = "root")]
        for_bundle: Option<PathBuf>,
        #[command(flatten)]
        state: StateArguments,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub enum Mapping {
    /// Write a mapping that the translations of a policy need, which the signers of the domain that it
    /// leads into have to sign
    New {
        #[command(flatten)]
        authority: Authority,
        /// Name of the domain whose labels come in
        #[arg(long, value_name = "DOMAIN")]
        from: String,
        /// Policy or image with the translations
        #[arg(long = "for", value_name = "FILE")]
        for_policy: PathBuf,
        /// When it ends: a time, or a duration from now such as 90d
        #[arg(long, value_name = "TIME|DURATION")]
        until: String,
        /// Larger than that of all mappings between the two domains before, which gateways hold it to; the present time
        /// in milliseconds, or one more than that of the mapping that this node holds, when not given
        #[arg(long, value_name = "N")]
        sequence: Option<u64>,
        /// Policy is looked for with its packages in this directory too
        #[arg(short = 'I', long = "include", value_name = "DIR")]
        include: Vec<PathBuf>,
        /// Grants of the root's own domain that no longer hold, as `govc grant revoke` notes them: gateways
        /// refuse its labels under these
        #[arg(long, value_name = "FILE")]
        revocations: Option<PathBuf>,
        /// Have gateways refuse labels of the root's own domain that bear no grant: everything that it stamps
        /// is stamped by signed bundles
        #[arg(long)]
        require_grants: bool,
        /// Where the mapping goes
        #[arg(short, long, value_name = "MAPPING")]
        output: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a mapping says, whoever signed it
    Show {
        /// The mapping
        mapping: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Let this node translate by a mapping
    Accept {
        /// The mapping
        mapping: PathBuf,
        /// Root of the domain that it leads into, when that is not this node's own
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
        #[command(flatten)]
        state: StateArguments,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// What is granted, and to whom. What is not named is not granted, or as in the grant before.
#[derive(Args, Clone)]
pub struct Terms {
    /// Number of the grant in labels and revocations, from 1
    #[arg(long, value_name = "SERIAL", value_parser = clap::value_parser!(u16).range(1..))]
    pub serial: u16,
    /// Serials that those may take to whom it is handed on: `12-20`
    #[arg(long, value_name = "SET", default_value = "none")]
    pub serials: String,
    /// Public key of the holder
    #[arg(long, value_name = "FILE.pub")]
    pub to: PathBuf,
    /// Policy or image: grant what its stamp rules need, and look names up in it
    #[arg(long = "for", value_name = "FILE", conflicts_with = "names")]
    pub for_policy: Option<PathBuf>,
    /// Policy or image in which names are looked up
    #[arg(long, value_name = "FILE")]
    pub names: Option<PathBuf>,
    /// Sending workloads: `64-127`, `payments.api, web.**`, `all`
    #[arg(long, value_name = "SET")]
    pub subjects: Option<String>,
    /// Highest trust level
    #[arg(long, value_name = "LEVEL")]
    pub level: Option<String>,
    /// Compartments that may be set
    #[arg(long, value_name = "SET")]
    pub compartments: Option<String>,
    /// Constraints that have to be set
    #[arg(long, value_name = "SET")]
    pub constraints: Option<String>,
    /// Residency sets; `none` stands for labels without one, as below
    #[arg(long, value_name = "SET")]
    pub residencies: Option<String>,
    /// Route classes
    #[arg(long, value_name = "SET")]
    pub routes: Option<String>,
    /// Operations
    #[arg(long, value_name = "SET")]
    pub operations: Option<String>,
    /// Farthest that packets may travel: node, cluster, domain, federation, any
    #[arg(long, value_name = "RADIUS")]
    pub radius: Option<String>,
    /// Longest life of labels, as a power of two of slots
    #[arg(long, value_name = "N")]
    pub life: Option<u8>,
    /// When labels may last be stamped: a time, or a duration from now such as 90d
    #[arg(long, value_name = "TIME|DURATION")]
    pub until: Option<String>,
    /// How often it may be handed on; never when not given
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub depth: u8,
    /// Policy or image is looked for with its packages in this directory too
    #[arg(short = 'I', long = "include", value_name = "DIR")]
    pub include: Vec<PathBuf>,
}

#[derive(Subcommand)]
pub enum Audit {
    /// Show what was done with keys, bundles and grants
    Show {
        #[command(flatten)]
        state: StateArguments,
        /// The last so many lines only
        #[arg(long, value_name = "N")]
        last: Option<usize>,
        /// As JSON, a line each
        #[arg(long)]
        json: bool,
    },
    /// Check that no line was changed, removed or added, and that the log tells of what this node trusts
    Verify {
        #[command(flatten)]
        state: StateArguments,
        /// What `govc audit verify` said before: the log has to go on from there
        #[arg(long, value_name = "COUNT:DIGEST")]
        known: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the log fit to be gone on with, and say in it what was amiss: a last line that a power loss tore off,
    /// lines that are missing
    Mend {
        #[command(flatten)]
        state: StateArguments,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}
