//! Writing headers: put a label in, take it out. IP headers are rewritten in registers: bytes
//! written and re-read as words stall.

use govc_abi::label::{
    BLOCK_LEN, IHL_LABELLED, Label, PREFIX_V4, V6_HDR_EXT_LEN, V6_OPTION_LEN, V6_OPTION_SKIP,
};
use govc_abi::tunnel::OPTION;

use crate::packet::{V4_LEN, V6_LEN};

const DESTINATION_OPTIONS: u8 = 60;
/// Least MTU that a sender lowers its own to (RFC 791, RFC 8200).
const V4_MTU_MIN: u32 = 68;
const V6_MTU_MIN: u32 = 1280;

/// An IPv4 header without options as five words in memory order.
#[derive(Clone, Copy)]
pub struct V4([u32; 5]);

impl V4 {
    /// A header without options, not to be fragmented.
    #[inline(always)]
    pub fn new(source: u32, destination: u32, protocol: u8, ttl: u8, payload: u16) -> Self {
        let total = (payload + V4_LEN as u16).to_be();
        let word_1 = u32::from_ne_bytes([0, 0, 0x40, 0]);
        let word_2 = u32::from_ne_bytes([ttl, protocol, 0, 0]);
        Self([0x45 | (total as u32) << 16, word_1, word_2, source, destination]).resized(5, 0, 0)
    }

    /// The header of a tunnel around a packet with this header: `overhead` bytes longer, never to be
    /// fragmented.
    #[inline(always)]
    pub fn around(&self, protocol: u8, overhead: i32) -> Self {
        let [first, _, third, source, destination] = self.0;
        let fragment = u32::from_ne_bytes([0, 0, 0x40, 0]);
        let third = third & 0xff | (protocol as u32) << 8;
        Self([first, fragment, third, source, destination]).resized(5, overhead, 0)
    }

    /// Total length, type of service, TTL.
    #[inline(always)]
    pub fn told(&self) -> (u16, u8, u8) {
        (u16::from_be((self.0[0] >> 16) as u16), (self.0[0] >> 8) as u8, self.0[2] as u8)
    }

    /// With another type of service and TTL; the checksum stays as right or wrong as it is
    /// (RFC 1624, equation 3).
    #[inline(always)]
    pub fn remarked(mut self, service: u8, ttl: u8) -> Self {
        let [before, _, old, ..] = self.0;
        let first = before & !0xff00 | (service as u32) << 8;
        let third = old & !0xff | ttl as u32;
        let mut sum = !(old >> 16) as u16 as u64;
        sum += !(before & 0xffff) as u16 as u64 + (first & 0xffff) as u64;
        sum += !(old & 0xffff) as u16 as u64 + (third & 0xffff) as u64;
        self.0[0] = first;
        self.0[2] = third & 0xffff | (!fold(sum) as u32) << 16;
        self
    }

    /// Without options, and `by` bytes shorter, of which the sum `removed` stood behind the header; the checksum
    /// stays as right or wrong as it is, as in [`Self::remarked`].
    #[inline(always)]
    pub fn shortened(mut self, by: u16, removed: u64) -> Self {
        let [before, _, old, ..] = self.0;
        let total = u16::from_be((before >> 16) as u16);
        let total = if total == 0 { 0 } else { total.wrapping_sub(by) };
        let first = before & 0xff00 | 0x45 | (total.to_be() as u32) << 16;
        let sum = !(old >> 16) as u16 as u64 + !fold(removed) as u64;
        let sum = sum + halves(!before) + halves(first);
        self.0[0] = first;
        self.0[2] = old & 0xffff | (!fold(sum) as u32) << 16;
        self
    }

    /// Whether its checksum is right.
    #[inline(always)]
    pub fn is_sound(&self) -> bool {
        fold(self.0.iter().fold(0, |sum, word| sum + *word as u64)) == 0xffff
    }

    /// Reads 20 bytes.
    ///
    /// # Safety
    /// The caller has compared `at + 20` with the end of the packet.
    #[inline(always)]
    pub unsafe fn load(at: usize) -> Self {
        // SAFETY: by the caller.
        unsafe { Self(core::ptr::read_unaligned(at as *const [u32; 5])) }
    }

    /// Writes 20 bytes.
    ///
    /// # Safety
    /// As [`Self::load`].
    #[inline(always)]
    pub unsafe fn store(self, at: usize) {
        // SAFETY: by the caller.
        unsafe { core::ptr::write_unaligned(at as *mut [u32; 5], self.0) }
    }

