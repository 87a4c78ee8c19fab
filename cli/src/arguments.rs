//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

mod authority;
mod keys;

pub use authority::{
    Audit, Authority, Bundle, Grant, Mapping, Sign, Signer, Signing, StateArguments, Terms,
    Transit, Trust, Unlock, Verify,
};
pub use keys::{Export, Import, Keys, New, RingArguments, Rotate, Seal, Staging};

use crate::{events::filter::FilterArguments, levels::Target};

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
    Rollback(Rollback),
    /// Stop enforcing
    Detach(Detach),
    /// Keep what `apply --confirm` put in force
    Confirm(InstanceArguments),
    /// Wait for the end of a trial; `apply --confirm` starts this
    #[command(hide = true)]
    EndTrial(PlaceArguments),
    /// Run a command as a subject that the policy in force grants, without changing it
    #[command(
        after_help = "Exit codes: that of the command, 128 and the signal that ended it, 126 or 127 when it \
                            could not be started; 3 when nothing grants it or the machine is in the way."
    )]
    Run(Run),
    /// Follow verdicts as they happen, or look at those that were kept
    Observe(Observe),
    /// Watch flows between scopes, denials and rules in the terminal
    Top(Top),
    /// Show the same on a page for browsers on this machine
    Serve(Serve),
    /// Print all counters as OpenMetrics text, or serve them
    Metrics(Metrics),
    /// Find out whether this machine is fit for enforcement, and what to do where it is not
    #[command(
        after_help = "Exit codes: 0 all is well; 1 something deserves a look; 3 something stands in the way."
    )]
    Doctor(Doctor),
    /// Find out what a path lets through, and how labels have to ride there
    ///
    /// Sends echo requests, bare and with the option that labels ride in, and datagrams, bare and in the shape of a tunnel. It
    /// tells about the way there only: probe from the other end too. The host must answer echoes, or say that ports are closed.
    #[command(
        after_help = "Exit codes: 0 options pass; 10 tunnels pass and options do not; 11 neither passes; 12 too little came back to tell; 3 the machine is in the way."
    )]
    Probe(Probe),
    /// Make and look after the local key ring
    #[command(subcommand)]
    Keys(Keys),
    /// Make and show signing keys
    #[command(subcommand)]
    Signer(Signer),
    /// Set and show whom this node trusts
    #[command(subcommand)]
    Trust(Trust),
    /// Make a bundle of a policy, which its owners sign
    Bundle(Bundle),
    /// Add a signature to a bundle or grant
    Sign(Sign),
    /// Tell whether a bundle may be enforced
    Verify(Verify),
    /// Make, hand on, check and revoke rights to stamp
    #[command(subcommand)]
    Grant(Grant),
    /// Make, show and take mappings: what labels of one domain become in another
    #[command(subcommand)]
    Mapping(Mapping),
    /// Show and check the audit log
    #[command(subcommand)]
    Audit(Audit),
    /// Show what changes from one policy or image to another
    #[command(
        after_help = "Exit codes: 0 nothing changes; 10 other rules give the same verdicts, labels ride \
                            otherwise, or rules log otherwise; 11 less is permitted; 12 something is permitted that \
                            was denied; 13 labels become others where they pass through, and not 12; 14 what was denied \
                            is answered or kept in another way, and none of 11 to 13."
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
    /// Print the manual page, of a command if one is named
    Man {
        /// The command, such as `grant new`
        #[arg(value_name = "COMMAND")]
        path: Vec<String>,
    },
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

