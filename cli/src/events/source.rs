//! Where events come from: a ring in the kernel, or a file.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use govc_abi::event::Event;
use govc_image::Image;
use govc_loader::{
    LoadError, attach, cgroup, clock,
    events::Events,
    instance::{Lock, Place},
    status::{self, EventCount},
};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::{describe::Described, history::Reader};
use crate::failure::Failure;

/// What the kernel had to tell while somebody watched, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Packets that asked for an event: the sum of all below.
    pub counted: u64,
    /// Events that were read.
    pub read: u64,
    /// Published and not read.
    pub waiting: u64,
    /// Lost to the rate limit.
    pub lost_rate: u64,
    /// Lost because the ring was full.
    pub lost_full: u64,
    /// Events from before, which were not shown.
    pub skipped: u64,
}

/// The next thing that a source has.
pub enum Next {
    /// An event and its time, nanoseconds since 1970.
    Event(Event, u64),
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    End,
}

/// Events with what their numbers mean.
pub enum Source {
    /// A ring.
    Live(Box<Live>),
    /// A file.
    File(Box<Reader>),
}

/// The ring of an instance.
pub struct Live {
    events: Events,
    place: Place,
    _claim: Lock,
    clock: Clock,
    clock_kept: Instant,
    interfaces: Interfaces,
    cgroups: Cgroups,
    /// Events that lie in the ring from before.
    backlog: u64,
    read: u64,
    skipped: u64,
    published_at_start: u64,
    lost_at_start: EventCount,
    /// To the rate limit, and to a full ring, when somebody looked last.
    lost: Cell<(u64, u64)>,
}

impl Live {
    /// Begins to read the events of an instance, alone. What has been waiting in the ring is left
    /// out unless it is asked for: nobody read for an unknown time, and a full ring keeps the oldest.
    /// With `permits`, permitted packets are reported until this is dropped; without, they are not,
    /// also when somebody asked for them before and was killed.
    pub fn open(place: &Place, backlog: bool, permits: bool) -> Result<Self, Failure> {
        // The beginning lies before the claim, which others see: what happens once they see it is
        // told. Both numbers belong to one moment as far as they can: a packet in between is
        // counted by one and not by the other, and only while it is on its way.
        let events = Events::open(place)?;
        let begin = events.published();
        let lost_at_start = status::event_count(place)?;
        let claim = place.claim_events()?;
        let consumed = events.consumed();
        // Whoever held the claim until now may have read on.
        let published_at_start = if backlog { consumed } else { begin.max(consumed) };
        status::report_permits(place, permits)?;
        clock::keep(place)?;
        Ok(Self {
            events,
            place: place.clone(),
            _claim: claim,
            clock: Clock::now(),
            clock_kept: Instant::now(),
            interfaces: Interfaces::of(place),
            cgroups: Cgroups::default(),
            backlog: published_at_start - consumed,
            read: 0,
            skipped: 0,
            published_at_start,
            lost_at_start,
            lost: Cell::default(),
        })
    }

    /// The interfaces that the instance enforces on.
    pub fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// Whether the instance is still the one whose events these are.
    pub fn is_current(&self) -> bool {
        self.events.is_current()
    }

    /// What became of events so far.
    pub fn tally(&self) -> Result<Tally, Failure> {
        let gone = || LoadError::Detached(self.place.name().into());
        // Losses are counted elsewhere than in the ring: both have to be of one instance, also when it
        // goes while one looks.
        if !self.is_current() {
            return Err(gone().into());
        }
        let now = match status::event_count(&self.place) {
            Err(_) if !self.is_current() => return Err(gone().into()),
            now => now?,
        };
        if !self.is_current() {
            return Err(gone().into());
        }
        let lost_rate = now.lost_rate.saturating_sub(self.lost_at_start.lost_rate);
        let lost_full = now.lost_full.saturating_sub(self.lost_at_start.lost_full);
        self.lost.set((lost_rate, lost_full));
        Ok(self.last_tally())
    }

    /// Likewise, with the losses that were known last: an instance that is gone tells no more.
    pub fn last_tally(&self) -> Tally {
        let (lost_rate, lost_full) = self.lost.get();
        let published = self.events.published().saturating_sub(self.published_at_start);
        Tally {
            counted: published + lost_rate + lost_full,
            read: self.read,
            waiting: published.saturating_sub(self.read),
            lost_rate,
            lost_full,
            skipped: self.skipped,
        }
    }

    fn next(&mut self, wait: Duration) -> Result<Next, Failure> {
        if self.clock_kept.elapsed() > CLOCK_KEPT {
            // An instance that was detached meanwhile has no clock to keep.
            let _ = clock::keep(&self.place);
            self.clock_kept = Instant::now();
        }
        loop {
            let Some(event) = self.events.next(wait)? else { return Ok(Next::Nothing) };
            if self.backlog > 0 {
                self.backlog -= 1;
                self.skipped += 1;
                continue;
            }
            self.read += 1;
            return Ok(Next::Event(event, self.clock.unix_ns(event.time_ns)));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // An instance that was detached meanwhile reports nothing, and one that was made since is
        // somebody else's to read.
        if self.is_current() {
            let _ = status::report_permits(&self.place, false);
        }
    }
}

impl Source {
    /// The next event, waiting up to `wait` where one may come.
    pub fn next(&mut self, wait: Duration) -> Result<Next, Failure> {
        match self {
            Self::Live(live) => live.next(wait),
            Self::File(reader) => reader.read(),
        }
    }

