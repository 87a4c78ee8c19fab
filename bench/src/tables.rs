//! Results as tables.

use std::time::Duration;

use govc_abi::memory::memory_shift;
use govc_loader::object;

use crate::{
    analysis::{self, Judged},
    cells::{grouped, megabytes, milliseconds, plain, precise, ratio, strings},
    editor::{self, Waits},
    filters,
    frames::Version,
    measure::{Bench, CaseId, Figure, Traffic},
    packets::Results,
    policy::Times,
    report::Section,
    shared::{ADDRESSES_MAX, POLICIES_MAX},
    standin::IDENTITIES,
    subject::{Row, SIZES, Subject},
    suite::{Found, Plan},
    targets::Target,
};

/// What `verify + decide + count` may take over an empty program, nanoseconds.
const PACKET_NS_MAX: f64 = 75.0;
/// Likewise when the decision is remembered.
const REMEMBERED_NS_MAX: f64 = 20.0;
/// How much more the same may take under most rules than under fewest.
const GROWTH_MAX: f64 = 1.1;
/// How long it may take from text to every hook.
const APPLY_MAX: Duration = Duration::from_secs(1);
/// How big the image may be.
const IMAGE_LEN_MAX: usize = 64 << 20;

/// All tables about packets.
pub fn packets(results: &Results<'_>) -> Found {
    let mut targets = targets(results);
    targets.extend(filters::targets(results.bench, results.filters));
    let sections = vec![
        method_of_packets(),
        floors(results),
        ingress(results),
        live(results),
        standins(results),
        filters::section(results.bench, results.filters),
        compile(results.subjects),
    ];
    Found { targets, sections }
}

/// All figures, for developers.
pub fn list(bench: &Bench<'_>) -> Section {
    let row = |(name, figure): (&str, Figure)| vec![name.to_owned(), precise(figure)];
    Section {
        title: "Cases",
        notes: vec!["Over their floors; floors as they are.".to_owned()],
        head: strings(["case", "ns"]),
        rows: bench.figures().into_iter().map(row).collect(),
    }
}

/// How, in general.
pub fn method(plan: Plan) -> Section {
    let rounds = plan.effort.rounds;
    Section {
        title: "How it was measured",
        notes: vec![format!(
            "Medians over {rounds} rounds, in each of which every case is run once, forwards and \
             backwards by turns; `±` is half of what lies between the quartiles. What is \
             subtracted, or divided by, was measured in the same round. A virtual core shares its \
             execution units with neighbours that nobody here sees; while they work, code that \
             keeps all units busy takes up to twice as long."
        )],
        head: Vec::new(),
        rows: Vec::new(),
    }
}

fn method_of_packets() -> Section {
    let notes = [
        "Nanoseconds for each packet: time of the measuring thread, not of the wall, so that \
         others on the same core do not count.",
        "`BPF_PROG_TEST_RUN` repeats a program on one packet and gives it back neither bytes nor \
         length, so that a label that was stripped once is gone. A denied packet keeps its label: \
         with one flow, that is verify, decide and count alone, repeated on one packet. In all \
         other rows govc's programs are reached by a tail call from a program that restores the \
         length, copies the next of the prepared frames over the packet and is subtracted: it \
         leads to the empty program instead, and calls the same helpers with nothing to do. \
         `16,384 flows` are that many prepared frames in turn, drawn at random from the rules. \
         Labels are made anew before each sample, events are rate-limited to none.",
        "After the run the counters must say that a rule has decided every packet.",
    ];
    Section {
        title: "How packets were measured",
        notes: notes.map(str::to_owned).into(),
        head: Vec::new(),
        rows: Vec::new(),
    }
}

