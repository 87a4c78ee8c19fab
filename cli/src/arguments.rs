//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::levels::Target;

/// Governance that travels in the packet: compile .gov policies and enforce them with eBPF
#[derive(Parser)]
#[command(
    name = "govc",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 all is well; 1 the policy, test or image is wrong; 2 the command \
                  line is wrong; 3 the machine is in the way (privileges, kernel, files)."
)]
pub struct Arguments {
    /// Colour: when the terminal takes it, always, or never; NO_COLOR is respected
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// Say more about what is being done; up to three times
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand)]
pub enum Command {
    /// Check policies and report mistakes
    Check(Check),
    /// Run the tests that policies contain
    Test(Test),
    /// Lay policies out
    Fmt(Fmt),
    /// Compile policies into an image
    Build(Build),
    /// Show what an image holds
    Inspect(Inspect),
    /// Put a policy in force on interfaces
    Apply(Apply),
    /// Show what is in force, and its counters
    Status(StatusArguments),
    /// Return to the generation before the one in force
    Rollback(InstanceArguments),
    /// Stop enforcing
    Detach(Detach),
    /// Follow verdicts as they happen
    Observe(Observe),
    /// Make and look after the local key ring
    #[command(subcommand)]
    Keys(Keys),
    /// Show what changes from one policy or image to another
    #[command(
        after_help = "Exit codes: 0 nothing changes; 10 other rules give the same verdicts; \
                            11 less is permitted; 12 something is permitted that was denied."
    )]
    Diff(Diff),
    /// Show who may reach whom for what
    Query(Query),
    /// Explain a diagnostic code, such as GOV1001, or why a packet gets its verdict
    Explain(Explain),
    /// Show the whole thing on real packets, in network namespaces of its own
    Demo(Demo),
    /// Speak to an editor over standard input and output (language server protocol)
    Lsp(Lsp),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// Policy sources.
#[derive(Args, Clone)]
pub struct Sources {
    /// Policy files; packages that they use are looked for beside them and under -I
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Directory in which used packages are looked for: acme/vocabulary.gov for `use
    /// acme.vocabulary`; may be given several times
    #[arg(short = 'I', long = "include", value_name = "DIR")]
    pub include: Vec<PathBuf>,
    /// Fail when a vocabulary's lock file would have to change (for CI)
    #[arg(long)]
    pub locked: bool,
    /// How diagnostics are written: for people to standard error, for programs to standard output
    #[arg(long, value_enum, default_value_t = Format::Graphical)]
    pub format: Format,
    /// Count a warning as an error: a code such as GOV4101, or `warnings` for all that are not
    /// named; may be given several times
    #[arg(long, value_name = "CODE|warnings")]
    pub deny: Vec<Target>,
    /// Count advice as a warning, or leave a warning one
    #[arg(long, value_name = "CODE|warnings")]
    pub warn: Vec<Target>,
    /// Leave a warning out
    #[arg(long, value_name = "CODE|warnings")]
    pub allow: Vec<Target>,
    /// Show so many diagnostics at most, the gravest first; 0 for all (default: 50 for people)
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people, with the source
    #[value(alias = "human")]
    Graphical,
    /// For people who are read to
    Narrated,
    /// One line each: file:line:column: severity[CODE]: message
    Short,
    /// One JSON object a line
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// Annotations of GitHub workflows
    Github,
    /// JUnit XML, for `govc test` only
    Junit,
}

impl Sources {
    /// Files to be read on the way to something else, all options at their defaults.
    pub fn plain(files: Vec<PathBuf>, include: Vec<PathBuf>) -> Self {
        Self {
            files,
            include,
            locked: false,
            format: Format::Graphical,
            deny: Vec::new(),
            warn: Vec::new(),
            allow: Vec::new(),
            limit: None,
        }
    }
}

impl Format {
    /// Told on standard error, for people.
    pub fn is_for_people(self) -> bool {
        matches!(self, Self::Graphical | Self::Narrated | Self::Short | Self::Junit)
    }

    /// Leaves standard output to what people want to know besides.
    pub fn is_chatty(self) -> bool {
        matches!(self, Self::Graphical | Self::Narrated | Self::Short)
    }
}