    /// Sets header length and total length and computes the checksum over the header and
    /// `options`, a sum of what follows it.
    #[inline(always)]
    pub fn resized(mut self, ihl: u8, by: i32, options: u64) -> Self {
        let total = u16::from_be((self.0[0] >> 16) as u16);
        let total = if total == 0 { 0 } else { (total as i32 + by) as u16 };
        self.0[0] = self.0[0] & 0x0000_ff00 | 0x40 | ihl as u32 | (total.to_be() as u32) << 16;
        self.0[2] &= 0x0000_ffff;
        let mut sum = options;
        sum += self.0[0] as u64 + self.0[1] as u64 + self.0[2] as u64;
        sum += self.0[3] as u64 + self.0[4] as u64;
        self.0[2] |= (!fold(sum) as u32) << 16;
        self
    }
}

/// Both halves of a word, summed up.
#[inline(always)]
pub fn halves(word: u32) -> u64 {
    (word & 0xffff) as u64 + (word >> 16) as u64
}

/// Folds a sum of 32-bit words into 16 bits, ones' complement (RFC 1071).
#[inline(always)]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// A label block as it is written: four words of 8 bytes.
#[derive(Clone, Copy)]
pub struct Block([u64; 4]);

impl Block {
    #[inline(always)]
    fn new(prefix: u32, label: &Label, mac: u64) -> Self {
        let (w0, w1, w2) = label.wire_words();
        Self([prefix as u64 | w0 << 32, w0 >> 32 | w1 << 32, w1 >> 32 | (w2 as u64) << 32, mac])
    }

    /// The block as an IPv4 option.
    #[inline(always)]
    pub fn v4(label: &Label, mac: u64) -> Self {
        Self::new(u32::from_ne_bytes(PREFIX_V4), label, mac)
    }

    /// The block as an IPv6 destination options header before `next`.
    #[inline(always)]
    pub fn v6(next: u8, label: &Label, mac: u64) -> Self {
        let prefix = [next, V6_HDR_EXT_LEN, V6_OPTION_SKIP, V6_OPTION_LEN];
        Self::new(u32::from_ne_bytes(prefix), label, mac)
    }

    /// The block as the option of a tunnel.
    #[inline(always)]
    pub fn tunnel(label: &Label, mac: u64) -> Self {
        Self::new(u32::from_ne_bytes(OPTION), label, mac)
    }

    /// Sum of its 32-bit words.
    #[inline(always)]
    fn sum(&self) -> u64 {
        let [a, b, c, d] = self.0;
        (a & 0xffff_ffff)
            + (a >> 32)
            + (b & 0xffff_ffff)
            + (b >> 32)
            + (c & 0xffff_ffff)
            + (c >> 32)
            + (d & 0xffff_ffff)
            + (d >> 32)
    }

    /// Writes 32 bytes.
    ///
    /// # Safety
    /// The caller has compared `at + 32` with the end of the packet.
    #[inline(always)]
    pub unsafe fn store(self, at: usize) {
        // SAFETY: by the caller.
        unsafe { core::ptr::write_unaligned(at as *mut [u64; 4], self.0) }
    }
}

/// Writes label and header of an IPv4 packet whose header, 20 bytes, is followed by 32 bytes of
/// room. `false` when the packet is too short.
#[inline(always)]
pub fn stamp_v4(ip: usize, end: usize, label: &Label, mac: u64) -> bool {
    if ip + V4_LEN + BLOCK_LEN > end {
        return false;
    }
    let block = Block::v4(label, mac);
    // SAFETY: 52 bytes are there.
    unsafe {
        V4::load(ip).resized(IHL_LABELLED, BLOCK_LEN as i32, block.sum()).store(ip);
        block.store(ip + V4_LEN);
    }
    true
}

/// Likewise for IPv6, whose header is 40 bytes.
#[inline(always)]
pub fn stamp_v6(ip: usize, end: usize, label: &Label, mac: u64) -> bool {
    if ip + V6_LEN + BLOCK_LEN > end {
        return false;
    }
    // SAFETY: 72 bytes are there.
    unsafe {
        let next = core::ptr::read((ip + 6) as *const u8);
        resize_v6(ip, DESTINATION_OPTIONS, BLOCK_LEN as i32);
        Block::v6(next, label, mac).store(ip + V6_LEN);
    }
    true
}

/// Writes a label over the one that an IPv4 packet carries. `false` when the packet is too short.
#[inline(always)]
pub fn stamp_again_v4(ip: usize, end: usize, label: &Label, mac: u64) -> bool {
    if ip + V4_LEN + BLOCK_LEN > end {
        return false;
    }
    let block = Block::v4(label, mac);
    // SAFETY: 52 bytes are there.
    unsafe {
        V4::load(ip).resized(IHL_LABELLED, 0, block.sum()).store(ip);
        block.store(ip + V4_LEN);
    }
    true
}

