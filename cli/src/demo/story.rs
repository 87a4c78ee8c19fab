//! What the demonstration shows, step by step; each step is an expectation on real packets.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use govc_netlab::{DontFragment, Flow, IpPrefix, Outcome, PacketSocket, ping};

use super::network::{Host, HostEvents, Network};
use crate::{
    failure::Failure,
    output::{Style, line},
};

/// Port of the ledger.
const PORT: u16 = 5432;
/// How long a packet may take that is expected to arrive.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait for one that is expected not to.
const DENIED_WAIT: Duration = Duration::from_millis(400);

struct Story<'a> {
    network: &'a Network,
    style: &'a Style,
    quiet: bool,
    failed: u32,
    steps: u32,
    ledger_events: HostEvents,
}

/// Tells the whole story; fails when anything goes otherwise than told.
pub fn tell(network: &Network, quiet: bool, style: &Style) -> Result<(), Failure> {
    let ledger_events = network.ledger.events()?;
    let mut story = Story { network, style, quiet, failed: 0, steps: 0, ledger_events };
    story.head("An API, a ledger, a guest and a stranger, joined by a plain router")?;
    story.say("The API, the ledger and the guest enforce examples/policies/demo/; the stranger has no govc.")?;
    story.permitted_traffic()?;
    story.denied_traffic()?;
    story.address_changes()?;
    story.address_is_taken_over()?;
    story.label_is_replayed()?;
    story.end()
}