/// `--json`, where nothing else is asked for as JSON.
#[derive(Args, Clone)]
pub struct JsonShorthand {
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    pub sources: Sources,
    #[command(flatten)]
    pub shorthand: JsonShorthand,
    /// Apply the fixes that are sure to the files named here, then check again
    #[arg(long, conflicts_with = "emit")]
    pub fix: bool,
    /// With --fix: show what would change and change nothing; fails if something would
    #[arg(long, requires = "fix")]
    pub diff: bool,
    /// Tell traffic, from those with a label, that no rule speaks of
    #[arg(long)]
    pub gaps: bool,
    /// Tell permits and denials of one tier that contradict each other without one being an
    /// exception from the other
    #[arg(long)]
    pub conflicts: bool,
    /// Print a stage of the compiler instead
    #[arg(long, value_enum)]
    pub emit: Option<Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Tokens of the first file
    Tokens,
    /// The syntax tree of the first file, as JSON
    Ast,
    /// The checked policy
    Checked,
    /// The decision table: rows of value sets
    Table,
    /// The decision diagrams
    Diagram,
    /// Sizes of the match tables
    Tables,
}

#[derive(Args)]
pub struct Test {
    #[command(flatten)]
    pub sources: Sources,
    #[command(flatten)]
    pub shorthand: JsonShorthand,
    /// Tell which rules no test's packet is decided by
    #[arg(long)]
    pub coverage: bool,
    /// Fail when fewer rules than this are covered, in percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub coverage_min: Option<u8>,
}

#[derive(Args)]
pub struct Fmt {
    /// Policy files, directories with policies, or - for standard input; the current directory when
    /// nothing is named
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// List the files that would change and change nothing; fails if there are any
    #[arg(long)]
    pub check: bool,
    /// Show what would change and change nothing; fails if something would
    #[arg(long)]
    pub diff: bool,
}

#[derive(Args)]
pub struct Diff {
    /// The old policy or image, then the new one; only the new one with --running
    #[arg(required = true, num_args = 1..=2, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The old one is what is in force on this machine
    #[arg(long)]
    pub running: bool,
    /// Directory in which used packages are looked for
    #[arg(short = 'I', long = "include", value_name = "DIR")]
    pub include: Vec<PathBuf>,
    #[command(flatten)]
    pub instance: InstanceArguments,
}

