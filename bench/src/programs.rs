//! The benchmark's own eBPF programs in the kernel.

use std::{mem::offset_of, os::fd::AsFd as _};

use aya::{
    Ebpf,
    maps::{LpmTrie, Map, MapData, ProgramArray, lpm_trie::Key},
    programs::{
        LinkOrder, SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp,
        XdpMode, tc::TcAttachOptions,
    },
};
use govc_loader::mapped::MappedArray;

use crate::{
    error::{BenchError, bpf},
    frames::Bytes,
    shared::{
        ADDRESS_BITS, AddressKey, AddressValue, Cursor, FRAME_LEN, FRAMES_MAX, POLICY_BITS,
        PolicyKey, PolicyValue,
    },
};

/// Keeps the object on a boundary that ELF readers accept.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

/// Made by `cargo xtask ebpf --object bench` from `ebpf/`.
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../prebuilt/bench.bpf.o"));

/// Frames that the kernel makes and delivers at once.
const LIVE_BATCH: u32 = 64;

/// Something that `BPF_PROG_TEST_RUN` runs.
#[derive(Clone, Copy)]
pub enum Program<'a> {
    /// A tcx program.
    Tc(&'a SchedClassifier),
    /// An XDP program.
    Xdp(&'a Xdp),
}

impl Program<'_> {
    /// Runs it `repeat` times on a packet and returns its last answer.
    pub fn run(self, packet: &[u8], repeat: u32) -> Result<u32, BenchError> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.repeat = repeat;
        self.test_run(options)
    }

    /// Has it make `repeat` frames that go where it says.
    pub fn run_live(self, packet: &[u8], repeat: u32) -> Result<(), BenchError> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.repeat = repeat;
        options.attrs = TestRunAttrs::new().xdp_live_frames(LIVE_BATCH);
        self.test_run(options).map(drop)
    }

    fn test_run(self, options: TestRunOptions<'_>) -> Result<u32, BenchError> {
        let result = match self {
            Self::Tc(program) => program.test_run(options),
            Self::Xdp(program) => program.test_run(options),
        };
        crate::interrupt::check()?;
        Ok(result.map_err(bpf("run a program"))?.return_value)
    }
}

/// The loaded programs.
pub struct Object {
    ebpf: Ebpf,
}

/// Their maps.
pub struct Maps {
    frames: MappedArray,
    cursor: MappedArray,
    target_tc: ProgramArray<MapData>,
    target_xdp: ProgramArray<MapData>,
    addresses: LpmTrie<MapData, AddressKey, AddressValue>,
    policies: LpmTrie<MapData, PolicyKey, PolicyValue>,
}

/// Loads the object.
pub fn load() -> Result<(Object, Maps), BenchError> {
    let mut ebpf = Ebpf::load(&OBJECT.0).map_err(bpf("load the benchmark's maps"))?;
    let names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let what = format!("load program `{name}`");
        match ebpf.program_mut(&name) {
            Some(aya::programs::Program::SchedClassifier(program)) => program.load(),
            Some(aya::programs::Program::Xdp(program)) => program.load(),
            _ => continue,
        }
        .map_err(bpf(what))?;
    }
    let mut take = |name: &'static str| ebpf.take_map(name).ok_or_else(|| missing(name));
    let maps = Maps {
        frames: mapped(&take("FRAMES")?, FRAME_LEN, FRAMES_MAX)?,
        cursor: mapped(&take("CURSOR")?, size_of::<Cursor>(), 1)?,
        target_tc: take("TARGET_TC")?.try_into().map_err(bpf("open map `TARGET_TC`"))?,
        target_xdp: take("TARGET_XDP")?.try_into().map_err(bpf("open map `TARGET_XDP`"))?,
        addresses: take("ADDRESSES")?.try_into().map_err(bpf("open map `ADDRESSES`"))?,
        policies: take("POLICIES")?.try_into().map_err(bpf("open map `POLICIES`"))?,
    };
    Ok((Object { ebpf }, maps))
}

fn mapped(map: &Map, value_len: usize, entries: usize) -> Result<MappedArray, BenchError> {
    let what = "map an array";
    let Map::Array(data) = map else { return Err(missing("FRAMES")) };
    MappedArray::new(data.fd().as_fd(), value_len, entries).map_err(bpf(what))
}

fn missing(name: &str) -> BenchError {
    bpf("read the object")(std::io::Error::other(format!("`{name}` is missing or something else")))
}

