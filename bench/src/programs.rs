//! The benchmark's own eBPF programs in the kernel.

use std::os::fd::AsFd as _;

use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{LpmTrie, Map, MapData, ProgramArray, lpm_trie::Key},
    programs::{ProgramFd, SchedClassifier, TestRunAttrs, Xdp},
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

    fn fd(self) -> Result<&'static str, BenchError> {
        Ok("")
    }
}
