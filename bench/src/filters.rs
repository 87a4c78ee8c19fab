//! Packets a second beside the kernel's filters, on one path for all.

use govc_loader::attach::HookChoice;
use govc_netlab::Namespace;

use crate::{
    cells::{grouped, per_second, ratio, strings},
    error::BenchError,
    frames::Version,
    instance::{Instance, Keys, Site},
    measure::{Bench, Case, CaseId, Run, Traffic},
    progress::Progress,
    report::Section,
    rulesets::{self, Kind},
    subject::{self, SIZES, Subject},
    targets::Target,
};

/// Namespaces in which filters decide, and in which govc does.
pub struct Filters {
    /// None without nftables, which ends the path.
    floor: Option<Namespace>,
    tools: Vec<Tool>,
    missing: Vec<Kind>,
    own: Vec<Instance>,
}

/// A filter that is installed, by size.
struct Tool {
    kind: Kind,
    version: String,
    namespaces: Vec<Namespace>,
}

/// Their cases.
#[derive(Default)]
pub struct Compared {
    own: Vec<Line>,
    peers: Vec<Line>,
    versions: Vec<String>,
    missing: Vec<Kind>,
}

/// One line of the table: a case for each of [`SIZES`].
struct Line {
    name: &'static str,
    traffic: Traffic,
    cases: Vec<CaseId>,
}

impl Filters {
    /// Fills what is installed.
    pub fn load(subjects: &[Subject], progress: &Progress) -> Result<Self, BenchError> {
        let mut filters =
            Self { floor: None, tools: Vec::new(), missing: Vec::new(), own: Vec::new() };
        if Kind::Map.version().is_none() {
            filters.missing = Kind::ALL.into();
            return Ok(filters);
        }
        for kind in Kind::ALL {
            let Some(version) = kind.version() else {
                filters.missing.push(kind);
                continue;
            };
            let fill = |elements| {
                progress.say(|| format!("{}: {elements} tuples", kind.name()));
                crate::interrupt::check()?;
                kind.namespace(elements)
            };
            let namespaces = SIZES.into_iter().map(fill).collect::<Result<_, _>>()?;
            filters.tools.push(Tool { kind, version, namespaces });
        }
        let floor = Namespace::create("floor")?;
        rulesets::end_by_drop(&floor)?;
        filters.floor = Some(floor);
        for subject in subjects {
            let namespace = &Namespace::create("bench")?;
            let site = Site { namespace, interfaces: &["lo"], hook: HookChoice::Tcx };
            filters.own.push(Instance::at(site, &subject.image, &Keys::new()?)?);
            rulesets::end_by_drop(namespace)?;
        }
        Ok(filters)
    }

    /// Adds the path of live frames with and without them.
    pub fn add<'a>(&'a self, bench: &mut Bench<'a>, subjects: &[Subject]) -> Compared {
        let mut compared = Compared { missing: self.missing.clone(), ..Compared::default() };
        let Some(floor) = &self.floor else { return compared };
        let sets: Vec<usize> =
            SIZES.iter().map(|&size| bench.add_frames(rulesets::frames(size))).collect();
        let own = subjects.iter().map(|subject| subject.frames(Version::V4, true));
        let own: Vec<usize> = own.map(|frames| bench.add_frames(frames)).collect();
        for traffic in Traffic::ALL {
            let name = format!("filters, nothing, {}", traffic.name());
            let first = sets.first().copied().unwrap_or_default();
            let nothing = Case::new(name, Run::Live(floor, false), first, traffic, 0);
            let nothing = bench.add(nothing);
            for computes in [false, true] {
                compared.own.push(self.add_own(bench, (&own, nothing), traffic, computes));
            }
            for tool in &self.tools {
                // What passes every rule does not care about flows.
                if tool.kind.is_linear() && traffic == Traffic::Spread {
                    continue;
                }
                compared.peers.push(tool.add(bench, (&sets, nothing), traffic));
            }
        }
        for tool in &self.tools {
            if !compared.versions.contains(&tool.version) {
                compared.versions.push(tool.version.clone());
            }
        }
        compared
    }

    fn add_own<'a>(
        &'a self,
        bench: &mut Bench<'a>,
        (sets, floor): (&[usize], CaseId),
        traffic: Traffic,
        computes: bool,
    ) -> Line {
        let how = if computes { "computed" } else { "remembered" };
        let case = |((instance, &set), size): ((&'a Instance, &usize), u32)| {
            let name = format!("filters, govc {how}, {}, {size} rules", traffic.name());
            let case = Case::new(name, Run::Live(&instance.namespace, false), set, traffic, 0);
            let place = computes.then(|| instance.place());
            bench.add(case.keys(&instance.keys.domain).computes(place).over(floor))
        };
        let cases = self.own.iter().zip(sets).zip(SIZES).map(case).collect();
        let name = if computes { "govc, computed" } else { "govc, remembered" };
        Line { name, traffic, cases }
    }

    /// Checks that everything has let through what it was given.
    pub fn check(&self, bench: &Bench<'_>, compared: &Compared) -> Result<(), BenchError> {
        subject::check(self.own.iter())?;
        let given_by = |lines: &[Line], name: &str, position: usize| -> u64 {
            let lines = lines.iter().filter(|line| line.name == name);
            lines.filter_map(|line| line.cases.get(position)).map(|&id| bench.packets(id)).sum()
        };
        let check = |name: &str, namespace: &Namespace, given: u64| {
            let counted = rulesets::counted(namespace)?;
            if counted < given {
                return Err(BenchError::Wrong {
                    case: name.to_owned(),
                    found: format!("it lets {counted} of {given} packets through"),
                });
            }
            Ok(())
        };
        for tool in &self.tools {
            for (position, namespace) in tool.namespaces.iter().enumerate() {
                let name = tool.kind.name();
                check(name, namespace, given_by(&compared.peers, name, position))?;
            }
        }
        for (position, instance) in self.own.iter().enumerate() {
            let lines = ["govc, computed", "govc, remembered"];
            let given = lines.iter().map(|name| given_by(&compared.own, name, position)).sum();
            check("govc", &instance.namespace, given)?;
        }
        Ok(())
    }
}