impl Object {
    /// A tcx program by name.
    pub fn tc(&self, name: &str) -> Result<&SchedClassifier, BenchError> {
        let program = self.ebpf.program(name).ok_or_else(|| missing(name))?;
        program.try_into().map_err(bpf(name))
    }

    /// An XDP program by name.
    pub fn xdp(&self, name: &str) -> Result<&Xdp, BenchError> {
        let program = self.ebpf.program(name).ok_or_else(|| missing(name))?;
        program.try_into().map_err(bpf(name))
    }

    /// Ends the live path on the loopback device of the caller's namespace: behind all other
    /// tcx programs, packets are counted and dropped.
    pub fn attach_end(&mut self) -> Result<(), BenchError> {
        let name = "bench_tc_end";
        let what = "attach the end of the live path";
        let program = self.ebpf.program_mut(name).ok_or_else(|| missing(name))?;
        let program: &mut SchedClassifier = program.try_into().map_err(bpf(what))?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::last());
        program
            .attach_with_options("lo", TcAttachType::Ingress, options)
            .map(drop)
            .map_err(bpf(what))
    }
}

impl Object {
    /// Attaches the XDP program that does nothing to a device of the caller's namespace, until
    /// this is dropped.
    pub fn attach_empty_xdp(&mut self, device: &str) -> Result<(), BenchError> {
        let name = "bench_xdp_empty";
        let what = "attach an empty XDP program";
        let program = self.ebpf.program_mut(name).ok_or_else(|| missing(name))?;
        let program: &mut Xdp = program.try_into().map_err(bpf(what))?;
        program.attach(device, XdpMode::Driver).map(drop).map_err(bpf(what))
    }
}

impl Maps {
    /// Lets these frames take turns; their number is a power of two.
    ///
    /// # Errors
    /// They are more than there is room for.
    pub fn set_frames(&self, frames: &[Bytes]) -> Result<(), BenchError> {
        for (index, frame) in frames.iter().enumerate() {
            if !self.frames.write_bytes(index, 0, frame) {
                return Err(missing("FRAMES"));
            }
        }
        self.cursor.write(0, offset_of!(Cursor, next), 0_u32);
        self.cursor.write(0, offset_of!(Cursor, mask), frames.len().saturating_sub(1) as u32);
        Ok(())
    }

    /// Sets the key of the floor with a MAC.
    pub fn set_key(&self, key: (u64, u64)) {
        self.cursor.write(0, offset_of!(Cursor, k0), key.0);
        self.cursor.write(0, offset_of!(Cursor, k1), key.1);
    }

    /// How many frames have come to the end of the live path.
    pub fn seen(&self) -> u64 {
        self.cursor.read(0, offset_of!(Cursor, seen)).unwrap_or_default()
    }

    /// Puts a program behind the one that restores packets.
    pub fn set_target(&mut self, program: Program<'_>) -> Result<(), BenchError> {
        let what = "choose the program under test";
        let fd = |fd: Result<_, _>| fd.map_err(bpf(what));
        match program {
            Program::Tc(program) => self.target_tc.set(0, fd(program.fd())?, 0),
            Program::Xdp(program) => self.target_xdp.set(0, fd(program.fd())?, 0),
        }
        .map_err(bpf(what))
    }

    /// Gives an IPv4 address in memory order an identity.
    pub fn add_address(&mut self, address: [u8; 4], identity: u32) -> Result<(), BenchError> {
        let [a, b, c, d] = address;
        let mut data = [0; 20];
        for (to, from) in data.iter_mut().zip([0, 0, 0, 1, a, b, c, d]) {
            *to = from;
        }
        let value = [identity, 0, 0, 0, 0, 0];
        let key = Key::new(ADDRESS_BITS, data);
        self.addresses.insert(&key, value, 0).map_err(bpf("fill the address trie"))
    }

    /// Lets an identity reach a TCP port.
    pub fn add_policy(&mut self, identity: u32, port: u16) -> Result<(), BenchError> {
        let [a, b, c, d] = identity.to_ne_bytes();
        let [high, low] = port.to_be_bytes();
        let key = Key::new(POLICY_BITS, [a, b, c, d, 0, 6, high, low]);
        self.policies.insert(&key, [0, 1, 0], 0).map_err(bpf("fill the policy trie"))
    }
}