impl Story<'_> {
    fn head(&self, text: &str) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { line(&format!("\n{}", self.style.bold(text))) }
    }

    fn say(&self, text: &str) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { line(&self.style.dim(text)) }
    }

    /// Notes a step, with the verdicts that the ledger gave meanwhile.
    fn step(&mut self, what: &str, as_told: bool) -> Result<(), Failure> {
        self.steps += 1;
        self.failed += u32::from(!as_told);
        let verdicts = self.ledger_events.drain()?;
        if self.quiet && as_told {
            return Ok(());
        }
        let mark = if as_told { self.style.good("ok  ") } else { self.style.bad("FAIL") };
        line(&format!("{mark} {what}"))?;
        // A flow gives many verdicts; the first of each kind tells the story.
        let mut shown: Vec<(&str, Option<String>, &str)> = Vec::new();
        for verdict in &verdicts {
            let kind = (verdict.verdict, verdict.rule.clone(), verdict.reason);
            if !shown.contains(&kind) {
                line(&format!("       {}", verdict.line(self.style)))?;
                shown.push(kind);
            }
        }
        Ok(())
    }

    fn to_ledger<'n>(&'n self, from: &'n Host, v6: bool, timeout: Duration) -> Flow<'n> {
        let to = SocketAddr::new(self.network.ledger.address(v6), PORT);
        Flow::new(&self.network.ledger.namespace, to, &from.namespace, timeout)
    }

    fn permitted_traffic(&mut self) -> Result<(), Failure> {
        self.head("What the policy permits")?;
        let network = self.network;
        for v6 in [false, true] {
            let version = if v6 { "IPv6" } else { "IPv4" };
            let report = self.to_ledger(&network.api, v6, PATIENCE).tcp_transfer(5_000_000);
            let done = report.as_ref().is_ok_and(|report| report.bytes == 5_000_000);
            self.step(&format!("the API sends 5 MB to the ledger: TCP over {version}"), done)?;
            let payload = if v6 { 1500 - 32 - 48 } else { 1500 - 32 - 28 };
            let outcome = self
                .to_ledger(&network.api, v6, PATIENCE)
                .udp_exchange(payload, DontFragment::Want)?;
            self.step(
                &format!("a full-size datagram and its answer: UDP over {version}"),
                outcome.is_delivered(),
            )?;
            let outcome =
                ping(&network.api.namespace, None, network.ledger.address(v6), 56, PATIENCE)?;
            self.step(&format!("the API pings the ledger over {version}"), outcome.is_delivered())?;
        }
        Ok(())
    }

    fn denied_traffic(&mut self) -> Result<(), Failure> {
        self.head("What it does not permit, and which rule says so")?;
        let network = self.network;
        for v6 in [false, true] {
            let version = if v6 { "IPv6" } else { "IPv4" };
            let outcome = self.to_ledger(&network.guest, v6, DENIED_WAIT).tcp_exchange()?;
            self.step(&format!("the guest is turned away over {version}"), lost(outcome))?;
            let outcome = self.to_ledger(&network.stranger, v6, DENIED_WAIT).tcp_exchange()?;
            self.step(
                &format!("the stranger, who has no label, too over {version}"),
                lost(outcome),
            )?;
        }
        let to = SocketAddr::new(network.ledger.v4, 22);
        let flow = Flow::new(&network.ledger.namespace, to, &network.api.namespace, DENIED_WAIT);
        let outcome = flow.tcp_exchange()?;
        self.step("and the API on a port that no rule names", lost(outcome))
    }

    /// Claim 1: an address changes, and nobody has to be told.
    fn address_changes(&mut self) -> Result<(), Failure> {
        self.head("Claim 1: the API's address changes, its verdict stays")?;
        let api = &self.network.api;
        let (old, new) = (api.v4, other_address(api.v4));
        api.namespace.remove_address("eth0", IpPrefix::new(old, 24)?)?;
        api.namespace.add_address("eth0", IpPrefix::new(new, 24)?)?;
        // The default route went with the address that it used.
        restore_default_route(api)?;
        self.say(&format!(
            "{old} becomes {new}; nothing is sent to the ledger's node, no map is written"
        ))?;
        let flow = self.to_ledger(api, false, PATIENCE).from(SocketAddr::new(new, 0));
        let outcome = flow.tcp_exchange()?;
        self.step("the API reads as before", outcome.is_delivered())
    }

    /// Claim 2: the old address, given to somebody else, gives that one nothing.
    fn address_is_taken_over(&mut self) -> Result<(), Failure> {
        self.head("Claim 2: the API's old address is given to others, who gain nothing")?;
        let network = self.network;
        let old = network.api.v4;
        for taker in [&network.guest, &network.stranger] {
            let prefix = IpPrefix::new(old, 32)?;
            taker.namespace.add_address("eth0", prefix)?;
            network.router.set_route(prefix, Some(taker.v4), &format!("to_{}", taker.name))?;
            let flow = self.to_ledger(taker, false, DENIED_WAIT).from(SocketAddr::new(old, 0));
            let outcome = flow.tcp_exchange()?;
            self.step(&format!("the {} calls from {old}", taker.name), lost(outcome))?;
            taker.namespace.remove_address("eth0", prefix)?;
        }
        Ok(())
    }

    /// Claim 3: a label that was captured is worth nothing on another flow.
    fn label_is_replayed(&mut self) -> Result<(), Failure> {
        self.head("Claim 3: a captured label is replayed on another flow")?;
        let network = self.network;
        let wire = PacketSocket::open(&network.router, "to_ledger")?;
        let source = SocketAddr::new(other_address(network.api.v4), 0);
        let flow = self.to_ledger(&network.api, false, PATIENCE).from(source);
        let outcome = flow.udp_exchange(64, DontFragment::Want)?;
        let captured = wire.capture(PATIENCE, |frame| is_labelled_udp(&frame.bytes))?;
        let Some(frame) = captured.filter(|_| outcome.is_delivered()) else {
            return self.step("capturing a labelled datagram", false);
        };
        self.step("a datagram of the API, captured on its way", true)?;
        let mut replay = frame.bytes;
        // Another source port: Ethernet 14, IPv4 with label 52.
        if let Some(byte) = replay.get_mut(14 + 52 + 1) {
            *byte ^= 1;
        }
        wire.send(&replay)?;
        std::thread::sleep(Duration::from_millis(100));
        let verdicts = self.ledger_events.drain()?;
        let denied = verdicts.iter().any(|verdict| verdict.reason == "bad_mac");
        for verdict in verdicts.iter().take(1).filter(|_| !self.quiet) {
            line(&format!("       {}", verdict.line(self.style)))?;
        }
        self.step("its label on another source port is denied as bad_mac", denied)
    }

    fn end(&self) -> Result<(), Failure> {
        let passed = self.steps - self.failed;
        let text = format!("{passed} of {} steps went as told", self.steps);
        line(&format!(
            "\n{}",
            if self.failed == 0 { self.style.good(text) } else { self.style.bad(text) }
        ))?;
        if self.failed == 0 { Ok(()) } else { Err(Failure::Told) }
    }
}

/// Denied packets are dropped: the sender hears nothing.
fn lost(outcome: Outcome) -> bool {
    outcome == Outcome::TimedOut
}

/// The address that the API moves to.
fn other_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::from([a, b, c, 77])
        }
        v6 @ IpAddr::V6(_) => v6,
    }
}

fn restore_default_route(host: &Host) -> Result<(), Failure> {
    let gateway = match host.v4 {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::from([a, b, c, 1])
        }
        v6 @ IpAddr::V6(_) => v6,
    };
    Ok(host.namespace.set_route(IpPrefix::DEFAULT_V4, Some(gateway), "eth0")?)
}

/// Ethernet, IPv4 with 13 words, UDP.
fn is_labelled_udp(frame: &[u8]) -> bool {
    frame.get(12..15) == Some(&[0x08, 0x00, 0x4d]) && frame.get(23) == Some(&17)
}