/// Likewise for IPv6; what the header before the label says stays.
#[inline(always)]
pub fn stamp_again_v6(ip: usize, end: usize, label: &Label, mac: u64) -> bool {
    if ip + V6_LEN + BLOCK_LEN > end {
        return false;
    }
    // SAFETY: 72 bytes are there.
    unsafe {
        let prefix = core::ptr::read_unaligned((ip + V6_LEN) as *const u32);
        Block::new(prefix, label, mac).store(ip + V6_LEN);
    }
    true
}

/// Sum of the label block at `at`; [`None`] when the packet is too short.
#[inline(always)]
pub fn block_sum(at: usize, end: usize) -> Option<u64> {
    if at + BLOCK_LEN > end {
        return None;
    }
    // SAFETY: 32 bytes are there.
    Some(unsafe { Block(core::ptr::read_unaligned(at as *const [u64; 4])) }.sum())
}

/// Shortens the header of an IPv4 packet after its label was cut out, whose [`block_sum`] was `removed`. Gives
/// what the sum of the header has grown by; [`None`] when the packet is too short.
#[inline(always)]
pub fn strip_v4(ip: usize, end: usize, removed: u64) -> Option<u64> {
    if ip + V4_LEN > end {
        return None;
    }
    // SAFETY: 20 bytes are there.
    unsafe { V4::load(ip).shortened(BLOCK_LEN as u16, removed).store(ip) }
    // The header and its options have the sum that they had.
    Some(removed)
}

/// Likewise for IPv6; `next` is the protocol behind the label.
#[inline(always)]
pub fn strip_v6(ip: usize, end: usize, next: u8) -> Option<u64> {
    if ip + V6_LEN > end {
        return None;
    }
    // SAFETY: 40 bytes are there.
    unsafe {
        let before: u32 = core::ptr::read_unaligned((ip + 4) as *const u32);
        resize_v6(ip, next, -(BLOCK_LEN as i32));
        let after: u32 = core::ptr::read_unaligned((ip + 4) as *const u32);
        Some(halves(!before) + halves(after))
    }
}

/// Lowers the MTU that an ICMP error behind `ip_len` bytes of header announces by what a label
/// takes: the stack that reads it has its packets labelled after it has measured them. `false` when
/// the packet is too short.
#[inline(always)]
pub fn lower_mtu(ip: usize, ip_len: usize, end: usize) -> bool {
    let icmp = ip + ip_len;
    if icmp + 8 > end {
        return false;
    }
    // SAFETY: 8 bytes are there. IPv4 announces 16 bits, the others are unused (RFC 1191).
    unsafe {
        let [head, mtu]: [u32; 2] = core::ptr::read_unaligned(icmp as *const _);
        let (announced, version) =
            if ip_len == V4_LEN { (u32::from_be(mtu) & 0xffff, 4) } else { (u32::from_be(mtu), 6) };
        let fits = lowered(announced, BLOCK_LEN as u32, version);
        if fits == announced {
            return true;
        }
        let lowered = (u32::from_be(mtu) - announced + fits).to_be();
        // RFC 1624, equation 3.
        let sum = !(head >> 16) as u16 as u64 + halves(!mtu) + halves(lowered);
        let head = head & 0xffff | (!fold(sum) as u32) << 16;
        core::ptr::write_unaligned(icmp as *mut [u32; 2], [head, lowered]);
    }
    true
}

/// What an ICMP error should announce instead of an MTU of `announced` bytes, to a sender whose
/// packets get longer by `overhead` after it has measured them.
#[inline(always)]
pub fn lowered(announced: u32, overhead: u32, version: u8) -> u32 {
    let least = if version == 4 { V4_MTU_MIN } else { V6_MTU_MIN };
    if announced <= least {
        announced
    } else if announced < least + overhead {
        least
    } else {
        announced.wrapping_sub(overhead)
    }
}

/// Sets next header and payload length.
///
/// # Safety
/// The caller has compared `ip + 8` with the end of the packet.
#[inline(always)]
pub unsafe fn resize_v6(ip: usize, next: u8, by: i32) {
    // SAFETY: by the caller.
    unsafe {
        let payload = u16::from_be(core::ptr::read_unaligned((ip + 4) as *const u16));
        // A super-packet of more than 64 KiB says 0.
        let payload = if payload == 0 { 0 } else { (payload as i32 + by) as u16 };
        core::ptr::write_unaligned((ip + 4) as *mut u16, payload.to_be());
        core::ptr::write((ip + 6) as *mut u8, next);
    }
}
