//! `observe`: verdicts as they happen or as they were kept, each with the rule that gave it and
//! where that stands.

use std::{
    io::{BufWriter, IsTerminal as _, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use govc_abi::{event::Event, node::LEAF_NONE};
use govc_loader::{LoadError, instance::Instance};
use serde::Serialize;

use super::{apply::place, plural};
use crate::{
    arguments::Observe,
    events::{
        describe::{Described, who},
        filter::{Filter, Known},
        flows::{Flow, Flows},
        history::{Reader, Writer},
        pace::{Pace, Second},
        pcapng::Capture,
        source::{Live, Next, Source, Tally},
    },
    failure::Failure,
    output::Style,
};

/// How long to wait for an event before looking at clocks and signals.
const WAIT: Duration = Duration::from_millis(100);
/// How long an end may take.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// Kinds that a second's table shows at most.
const ROWS_MAX: usize = 20;

pub fn run(arguments: &Observe, style: &Style) -> Result<(), Failure> {
    let stop = stop_on_signals()?;
    let mut filter = Filter::new(&arguments.filter);
    let mut source = match &arguments.read {
        Some(path) => {
            check_file(&filter, path)?;
            Source::File(Box::new(Reader::open(path)?))
        }
        None => {
            let place = place(&arguments.instance.place);
            let live = Live::open(&place, arguments.backlog, arguments.permits)?;
            let (_, image) = Instance::open(&place)?.active_image()?;
            filter.check(&Known {
                whose: "the policy in force",
                images: &[Arc::new(image)],
                interfaces: live.interfaces().all(),
            })?;
            Source::Live(Box::new(live))
        }
    };
    let mut output = Output::open(arguments, style)?;
    let result = follow(arguments, &mut source, &mut filter, &mut output, &stop);
    let ended = output.end(&mut source, result.as_ref().err());
    result.and(ended)
}

/// Refuses names that nothing in a file knows. One without events has nothing to choose from.
fn check_file(filter: &Filter, path: &Path) -> Result<(), Failure> {
    if !filter.names_anything() {
        return Ok(());
    }
    let contents = Reader::contents(path)?;
    if contents.events == 0 {
        return Ok(());
    }
    let (images, interfaces) = (&contents.images, &contents.interfaces);
    filter.check(&Known { whose: &format!("`{}`", path.display()), images, interfaces })
}

/// Set by SIGINT, SIGTERM and SIGHUP: whatever was turned on is turned off before the end.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    ctrlc::set_handler(move || asked.store(true, Ordering::SeqCst)).map_err(|error| {
        Failure::Machine { message: format!("cannot watch for signals: {error}"), help: None }
    })?;
    Ok(stop)
}

fn follow(
    arguments: &Observe,
    source: &mut Source,
    filter: &mut Filter,
    output: &mut Output<'_>,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let followed = follow_on(arguments, source, filter, output, stop);
    // What lies in the ring of an instance that is gone is all that there will be of it.
    let gone = matches!(followed, Err(Failure::Load(LoadError::Detached(_))));
    if followed.is_ok() || gone {
        drain(arguments, source, filter, output)?;
    }
    followed
}

fn follow_on(
    arguments: &Observe,
    source: &mut Source,
    filter: &mut Filter,
    output: &mut Output<'_>,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let end = arguments.r#for.map(|time| Instant::now() + time.into());
    while !stop.load(Ordering::SeqCst) && arguments.count.is_none_or(|count| output.shown < count) {
        let left = end.map_or(WAIT, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            break;
        }
        match source.next(Duration::ZERO)? {
            Next::End => break,
            Next::Event(event, unix_ns) => {
                if choose(filter, source, &event) {
                    output.event(&event, unix_ns, source)?;
                }
                output.tick(source)?;
            }
            Next::Nothing => {
                output.flush()?;
                output.tick(source)?;
                if let Next::Event(event, unix_ns) = source.next(left.min(WAIT))?
                    && choose(filter, source, &event)
                {
                    output.event(&event, unix_ns, source)?;
                }
            }
        }
    }
    Ok(())
}

/// Reads what was in the ring when it was time to end: a file holds everything up to then, unless
/// that is more than can be read while somebody waits.
fn drain(
    arguments: &Observe,
    source: &mut Source,
    filter: &mut Filter,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let Source::Live(live) = source else { return Ok(()) };
    let waiting = live.last_tally().waiting;
    let end = Instant::now() + DRAIN_MAX;
    for _ in 0..waiting {
        let enough = arguments.count.is_some_and(|count| output.shown >= count);
        if enough || Instant::now() >= end {
            break;
        }
        let Next::Event(event, unix_ns) = source.next(Duration::ZERO)? else { break };
        if choose(filter, source, &event) {
            output.event(&event, unix_ns, source)?;
        }
    }
    Ok(())
}