fn targets(results: &Results<'_>) -> Vec<Target> {
    let rows = results.rows;
    let worst = |wanted: &dyn Fn(&Row) -> bool, value: &dyn Fn(&Row) -> f64| {
        rows.iter().filter(|row| wanted(row)).map(value).fold(0.0, f64::max)
    };
    let most = |row: &Row| last(results, row);
    let hot = |row: &Row| row.traffic == Traffic::Hot && !row.remembers;
    let decided = worst(&|row| hot(row) && !row.permits, &most);
    let whole = worst(&|row| hot(row) && row.permits, &most);
    let of_memory = |row: &Row| row.traffic == Traffic::Hot && row.remembers;
    let remembered = worst(&|row| of_memory(row) && !row.permits, &most);
    let growth = |traffic| {
        let growth_of = |row: &Row| growth(results, &row.cases);
        worst(&|row| row.traffic == traffic, &growth_of)
    };
    let largest = results.subjects.last();
    let apply = largest.map_or(Duration::MAX, apply_time);
    let image_len = largest.map_or(usize::MAX, |subject| subject.image_len);
    let target = |what: &str, wanted: String, found: String, met| Target {
        what: what.to_owned(),
        wanted: format!("at most {wanted}"),
        found,
        met,
    };
    let ns = |what: &str, max: f64, found: f64| {
        target(what, format!("{max:.0} ns"), format!("{found:.0} ns"), found <= max)
    };
    let percent = |growth: f64| format!("{:+.0} %", (growth - 1.0) * 100.0);
    let grows = |traffic: Traffic| {
        let what = format!("from 10 to 100,000 rules, {}", traffic.name());
        let found = growth(traffic);
        target(&what, percent(GROWTH_MAX), percent(found), found <= GROWTH_MAX)
    };
    vec![
        ns("verify, decide, count, remembered", REMEMBERED_NS_MAX, remembered),
        ns("verify, decide, count", PACKET_NS_MAX, decided),
        ns("the whole path with strip", PACKET_NS_MAX, whole),
        grows(Traffic::Hot),
        grows(Traffic::Spread),
        target(
            "100,000 rules from text to every hook",
            milliseconds(APPLY_MAX),
            milliseconds(apply),
            apply <= APPLY_MAX,
        ),
        target(
            "image of 100,000 rules",
            megabytes(IMAGE_LEN_MAX),
            megabytes(image_len),
            image_len <= IMAGE_LEN_MAX,
        ),
    ]
}

fn floors(results: &Results<'_>) -> Section {
    let row = |name: &str, cases: [CaseId; 2]| {
        let mut row = vec![name.to_owned()];
        row.extend(cases.map(|case| precise(results.bench.figure(case))));
        row
    };
    let floors = results.floors;
    Section {
        title: "Floors",
        notes: vec![
            "The empty program with all of `BPF_PROG_TEST_RUN` around it; the others over the \
             empty program. A labelled IPv4 TCP packet."
                .to_owned(),
        ],
        head: strings(["program", "tcx", "XDP"]),
        rows: vec![
            row("empty", floors.empty),
            row("parse", floors.parse),
            row("parse, SipHash-2-4 over 64 bytes", floors.mac),
        ],
    }
}

fn ingress(results: &Results<'_>) -> Section {
    let cpus = object::possible_cpus().map_or(1, u32::next_power_of_two);
    let row = |row: &Row| {
        let verdict = if row.permits { "permitted and stripped" } else { "denied" };
        let hook = if row.hook == "tcx" { "tcx" } else { "XDP" };
        let version = if row.version == Version::V4 { "IPv4" } else { "IPv6" };
        let how = if row.remembers { ", remembered" } else { "" };
        let name = format!("{hook}, {version}, {verdict}, {}{how}", row.traffic.name());
        by_size(results, name, &row.cases)
    };
    Section {
        title: "govc's ingress path",
        notes: vec![format!(
            "Verify, decide, count and, where permitted, strip: over the empty program. \
             `Remembered` rows ask the memory of decisions first, which has {} entries for each \
             CPU here, four for each packet to choose from: a fifth pushes one out. In all \
             others it is off, and every packet pays for the MAC and the walk. The last column \
             compares most rules with fewest.",
            grouped(1 << memory_shift(cpus))
        )],
        head: head_by_size("packets"),
        rows: results.rows.iter().map(row).collect(),
    }
}

