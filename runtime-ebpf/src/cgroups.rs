//! Cgroups that come and go while a policy is in force: the kernel itself finds the pattern that a
//! new one matches, so that no process has to watch and its first packet has its label.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_ANY,
    helpers::generated::{bpf_map_delete_elem, bpf_map_update_elem, bpf_probe_read_kernel_str},
    macros::tracepoint,
    programs::TracePointContext,
};
use govc_abi::limits::{CGROUP_PATH_MAX, CGROUP_PATTERN_MAX, CGROUPS_WATCHED_MAX};

use crate::maps;

/// Offsets in the kernel's records `cgroup:cgroup_mkdir` and `cgroup:cgroup_rmdir`.
const HIERARCHY_AT: usize = 8;
const ID_AT: usize = 16;
const PATH_AT: usize = 24;

/// Steps that comparing one path with one pattern may take at a time: the verifier follows no more. Behind a star it
/// goes back.
const STEPS_MAX: u32 = CGROUP_PATH_MAX as u32;
/// Times. Four times as many steps as a path has bytes are more than patterns need that anybody would write.
const TIMES_MAX: u32 = 4;

/// What [`govc_cgroup_matches`] answers.
mod answer {
    /// The path is another one.
    pub const DIFFERS: u32 = 0;
    /// The path is what the pattern says.
    pub const MATCHES: u32 = 1;
    /// Nobody knows: it takes more steps than there are.
    pub const OPEN: u32 = 2;
}

/// Notes which pattern of each generation a new cgroup matches.
#[tracepoint]
pub fn govc_cgroup_made(context: TracePointContext) -> u32 {
    if let Some(id) = cgroup2(&context) {
        let _ = note(&context, id);
    }
    0
}

/// Forgets a cgroup.
#[tracepoint]
pub fn govc_cgroup_gone(context: TracePointContext) -> u32 {
    let Some(id) = cgroup2(&context) else { return 0 };
    let mut buffer = 0;
    while buffer < 2 {
        let key = maps::cgroup_key(id, buffer);
        // SAFETY: the map and the key are valid; a key that is not there is no harm.
        unsafe { bpf_map_delete_elem(maps::cgroups(), (&raw const key).cast()) };
        buffer += 1;
    }
    0
}

/// The id of a cgroup of the one hierarchy that sockets belong to, which has number 0.
#[inline(always)]
fn cgroup2(context: &TracePointContext) -> Option<u64> {
    // SAFETY: the record is longer.
    let (hierarchy, id): (i32, u64) =
        unsafe { (context.read_at(HIERARCHY_AT).ok()?, context.read_at(ID_AT).ok()?) };
    (hierarchy == 0).then_some(id)
}

#[inline(always)]
fn note(context: &TracePointContext, id: u64) -> Result<(), i32> {
    let search = maps::cgroup_search().ok_or(0)?;
    // SAFETY: the record is longer; its word holds where the path stands and how long it is.
    let len = unsafe {
        let at: u32 = context.read_at(PATH_AT)?;
        let text = context.as_ptr().add((at & 0xffff) as usize);
        bpf_probe_read_kernel_str((&raw mut (*search).path).cast(), CGROUP_PATH_MAX as u32, text)
    };
    // A path that was cut off has no closing zero of its own and could match by its beginning only.
    if len <= 1 || len >= CGROUP_PATH_MAX as i64 {
        return Err(0);
    }
    let mut buffer = 0;
    while buffer < 2 {
        let number = govc_cgroup_pattern(buffer, len as u32 - 1);
        if number != 0 {
            let key = maps::cgroup_key(id, buffer);
            // SAFETY: map, key and value are valid. A full map is no harm: who is not in it has no
            // subject.
            unsafe {
                bpf_map_update_elem(
                    maps::cgroups(),
                    (&raw const key).cast(),
                    (&raw const number).cast(),
                    BPF_ANY as u64,
                );
            }
        }
        buffer += 1;
    }
    Ok(())
}

