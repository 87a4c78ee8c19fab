//! Packets that pass through with their labels, and packets that arrive where others pass through.

use govc_image::Image;
use govc_loader::attach::HookChoice;
use govc_netlab::Namespace;

use crate::{
    cells::{grouped, plain, strings},
    error::BenchError,
    frames::{FrameSet, Version},
    instance::{Instance, Keys, Site},
    measure::{Bench, Case, CaseId, Run, Traffic},
    pair::{DEVICE, Pair},
    policy::{self, Hook, Numbers, Rule},
    programs,
    progress::Progress,
    report::Section,
    subject,
    suite::Plan,
};

/// Rules of the policies.
const RULES: u32 = 1000;
/// Makes a node one that passes packets on, of which none comes here.
const TRANSIT: &str = "policy transit {\n    on forward\n    permit nothing_here { from \
                       bench.client[0]  proto tcp port 1 }\n}\n";

/// What is measured.
struct Nodes {
    /// Routes, without a policy.
    router: Pair,
    governed: Pair,
    transit: Instance,
    /// Drops what arrives, without a policy.
    end: Namespace,
    plain: Instance,
    passes_on: Instance,
}

impl Nodes {
    fn new(images: &Images) -> Result<Self, BenchError> {
        let (router, governed) = (routing()?, routing()?);
        let interfaces = &["lo", DEVICE];
        let site = Site { namespace: &governed.client, interfaces, hook: HookChoice::Tcx };
        Ok(Self {
            transit: Instance::at(site, &images.transit, &Keys::new()?)?,
            router,
            governed,
            end: Namespace::create("end")?,
            plain: Instance::new(&images.plain)?,
            passes_on: Instance::new(&images.passes_on)?,
        })
    }

    /// Everything has to have been decided by a rule, and to have left where it passes through.
    fn check(&self) -> Result<(), BenchError> {
        subject::check([&self.plain, &self.passes_on].into_iter())?;
        // Neighbours that look for each other belong to the link.
        let others = self.transit.reasons()?.into_iter();
        let mut others = others.filter(|one| !["rule", "link_control"].contains(&one.reason));
        let wrong = |found| BenchError::Wrong { case: "passing packets".to_owned(), found };
        if let Some(other) = others.next() {
            return Err(wrong(format!("{} packets end with `{}`", other.packets, other.reason)));
        }
        // Each is decided where it comes in and where it leaves.
        let decided = self.transit.count("forward", "rule")?;
        let left = self.governed.client.link_stats(DEVICE)?.tx_packets;
        // The first ones may have waited for a neighbour in vain.
        if decided == 0 || left < decided / 2 - decided / 1000 {
            return Err(wrong(format!("{decided} decisions, {left} packets leave")));
        }
        Ok(())
    }
}

/// Policies with the same vocabulary and rules.
struct Images {
    transit: Image,
    plain: Image,
    passes_on: Image,
    rules: Vec<Rule>,
}

impl Images {
    fn compile() -> Result<Self, BenchError> {
        let plain = policy::generate_at(RULES, Hook::Ingress);
        Ok(Self {
            transit: policy::image(policy::generate_at(RULES, Hook::Forward).text)?,
            passes_on: policy::image(format!("{}{TRANSIT}", plain.text))?,
            plain: policy::image(plain.text)?,
            rules: plain.rules.into_iter().filter(|rule| rule.permits).collect(),
        })
    }

    fn frames(&self, image: &Image) -> Result<FrameSet, BenchError> {
        let numbers = Numbers::find(image.names()).ok_or_else(|| BenchError::Policy {
            rules: RULES as usize,
            message: "the image lacks the vocabulary".to_owned(),
        })?;
        Ok(FrameSet::labelled(Version::V4, numbers, &self.rules))
    }
}

/// A line of a table.
type Line = (String, CaseId);