    /// Whether events may still come, or, of a file, be read.
    pub fn is_current(&self) -> bool {
        match self {
            Self::Live(live) => live.is_current(),
            Self::File(_) => true,
        }
    }

    /// The image of a generation, as long as anybody has it.
    pub fn image(&mut self, generation: u64) -> Option<Arc<Image>> {
        match self {
            Self::Live(live) => live.events.shared_image(generation),
            Self::File(reader) => reader.image(generation),
        }
    }

    /// The name of an interface.
    pub fn interface(&mut self, index: u32) -> Option<String> {
        match self {
            Self::Live(live) => live.interfaces.name(index),
            Self::File(reader) => reader.interface(index),
        }
    }

    /// The path of a cgroup.
    pub fn cgroup(&mut self, id: u64) -> Option<String> {
        match self {
            Self::Live(live) => live.cgroups.path(id),
            Self::File(reader) => reader.cgroup(id),
        }
    }

    /// What became of events so far.
    pub fn tally(&self) -> Result<Option<Tally>, Failure> {
        match self {
            Self::Live(live) => live.tally().map(Some),
            Self::File(reader) => Ok(reader.tally()),
        }
    }

    /// What became of events in the end, as far as anybody knows it.
    pub fn last_tally(&self) -> Option<Tally> {
        match self {
            Self::Live(live) => Some(live.tally().unwrap_or_else(|_| live.last_tally())),
            Self::File(reader) => reader.tally(),
        }
    }

    /// An event with its names.
    pub fn describe(&mut self, event: &Event, unix_ns: u64) -> Described {
        let image = self.image(event.generation);
        let time = jiff::Timestamp::from_nanosecond(unix_ns.into()).ok();
        Described {
            time: time.map(|time| format!("{time:.9}")),
            interface: self.interface(event.ifindex),
            cgroup: (event.cgroup() != 0).then(|| {
                let path = self.cgroup(event.cgroup());
                path.unwrap_or_else(|| format!("cgroup {}", event.cgroup()))
            }),
            ..super::describe::describe(event, image.as_deref())
        }
    }
}

/// How often the enforcement point's clock is looked after.
const CLOCK_KEPT: Duration = Duration::from_secs(5);

/// Turns boot time into Unix time.
struct Clock {
    offset_ns: i64,
    taken: Instant,
}

impl Clock {
    fn now() -> Self {
        let ns = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec * 1_000_000_000 + time.tv_nsec
        };
        let offset_ns = ns(ClockId::Realtime) - ns(ClockId::Boottime);
        Self { offset_ns, taken: Instant::now() }
    }

    fn unix_ns(&mut self, boot_ns: u64) -> u64 {
        // The wall clock is set now and then.
        if self.taken.elapsed() > Duration::from_secs(1) {
            *self = Self::now();
        }
        boot_ns.saturating_add_signed(self.offset_ns)
    }
}

/// Names of the interfaces that an instance enforces on. Indices mean nothing in another network namespace
/// than theirs, and an event does not say which that is: where somebody else's may be meant, there is no name.
pub struct Interfaces {
    place: Place,
    names: BTreeMap<u32, Option<String>>,
    listed: Instant,
}

impl Interfaces {
    /// Those that there are now.
    pub fn of(place: &Place) -> Self {
        let names = BTreeMap::new();
        let mut interfaces = Self { place: place.clone(), names, listed: Instant::now() };
        interfaces.list();
        interfaces
    }

    fn list(&mut self) {
        self.listed = Instant::now();
        let attached = attach::attached(&self.place).unwrap_or_default();
        for one in &attached {
            let alone = attached.iter().filter(|other| other.index == one.index).count() == 1;
            let name = Some(one.interface.clone()).filter(|name| alone && !name.is_empty());
            self.names.insert(one.index, name);
        }
    }

    /// The name of one.
    pub fn name(&mut self, index: u32) -> Option<String> {
        if !self.names.contains_key(&index) && self.listed.elapsed() > Duration::from_secs(1) {
            self.list();
        }
        self.names.get(&index).cloned().flatten()
    }

    /// All of them, by index.
    pub fn all(&self) -> &BTreeMap<u32, Option<String>> {
        &self.names
    }
}

/// Paths of cgroups below the mount point.
#[derive(Default)]
struct Cgroups {
    paths: HashMap<u64, String>,
    listed: Option<Instant>,
}

impl Cgroups {
    /// The path of one. What has gone keeps its path: ids are given once.
    fn path(&mut self, id: u64) -> Option<String> {
        let fresh = self.listed.is_some_and(|at| at.elapsed() < Duration::from_secs(1));
        if !self.paths.contains_key(&id) && !fresh {
            self.paths.extend(cgroup::paths());
            self.listed = Some(Instant::now());
        }
        let path = self.paths.get(&id)?;
        Some(if path.is_empty() { "/".to_owned() } else { path.clone() })
    }
}