/// Number of the first pattern of a buffer that matches the path at hand or a part that it begins
/// with; 0 for none, and where an earlier pattern might match: who is taken for nobody sends nothing, who is taken for
/// another may send what is not his. The next apply compares all paths to the end. A global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_cgroup_pattern(buffer: u32, path_len: u32) -> u32 {
    let Some(patterns) = maps::patterns(buffer) else { return 0 };
    // SAFETY: array values live as long as the program.
    let count = unsafe { (*patterns).count };
    let mut index = 0;
    while index < CGROUPS_WATCHED_MAX as u32 {
        if index >= count {
            break;
        }
        let mut found = answer::OPEN;
        let mut time = 0;
        while time < TIMES_MAX {
            found = govc_cgroup_matches(buffer, index, path_len, time);
            if found != answer::OPEN {
                break;
            }
            time += 1;
        }
        if found != answer::DIFFERS {
            return if found == answer::MATCHES { index + 1 } else { 0 };
        }
        index += 1;
    }
    0
}

/// A path while it is compared with patterns. How far that has come lies in map memory: the
/// verifier does not track it there, and would follow every number that it can be otherwise.
#[repr(C)]
pub struct Search {
    /// The path.
    path: [u8; CGROUP_PATH_MAX],
    /// Where to go on in the path.
    at: u32,
    /// Where to go on in the pattern.
    wanted: u32,
    /// Behind the last star of the pattern; 0 while there was none.
    star: u32,
    /// Where in the path to go back to.
    resume: u32,
}

/// Whether the path at hand, or a part that it begins with, is what a pattern says: `*` stands for
/// any run of bytes. One of [`answer`]; from the second time on it goes on where it stopped.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_cgroup_matches(buffer: u32, index: u32, path_len: u32, time: u32) -> u32 {
    let (Some(patterns), Some(search)) = (maps::patterns(buffer), maps::cgroup_search()) else {
        return answer::OPEN;
    };
    let index = index as usize & (CGROUPS_WATCHED_MAX - 1);
    // SAFETY: masked indices lie inside the arrays, which live as long as the program.
    let (len, text) = unsafe {
        let texts = (&raw const (*patterns).texts).cast::<u8>();
        (
            (&raw const (*patterns).lens).cast::<u32>().add(index).read(),
            texts.add(index * CGROUP_PATTERN_MAX),
        )
    };
    if time == 0 {
        // SAFETY: the value is this CPU's, and tracepoints do not nest.
        unsafe {
            (&raw mut (*search).at).write_volatile(0);
            (&raw mut (*search).wanted).write_volatile(0);
            (&raw mut (*search).star).write_volatile(0);
            (&raw mut (*search).resume).write_volatile(0);
        }
    }
    let mut step = 0;
    while step < STEPS_MAX {
        match next(search, text, len, path_len) {
            Step::Further => step += 1,
            Step::Matches => return answer::MATCHES,
            Step::Differs => return answer::DIFFERS,
        }
    }
    answer::OPEN
}

enum Step {
    Further,
    Matches,
    Differs,
}

#[inline(always)]
fn next(search: *mut Search, text: *const u8, len: u32, path_len: u32) -> Step {
    // SAFETY: masked indices lie inside the arrays; the value is this CPU's.
    unsafe {
        let at = (&raw const (*search).at).read_volatile();
        let wanted = (&raw const (*search).wanted).read_volatile();
        let path = (&raw const (*search).path).cast::<u8>();
        let byte = path.add(at as usize & (CGROUP_PATH_MAX - 1)).read_volatile();
        if wanted >= len && (at >= path_len || byte == b'/') {
            return Step::Matches;
        }
        let next = text.add(wanted as usize & (CGROUP_PATTERN_MAX - 1)).read_volatile();
        if wanted < len && next == b'*' {
            (&raw mut (*search).star).write_volatile(wanted + 1);
            (&raw mut (*search).resume).write_volatile(at);
            (&raw mut (*search).wanted).write_volatile(wanted + 1);
            return Step::Further;
        }
        if wanted < len && at < path_len && next == byte {
            (&raw mut (*search).at).write_volatile(at + 1);
            (&raw mut (*search).wanted).write_volatile(wanted + 1);
            return Step::Further;
        }
        let star = (&raw const (*search).star).read_volatile();
        let resume = (&raw const (*search).resume).read_volatile();
        if star == 0 || resume >= path_len {
            return Step::Differs;
        }
        (&raw mut (*search).resume).write_volatile(resume + 1);
        (&raw mut (*search).at).write_volatile(resume + 1);
        (&raw mut (*search).wanted).write_volatile(star);
        Step::Further
    }
}
