//! Events as they come, with the names of the generation that decided.

use std::{collections::BTreeMap, os::fd::AsFd as _, time::Duration};

use aya::maps::{Map, MapData, RingBuf};
use govc_abi::{event::Event, names};
use govc_image::Image;

use crate::{
    error::{LoadError, bpf},
    instance::{Instance, Place},
    object,
};

/// Reads the events of an instance. There is one ring: two readers share its events.
pub struct Events {
    instance: Instance,
    ring: RingBuf<MapData>,
    images: BTreeMap<u64, Option<Image>>,
}

impl Events {
    /// Opens the ring.
    ///
    /// # Errors
    /// There is no such instance.
    pub fn open(place: &Place) -> Result<Self, LoadError> {
        let instance = Instance::open(place)?;
        let what = "cannot read the event ring";
        let data = object::open_map(&place.pin(names::map::EVENTS))?;
        let ring =
            RingBuf::try_from(Map::from_map_data(data).map_err(bpf(what))?).map_err(bpf(what))?;
        Ok(Self { instance, ring, images: BTreeMap::new() })
    }

    /// The next event, waiting for it up to `timeout`.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>, LoadError> {
        if let Some(event) = self.take() {
            return Ok(Some(event));
        }
        let timeout = rustix::time::Timespec::try_from(timeout).ok();
        let flags = rustix::event::PollFlags::IN;
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(self.ring.as_fd(), flags)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(self.take()),
            Err(error) => Err(bpf("cannot wait for events")(std::io::Error::from(error))),
        }
    }

    fn take(&mut self) -> Option<Event> {
        let item = self.ring.next()?;
        if item.len() < size_of::<Event>() {
            return None;
        }
        // SAFETY: as many bytes as an `Event` has, all bit patterns of which are one.
        Some(unsafe { std::ptr::read_unaligned(item.as_ptr().cast()) })
    }

    /// The image of a generation, as long as the kernel holds it; kept from then on.
    pub fn image(&mut self, generation: u64) -> Option<&Image> {
        if !self.images.contains_key(&generation) {
            // What the kernel has overwritten never comes back: numbers are given once.
            let image = self.find_image(generation);
            self.images.insert(generation, image);
        }
        self.images.get(&generation)?.as_ref()
    }

    fn find_image(&mut self, generation: u64) -> Option<Image> {
        let find = |instance: &Instance| {
            let generations = instance.control().generations;
            let buffer = generations.iter().position(|g| g.number == generation)?;
            instance.image(buffer).ok().flatten()
        };
        find(&self.instance).or_else(|| {
            // The tables may have been replaced by larger ones.
            self.instance = Instance::open(self.instance.place()).ok()?;
            find(&self.instance)
        })
    }
}
