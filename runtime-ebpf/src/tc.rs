//! The tcx hooks: ingress verifies and strips, egress stamps. On veth they see super-packets
//! whole; on hardware [`crate::xdp`] takes the ingress side.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET,
        bpf_adj_room_mode::BPF_ADJ_ROOM_NET,
        tcx_action_base::{TCX_DROP, TCX_NEXT},
    },
    helpers::generated::{
        bpf_csum_update, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_cgroup_id,
        bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    macros::classifier,
    programs::TcContext,
};
use govc_abi::{
    event::hook,
    flow::{Interface, Way, labelled, quote},
    label::{BLOCK_LEN, Label},
    reason,
};

use crate::{
    answer, authority, clock,
    decide::{Verdict, begin},
    egress::{self, Carriage, Origin},
    forward, header,
    ingress::{self, Arrival},
    maps::{self, Active, Cpu, LIFETIME, Table},
    packet::{self, TCP},
    recall::{self, recall},
    report::{Place, report},
    restamp::{done, restamp},
    shape, tunnel,
};

/// Let the packet go on to the next program or the stack.
const NEXT: i32 = TCX_NEXT;
const DROP: i32 = TCX_DROP;

/// Verifies, decides and strips arriving packets.
///
/// Inlined, as all hooks are, into what the attribute makes of it: a call and its return cost 7 ns.
#[classifier]
#[inline(always)]
pub fn govc_ingress(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let Some(cpu) = maps::cpu() else { return DROP };
    let Some((control, active)) = maps::control() else { return no_generation(skb, hook::INGRESS) };
    let place = place(skb, control, active, hook::INGRESS, cpu);
    let Some(table) = Table::of(active) else { return no_generation(skb, hook::INGRESS) };
    let Some(interface) = maps::interface(place.ifindex) else {
        return unknown_interface(&place, table, cpu);
    };
    let slot = clock::slot(place.coarse_ns, control, cpu);
    // SAFETY: the context is valid.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    if let Some(recalled) = recall(data, end, interface, slot, &place) {
        let verdict = recalled.verdict();
        let (version, protocol) = (recalled.version, recalled.protocol);
        let done = !verdict.permit || strip(skb, interface.l2_len, version, protocol);
        let verdict = verdict.carried_out(done);
        recall::tell(recalled.reports(), &verdict, &place, cpu);
        return if verdict.permit { NEXT } else { DROP };
    }
    let zone = maps::zone(interface, active);
    begin((zone, 0), cpu);
    let verdict = match prepare(skb, interface, table, cpu) {
        Err(reason) => refuse(reason),
        Ok(()) => {
            let verdict = if cpu.packet.neighbour != 0 && stays_on_link(skb, place.ifindex, cpu) {
                refuse(reason::LINK_CONTROL)
            } else if let Some(reason) = authority::untimely(control, active, slot) {
                Verdict::deny(reason)
            } else {
                let arrival = Arrival { context: skb.cast(), ifindex: place.ifindex, zone, slot };
                ingress::decide(&arrival, active, table, cpu)
            };
            let bare = !verdict.permit || verdict.transit || cpu.packet.labelled == 0;
            let done = bare || take_off(skb, interface.l2_len, cpu);
            verdict.carried_out(done && learn_mtu(skb, interface, &verdict, cpu))
        }
    };
    report(&place.of(&verdict), table, &verdict, cpu);
    if verdict.permit {
        NEXT
    } else {
        answer::denied(skb, interface.l2_len, &place, table, &verdict, cpu)
    }
}

