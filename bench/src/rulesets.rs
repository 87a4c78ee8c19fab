//! The peers in the kernel: the same five-tuples as an nftables verdict map, an nftables set, an
//! ipset and a list of iptables rules.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use govc_netlab::Namespace;

use crate::{
    error::{BenchError, io},
    frames::FrameSet,
    random::Random,
    shared::FRAMES_MAX,
};

const DESTINATION: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 2);
const DESTINATION_PORT: u16 = 4433;
/// Source ports of one source.
const PORTS: u32 = 16;
/// iptables with the kernel's own tables where there is one, else with those of nftables.
const IPTABLES: [&str; 2] = ["iptables-legacy", "iptables"];

/// A way to write down which tuples are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A map from tuples to verdicts.
    Map,
    /// A set of tuples.
    Set,
    /// A set of source, source port and destination that one rule of iptables asks.
    Ipset,
    /// A rule for each tuple.
    List,
}

impl Kind {
    /// All, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Map, Self::Set, Self::Ipset, Self::List];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Map => "nftables verdict map",
            Self::Set => "nftables set",
            Self::Ipset => "ipset",
            Self::List => "iptables rules",
        }
    }

    /// What has to be installed, as Debian calls it.
    pub fn package(self) -> &'static str {
        match self {
            Self::Map | Self::Set => "nftables",
            Self::Ipset => "ipset",
            Self::List => "iptables",
        }
    }

    /// The versions of what it takes; `None` when something is not installed.
    pub fn version(self) -> Option<String> {
        match self {
            Self::Map | Self::Set => version("nft"),
            Self::Ipset => Some(format!("{} with {}", version("ipset")?, Self::List.version()?)),
            Self::List => version(iptables()?),
        }
    }

    /// Whether a packet passes half of all rules before its own.
    pub fn is_linear(self) -> bool {
        self == Self::List
    }

    /// Makes a namespace that counts and drops what has passed so many tuples.
    pub fn namespace(self, elements: u32) -> Result<Namespace, BenchError> {
        let namespace = Namespace::create("filter")?;
        end_by_drop(&namespace)?;
        let fill = || match self {
            Self::Map => run("nft", &["-f", "-"], &nft_map(elements)).map(drop),
            Self::Set => run("nft", &["-f", "-"], &nft_set(elements)).map(drop),
            Self::Ipset => {
                run("ipset", &["restore"], &ipset(elements))?;
                restore(&iptables_of([Self::rule_of_ipset()].into_iter()))
            }
            Self::List => restore(&iptables_of((0..elements).map(rule))),
        };
        namespace.try_run(fill)??;
        Ok(namespace)
    }

    fn rule_of_ipset() -> String {
        format!("-p udp --dport {DESTINATION_PORT} -m set --match-set allowed src,src,dst")
    }
}

/// From now on what arrives in a namespace and is let through by other chains is counted and
/// dropped, before it is routed.
pub fn end_by_drop(namespace: &Namespace) -> Result<(), BenchError> {
    let rules = "table ip fin {\n counter ended {}\n chain c { type filter hook prerouting \
                 priority -150; policy accept; counter name ended drop; }\n}\n";
    namespace.try_run(|| run("nft", &["-f", "-"], rules))??;
    Ok(())
}

/// How many packets have come to that end.
pub fn counted(namespace: &Namespace) -> Result<u64, BenchError> {
    let arguments = ["list", "counter", "ip", "fin", "ended"];
    let text = namespace.try_run(|| run("nft", &arguments, ""))??;
    let mut words = text.split_whitespace().skip_while(|&word| word != "packets");
    Ok(words.nth(1).and_then(|count| count.parse().ok()).unwrap_or_default())
}

/// Packets that the tuples let through: first that of the middle one, then others at random.
pub fn frames(elements: u32) -> FrameSet {
    let random = &mut Random::new(u64::from(elements) + 1);
    let others = (1..FRAMES_MAX).map(|_| random.below(elements.max(1)));
    FrameSet::udp(std::iter::once(elements / 2).chain(others).map(|number| {
        let (source, port) = tuple(number);
        (source, port, DESTINATION, DESTINATION_PORT)
    }))
}