/// Where sources are that an image only names.
#[derive(Args, Clone)]
pub struct SourcesAt {
    /// Directory that the names of policy files in an image start from: the one that `apply` or
    /// `build` ran in
    #[arg(long = "sources", default_value = ".", value_name = "DIR")]
    pub sources: PathBuf,
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
    /// Tell names that are defined in the files named here and used in no file that is read
    #[arg(long)]
    pub unused: bool,
    /// Print a stage of the compiler instead
    #[arg(long, value_enum)]
    pub emit: Option<Stage>,
    /// Tell stamp rules that none of these grants covers; may be given several times
    #[arg(long, value_name = "GRANT", num_args = 1.., requires = "root", conflicts_with_all = ["fix", "emit"])]
    pub grants: Vec<PathBuf>,
    /// With --grants: root of trust that they have to come from
    #[arg(long, value_name = "FILE", requires = "grants")]
    pub root: Option<PathBuf>,
    /// With --grants: mappings that translations have to lie in
    #[arg(long = "mapping", value_name = "MAPPING", requires = "grants")]
    pub mappings: Vec<PathBuf>,
    /// Tell stamp rules that none of the grants covers which the node with this state directory
    /// holds
    #[arg(long, value_name = "DIR", conflicts_with_all = ["fix", "emit", "grants"])]
    pub authority: Option<PathBuf>,
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
    #[command(flatten)]
    pub transit: Transit,
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
    /// acme.guest proto tcp port 443 }`, a file that holds one, or a capture (pcap, pcapng)
    #[arg(
        required_unless_present = "list",
        value_name = "CODE | FILE.. PACKET | FILE.. CAPTURE | FILE.. EVENT"
    )]
    pub what: Vec<String>,
    /// Explain the event with this id, or one that begins so, of a file that `observe --write`
    /// wrote; policy files are found by themselves where they have not changed since
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    #[command(flatten)]
    pub sources: SourcesAt,
    /// Explain this packet of a capture, from 1, instead of listing the verdicts of all
    #[arg(long, value_name = "NUMBER")]
    pub packet: Option<usize>,
    /// Where the packets of a capture are decided
    #[arg(long, value_enum, default_value = "ingress", value_name = "HOOK")]
    pub on: PolicyHook,
    /// Zone of the interface that the packets of a capture came in by, on egress that they leave by;
    /// the only one unless said
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// Zone that the packets of a capture leave by that pass through
    #[arg(long, value_name = "ZONE")]
    pub to_zone: Option<String>,
    /// The capture has all packets since the policy's first moment: no flow is older
    #[arg(long)]
    pub complete: bool,
    /// Directory of the key ring, to verify the labels of a capture with
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
    /// File with the age key that the files of the ring are sealed for; `identity` in the key
    /// directory when not given, if that is there
    #[arg(long, value_name = "FILE", env = "GOVC_IDENTITY")]
    pub ring_identity: Option<PathBuf>,
    #[command(flatten)]
    pub transit: Transit,
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
pub struct PlaceArguments {
    /// Instance: several enforcement points on one machine keep apart by name
    #[arg(long, default_value = govc_loader::instance::DEFAULT_NAME, value_name = "NAME", value_parser = instance_name)]
    pub instance: String,
    /// Where the BPF file system is
    #[arg(long, default_value = govc_loader::instance::BPFFS, value_name = "DIR")]
    pub bpffs: PathBuf,
}

#[derive(Args)]
pub struct Run {
    /// Whose labels its packets carry, such as acme.payments.api; a stamp rule for the cgroup
    /// "/govc.run/SUBJECT/*" has to grant it
    #[arg(long, value_name = "SUBJECT")]
    pub subject: String,
    /// What all of its sockets do, such as ledger.read; without it the first operation of the
    /// stamp rule, and sockets may declare others of it
    #[arg(long, value_name = "OPERATION")]
    pub operation: Option<String>,
    #[command(flatten)]
    pub place: PlaceArguments,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
}

/// Which instance, and how it is told about.
#[derive(Args, Clone)]
pub struct InstanceArguments {
    #[command(flatten)]
    pub place: PlaceArguments,
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
    #[command(flatten)]
    pub ring: RingArguments,
    /// Leave the MTU of routes alone; packets that leave no room for a label are then dropped
    #[arg(long)]
    pub keep_mtu: bool,
    /// Find out whether it would work; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Go back to what was in force before unless `govc confirm` is said within this time: 60s, 5m
    #[arg(long, value_name = "DURATION", conflicts_with = "dry_run", value_parser = trial_time)]
    pub confirm: Option<Duration>,
    /// Put a policy that nobody signed in the place of what a signed bundle put in force, where this node has
    /// lost its root of trust or gives it up; noted in the audit log
    #[arg(long)]
    pub replace_signed: bool,
    /// Let each CPU report so many events a second at most, from now on: 10000 unless said; packets
    /// and rules are counted all the same
    #[arg(long, value_name = "N", conflicts_with = "dry_run", value_parser = clap::value_parser!(u32).range(1..))]
    pub event_rate: Option<u32>,
    #[command(flatten)]
    pub state: StateArguments,
    #[command(flatten)]
    pub instance: InstanceArguments,
}

