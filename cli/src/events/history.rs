//! Events in a file, with everything that their numbers mean.
//!
//! The file begins with [`MAGIC`]; records follow, each a kind and a length of 32 bits and so many
//! bytes. All numbers are little-endian. `docs/output.md` has the kinds.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    path::Path,
    sync::Arc,
};

use govc_abi::{event::Event, label::Label};
use govc_image::Image;

use super::source::{Next, Tally};
use crate::failure::Failure;

/// First bytes of a file.
pub const MAGIC: [u8; 8] = *b"govcevt1";
const EVENT: u32 = 1;
const IMAGE: u32 = 2;
const SAME_IMAGE: u32 = 3;
const INTERFACE: u32 = 4;
const TALLY: u32 = 5;
const CGROUP: u32 = 6;
/// Bytes of an event's record: time, then the fields of [`Event`] in their order.
const EVENT_LEN: usize = 8 + size_of::<Event>();
/// Longest record: an image of the greatest size.
const RECORD_LEN_MAX: u32 = 8 + 4 * govc_abi::limits::IMAGE_WORDS_MAX as u32;

fn file_error(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |source| Failure::File { what, path: path.into(), source }
}

/// Writes events to a file.
pub struct Writer {
    out: BufWriter<File>,
    path: std::path::PathBuf,
    /// Digests of the images in the file, by generation.
    images: BTreeMap<u64, [u8; 32]>,
    interfaces: BTreeMap<u32, Option<String>>,
    cgroups: BTreeMap<u64, Option<String>>,
}

impl Writer {
    /// Begins a file. One that is there is left alone.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let out = File::create_new(path).map_err(file_error("create", path))?;
        let mut out = BufWriter::new(out);
        out.write_all(&MAGIC).map_err(file_error("write", path))?;
        let (images, interfaces, cgroups) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { out, path: path.into(), images, interfaces, cgroups })
    }

    /// Writes an event, and first what its numbers mean if that is not in the file yet.
    pub fn event(
        &mut self,
        event: &Event,
        unix_ns: u64,
        image: impl FnOnce() -> Option<Arc<Image>>,
        interface: impl FnOnce() -> Option<String>,
        cgroup: impl FnOnce() -> Option<String>,
    ) -> Result<(), Failure> {
        // An image that is not there yet may be there the next time.
        if !self.images.contains_key(&event.generation)
            && let Some(image) = image()
        {
            self.image(event.generation, &image)?;
        }
        if !self.interfaces.contains_key(&event.ifindex) {
            let name = interface();
            if let Some(name) = &name {
                self.record(INTERFACE, &[&event.ifindex.to_le_bytes(), name.as_bytes()])?;
            }
            self.interfaces.insert(event.ifindex, name);
        }
        let id = event.cgroup();
        if id != 0 && !self.cgroups.contains_key(&id) {
            let path = cgroup();
            if let Some(path) = &path {
                self.record(CGROUP, &[&id.to_le_bytes(), path.as_bytes()])?;
            }
            self.cgroups.insert(id, path);
        }
        self.record(EVENT, &[&unix_ns.to_le_bytes(), &encode(event)])
    }

    fn image(&mut self, generation: u64, image: &Image) -> Result<(), Failure> {
        let digest = image.digest();
        let number = generation.to_le_bytes();
        match self.images.iter().find(|(_, known)| **known == digest) {
            Some((earlier, _)) => {
                let earlier = earlier.to_le_bytes();
                self.record(SAME_IMAGE, &[&number, &earlier])?;
            }
            None => self.record(IMAGE, &[&number, image.bytes()])?,
        }
        self.images.insert(generation, digest);
        Ok(())
    }

    /// Writes what became of events, at the end.
    pub fn tally(&mut self, tally: &Tally) -> Result<(), Failure> {
        let Tally { counted, read, waiting, lost_rate, lost_full, skipped } = *tally;
        let numbers = [counted, read, waiting, lost_rate, lost_full, skipped];
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.record(TALLY, &[&bytes])
    }

    /// Hands everything to the kernel.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(file_error("write", &self.path))
    }

    fn record(&mut self, kind: u32, parts: &[&[u8]]) -> Result<(), Failure> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut write = |bytes: &[u8]| self.out.write_all(bytes);
        write(&kind.to_le_bytes())
            .and_then(|()| write(&(len as u32).to_le_bytes()))
            .and_then(|()| parts.iter().try_for_each(|part| write(part)))
            .map_err(file_error("write", &self.path))
    }
}