fn tuple(number: u32) -> (Ipv4Addr, u16) {
    (Ipv4Addr::from_bits(0x0a80_0000 + number / PORTS), 1024 + (number % PORTS) as u16)
}

fn nft_map(elements: u32) -> String {
    let mut text = "table ip peer {\n map allowed { type ipv4_addr . ipv4_addr . inet_proto . \
                    inet_service . inet_service : verdict; size 262144; elements = {\n"
        .to_owned();
    add_tuples(&mut text, elements, " : accept");
    text.push_str(
        " } }\n chain c { type filter hook prerouting priority -300; policy drop; ip saddr . ip \
         daddr . ip protocol . th sport . th dport vmap @allowed; }\n}\n",
    );
    text
}

fn nft_set(elements: u32) -> String {
    let mut text = "table ip peer {\n set allowed { type ipv4_addr . ipv4_addr . inet_proto . \
                    inet_service . inet_service; size 262144; elements = {\n"
        .to_owned();
    add_tuples(&mut text, elements, "");
    text.push_str(
        " } }\n chain c { type filter hook prerouting priority -300; policy drop; ip saddr . ip \
         daddr . ip protocol . th sport . th dport @allowed accept; }\n}\n",
    );
    text
}

fn add_tuples(text: &mut String, elements: u32, verdict: &str) {
    for number in 0..elements {
        let (source, port) = tuple(number);
        let _ = writeln!(
            text,
            "  {source} . {DESTINATION} . 17 . {port} . {DESTINATION_PORT}{verdict},"
        );
    }
}

fn ipset(elements: u32) -> String {
    let mut text = "create allowed hash:ip,port,ip family inet maxelem 262144\n".to_owned();
    for number in 0..elements {
        let (source, port) = tuple(number);
        let _ = writeln!(text, "add allowed {source},udp:{port},{DESTINATION}");
    }
    text
}

fn rule(number: u32) -> String {
    let (source, port) = tuple(number);
    format!("-s {source} -d {DESTINATION} -p udp --sport {port} --dport {DESTINATION_PORT}")
}

fn iptables_of(rules: impl Iterator<Item = String>) -> String {
    let mut text = "*raw\n:PREROUTING DROP [0:0]\n".to_owned();
    for rule in rules {
        let _ = writeln!(text, "-A PREROUTING {rule} -j ACCEPT");
    }
    text.push_str("COMMIT\n");
    text
}

/// The first line of what a program says about itself, up to a remark or a name of the release.
fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `nftables v1.0.6 (Lester Gooch #5)`, `ipset v7.17, protocol version: 7`
    let line = text.lines().next().unwrap_or_default();
    let line = if line.contains('#') { line.split(" (").next().unwrap_or(line) } else { line };
    let line = line.split(',').next().unwrap_or(line).trim();
    output.status.success().then(|| line.to_owned())
}

/// The iptables that works here.
fn iptables() -> Option<&'static str> {
    let works = |program: &&str| {
        let output = Command::new(program).args(["-t", "raw", "-S"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    IPTABLES.into_iter().find(works)
}

fn restore(rules: &str) -> Result<(), BenchError> {
    let program = iptables().unwrap_or("iptables");
    run(&format!("{program}-restore"), &["-w"], rules).map(drop)
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, BenchError> {
    let failed = |error| io(format!("run {program}"))(error);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(std::io::Error::other(said)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_write_down_the_same_tuples() {
        let tuple = "10.128.0.1";
        for (text, each) in [
            (nft_map(32), " : accept,"),
            (nft_set(32), " . 4433,"),
            (ipset(32), "add allowed "),
            (iptables_of((0..32).map(rule)), "-j ACCEPT"),
        ] {
            assert_eq!(text.matches(each).count(), 32, "{text}");
            assert_eq!(text.matches(tuple).count(), PORTS as usize, "{text}");
        }
    }

    #[test]
    fn the_first_frame_is_that_of_the_middle() {
        let frame = frames(1000).first();
        let (source, port) = tuple(500);
        assert_eq!(frame[26..30], source.octets());
        assert_eq!(frame[34..36], port.to_be_bytes());
    }
}