fn live(results: &Results<'_>) -> Section {
    let floors = results.live.floors.iter().zip(Traffic::ALL).map(|(&floor, traffic)| {
        let ns = results.bench.figure(floor).median;
        format!("{ns:.0} ns with {}", traffic.name())
    });
    let floors: Vec<String> = floors.collect();
    let rows = results.live.rows.iter().zip(Traffic::ALL);
    Section {
        title: "govc on live frames",
        notes: vec![format!(
            "Frames that XDP makes arrive at a loopback device, pass govc's tcx program and are \
             dropped by the next one: permitted IPv4 packets, label stripped. Over the same path \
             without govc, {}.",
            floors.join(", ")
        )],
        head: head_by_size("packets"),
        rows: rows.map(|(row, traffic)| by_size(results, traffic.name().into(), row)).collect(),
    }
}

fn standins(results: &Results<'_>) -> Section {
    // govc under 1,000 and under 100,000 rules, permitted IPv4 packets at tcx.
    let own = |traffic: Traffic, position: usize, remembers: bool| {
        let is_own = |row: &&Row| {
            row.hook == "tcx"
                && row.version == Version::V4
                && row.permits
                && row.remembers == remembers
                && row.traffic == traffic
        };
        let case = results.rows.iter().find(is_own)?.cases.get(position)?;
        Some(results.bench.figure(*case).median)
    };
    let mut rows = Vec::new();
    for ((row, identities), position) in results.standins.iter().zip(IDENTITIES).zip([1, 3]) {
        for (&case, traffic) in row.iter().zip(Traffic::ALL) {
            let figure = results.bench.figure(case);
            let mut cells = vec![
                format!("{} identities, {}", grouped(identities), traffic.name()),
                plain(figure),
            ];
            for remembers in [true, false] {
                let own = own(traffic, position, remembers);
                cells.push(own.map_or_else(String::new, |own| format!("{own:.0}")));
                cells.push(own.map_or_else(String::new, |own| ratio(figure.median, own)));
            }
            rows.push(cells);
        }
    }
    Section {
        title: "A decision of Cilium's shape",
        notes: vec![format!(
            "Two questions of a trie with 12-byte keys (who may do what, {} entries) after one \
             of a trie with 24-byte keys (whose address is that, {} entries), in the same \
             harness. Cilium's own path has connection tracking, counters and more besides; \
             there is no MAC in it, and nothing is stripped. govc beside it: permitted and \
             stripped IPv4 packets at tcx, under 1,000 and under 100,000 rules.",
            grouped(POLICIES_MAX as u32),
            grouped(ADDRESSES_MAX as u32)
        )],
        head: strings([
            "stand-in",
            "ns",
            "govc, remembered",
            "times govc",
            "govc, computed",
            "times govc",
        ]),
        rows,
    }
}