/// Shortest trial: nobody says `govc confirm` sooner, and nobody finds out sooner what is broken.
const TRIAL_MIN: Duration = Duration::from_secs(2);

/// How long a trial may take.
fn trial_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time < TRIAL_MIN {
        let least = humantime::format_duration(TRIAL_MIN);
        return Err(format!("that would go back before anybody can confirm it: at least {least}"));
    }
    Ok(time)
}

#[derive(Args)]
pub struct Rollback {
    /// Go back even from what a signed bundle put in force, where this node has lost its root of trust or gives
    /// it up; noted in the audit log
    #[arg(long)]
    pub replace_signed: bool,
    #[command(flatten)]
    pub state: StateArguments,
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
    pub filter: FilterArguments,
    /// Stop after so many events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Stop after so long: 30s, 5m
    #[arg(long, value_name = "DURATION")]
    pub r#for: Option<humantime::Duration>,
    /// Report permitted packets too, not only those whose rules say `log`, until this command ends
    #[arg(long, conflicts_with = "read")]
    pub permits: bool,
    /// Show what has been waiting in the ring since before, too
    #[arg(long, conflicts_with = "read")]
    pub backlog: bool,
    /// Show every event on a terminal, however many there are
    #[arg(long)]
    pub every: bool,
    /// Count events by kind each second, however few there are
    #[arg(long, conflicts_with = "every")]
    pub aggregate: bool,
    /// Show no events: for --write and --pcapng
    #[arg(short, long)]
    pub quiet: bool,
    /// Keep the events in a file, with all names
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Show events that were kept in a file
    #[arg(long, value_name = "FILE")]
    pub read: Option<PathBuf>,
    /// Write the events' packets into a capture (pcapng), each with its verdict as a comment
    #[arg(short = 'o', long, value_name = "FILE")]
    pub pcapng: Option<PathBuf>,
    #[command(flatten)]
    pub instance: InstanceArguments,
}

/// What views of traffic show.
#[derive(Args)]
pub struct Watched {
    /// Leave permitted packets out, which are reported as long as this command runs otherwise
    #[arg(long)]
    pub denials: bool,
    #[command(flatten)]
    pub sources: SourcesAt,
    #[command(flatten)]
    pub instance: PlaceArguments,
}

#[derive(Args)]
pub struct Top {
    #[command(flatten)]
    pub watched: Watched,
}

#[derive(Args)]
pub struct Serve {
    /// Where; loopback only, because nobody is asked who they are
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9401")]
    pub listen: std::net::SocketAddr,
    #[command(flatten)]
    pub watched: Watched,
}

#[derive(Args)]
pub struct Doctor {
    /// Interface to look at; may be given several times; all of them when none is given
    #[arg(long = "iface", value_name = "IFACE")]
    pub interfaces: Vec<String>,
    #[command(flatten)]
    pub ring: RingArguments,
    #[command(flatten)]
    pub instance: InstanceArguments,
}

#[derive(Args)]
pub struct Probe {
    /// Where to: a host that no policy of the other end keeps from answering
    pub address: std::net::IpAddr,
    /// Interface to send by; the one of the route when none is given
    #[arg(long = "iface", value_name = "IFACE")]
    pub interface: Option<String>,
    /// Milliseconds to wait for each answer
    #[arg(long, default_value_t = 500, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub timeout: u64,
    #[command(flatten)]
    pub instance: InstanceArguments,
}

#[derive(Args)]
pub struct Metrics {
    /// Serve /metrics here instead, until this command is ended; nobody is asked who they are, so
    /// that loopback is the place for it: 127.0.0.1:9400
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<std::net::SocketAddr>,
    #[command(flatten)]
    pub instance: PlaceArguments,
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
