//! The peer in the kernel: nftables with a verdict map over five-tuples.

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

/// Its version, or `None` when it is not installed.
pub fn version() -> Option<String> {
    let output = Command::new("nft").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // `nftables v1.0.6 (Lester Gooch #5)`
    output.status.success().then(|| text.split(" (").next().unwrap_or_default().to_owned())
}

/// Makes a namespace that drops the benchmark's packets, by a chain of its own, after they have
/// passed a verdict map of `elements` tuples; 0 for none.
pub fn namespace(elements: u32) -> Result<Namespace, BenchError> {
    let namespace = Namespace::create("nft")?;
    let rules = rules(elements);
    namespace.try_run(|| nft(&["-f", "-"], &rules)).map_err(BenchError::from)??;
    Ok(namespace)
}

/// How many packets have come to the end.
pub fn counted(namespace: &Namespace) -> Result<u64, BenchError> {
    let text = namespace.try_run(|| nft(&["list", "counter", "ip", "fin", "ended"], ""))??;
    let mut words = text.split_whitespace().skip_while(|&word| word != "packets");
    Ok(words.nth(1).and_then(|count| count.parse().ok()).unwrap_or_default())
}

/// Packets that the map accepts.
pub fn frames(elements: u32) -> FrameSet {
    let random = &mut Random::new(u64::from(elements) + 1);
    FrameSet::udp((0..FRAMES_MAX).map(|_| {
        let (source, port) = tuple(random.below(elements.max(1)));
        (source, port, DESTINATION, DESTINATION_PORT)
    }))
}

fn tuple(number: u32) -> (Ipv4Addr, u16) {
    (Ipv4Addr::from_bits(0x0a80_0000 + number / PORTS), 1024 + (number % PORTS) as u16)
}

fn rules(elements: u32) -> String {
    let mut text = format!(
        "table ip fin {{\n counter ended {{}}\n chain c {{ type filter hook prerouting priority \
         -150; policy accept; udp dport {DESTINATION_PORT} counter name ended drop; }}\n}}\n"
    );
    if elements == 0 {
        return text;
    }
    text.push_str(
        "table ip peer {\n map allowed { type ipv4_addr . ipv4_addr . inet_proto . inet_service . \
         inet_service : verdict; size 262144; elements = {\n",
    );
    for number in 0..elements {
        let (source, port) = tuple(number);
        let _ = writeln!(
            text,
            "  {source} . {DESTINATION} . 17 . {port} . {DESTINATION_PORT} : accept,"
        );
    }
    text.push_str(
        " } }\n chain c { type filter hook prerouting priority -300; policy drop; ip saddr . ip \
         daddr . ip protocol . th sport . th dport vmap @allowed; }\n}\n",
    );
    text
}

fn nft(arguments: &[&str], input: &str) -> Result<String, BenchError> {
    let what = "run nft";
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io(what))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(io(what))?;
    }
    let output = child.wait_with_output().map_err(io(what))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io(what)(std::io::Error::other(said)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