fn compile(subjects: &[Subject]) -> Section {
    type Stage = fn(&Times) -> Duration;
    let stages: [(&str, Stage); 6] = [
        ("parse", |times| times.parse),
        ("check", |times| times.check),
        ("lower", |times| times.lower),
        ("diagrams", |times| times.diagrams),
        ("encode, with names and digest", |times| times.encode),
        ("text to image", Times::total),
    ];
    let line = |name: &str, cell: &dyn Fn(&Subject) -> String| {
        let mut line = vec![name.to_owned()];
        line.extend(subjects.iter().map(cell));
        line
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (name, stage) in stages {
        rows.push(line(name, &|subject| milliseconds(stage(&subject.times))));
    }
    let publish = |subject: &Subject| milliseconds(Duration::from_micros(subject.publish_us));
    rows.push(line("publish: fill, read back, flip", &publish));
    rows.push(line("text to every hook", &|subject| milliseconds(apply_time(subject))));
    rows.push(line("image", &|subject| megabytes(subject.image_len)));
    rows.push(line("parts of the ingress program", &|subject| subject.parts.to_string()));
    rows.push(line("edges of their diagrams", &|subject| grouped(subject.edges as u32)));
    let mut head = strings(["rules"]);
    head.extend(SIZES.map(grouped));
    Section {
        title: "From text to the kernel",
        notes: vec![
            "Each rule names one subject, one object, one operation and one port; one in eight \
             denies. Medians of three compilations on one core."
                .to_owned(),
        ],
        head,
        rows,
    }
}

/// What `govc check` adds to compiling.
pub fn analysis(judged: &[Judged]) -> Section {
    let mut time = strings(["analysis"]);
    time.extend(judged.iter().map(|judged| milliseconds(judged.time)));
    let mut undecided = strings(["rules that were not judged"]);
    undecided.extend(judged.iter().map(|judged| grouped(judged.undecided as u32)));
    let mut head = strings(["rules"]);
    head.extend(analysis::SIZES.map(|size| grouped(size as u32)));
    Section {
        title: "Analysis",
        notes: vec![
            "Which rules never decide, and which could go: what `govc check` adds to compiling. \
             Rules at all depths of scopes and addresses, with ranges of ports, levels and groups \
             of operations, overlap each other in three tiers, and permit, deny or pass on. Once, \
             on one core; `govc check` uses all."
                .to_owned(),
        ],
        head,
        rows: vec![time, undecided],
    }
}

/// What an editor waits for, by size and number of files.
pub fn in_an_editor(waits: &[Vec<Waits>]) -> Section {
    type Wait = fn(&Waits) -> Duration;
    let kinds: [(&str, Wait); 3] = [
        ("a mistake", |waits| waits.mistake),
        ("a change that is right", |waits| waits.change),
        ("layout of the edited file", |waits| waits.layout),
    ];
    let mut rows = Vec::new();
    for (position, files) in editor::FILES.iter().enumerate() {
        for (name, wait) in kinds {
            let mut row = vec![format!("{name}, files: {files}")];
            let cells = waits.iter().filter_map(|by_files| by_files.get(position));
            row.extend(cells.map(|waits| milliseconds(wait(waits))));
            rows.push(row);
        }
    }
    let mut head = strings(["rules"]);
    head.extend(editor::SIZES.map(|size| grouped(size as u32)));
    Section {
        title: "In an editor",
        notes: vec![
            "From an edit of one file to the diagnostics of all that belong together, in the \
             language server, without the 20 ms that it waits for further edits. Medians of five."
                .to_owned(),
        ],
        head,
        rows,
    }
}

fn apply_time(subject: &Subject) -> Duration {
    subject.times.total() + Duration::from_micros(subject.publish_us)
}

fn head_by_size(first: &str) -> Vec<String> {
    let mut head = strings([first]);
    head.extend(SIZES.map(|size| format!("{} rules", grouped(size))));
    head.push("growth".to_owned());
    head
}

fn by_size(results: &Results<'_>, name: String, cases: &[CaseId]) -> Vec<String> {
    let mut row = vec![name];
    row.extend(cases.iter().map(|&case| plain(results.bench.figure(case))));
    row.push(format!("{:.2}", growth(results, cases)));
    row
}

/// Most rules by fewest.
fn growth(results: &Results<'_>, cases: &[CaseId]) -> f64 {
    let median =
        |case: Option<&CaseId>| case.map_or(0.0, |&case| results.bench.figure(case).median);
    median(cases.last()) / median(cases.first()).max(1.0)
}

fn last(results: &Results<'_>, row: &Row) -> f64 {
    row.cases.last().map_or(0.0, |&case| results.bench.figure(case).median)
}
