//! Events as they come, with the names of the generation that decided.

use std::{
    collections::BTreeMap,
    os::fd::AsFd as _,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::maps::{Map, MapData, RingBuf};
use govc_abi::{event::Event, names};
use govc_image::Image;

use crate::{
    error::{LoadError, bpf},
    instance::{Instance, Place},
    object,
    ring::Positions,
};

/// Generations that a reader keeps the images of. Events wait in the ring for a moment only.
const IMAGES_MAX: usize = 64;
/// Events after which a reader that never catches up looks for new generations.
const LOOK_EVERY: u32 = 256;

/// How long an apply waits for a reader before it overwrites a generation whose events wait.
const READER_PATIENCE: Duration = Duration::from_millis(250);

/// Reads the events of an instance. There is one ring: two readers share its events.
///
/// The ring lives and dies with its instance. One that is made anew under the same name has another
/// ring, and gives generations their numbers from 1 on again.
pub struct Events {
    ring: RingBuf<MapData>,
    positions: Positions,
    images: Images,
    taken: u32,
}

/// The images of generations that events name.
struct Images {
    instance: Instance,
    /// The kernel's number for the ring: that of the instance whose images these are.
    ring: u32,
    known: BTreeMap<u64, Option<Arc<Image>>>,
}

impl Events {
    /// Opens the ring.
    ///
    /// # Errors
    /// There is no such instance.
    pub fn open(place: &Place) -> Result<Self, LoadError> {
        let instance = Instance::open(place)?;
        let (ring, positions, id) = open_ring(place)?;
        let images = Images { instance, ring: id, known: BTreeMap::new() };
        let mut events = Self { ring, positions, images, taken: 0 };
        events.images.look_at_generations();
        Ok(events)
    }

    /// Whether the instance that these events are of is still there.
    #[must_use]
    pub fn is_current(&self) -> bool {
        is_ring_of(self.images.instance.place(), self.images.ring)
    }

    /// The next event, waiting for it up to `timeout`.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>, LoadError> {
        if let Some(event) = self.take() {
            return Ok(Some(event));
        }
        // While there is nothing to do: an image that is here now may be gone when an event asks.
        self.images.look_at_generations();
        let timeout = rustix::time::Timespec::try_from(timeout).ok();
        let flags = rustix::event::PollFlags::IN;
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(self.ring.as_fd(), flags)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(self.take()),
            Err(error) => Err(bpf("cannot wait for events")(std::io::Error::from(error))),
        }
    }

    fn take(&mut self) -> Option<Event> {
        self.taken = self.taken.wrapping_add(1);
        if self.taken.is_multiple_of(LOOK_EVERY) {
            self.images.look_at_generations();
        }
        let item = self.ring.next()?;
        if item.len() < size_of::<Event>() {
            return None;
        }
        // SAFETY: as many bytes as an `Event` has, all bit patterns of which are one.
        let event: Event = unsafe { std::ptr::read_unaligned(item.as_ptr().cast()) };
        // Before the ring says that the event was read: an apply waits for that.
        self.images.load(event.generation);
        Some(event)
    }

    /// Events that were published since the instance began.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.positions.published()
    }

    /// Events that were read since then, whoever read them.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.positions.read()
    }

    /// The image of a generation, as long as the kernel holds it; kept for a while from then on.
    pub fn image(&mut self, generation: u64) -> Option<&Image> {
        self.images.load(generation);
        self.images.known.get(&generation)?.as_deref()
    }

    /// Likewise, to keep.
    pub fn shared_image(&mut self, generation: u64) -> Option<Arc<Image>> {
        self.images.load(generation);
        self.images.known.get(&generation)?.clone()
    }
}

fn open_ring(place: &Place) -> Result<(RingBuf<MapData>, Positions, u32), LoadError> {
    let what = "cannot read the event ring";
    let data = object::open_map(&place.pin(names::map::EVENTS))?;
    let id = data.info().map_err(bpf(what))?.id();
    let ring =
        RingBuf::try_from(Map::from_map_data(data).map_err(bpf(what))?).map_err(bpf(what))?;
    let positions = Positions::map(ring.as_fd()).map_err(bpf(what))?;
    Ok((ring, positions, id))
}

/// Waits until who reads the events of an instance has read those that are published by now, and
/// with them the images of the generations that they name. A reader that does not come to it in
/// time loses names, not events.
pub(crate) fn let_reader_finish(place: &Place) {
    if !place.has_reader() {
        return;
    }
    let Ok((_ring, positions, _)) = open_ring(place) else { return };
    let (published, began) = (positions.published(), Instant::now());
    while positions.read() < published && began.elapsed() < READER_PATIENCE {
        std::thread::sleep(Duration::from_micros(200));
    }
}

impl Images {
    /// Reads the images of generations that are new before anything overwrites them.
    fn look_at_generations(&mut self) {
        for generation in self.instance.control().generations {
            if generation.number != 0 {
                self.load(generation.number);
            }
        }
    }

    fn load(&mut self, generation: u64) {
        if self.known.contains_key(&generation) {
            return;
        }
        let image = self.find_image(generation);
        let records = self.instance.control().generations;
        if image.is_none() && records.iter().any(|record| record.number == generation) {
            // It is being put together right now: the next time it may be there.
            return;
        }
        // What the kernel has overwritten never comes back: numbers are given once in an instance.
        self.known.insert(generation, image);
        while self.known.len() > IMAGES_MAX {
            self.known.pop_first();
        }
    }

    fn find_image(&mut self, generation: u64) -> Option<Arc<Image>> {
        let known = &self.known;
        let find = |instance: &Instance| {
            let record = |instance: &Instance| {
                let generations = instance.control().generations.into_iter();
                generations.enumerate().find(|(_, record)| record.number == generation)
            };
            let (buffer, described) = record(instance)?;
            // The same policy again, as a rollout puts it on: its image is here.
            let same = |image: &&Arc<Image>| image.digest() == described.digest;
            if let Some(image) = known.values().flatten().find(same) {
                return Some(image.clone());
            }
            let image = instance.image(buffer).ok().flatten()?;
            let still = record(instance).is_some_and(|(now, _)| now == buffer);
            (still && image.digest() == described.digest).then(|| Arc::new(image))
        };
        let ring = self.ring;
        find(&self.instance).or_else(|| {
            // The tables may have been replaced by larger ones.
            let instance = Instance::open(self.instance.place()).ok()?;
            // Not by those of another instance: its numbers mean something else.
            if !is_ring_of(instance.place(), ring) {
                return None;
            }
            self.instance = instance;
            find(&self.instance)
        })
    }
}

/// Whether the instance there has this ring.
fn is_ring_of(place: &Place, ring: u32) -> bool {
    object::map_id(&place.pin(names::map::EVENTS)).is_ok_and(|id| id == ring)
}