/// Labels leaving packets, or drops them.
#[classifier]
#[inline(always)]
pub fn govc_egress(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let Some(mut cpu) = maps::cpu() else { return DROP };
    let Some((control, active)) = maps::control() else { return no_generation(skb, hook::EGRESS) };
    let place = place(skb, control, active, hook::EGRESS, cpu);
    let Some(table) = Table::of(active) else { return no_generation(skb, hook::EGRESS) };
    let Some(interface) = maps::interface(place.ifindex) else {
        return unknown_interface(&place, table, cpu);
    };
    let slot = clock::slot(place.coarse_ns, control, cpu);
    match restamp(skb, interface, &place, slot) {
        done::LABELLED => return NEXT,
        done::DROPPED => return DROP,
        _ => {}
    }
    let origin = Origin::of(cpu);
    begin((origin.from_zone, origin.zone), cpu);
    let mut overhead = 0;
    let verdict = match prepare(skb, interface, table, cpu) {
        Err(reason) => refuse(reason),
        // No router has passed it on: its hop limit says so.
        Ok(()) if cpu.packet.neighbour != 0 => refuse(reason::LINK_CONTROL),
        Ok(()) => {
            if let Some(reason) = authority::untimely(control, active, slot) {
                Verdict::deny(reason)
            } else {
                cpu.way = way(skb);
                let (verdict, carriage) =
                    egress::decide(&origin, control, active, slot, table, cpu);
                overhead = carriage.overhead(cpu.packet.version);
                carry(skb, interface, verdict, carriage, cpu)
            }
        }
    };
    report(&place.of(&verdict), table, &verdict, cpu);
    if verdict.permit {
        NEXT
    } else if verdict.reason == reason::NO_ROOM {
        answer::too_big(skb, interface, overhead, &place, cpu)
    } else {
        answer::denied(skb, interface.l2_len, &place, table, &verdict, cpu)
    }
}

/// The verdict for a packet that never became a request.
#[inline(always)]
pub fn refuse(reason: u8) -> Verdict {
    if reason == reason::LINK_CONTROL {
        Verdict::permit(reason, govc_abi::node::LEAF_NONE)
    } else {
        Verdict::deny(reason)
    }
}

/// Whether neighbour discovery that arrived is for this node, or for others on the same link: a bridge and
/// devices on top of this one get what has their address.
#[inline(always)]
fn stays_on_link(skb: *mut __sk_buff, ifindex: u32, cpu: Cpu) -> bool {
    /// `PACKET_OTHERHOST`.
    const FOR_OTHERS: u32 = 3;
    // SAFETY: the context is valid.
    unsafe { (*skb).pkt_type == FOR_OTHERS || !forward::passes_on(skb.cast(), ifindex, cpu) }
}

/// No policy is in force: fail closed, and count.
#[inline(always)]
fn no_generation(skb: *mut __sk_buff, hook: u8) -> i32 {
    let counter = govc_abi::flow::reason_counter(hook, reason::GENERATION_UNKNOWN);
    // SAFETY: the context is valid.
    maps::count(LIFETIME, counter, unsafe { (*skb).len });
    DROP
}

/// How a leaving packet passes this node. Its cgroup is asked for also where no rule of today does: one of
/// tomorrow may.
#[inline(always)]
fn way(skb: *mut __sk_buff) -> Way {
    // SAFETY: the context is valid. Each field is read by itself: the kernel knows no access to both.
    let (entered, leaves) = unsafe {
        let (from, to) = (&raw const (*skb).ingress_ifindex, &raw const (*skb).ifindex);
        (from.read_volatile(), to.read_volatile())
    };
    // SAFETY: likewise.
    Way { entered, leaves, cgroup: unsafe { bpf_skb_cgroup_id(skb) } }
}

/// The hook is attached to an interface that the loader has said nothing about.
#[inline(always)]
fn unknown_interface(place: &Place, table: Table, cpu: Cpu) -> i32 {
    begin((0, 0), cpu);
    let verdict = Verdict::deny(reason::INTERFACE_UNKNOWN);
    report(place, table, &verdict, cpu);
    DROP
}

#[inline(always)]
fn place<'a>(
    skb: *mut __sk_buff,
    control: &'a govc_abi::flow::Control,
    active: Active,
    hook: u8,
    cpu: Cpu,
) -> Place<'a> {
    // SAFETY: the context is valid.
    let (ifindex, len) = unsafe { ((*skb).ifindex, (*skb).len) };
    let leaving = if hook == hook::EGRESS { skb } else { core::ptr::null_mut() };
    Place { control, active, coarse_ns: clock::coarse_ns(cpu), ifindex, len, hook, leaving }
}