impl Tool {
    fn add<'a>(
        &'a self,
        bench: &mut Bench<'a>,
        (sets, floor): (&[usize], CaseId),
        traffic: Traffic,
    ) -> Line {
        let case = |((namespace, &set), size): ((&'a Namespace, &usize), u32)| {
            let name = format!("filters, {}, {}, {size} rules", self.kind.name(), traffic.name());
            let case = Case::new(name, Run::Live(namespace, false), set, traffic, 0).over(floor);
            bench.add(if self.kind.is_linear() && size > 1000 { case.slow() } else { case })
        };
        let cases = self.namespaces.iter().zip(sets).zip(SIZES).map(case).collect();
        Line { name: self.kind.name(), traffic, cases }
    }
}

/// The table.
pub fn section(bench: &Bench<'_>, compared: &Compared) -> Section {
    let title = "Beside the kernel's filters";
    let mut notes = vec![format!(
        "Packets a second that one core takes, and in brackets the nanoseconds that the filter \
         adds to the same path without one. Live frames of 128 bytes arrive at a loopback device, \
         are decided, and are counted and dropped by a chain of nftables, the same for all. \
         govc's packets carry a label, which is verified and stripped, with the rules of the \
         tables above; `computed` means that every packet pays for the MAC and the walk. Filters \
         see UDP without labels and look for the five-tuple: in a verdict map, in a set, in an \
         ipset (by source, its port and destination; the rest stands in the rule that asks it), or \
         rule by rule, with the packet's own in the middle. There is no MAC in them, and nothing \
         is stripped. {}.",
        compared.versions.join("; ")
    )];
    for kind in &compared.missing {
        notes.push(format!(
            "Not measured: {}. Package `{}` is not installed here.",
            kind.name(),
            kind.package()
        ));
    }
    if compared.own.is_empty() {
        notes.remove(0);
        return Section { title, notes, head: Vec::new(), rows: Vec::new() };
    }
    let cell = |&id: &CaseId| {
        let (rate, added) = (bench.rate(id).median, bench.figure(id).median);
        format!("{} (+{added:.0})", per_second(rate))
    };
    let row = |line: &Line| {
        let mut row = vec![format!("{}, {}", line.name, line.traffic.name())];
        row.extend(line.cases.iter().map(cell));
        row
    };
    let mut rows = Vec::new();
    for traffic in Traffic::ALL {
        let of_traffic = |line: &&Line| line.traffic == traffic;
        rows.extend(compared.own.iter().filter(of_traffic).map(row));
        for peer in compared.peers.iter().filter(of_traffic) {
            rows.push(row(peer));
            for own in compared.own.iter().filter(of_traffic) {
                rows.push(times(bench, own, peer));
            }
        }
    }
    let mut head = strings(["packets"]);
    head.extend(SIZES.map(|size| format!("{} rules", grouped(size))));
    Section { title, notes, head, rows }
}

/// How many times as many packets govc takes.
fn times(bench: &Bench<'_>, own: &Line, peer: &Line) -> Vec<String> {
    let mut row = vec![format!("    times that, {}", own.name)];
    let pairs = own.cases.iter().zip(&peer.cases);
    row.extend(pairs.map(|(&own, &peer)| ratio(bench.times(own, peer), 1.0)));
    row
}

/// Ahead of all at every size.
pub fn targets(bench: &Bench<'_>, compared: &Compared) -> Vec<Target> {
    let target = |own: &Line| {
        let mut worst = (f64::INFINITY, "nothing", 0);
        let peers = compared.peers.iter().filter(|peer| peer.traffic == own.traffic);
        for peer in peers {
            for ((&id, &other), size) in own.cases.iter().zip(&peer.cases).zip(SIZES) {
                let times = bench.times(id, other);
                if times < worst.0 {
                    worst = (times, peer.name, size);
                }
            }
        }
        let (times, name, size) = worst;
        times.is_finite().then(|| Target {
            what: format!("packets a second, {}, {}", own.name, own.traffic.name()),
            wanted: "more than every filter".to_owned(),
            found: format!("{times:.2} times {name} of {}", grouped(size)),
            met: times > 1.0,
        })
    };
    compared.own.iter().filter_map(target).collect()
}