fn choose(filter: &mut Filter, source: &mut Source, event: &Event) -> bool {
    let source = std::cell::RefCell::new(source);
    filter.admits(
        event,
        || source.borrow_mut().interface(event.ifindex),
        || source.borrow_mut().image(event.generation),
    )
}

/// Where chosen events go.
struct Output<'a> {
    out: BufWriter<std::io::StdoutLock<'static>>,
    style: &'a Style,
    json: bool,
    /// Events are in a file, where `explain` finds them by their ids.
    kept: bool,
    /// Summaries are for whoever watches; a file alone needs none of the events on the screen.
    quiet: bool,
    pace: Option<Pace>,
    /// Events happened when a file says so, however fast it is read.
    from_file: bool,
    /// The second that is counted, of a file.
    second: Duration,
    begun: Instant,
    ticked: Instant,
    history: Option<Writer>,
    capture: Option<Capture>,
    shown: u64,
    /// Flows that rules which only observe would decide otherwise.
    pending: Flows,
    told: Tally,
}

impl<'a> Output<'a> {
    fn open(arguments: &Observe, style: &'a Style) -> Result<Self, Failure> {
        let json = arguments.instance.json;
        // A program reads every line; a person cannot, and a file holds what happened when.
        let people = !json && std::io::stdout().is_terminal() && arguments.read.is_none();
        let paced = arguments.aggregate || (people && !arguments.every);
        let history = arguments.write.as_deref().map(Writer::create).transpose()?;
        let capture = arguments.pcapng.as_deref().map(Capture::create).transpose()?;
        Ok(Self {
            out: BufWriter::with_capacity(1 << 16, std::io::stdout().lock()),
            style,
            json,
            kept: history.is_some() || arguments.read.is_some(),
            quiet: arguments.quiet,
            pace: paced.then(|| Pace::new(arguments.aggregate, Duration::ZERO)),
            from_file: arguments.read.is_some(),
            second: Duration::ZERO,
            begun: Instant::now(),
            ticked: Instant::now(),
            history,
            capture,
            shown: 0,
            pending: Flows::default(),
            told: Tally::default(),
        })
    }

    fn event(&mut self, event: &Event, unix_ns: u64, source: &mut Source) -> Result<(), Failure> {
        self.shown += 1;
        if self.from_file {
            self.pass(Duration::from_nanos(unix_ns), source)?;
        }
        if event.pending != LEAF_NONE {
            self.pending.add(event, unix_ns, source);
        }
        if let Some(history) = &mut self.history {
            let source = std::cell::RefCell::new(&mut *source);
            history.event(
                event,
                unix_ns,
                || source.borrow_mut().image(event.generation),
                || source.borrow_mut().interface(event.ifindex),
                || source.borrow_mut().cgroup(event.cgroup()),
            )?;
        }
        let gets_line = !self.quiet && self.pace.as_mut().is_none_or(|pace| pace.admit(event));
        if !gets_line && self.capture.is_none() {
            return Ok(());
        }
        let described = source.describe(event, unix_ns);
        if let Some(capture) = &mut self.capture {
            capture.event(event, unix_ns, &described)?;
        }
        if !gets_line {
            return Ok(());
        }
        if self.json {
            self.json(&described)
        } else {
            if self.kept {
                write!(self.out, "{} ", self.style.dim(&described.id))?;
            }
            Ok(writeln!(self.out, "{}", described.line(self.style))?)
        }
    }

    fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, value).map_err(std::io::Error::from)?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// Goes on to the second of a file's event.
    fn pass(&mut self, time: Duration, source: &mut Source) -> Result<(), Failure> {
        let second = Duration::from_secs(time.as_secs());
        if let Some(counted) = self.pace.as_mut().and_then(|pace| pace.due(second)) {
            self.second(&counted, source)?;
        }
        self.second = self.second.max(second);
        Ok(())
    }

    /// When what was counted was: of a file the second's beginning, now otherwise.
    fn counted_at(&self) -> jiff::Timestamp {
        let of_file = i64::try_from(self.second.as_secs()).ok();
        let of_file = of_file.and_then(|second| jiff::Timestamp::from_second(second).ok());
        of_file.filter(|_| self.from_file).unwrap_or_else(jiff::Timestamp::now)
    }

    /// Once a second: what was counted, and what was lost.
    fn tick(&mut self, source: &mut Source) -> Result<(), Failure> {
        let begun = self.begun;
        let pace = self.pace.as_mut().filter(|_| !self.from_file);
        if let Some(second) = pace.and_then(|pace| pace.due(begun.elapsed())) {
            self.second(&second, source)?;
        }
        if self.ticked.elapsed() >= Duration::from_secs(1) {
            self.ticked = Instant::now();
            self.losses(source)?;
        }
        Ok(())
    }

    fn losses(&mut self, source: &Source) -> Result<(), Failure> {
        let Source::Live(live) = source else { return Ok(()) };
        let tally = live.tally()?;
        let rate = tally.lost_rate - self.told.lost_rate;
        let full = tally.lost_full - self.told.lost_full;
        self.told = tally;
        if rate + full == 0 || self.quiet {
            return Ok(());
        }
        if self.json {
            return self.json(&serde_json::json!({ "lost": { "rate": rate, "full": full } }));
        }
        let text = format!("lost {}", lost(rate, full));
        Ok(writeln!(self.out, "{}", self.style.paint("33", text))?)
    }

    fn second(&mut self, second: &Second, source: &mut Source) -> Result<(), Failure> {
        let rows: Vec<(u64, Described)> = second
            .kinds
            .iter()
            .take(ROWS_MAX)
            .map(|(count, event)| (*count, source.describe(event, 0)))
            .collect();
        let listed: u64 = rows.iter().map(|(count, _)| count).sum();
        let rest = second.events - listed;
        if self.json {
            let kinds: Vec<Counted<'_>> =
                rows.iter().map(|(count, described)| Counted::new(*count, described)).collect();
            let time = format!("{:.0}", self.counted_at());
            return self.json(&serde_json::json!({
                "second": { "time": time, "events": second.events, "kinds": kinds, "others": rest }
            }));
        }
        let now = self.counted_at().to_zoned(jiff::tz::TimeZone::system());
        let now = now.strftime("%H:%M:%S").to_string();
        let text = format!("{} events in a second, by kind:", second.events);
        writeln!(self.out, "{} {}", self.style.dim(now), self.style.bold(text))?;
        for (count, described) in &rows {
            writeln!(self.out, "{}", counted_line(*count, described, self.style))?;
        }
        if rest > 0 {
            let kinds = plural(second.kinds.len().saturating_sub(ROWS_MAX), "other kind");
            let kinds = if second.others > 0 { "other kinds".to_owned() } else { kinds };
            writeln!(self.out, "{rest:>9}  {kinds}")?;
        }
        Ok(())
    }

    /// Hands everything on, also what comes after something that cannot be.
    fn flush(&mut self) -> Result<(), Failure> {
        let out = self.out.flush().map_err(Failure::from);
        let history = self.history.as_mut().map_or(Ok(()), Writer::flush);
        let capture = self.capture.as_mut().map_or(Ok(()), Capture::flush);
        out.and(history).and(capture)
    }

    /// The rest of the last second, and what became of all events, whatever it was that ended it.
    fn end(&mut self, source: &mut Source, why: Option<&Failure>) -> Result<(), Failure> {
        let second = self.pace.as_mut().and_then(Pace::end_second);
        let counted = second.map_or(Ok(()), |second| self.second(&second, source));
        let tally = source.last_tally();
        let kept = match (&mut self.history, &tally, &*source) {
            (Some(history), Some(tally), Source::Live(_)) => history.tally(tally),
            _ => Ok(()),
        };
        let flushed = self.flush();
        let told = self.summary(source, tally.as_ref(), why);
        counted.and(kept).and(flushed).and(told)
    }

    fn summary(
        &mut self,
        source: &Source,
        tally: Option<&Tally>,
        why: Option<&Failure>,
    ) -> Result<(), Failure> {
        let broken = matches!(source, Source::File(reader) if reader.is_broken());
        let (flows, others) = (self.pending.list(), self.pending.others());
        let ended = why.map(ToString::to_string);
        if self.json {
            let told = self.json(&serde_json::json!({
                "summary": {
                    "shown": self.shown, "events": tally, "truncated": broken, "would": flows,
                    "would_others": others, "ended": ended
                }
            }));
            let told = told.and_then(|()| self.flush());
            // Where the output is what cannot be written, it has to be told beside it.
            if !matches!(told, Err(Failure::Machine { .. })) {
                return told;
            }
        }
        if matches!(why, Some(Failure::Pipe)) {
            return Ok(());
        }
        let mut text = summary(self.shown, tally);
        if broken {
            text.push_str("\nthe file ends within an event: its writer was killed, and what it had not written is not here");
        }
        text.push_str(&would(&flows));
        if others > 0 {
            let events = plural(others as usize, "event");
            text.push_str(&format!("\n{events} of flows that are too many to be told apart"));
        }
        if let Some(ended) = ended {
            text.push_str(&format!("\nended early: {ended}"));
        }
        // Beside the events: whoever pipes them wants to know too, and not in the pipe.
        let mut err = std::io::stderr().lock();
        Ok(writeln!(err, "{}", self.style.dim_err(text))?)
    }
}