/// Makes the headers linear and parses them.
#[inline(always)]
fn prepare(skb: *mut __sk_buff, interface: &Interface, table: Table, cpu: Cpu) -> Result<(), u8> {
    let l2_len = interface.l2_len as usize;
    // SAFETY: the context is valid.
    let (mut data, mut end, len) =
        unsafe { ((*skb).data as usize, (*skb).data_end as usize, (*skb).len) };
    let want = packet::linear_len(data, end, l2_len, len);
    if data + want as usize > end {
        // SAFETY: the context is valid; both pointers are read again.
        unsafe {
            if bpf_skb_pull_data(skb, want) != 0 {
                return Err(reason::TRUNCATED);
            }
            data = (*skb).data as usize;
            end = (*skb).data_end as usize;
        }
    }
    match packet::parse_into(data, end, l2_len, len, cpu) {
        Ok(()) => tunnel::open(skb, interface.l2_len, table, cpu),
        Err(refused) if shape::is_asked_about(table, refused) => {
            read_again(skb, l2_len as u32, table, refused)
        }
        Err(refused) => Err(refused),
    }
}

/// Reads a packet whose headers are not where they usually are, and whose IP header starts at `at`.
#[inline(always)]
pub fn read_again(skb: *mut __sk_buff, at: u32, table: Table, refused: u8) -> Result<(), u8> {
    let Some(mut cpu) = maps::cpu() else { return Err(refused) };
    // SAFETY: the context is valid.
    let len = unsafe { (*skb).len }.wrapping_sub(at);
    let wanted = shape::wanted(len);
    let to = cpu.headers.as_mut_ptr();
    // SAFETY: the context is valid, and at most as much is written as there is room for.
    if wanted == 0 || unsafe { bpf_skb_load_bytes(skb.cast(), at, to.cast(), wanted) } != 0 {
        return Err(refused);
    }
    shape::read(table, len, refused)
}

/// Takes the label off a verified packet.
#[inline(always)]
pub fn take_off(skb: *mut __sk_buff, l2_len: u16, cpu: Cpu) -> bool {
    if cpu.packet.labelled == labelled::TUNNEL {
        return tunnel::unwrap(skb, l2_len as u32);
    }
    strip(skb, l2_len, cpu.packet.version, cpu.packet.flow.protocol)
}

/// Cuts the label out of a verified packet.
#[inline(always)]
pub fn strip(skb: *mut __sk_buff, l2_len: u16, version: u8, protocol: u8) -> bool {
    let flags = (BPF_F_ADJ_ROOM_NO_CSUM_RESET | BPF_F_ADJ_ROOM_FIXED_GSO) as u64;
    let l2_len = l2_len as usize;
    if l2_len > packet::ETH_LEN {
        return false;
    }
    let mut removed = 0;
    if version == 4 {
        // SAFETY: the context is valid.
        let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
        let Some(sum) = header::block_sum(data + l2_len + packet::V4_LEN, end) else {
            return false;
        };
        removed = sum;
    }
    // SAFETY: the context is valid; all pointers into the packet are read again.
    let (data, end) = unsafe {
        if bpf_skb_adjust_room(skb, -(BLOCK_LEN as i32), BPF_ADJ_ROOM_NET, flags) != 0 {
            return false;
        }
        ((*skb).data as usize, (*skb).data_end as usize)
    };
    let ip = data + l2_len;
    let grown = if version == 4 {
        header::strip_v4(ip, end, removed)
    } else {
        header::strip_v6(ip, end, protocol)
    };
    grown.map(|grown| tell_sum(skb, grown)).is_some()
}

/// Tells the kernel what the sum of a packet's headers has grown by: a device may have summed up the whole
/// packet (`CHECKSUM_COMPLETE`), and of that the kernel has taken what was cut out and nothing else.
#[inline(always)]
pub fn tell_sum(skb: *mut __sk_buff, grown: u64) {
    // SAFETY: the context is valid. An error says that there is no such sum.
    unsafe { bpf_csum_update(skb, header::fold(grown) as u32) };
}