/// Measures both.
pub fn measure(plan: Plan, progress: &Progress) -> Result<Vec<Section>, BenchError> {
    progress.say(|| "building routers".to_owned());
    let images = Images::compile()?;
    let nodes = Nodes::new(&images)?;
    let (mut object, mut maps) = programs::load()?;
    for namespace in [&nodes.end, &nodes.plain.namespace, &nodes.passes_on.namespace] {
        namespace.try_run(|| object.attach_end())??;
    }
    let mut bench = Bench::new(&object, &mut maps);
    let passing = add_passing(&mut bench, &nodes, images.frames(&images.transit)?);
    let arriving = add_arriving(&mut bench, &nodes, images.frames(&images.plain)?);
    bench.measure(plan.effort, progress)?;
    nodes.check()?;
    let row = |(name, case): &Line| vec![name.clone(), plain(bench.figure(*case))];
    Ok(vec![
        section_of_passing(passing.iter().map(row).collect()),
        section_of_arriving(arriving.iter().map(row).collect()),
    ])
}

fn add_passing<'a>(bench: &mut Bench<'a>, nodes: &'a Nodes, frames: FrameSet) -> Vec<Line> {
    let set = bench.add_frames(frames);
    let mut lines = Vec::new();
    for traffic in Traffic::ALL {
        let case = |namespace| {
            let name = format!("passing, {}", traffic.name());
            let case = Case::new(name, Run::Live(namespace, false), set, traffic, 0);
            case.keys(&nodes.transit.keys.domain)
        };
        let nothing = bench.add(case(&nodes.router.client));
        lines.push((format!("a router without a policy, {}", traffic.name()), nothing));
        let governed = bench.add(case(&nodes.governed.client).over(nothing));
        lines.push((format!("a policy on top of that, {}", traffic.name()), governed));
    }
    lines
}

fn add_arriving<'a>(bench: &mut Bench<'a>, nodes: &'a Nodes, frames: FrameSet) -> Vec<Line> {
    let set = bench.add_frames(frames);
    let mut lines = Vec::new();
    for traffic in Traffic::ALL {
        let case = |namespace| {
            let name = format!("arriving, {}", traffic.name());
            Case::new(name, Run::Live(namespace, true), set, traffic, 0)
        };
        let nothing = bench.add(case(&nodes.end));
        lines.push((format!("a node without a policy, {}", traffic.name()), nothing));
        for (what, instance) in
            [("ingress", &nodes.plain), ("ingress and forward", &nodes.passes_on)]
        {
            let memory = if traffic == Traffic::Hot { &[true, false][..] } else { &[false] };
            for &remembers in memory {
                let place = (!remembers).then(|| instance.place());
                let case = case(&instance.namespace).keys(&instance.keys.domain);
                let id = bench.add(case.computes(place).over(nothing));
                let how = if remembers { "remembered" } else { "computed" };
                lines.push((format!("policies on {what}, {}, {how}", traffic.name()), id));
            }
        }
    }
    lines
}

fn routing() -> Result<Pair, BenchError> {
    let pair = Pair::bare()?;
    pair.client.enable_forwarding()?;
    pair.lead_away()?;
    Ok(pair)
}

fn section_of_passing(rows: Vec<Vec<String>>) -> Section {
    Section {
        title: "Packets that pass through",
        notes: vec![format!(
            "Nanoseconds for each labelled IPv4 frame that arrives at a loopback device, is \
             routed and leaves by a veth to a namespace that drops it; over that, what {} rules \
             `on forward` take at tcx. Each frame meets two hooks, where it comes in and where it \
             leaves, which share what is remembered of its label, and keeps its label.",
            grouped(RULES)
        )],
        head: strings(["frames", "ns"]),
        rows,
    }
}

fn section_of_arriving(rows: Vec<Vec<String>>) -> Section {
    Section {
        title: "Arriving where packets pass through",
        notes: vec![format!(
            "Frames for workloads of the node, {} rules at ingress, as under *govc on live \
             frames*; with a policy `on forward` besides, the node finds out first for whom each \
             frame is.",
            grouped(RULES)
        )],
        head: strings(["frames", "ns"]),
        rows,
    }
}