/// Events of one kind, for programs.
#[derive(Serialize)]
struct Counted<'a> {
    count: u64,
    verdict: &'a str,
    would: Option<&'a str>,
    hook: &'a str,
    label: &'a str,
    subject: Option<&'a str>,
    object: Option<&'a str>,
    operation: Option<&'a str>,
    reason: &'a str,
    rule: Option<&'a str>,
    place: Option<&'a str>,
    would_rule: Option<&'a str>,
    would_place: Option<&'a str>,
    generation: u64,
}

impl<'a> Counted<'a> {
    fn new(count: u64, described: &'a Described) -> Self {
        Self {
            count,
            verdict: described.verdict,
            would: described.would,
            hook: described.hook,
            label: described.label,
            subject: described.subject.as_deref(),
            object: described.object.as_deref(),
            operation: described.operation.as_deref(),
            reason: described.reason,
            rule: described.rule.as_deref(),
            place: described.place.as_deref(),
            would_rule: described.would_rule.as_deref(),
            would_place: described.would_place.as_deref(),
            generation: described.generation,
        }
    }
}

fn counted_line(count: u64, described: &Described, style: &Style) -> String {
    let word = format!("{:<10}", described.verdict_word());
    let word = match described.verdict {
        _ if described.is_would_deny() => style.paint("33", word),
        "permit" => style.good(word),
        _ => style.bad(word),
    };
    let who = who(described.label, described.subject.as_deref());
    let whom = described.object.as_deref().unwrap_or("?");
    let what = described.operation.as_deref().unwrap_or("-");
    format!(
        "{count:>9}  {word} {:<7} {who} -> {whom}  {what}  {}",
        described.hook,
        described.why(style)
    )
}

fn lost(rate: u64, full: u64) -> String {
    match (rate, full) {
        (0, full) => format!("{} to a full ring", plural(full as usize, "event")),
        (rate, 0) => format!("{} to the rate limit", plural(rate as usize, "event")),
        (rate, full) => format!(
            "{}: {rate} to the rate limit, {full} to a full ring",
            plural((rate + full) as usize, "event")
        ),
    }
}

/// What enforcing the rules that only observe would change, of the events that were shown.
fn would(flows: &[Flow]) -> String {
    let (breaks, opens): (Vec<&Flow>, Vec<&Flow>) =
        flows.iter().partition(|flow| flow.would_break());
    let mut text = String::new();
    for (what, flows) in [("deny what was let through", breaks), ("permit what was dropped", opens)]
    {
        if flows.is_empty() {
            continue;
        }
        let events = flows.iter().map(|flow| flow.events).sum::<u64>();
        text.push_str(&format!("\nenforcing would {what}: {}", plural(events as usize, "event")));
        for flow in flows.iter().take(ROWS_MAX) {
            text.push_str(&format!(
                "\n{:>9}  {} -> {}  {}  {} {}",
                flow.events,
                flow.from,
                flow.to,
                flow.operation.as_deref().unwrap_or("-"),
                flow.would_rule.as_deref().unwrap_or("?"),
                flow.would_place.as_deref().unwrap_or_default(),
            ));
        }
        if flows.len() > ROWS_MAX {
            text.push_str(&format!(
                "\n           and {}",
                plural(flows.len() - ROWS_MAX, "other flow")
            ));
        }
    }
    text
}

/// What became of every packet that asked for an event.
fn summary(shown: u64, tally: Option<&Tally>) -> String {
    let Some(tally) = tally else { return format!("{} shown", plural(shown as usize, "event")) };
    let mut text = format!(
        "{} shown; {} counted = {} read + {} in the ring + {} lost",
        plural(shown as usize, "event"),
        tally.counted,
        tally.read,
        tally.waiting,
        tally.lost_rate + tally.lost_full
    );
    if tally.lost_rate + tally.lost_full > 0 {
        text.push_str(&format!(
            " ({} to the rate limit, {} to a full ring)",
            tally.lost_rate, tally.lost_full
        ));
    }
    if tally.skipped > 0 {
        text.push_str(&format!(
            "; {} from before left out, which nobody can read any more (with --backlog they are shown)",
            plural(tally.skipped as usize, "event")
        ));
    }
    text
}