/// Corrects what an error says of the path of a packet that the sender's stack knows as one without
/// a label.
#[inline(always)]
fn learn_mtu(skb: *mut __sk_buff, interface: &Interface, verdict: &Verdict, cpu: Cpu) -> bool {
    if !verdict.permit || verdict.transit {
        return true;
    }
    if cpu.packet.error == quote::TUNNEL {
        return tunnel::unquote(skb, interface.l2_len as u32);
    }
    if !packet::tells_mtu(&cpu.packet) {
        return true;
    }
    // SAFETY: the context is valid.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let (l2_len, ip_len) = (interface.l2_len as usize, packet::ip_len(&cpu.packet));
    l2_len <= packet::ETH_LEN && header::lower_mtu(data + l2_len, ip_len, end)
}

/// Puts the label into a permitted packet.
#[inline(always)]
fn carry(
    skb: *mut __sk_buff,
    interface: &Interface,
    verdict: Verdict,
    carriage: Carriage,
    cpu: Cpu,
) -> Verdict {
    let mac = match carriage {
        Carriage::Bare => return verdict,
        Carriage::Label(mac) => mac,
        Carriage::Again(mac) => return carry_again(skb, interface, verdict, mac, cpu),
        Carriage::Tunnel(mac) => {
            return match tunnel::carry(skb, interface, mac, cpu) {
                Ok(()) => verdict,
                Err(reason) => Verdict { permit: false, reason, ..verdict },
            };
        }
    };
    if cpu.packet.syn != 0 {
        clamp_mss(skb, interface, cpu);
    }
    let headers_len = headers_len(cpu);
    let is_tcp = cpu.packet.flow.protocol == TCP;
    let (l2_len, room) = (interface.l2_len as u32, interface.mtu.saturating_sub(BLOCK_LEN as u32));
    let Some(cut) = Cut::with(skb, l2_len, room, is_tcp, headers_len) else {
        return Verdict { permit: false, reason: reason::NO_ROOM, ..verdict };
    };
    match put_in(skb, l2_len as usize, cpu.packet.version, cut, &cpu.label, mac) {
        Ok(()) => verdict,
        Err(reason) => Verdict { permit: false, reason, ..verdict },
    }
}

/// Bytes of the headers of a packet up to its payload. Of one whose headers stand elsewhere than usual nobody
/// has told: more than there is ever room for, so that segments get shorter.
#[inline(always)]
pub fn headers_len(cpu: Cpu) -> u32 {
    if cpu.packet.shape != 0 {
        return u16::MAX as u32;
    }
    let is_tcp = cpu.packet.flow.protocol == TCP;
    let l4_len = if is_tcp { cpu.packet.tcp_words as u32 * 4 } else { 8 };
    packet::ip_len(&cpu.packet) as u32 + l4_len
}

/// Puts a label into a packet that there is room in.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn put_in(
    skb: *mut __sk_buff,
    l2_len: usize,
    version: u8,
    cut: Cut,
    label: &Label,
    mac: u64,
) -> Result<(), u8> {
    let flags = cut.flag() as u64;
    // SAFETY: the context is valid; all pointers into the packet are read again.
    let (data, end) = unsafe {
        if bpf_skb_adjust_room(skb, BLOCK_LEN as i32, BPF_ADJ_ROOM_NET, flags) != 0 {
            return Err(reason::NO_ROOM);
        }
        ((*skb).data as usize, (*skb).data_end as usize)
    };
    if l2_len > packet::ETH_LEN {
        return Err(reason::HELPER_FAILED);
    }
    let ip = data + l2_len;
    let done = if version == 4 {
        header::stamp_v4(ip, end, label, mac)
    } else {
        header::stamp_v6(ip, end, label, mac)
    };
    if done { Ok(()) } else { Err(reason::HELPER_FAILED) }
}