/// What the numbers of a file mean, all of it.
#[derive(Default)]
pub struct Contents {
    /// How many events there are.
    pub events: u64,
    /// The images.
    pub images: Vec<Arc<Image>>,
    /// Interfaces of events, with their names where they are known.
    pub interfaces: BTreeMap<u32, Option<String>>,
}

/// Reads such a file.
pub struct Reader {
    input: BufReader<File>,
    path: std::path::PathBuf,
    images: BTreeMap<u64, Arc<Image>>,
    interfaces: BTreeMap<u32, String>,
    cgroups: BTreeMap<u64, String>,
    tally: Option<Tally>,
    broken: bool,
}

impl Reader {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let mut input = BufReader::new(File::open(path).map_err(file_error("read", path))?);
        let mut magic = [0; MAGIC.len()];
        let begins = input.read_exact(&mut magic).is_ok() && magic == MAGIC;
        if !begins {
            return Err(Failure::Usage {
                message: format!("`{}` holds no events", path.display()),
                help: "Such files are written by `govc observe --write FILE`.".into(),
            });
        }
        Ok(Self {
            input,
            path: path.into(),
            images: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            cgroups: BTreeMap::new(),
            tally: None,
            broken: false,
        })
    }

    /// What a file holds, as far as it can be read.
    pub fn contents(path: &Path) -> Result<Contents, Failure> {
        let mut reader = Self::open(path)?;
        let mut contents = Contents::default();
        // Whoever reads the events is told about damage when they come to it.
        while let Ok(Next::Event(event, _)) = reader.read() {
            contents.events += 1;
            contents.interfaces.insert(event.ifindex, reader.interface(event.ifindex));
        }
        contents.images = reader.images.into_values().collect();
        Ok(contents)
    }

    /// The next event. A file whose writer was killed ends within a record; what comes before is
    /// good.
    pub fn read(&mut self) -> Result<Next, Failure> {
        loop {
            let Some((kind, bytes)) = self.record()? else { return Ok(Next::End) };
            match kind {
                EVENT => {
                    let Some((time, event)) = bytes.split_at_checked(8) else { continue };
                    let event = decode(event);
                    if let (Some(unix_ns), Some(event)) = (u64_at(time, 0), event) {
                        return Ok(Next::Event(event, unix_ns));
                    }
                    return Err(self.damaged("an event is too short"));
                }
                IMAGE => {
                    let (number, image) = bytes.split_at_checked(8).unwrap_or_default();
                    let image = Image::parse(image)
                        .map_err(|source| Failure::Image { path: self.path.clone(), source })?;
                    self.images.insert(u64_at(number, 0).unwrap_or(0), Arc::new(image));
                }
                SAME_IMAGE => {
                    let earlier = u64_at(&bytes, 8).and_then(|number| self.images.get(&number));
                    if let (Some(number), Some(image)) = (u64_at(&bytes, 0), earlier.cloned()) {
                        self.images.insert(number, image);
                    }
                }
                INTERFACE => {
                    let (index, name) = bytes.split_at_checked(4).unwrap_or_default();
                    if let Ok(index) = index.try_into() {
                        let name = String::from_utf8_lossy(name).into_owned();
                        self.interfaces.insert(u32::from_le_bytes(index), name);
                    }
                }
                CGROUP => {
                    let (id, path) = bytes.split_at_checked(8).unwrap_or_default();
                    let path = String::from_utf8_lossy(path).into_owned();
                    self.cgroups.insert(u64_at(id, 0).unwrap_or(0), path);
                }
                TALLY => {
                    let at = |index: usize| u64_at(&bytes, index * 8).unwrap_or(0);
                    self.tally = Some(Tally {
                        counted: at(0),
                        read: at(1),
                        waiting: at(2),
                        lost_rate: at(3),
                        lost_full: at(4),
                        skipped: at(5),
                    });
                }
                // A later version's, which this one can do without.
                _ => {}
            }
        }
    }

    fn record(&mut self) -> Result<Option<(u32, Vec<u8>)>, Failure> {
        let mut head = [0; 8];
        match self.fill(&mut head)? {
            0 => return Ok(None),
            8 => {}
            _ => return Ok(self.ends_early()),
        }
        let [a, b, c, d, e, f, g, h] = head;
        let (kind, len) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        if len > RECORD_LEN_MAX {
            return Err(self.damaged("a record is longer than any can be"));
        }
        // Grows with what is there, not with what a damaged length promises.
        let mut bytes = Vec::new();
        let path = self.path.clone();
        let got = self.input.by_ref().take(len.into()).read_to_end(&mut bytes);
        if got.map_err(file_error("read", &path))? != len as usize {
            return Ok(self.ends_early());
        }
        Ok(Some((kind, bytes)))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(len) => filled += len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(file_error("read", &self.path)(error)),
            }
        }
        Ok(filled)
    }

    fn ends_early<T>(&mut self) -> Option<T> {
        self.broken = true;
        None
    }

    fn damaged(&self, why: &str) -> Failure {
        Failure::Usage {
            message: format!("`{}` is damaged: {why}", self.path.display()),
            help: "Events before the damage were shown.".into(),
        }
    }

    /// Whether the file ends within a record: whoever wrote it was killed.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// The image of a generation.
    pub fn image(&self, generation: u64) -> Option<Arc<Image>> {
        self.images.get(&generation).cloned()
    }

    /// The name of an interface.
    pub fn interface(&self, index: u32) -> Option<String> {
        self.interfaces.get(&index).cloned()
    }

    /// The path of a cgroup.
    pub fn cgroup(&self, id: u64) -> Option<String> {
        self.cgroups.get(&id).cloned()
    }

    /// What became of events while the file was written.
    pub fn tally(&self) -> Option<Tally> {
        self.tally
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// The fields of an event in their order.
pub fn encode(event: &Event) -> [u8; EVENT_LEN - 8] {
    let mut bytes = [0; EVENT_LEN - 8];
    let mut rest: &mut [u8] = &mut bytes;
    let mut put = |part: &[u8]| {
        // The length is that of the structure, so that all parts fit.
        let _ = rest.write_all(part);
    };
    put(&event.time_ns.to_le_bytes());
    put(&event.generation.to_le_bytes());
    for word in [event.rule, event.pending, event.ifindex, event.len] {
        put(&word.to_le_bytes());
    }
    put(&[event.reason, event.verdict, event.hook, event.flags, event.protocol, event.from_zone]);
    for half in [event.icmp, event.source_port, event.destination_port] {
        put(&half.to_le_bytes());
    }
    put(&event.object.to_le_bytes());
    // Addresses lie in memory as on the wire.
    for word in [event.source, event.destination].as_flattened() {
        put(&word.to_ne_bytes());
    }
    put(&event.label.head.to_le_bytes());
    put(&event.label.mid.to_le_bytes());
    put(&event.label.tail.to_le_bytes());
    put(&event.label.pad.to_le_bytes());
    put(&event.cgroup_low.to_le_bytes());
    put(&event.cgroup_high.to_le_bytes());
    put(&[event.to_zone, event.pad]);
    bytes
}

/// The event that [`encode`] wrote; `None` when bytes are missing.
fn decode(bytes: &[u8]) -> Option<Event> {
    let mut rest = bytes;
    let mut take = |len: usize| -> Option<&[u8]> {
        let (part, after) = rest.split_at_checked(len)?;
        rest = after;
        Some(part)
    };
    macro_rules! number {
        ($type:ty) => {
            <$type>::from_le_bytes(take(size_of::<$type>())?.try_into().ok()?)
        };
    }
    macro_rules! word {
        () => {
            u64::from_ne_bytes(take(8)?.try_into().ok()?)
        };
    }
    Some(Event {
        time_ns: number!(u64),
        generation: number!(u64),
        rule: number!(u32),
        pending: number!(u32),
        ifindex: number!(u32),
        len: number!(u32),
        reason: number!(u8),
        verdict: number!(u8),
        hook: number!(u8),
        flags: number!(u8),
        protocol: number!(u8),
        from_zone: number!(u8),
        icmp: number!(u16),
        source_port: number!(u16),
        destination_port: number!(u16),
        object: number!(u32),
        source: [word!(), word!()],
        destination: [word!(), word!()],
        label: Label {
            head: number!(u64),
            mid: number!(u64),
            tail: number!(u32),
            pad: number!(u32),
        },
        cgroup_low: number!(u32),
        cgroup_high: number!(u16),
        to_zone: number!(u8),
        pad: number!(u8),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event whose every byte differs from its neighbours, and from zero.
    pub(crate) fn odd_event() -> Event {
        decode(&(0..(EVENT_LEN - 8) as u8).map(|byte| byte + 1).collect::<Vec<_>>()).unwrap()
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        let name = format!("govc-history-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        path
    }

    fn write(path: &Path) -> Tally {
        let mut writer = Writer::create(path).unwrap();
        let event = odd_event();
        for time in 0..3 {
            let cgroup = || Some("/web.slice".into());
            writer.event(&event, time, || None, || Some("eth0".into()), cgroup).unwrap();
        }
        let tally =
            Tally { counted: 9, read: 3, waiting: 1, lost_rate: 2, lost_full: 3, skipped: 7 };
        writer.tally(&tally).unwrap();
        writer.flush().unwrap();
        tally
    }

    #[test]
    fn events_come_back_as_they_were_written() {
        let event = odd_event();
        assert_eq!(encode(&event).to_vec(), (1..=112).collect::<Vec<u8>>());
        assert_eq!(decode(&encode(&event)), Some(event));
        let path = scratch("round-trip");
        let tally = write(&path);
        let mut reader = Reader::open(&path).unwrap();
        for time in 0..3 {
            let Next::Event(again, at) = reader.read().unwrap() else { panic!("an event") };
            assert_eq!((again, at), (event, time));
        }
        assert!(matches!(reader.read().unwrap(), Next::End));
        assert_eq!(reader.interface(event.ifindex).as_deref(), Some("eth0"));
        assert_eq!(reader.cgroup(event.cgroup()).as_deref(), Some("/web.slice"));
        assert_eq!(reader.tally(), Some(tally));
        assert!(!reader.is_broken());
        assert!(
            matches!(Writer::create(&path), Err(Failure::File { .. })),
            "nothing is overwritten"
        );
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_may_end_anywhere_and_hold_anything() {
        let path = scratch("damage");
        write(&path);
        let whole = std::fs::read(&path).unwrap();
        let events = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let mut reader = Reader::open(&path)?;
            let mut count = 0;
            while let Next::Event(..) = reader.read()? {
                count += 1;
            }
            Ok::<_, Failure>((count, reader.is_broken()))
        };
        let record = 8 + EVENT_LEN;
        let named = MAGIC.len() + 8 + 4 + "eth0".len();
        let first = named + 8 + 8 + "/web.slice".len();
        for len in MAGIC.len()..whole.len() {
            let (count, broken) = events(&whole[..len]).unwrap();
            assert_eq!(count, (len.saturating_sub(first) / record).min(3), "{len}");
            let ends =
                (0..4).any(|n| len == first + n * record) || [MAGIC.len(), named].contains(&len);
            assert_eq!(broken, !ends, "{len}");
        }
        for at in MAGIC.len()..whole.len() {
            for byte in [0, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                let _ = events(&bytes);
            }
        }
        assert!(matches!(events(b"govcevt"), Err(Failure::Usage { .. })));
        std::fs::remove_file(&path).unwrap();
    }
}