#[derive(Args)]
pub struct Query {
    #[command(flatten)]
    pub sources: Sources,
    /// Senders, as in a rule: `acme.web.**, legacy`
    #[arg(long, value_name = "WHO")]
    pub from: Option<String>,
    /// Objects, as in a rule
    #[arg(long, value_name = "WHO")]
    pub to: Option<String>,
    /// Operations, as in a rule
    #[arg(long, value_name = "OPERATION")]
    pub operation: Option<String>,
    /// Transport, as in a rule: `tcp port 443`
    #[arg(long, value_name = "PROTO")]
    pub proto: Option<String>,
    /// Conditions, as in a rule: `level >= internal`
    #[arg(long = "where", value_name = "CONDITIONS")]
    pub conditions: Option<String>,
    /// Hook; may be given several times; all of them when not given
    #[arg(long, value_name = "HOOK")]
    pub on: Vec<PolicyHook>,
    /// As JSON
    #[arg(long, conflicts_with = "dot")]
    pub json: bool,
    /// As a graph for Graphviz
    #[arg(long)]
    pub dot: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyHook {
    Ingress,
    Egress,
    Forward,
}

#[derive(Args)]
pub struct Explain {
    /// A diagnostic code; or policy files and then a packet as in a test, such as `packet { from
    /// acme.guest proto tcp port 443 }`, or a file that holds one
    #[arg(required_unless_present = "list", value_name = "CODE | FILE.. PACKET")]
    pub what: Vec<String>,
    /// List all codes
    #[arg(long, conflicts_with = "what")]
    pub list: bool,
    /// Directory in which used packages are looked for
    #[arg(short = 'I', long = "include", value_name = "DIR")]
    pub include: Vec<PathBuf>,
    /// Tell all nearer rules, not only the nearest ones
    #[arg(long)]
    pub all: bool,
    /// As JSON; a code with its page in Markdown
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Build {
    #[command(flatten)]
    pub sources: Sources,
    #[command(flatten)]
    pub shorthand: JsonShorthand,
    /// Where the image goes
    #[arg(short, long, value_name = "IMAGE")]
    pub output: PathBuf,
}

#[derive(Args)]
pub struct Inspect {
    /// The image
    pub image: PathBuf,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Which instance.
#[derive(Args, Clone)]
pub struct InstanceArguments {
    /// Instance: several enforcement points on one machine keep apart by name
    #[arg(long, default_value = govc_loader::instance::DEFAULT_NAME, value_name = "NAME", value_parser = instance_name)]
    pub instance: String,
    /// Where the BPF file system is
    #[arg(long, default_value = govc_loader::instance::BPFFS, value_name = "DIR")]
    pub bpffs: PathBuf,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Instances are directories below a BPF file system, whose names hold no dots.
fn instance_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) {
        return Err("an instance's name is made of up to 64 letters, digits, - and _".into());
    }
    Ok(text.into())
}

#[derive(Args)]
pub struct Apply {
    #[command(flatten)]
    pub sources: Sources,
    /// Interface to enforce on; may be given several times
    #[arg(long = "iface", value_name = "IFACE")]
    pub interfaces: Vec<String>,
    /// Hook on the ingress side: native XDP on hardware and tcx on virtual devices unless told
    #[arg(long, value_enum, default_value_t = Hook::Auto)]
    pub hook: Hook,
    /// The policy file is an image made by `govc build`
    #[arg(long)]
    pub image: bool,
    /// Directory of the key ring
    #[arg(long, default_value = govc_loader::keyring::DEFAULT_DIR, value_name = "DIR", env = "GOVC_KEYS")]
    pub keys: PathBuf,
    /// Leave the MTU of routes alone; packets that leave no room for a label are then dropped
    #[arg(long)]
    pub keep_mtu: bool,
    /// Find out whether it would work; change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub instance: InstanceArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Hook {
    Auto,
    Xdp,
    Tcx,
}

#[derive(Args)]
pub struct StatusArguments {
    #[command(flatten)]
    pub instance: InstanceArguments,
    /// List the machine's interfaces instead
    #[arg(long)]
    pub interfaces: bool,
}

#[derive(Args)]
pub struct Detach {
    /// Interface to leave; all of them, and the instance with them, when none is given
    #[arg(long = "iface", value_name = "IFACE")]
    pub interfaces: Vec<String>,
    #[command(flatten)]
    pub instance: InstanceArguments,
}

#[derive(Args)]
pub struct Observe {
    #[command(flatten)]
    pub instance: InstanceArguments,
    /// Stop after so many events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<u64>,
    /// Report permitted packets too, not only those whose rules say `log`
    #[arg(long)]
    pub permits: bool,
}

#[derive(Subcommand)]
pub enum Keys {
    /// Make a ring of random keys for a domain
    New {
        /// Name of the domain
        domain: String,
        /// Number of the domain in labels, as in `domain acme = 7`
        #[arg(long)]
        number: u16,
        /// Length of an epoch: 2^SHIFT slots of two seconds; 14 is 9.1 hours
        #[arg(long, value_name = "SHIFT", default_value_t = govc_loader::keyring::EPOCH_SHIFT_DEFAULT,
              value_parser = clap::value_parser!(u32).range(4..=15))]
        epoch_shift: u32,
        /// Epochs to make keys for beyond the present one
        #[arg(long, value_name = "N", default_value_t = govc_loader::keyring::EPOCHS_STAGED_MAX,
              value_parser = clap::value_parser!(u64).range(0..=14))]
        staged: u64,
        #[command(flatten)]
        ring: RingArguments,
    },
    /// Make keys for the epochs that come next, and hand them to a running instance
    Stage {
        /// Epochs that shall have keys beyond the present one
        #[arg(long, value_name = "N", default_value_t = govc_loader::keyring::EPOCHS_STAGED_MAX,
              value_parser = clap::value_parser!(u64).range(0..=14))]
        staged: u64,
        #[command(flatten)]
        ring: RingArguments,
        #[command(flatten)]
        instance: InstanceArguments,
    },
    /// Show which epochs have keys, never the keys
    List {
        #[command(flatten)]
        ring: RingArguments,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which key ring.
#[derive(Args)]
pub struct RingArguments {
    /// Directory of the key ring
    #[arg(long, default_value = govc_loader::keyring::DEFAULT_DIR, value_name = "DIR", env = "GOVC_KEYS")]
    pub keys: PathBuf,
}

#[derive(Args)]
pub struct Lsp {
    /// Speak over standard input and output, which is the only way there is; editors say it
    #[arg(long)]
    pub stdio: bool,
}

#[derive(Args)]
pub struct Demo {
    /// Say nothing of what goes right; for tests
    #[arg(long)]
    pub quiet: bool,
}
