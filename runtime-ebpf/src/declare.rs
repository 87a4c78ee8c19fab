//! Sockets that declare what they do. A setsockopt hook notes the hash of the operation's name at
//! the socket; the egress hook looks among the labels of the stamp rule for it.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sockopt},
    helpers::generated::{bpf_sk_fullsock, bpf_sk_storage_delete, bpf_sk_storage_get},
    macros::{cgroup_sock, cgroup_sockopt},
    programs::{SockContext, SockoptContext},
};
use govc_abi::{
    declare::{Declared, HASH_BEGIN, NAME_MAX, OPERATION, SOL_GOVC, hash_byte},
    image::{self, LABEL_DECLARED, LABEL_FURTHER, LABEL_WORDS},
    limits::DECLARABLE_MAX,
    node::LEAF_NONE,
    walk::{self, Tables},
};

use crate::maps::{self, Table};

/// What the hook tells the kernel: go on.
const NEXT: i32 = 1;
const REFUSE: i32 = 0;

/// What the length becomes for the kernel to leave the option alone: it has no such option.
const DONE: i32 = -1;
/// What the number of the option is in; the rest is the length, once that has become [`DONE`].
const OPTION_MASK: i32 = 0xff;
const LEN_SHIFT: i32 = 8;

/// Notes what a socket declares.
#[cgroup_sockopt(setsockopt)]
pub fn govc_declare(ctx: SockoptContext) -> i32 {
    let option = ctx.sockopt;
    // SAFETY: the context is valid.
    unsafe {
        if (*option).level != SOL_GOVC || (*option).optname & OPTION_MASK != OPERATION {
            return NEXT;
        }
        let told = (*option).optlen;
        let len = if told == DONE { (*option).optname >> LEN_SHIFT } else { told };
        if len < 0 || len > NAME_MAX as i32 || !note(option, len) {
            return REFUSE;
        }
        // Other instances listen too, and find the length where the kernel does not look any more.
        (*option).optname = OPERATION | len << LEN_SHIFT;
        (*option).optlen = DONE;
        NEXT
    }
}

/// # Safety
/// The context is valid.
#[inline(always)]
unsafe fn note(option: *mut bpf_sockopt, len: i32) -> bool {
    // SAFETY: by the caller; bytes of the value are compared with its end.
    unsafe {
        let socket = (*option).__bindgen_anon_1.sk;
        if socket.is_null() {
            return false;
        }
        let sockets = maps::sockets();
        let before =
            bpf_sk_storage_get(sockets, socket.cast(), core::ptr::null_mut(), 0).cast::<Declared>();
        let fixed = if before.is_null() { 0 } else { (*before).fixed };
        if len == 0 {
            if fixed == 0 {
                bpf_sk_storage_delete(sockets, socket.cast());
            }
            return fixed == 0;
        }
        let at = (*option).__bindgen_anon_2.optval as usize;
        let end = (*option).__bindgen_anon_3.optval_end as usize;
        let mut hash = HASH_BEGIN;
        let mut index = 0;
        while index < NAME_MAX {
            if index as i32 >= len {
                break;
            }
            if at + index + 1 > end {
                return false;
            }
            hash = hash_byte(hash, core::ptr::read((at + index) as *const u8));
            index += 1;
        }
        if fixed != 0 {
            return (*before).operation == hash;
        }
        let mut declared = Declared { operation: hash, fixed: 0 };
        let flags = BPF_SK_STORAGE_GET_F_CREATE as u64;
        let noted = bpf_sk_storage_get(sockets, socket.cast(), (&raw mut declared).cast(), flags);
        if noted.is_null() {
            return false;
        }
        (*noted.cast::<Declared>()).operation = hash;
        maps::note_declared()
    }
}

/// Declares for a socket that is made under `govc run` what all of them are for.
#[cgroup_sock(sock_create)]
pub fn govc_socket_made(ctx: SockContext) -> i32 {
    let mut declared = Declared { operation: maps::run_operation(), fixed: 1 };
    let flags = BPF_SK_STORAGE_GET_F_CREATE as u64;
    // SAFETY: the context is the socket; what the helper returns is compared with null.
    let noted = unsafe {
        bpf_sk_storage_get(maps::sockets(), ctx.sock.cast(), (&raw mut declared).cast(), flags)
    };
    // A socket that nobody could note anything at would speak for more than it may.
    if noted.is_null() || !maps::note_declared() { REFUSE } else { NEXT }
}

/// What the socket that sends a packet has declared; 0 for nothing.
#[inline(always)]
pub fn declared(skb: *mut __sk_buff) -> u64 {
    if !maps::any_declared() {
        return 0;
    }
    // SAFETY: the context is valid; what helpers return is compared with null.
    unsafe {
        let socket = (*skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return 0;
        }
        let full = bpf_sk_fullsock(socket);
        if full.is_null() {
            return 0;
        }
        let noted = bpf_sk_storage_get(maps::sockets(), full.cast(), core::ptr::null_mut(), 0);
        if noted.is_null() { 0 } else { (*noted.cast::<Declared>()).operation }
    }
}

/// The label of the stamp rule of label `number` whose operation was declared; [`LEAF_NONE`] if it
/// grants none.
///
/// A global function, as [`crate::decide::govc_walk`] is one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_declared_label(buffer: u32, number: u32, declared: u64) -> u32 {
    let Some(table) = Table::of_buffer(buffer) else { return LEAF_NONE };
    if is_declared(table, number, declared) {
        return number;
    }
    let further = table.word(record(table, number).wrapping_add(LABEL_FURTHER));
    let (first, count) = image::further(further);
    let mut index = 0;
    while index < DECLARABLE_MAX as u32 {
        if index >= count {
            break;
        }
        if is_declared(table, first.wrapping_add(index), declared) {
            return first.wrapping_add(index);
        }
        index += 1;
    }
    LEAF_NONE
}

#[inline(always)]
fn record(table: Table, number: u32) -> u32 {
    table.header(image::AT_LABELS).wrapping_add(number.wrapping_mul(LABEL_WORDS))
}

#[inline(always)]
fn is_declared(table: Table, number: u32, declared: u64) -> bool {
    walk::double(&table, record(table, number).wrapping_add(LABEL_DECLARED)) == declared
}