/// Writes another label over the one of a packet that passes through.
#[inline(always)]
fn carry_again(
    skb: *mut __sk_buff,
    interface: &Interface,
    verdict: Verdict,
    mac: u64,
    cpu: Cpu,
) -> Verdict {
    let l2_len = interface.l2_len as usize;
    if l2_len > packet::ETH_LEN {
        return verdict.carried_out(false);
    }
    // SAFETY: the context is valid.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let ip = data + l2_len;
    let done = if cpu.packet.labelled == labelled::TUNNEL {
        tunnel::stamp_again(ip, end, mac, cpu)
    } else if cpu.packet.version == 4 {
        header::stamp_again_v4(ip, end, &cpu.translated, mac)
    } else {
        header::stamp_again_v6(ip, end, &cpu.translated, mac)
    };
    verdict.carried_out(done)
}

/// How a super-packet is cut once something is added to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Into pieces of as much payload as before.
    Same,
    /// Into pieces that are shorter by what is added.
    Shorter,
}

impl Cut {
    /// What to do with a packet that something is added to; `None` where there is no room: `room` is the
    /// most that it may be before that, without the `l2_len` bytes before its IP header. `headers_len` is that of IP and transport. Datagrams keep their size, and the sender has to
    /// leave room. Segments of TCP keep theirs where the sender has left room; one that did not know
    /// yet has them made smaller by the kernel.
    #[inline(always)]
    pub fn with(
        skb: *mut __sk_buff,
        l2_len: u32,
        room: u32,
        is_tcp: bool,
        headers_len: u32,
    ) -> Option<Self> {
        // SAFETY: the context is valid.
        let (gso_size, len) = unsafe { ((*skb).gso_size, (*skb).len) };
        let longest = if gso_size == 0 {
            len.wrapping_sub(l2_len)
        } else {
            gso_size.wrapping_add(headers_len)
        };
        if longest <= room {
            Some(Self::Same)
        } else if is_tcp && gso_size != 0 {
            Some(Self::Shorter)
        } else {
            None
        }
    }

    /// The flag that `bpf_skb_adjust_room` wants.
    #[inline(always)]
    pub fn flag(self) -> u32 {
        if self == Self::Same { BPF_F_ADJ_ROOM_FIXED_GSO } else { 0 }
    }
}

/// Lowers the MSS that a SYN announces, so that what comes back leaves room for a label.
///
/// Only an MSS option that stands first is looked at: every TCP in use puts it there.
#[inline(always)]
pub fn clamp_mss(skb: *mut __sk_buff, interface: &Interface, cpu: Cpu) {
    const CHECKSUM_AT: u32 = 16;
    const MSS_AT: u32 = 22;
    const MSS_OPTION: u16 = u16::from_ne_bytes([2, 4]);
    /// Of a header with that option; behind a shorter one stands payload.
    const WORDS_MIN: u8 = 6;
    let most = if cpu.packet.version == 4 { interface.mss_v4 } else { interface.mss_v6 };
    if most == 0 || cpu.packet.flow.protocol != TCP || cpu.packet.tcp_words < WORDS_MIN {
        return;
    }
    let tcp_at = interface.l2_len as u32 + if cpu.packet.version == 4 { 20 } else { 40 };
    if tcp_at > 54 {
        return;
    }
    // SAFETY: the context is valid; the bytes are compared with the end.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let tcp = data + tcp_at as usize;
    if tcp + 24 > end {
        return;
    }
    // SAFETY: 24 bytes are there.
    let (option, announced) = unsafe {
        (
            core::ptr::read_unaligned((tcp + 20) as *const u16),
            core::ptr::read_unaligned((tcp + 22) as *const u16),
        )
    };
    if option != MSS_OPTION || u16::from_be(announced) <= most {
        return;
    }
    let clamped = most.to_be();
    // SAFETY: the context is valid, `clamped` lives on the stack. A failure leaves the packet as
    // it was; the route's MTU is the second line.
    unsafe {
        bpf_l4_csum_replace(skb, tcp_at + CHECKSUM_AT, announced as u64, clamped as u64, 2);
        bpf_skb_store_bytes(skb, tcp_at + MSS_AT, (&raw const clamped).cast(), 2, 0);
    }
}
