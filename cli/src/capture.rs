//! Packets out of capture files, read with other tools than the enforcement point uses, and made
//! what a policy decides about.

use std::{borrow::Cow, collections::HashSet, fs, net::IpAddr, path::Path};

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice};
use govc_abi::{
    attribute::{self, Attribute, Request, shape, state},
    image::{AT_SHAPES, program},
    label::{self, FLAG_REPLY, FLAG_RESERVED, FLAG_SEQ, Label, SLOT_NS},
    limits::{EXTENSIONS_MAX, HEADERS_LEN, LIFE_MAX_DEFAULT},
    mac::{self, Flow},
    node::LEAF_NONE,
    reason, walk,
};
use govc_image::{Image, LabelKind};
use govc_loader::keyring::KeyRing;
use pcap_file::{DataLink, PcapError, pcap::PcapReader, pcapng::PcapNgReader};

use crate::failure::Failure;

mod tunnel;

const INGRESS: usize = 0;
const EGRESS: usize = 1;

/// Magic numbers of pcap, in both byte orders and with micro- and nanoseconds, and of pcapng.
const MAGICS: [[u8; 4]; 5] = [
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x4d, 0x3c, 0xb2, 0xa1],
    [0x0a, 0x0d, 0x0d, 0x0a],
];

/// A packet as it stands in a capture.
pub struct Captured {
    link: DataLink,
    /// Unix time, nanoseconds; 0 where the capture does not say.
    time_ns: u128,
    bytes: Vec<u8>,
}

/// Where and when packets are decided.
pub struct Place<'p> {
    pub image: &'p Image,
    /// 0 ingress, 1 egress, 2 forward.
    pub hook: usize,
    /// Number of the zone that they come in by; 0 for none.
    pub from_zone: u32,
    /// Number of the zone that they leave by; 0 for none.
    pub to_zone: u32,
    /// What MACs are verified with; without it, labels are taken for right.
    pub keys: Option<&'p KeyRing>,
}

/// What a packet asks.
pub struct Asked {
    pub request: Request,
    /// Where it is decided: what is for this node is decided on ingress, wherever it was to go.
    pub hook: usize,
    /// It says that it answers: by its label, or as an error about a packet whose label holds.
    pub answers: bool,
    flow: Ends,
    /// It carries no label, and quotes none that holds: it answers only what was sent so.
    bare: bool,
    role: Role,
    /// The flow that an ICMP error is about.
    about: Option<Ends>,
    /// Why it is denied where no rule permits it, if that is what it is and not who has sent it: a
    /// fragment, or a packet with options.
    pub refused: Option<u8>,
}

/// What a packet is to flows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It may open a flow, and it may answer one.
    Either,
    /// It may only open a flow.
    Opens,
    /// It may only answer a flow.
    Answers,
    /// An ICMP error.
    Error,
    /// Neither: ICMP other than echo.
    None,
}

/// Protocol, and both ends.
type Ends = (u8, (IpAddr, u16), (IpAddr, u16));

/// Flows of a capture, to know replies by: with a label, and without.
#[derive(Default)]
pub struct Flows(HashSet<(Ends, bool)>);

impl Flows {
    /// Whether a packet answers one that came before. Otherwise it may open a flow, which is
    /// remembered.
    pub fn answered(&mut self, asked: &Asked, image: &Image) -> bool {
        let (protocol, source, destination) = asked.flow;
        let answered = match asked.role {
            Role::Error => asked.about,
            _ => Some((protocol, destination, source)),
        };
        let is_known = |flow| self.0.contains(&(flow, asked.bare));
        let known = answered.is_some_and(|(protocol, one, other)| {
            // An error may also be about an answer.
            let turned = asked.role == Role::Error && is_known((protocol, other, one));
            turned || is_known((protocol, one, other))
        });
        if known && asked.may_answer(image) {
            return true;
        }
        if matches!(asked.role, Role::Either | Role::Opens) {
            self.0.insert((asked.flow, asked.bare));
        }
        false
    }
}

impl Asked {
    /// Whether a label speaks for it, its own or one that it quotes.
    pub fn trusts_a_mac(&self) -> bool {
        !self.bare
    }

    /// Whether it passes without a rule where the node knows the flow that it answers.
    pub fn may_answer(&self, image: &Image) -> bool {
        match self.role {
            Role::Opens | Role::None => false,
            // Nodes send without labels to legacy neighbours only.
            _ if self.bare => image.names().labels.iter().any(|l| l.kind == LabelKind::Legacy),
            _ => self.answers,
        }
    }
}

/// Whether a file is a capture.
pub fn is_capture(path: &Path) -> bool {
    let Ok(mut file) = fs::File::open(path) else { return false };
    let mut magic = [0; 4];
    std::io::Read::read_exact(&mut file, &mut magic).is_ok() && MAGICS.contains(&magic)
}

/// All packets of a capture. Of one that is cut off, as whoever captures leaves it when it is killed or has
/// no room, those that are whole.
pub fn read(path: &Path) -> Result<Vec<Captured>, Failure> {
    let bytes = fs::read(path).map_err(crate::input::file("read", path))?;
    let mut captured = Vec::new();
    let end = if bytes.starts_with(&[0x0a]) {
        read_pcapng(&bytes, &mut captured)
    } else {
        read_pcap(&bytes, &mut captured)
    };
    match end {
        Ok(()) => Ok(captured),
        Err(error) if is_cut(&error) && !captured.is_empty() => {
            tracing::warn!(
                "`{}` ends within a packet: the {} before it are whole",
                path.display(),
                captured.len()
            );
            Ok(captured)
        }
        Err(error) => Err(Failure::Refused {
            message: format!(
                "`{}` is no capture that can be read to its end: {error}",
                path.display()
            ),
            help: None,
        }),
    }
}

/// Whether a capture ends before it should.
fn is_cut(error: &PcapError) -> bool {
    match error {
        PcapError::IncompleteBuffer => true,
        PcapError::IoError(error) => error.kind() == std::io::ErrorKind::UnexpectedEof,
        _ => false,
    }
}

fn read_pcapng(bytes: &[u8], captured: &mut Vec<Captured>) -> Result<(), PcapError> {
    use pcap_file::pcapng::Block;
    let mut reader = PcapNgReader::new(bytes)?;
    while let Some(block) = reader.next_block() {
        let (interface, time, data) = match block? {
            Block::EnhancedPacket(one) => {
                (one.interface_id, one.timestamp.as_nanos(), one.data.into_owned())
            }
            Block::SimplePacket(one) => (0, 0, one.data.into_owned()),
            _ => continue,
        };
        let link = reader.interfaces().get(interface as usize).map(|one| one.linktype);
        let link = link.unwrap_or(DataLink::ETHERNET);
        captured.push(Captured { link, time_ns: time, bytes: data });
    }
    Ok(())
}

fn read_pcap(bytes: &[u8], captured: &mut Vec<Captured>) -> Result<(), PcapError> {
    let mut reader = PcapReader::new(bytes)?;
    let link = reader.header().datalink;
    while let Some(packet) = reader.next_packet() {
        let packet = packet?;
        let time_ns = packet.timestamp.as_nanos();
        captured.push(Captured { link, time_ns, bytes: packet.data.into_owned() });
    }
    Ok(())
}

impl Captured {
    /// What the packet asks of an enforcement point.
    ///
    /// # Errors
    /// A reason to drop it, or to let it through, before any rule: one of [`reason`].
    pub fn asked(&self, place: &Place<'_>) -> Result<Asked, u8> {
        let ip = self.network()?;
        let tunnels = tunnels(place.image);
        let mut headers = Headers::read(ip)?;
        if tunnels {
            headers = tunnel::inside(headers, ip)?;
        }
        let mut request = Request::EMPTY;
        if headers.shaped.shape & !place.image.word(AT_SHAPES) != 0 {
            return Err(headers.shaped.refused);
        }
        if headers.label.is_some() && headers.shaped.shape & shape::OPTIONS != 0 {
            return Err(reason::OPTIONS);
        }
        headers.fill(&mut request);
        set(&mut request, attribute::INGRESS_ZONE, place.from_zone);
        set(&mut request, attribute::EGRESS_ZONE, place.to_zone);
        let image = place.image;
        let slot = u64::try_from(self.time_ns / u128::from(SLOT_NS)).unwrap_or(0);
        let past = image.names().times.iter().filter(|time| u64::from(**time) <= slot).count();
        set(&mut request, attribute::TIME, past as u32);
        let (answers, bare);
        if let Some((label, mac)) = headers.label {
            let domain = self.verify(&headers, (&label, mac), place, slot)?;
            walk::set_label(&mut request, state::VALID, domain, &label);
            (answers, bare) = (label.flags() & FLAG_REPLY != 0, false);
        } else {
            answers = self.quotes_a_label(&headers, place, slot);
            bare = !answers;
            let legacy = image.decide(program::LEGACY, &request).winner;
            if let Some(number) = Some(legacy).filter(|one| *one != LEAF_NONE)
                && let Some(written) = image.label(number)
            {
                let label = written.label;
                walk::set_label(&mut request, state::LEGACY, written.domain_index, &label);
            }
        }
        let object = image.decide(program::DELIVER, &request).winner;
        let mut hook = place.hook;
        if hook != EGRESS
            && let Some(object) = Some(object).filter(|one| *one != LEAF_NONE)
        {
            set(&mut request, attribute::OBJECT, image.object(object).unwrap_or_default());
            set(&mut request, attribute::EGRESS_ZONE, 0);
            hook = INGRESS;
        }
        let about = headers.quoted(tunnels).map(|quoted| quoted.ends());
        let flow = headers.ends();
        let refused = headers.shaped.denied();
        Ok(Asked { request, hook, answers, flow, bare, role: headers.role(), about, refused })
    }

    /// Whether a packet is an error about one that the receiver sent with a label that holds:
    /// routers that know nothing of labels tell what is wrong with labelled packets.
    fn quotes_a_label(&self, headers: &Headers<'_>, place: &Place<'_>, slot: u64) -> bool {
        let Some(quoted) = headers.quoted(tunnels(place.image)) else { return false };
        quoted.source == headers.destination
            && quoted.label.as_ref().is_some_and(|(label, mac)| {
                self.verify(&quoted, (label, *mac), place, slot).is_ok()
            })
    }

    /// What an enforcement point checks of a label; its domain's index.
    fn verify(
        &self,
        headers: &Headers<'_>,
        (label, found): (&Label, u64),
        place: &Place<'_>,
        slot: u64,
    ) -> Result<u32, u8> {
        if label.version() != label::VERSION || label.flags() & (FLAG_RESERVED | FLAG_SEQ) != 0 {
            return Err(reason::VERSION);
        }
        let mut domains = (0_u32..).zip(place.image.domains());
        let known = domains.find(|(_, (number, _))| *number == u32::from(label.domain()));
        let Some((domain, (_, constraints))) = known else { return Err(reason::DOMAIN_UNKNOWN) };
        if u32::from(label.constraints()) & !constraints != 0 {
            return Err(reason::CONSTRAINT_UNKNOWN);
        }
        if slot == 0 {
            return Ok(domain);
        }
        let age = label::age(slot, label.slot());
        match age {
            ..-1 => return Err(reason::SLOT_FUTURE),
            age if age > 1 << label.life().min(LIFE_MAX_DEFAULT) => {
                return Err(reason::SLOT_EXPIRED);
            }
            _ => {}
        }
        let Some(ring) = place.keys else { return Ok(domain) };
        let stamped = slot.wrapping_sub(i64::from(age).cast_unsigned());
        let keys = ring.read(label.domain()).ok().flatten().ok_or(reason::KEY_MISSING)?;
        let mut entries = keys.entries(stamped);
        let (epoch, key) =
            entries.find(|(_, key)| key.covers(stamped)).ok_or(reason::KEY_MISSING)?;
        if epoch as u8 & 15 != label.epoch() {
            return Err(reason::EPOCH_MISMATCH);
        }
        let of_sender = key.of_sender(keys.senders.word(), label);
        let [k0, k1] = of_sender.ok_or(reason::SENDER_KEY)?;
        if mac::mac(k0, k1, label, &headers.flow()) != found {
            return Err(reason::BAD_MAC);
        }
        Ok(domain)
    }

    /// The packet from its IP header on.
    fn network(&self) -> Result<&[u8], u8> {
        let bytes = self.bytes.as_slice();
        let (mut ethertype, mut rest) = match self.link {
            DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => {
                return Ok(bytes);
            }
            DataLink::LINUX_SLL => (word(bytes, 14), bytes.get(16..)),
            DataLink::LINUX_SLL2 => (word(bytes, 0), bytes.get(20..)),
            _ => (word(bytes, 12), bytes.get(14..)),
        };
        // A hook sees packets without their VLAN tags.
        while matches!(ethertype, Some(0x8100 | 0x88a8)) {
            let tagged = rest.unwrap_or_default();
            (ethertype, rest) = (word(tagged, 2), tagged.get(4..));
        }
        match ethertype {
            Some(0x0800 | 0x86dd) => rest.ok_or(reason::TRUNCATED),
            Some(0x0806) => Err(reason::LINK_CONTROL),
            Some(_) => Err(reason::NOT_IP),
            None => Err(reason::TRUNCATED),
        }
    }
}

/// Whether an enforcement point with this policy looks into tunnels.
fn tunnels(image: &Image) -> bool {
    image.program(program::CARRIAGE).is_some_and(|program| program.governed)
}

/// What a packet is besides one header and what it carries.
#[derive(Clone, Copy)]
struct Shaped {
    /// Set of [`attribute::shape`].
    shape: u32,
    /// What a fragment is of.
    fragment: Fragment,
    /// Why such a packet is denied where no rule speaks of it.
    refused: u8,
}

/// What a fragment says of its datagram.
#[derive(Clone, Copy, Default)]
struct Fragment {
    identification: u32,
    /// It shows what others do not.
    is_first: bool,
}

impl Shaped {
    fn new(options: bool, fragment: Option<Fragment>, refused: u8) -> Self {
        let mut shape = if options { shape::OPTIONS } else { shape::WHOLE };
        if fragment.is_some() {
            shape |= shape::FRAGMENT;
        }
        Self { shape, fragment: fragment.unwrap_or_default(), refused }
    }

    /// Why it is denied where rules speak of such packets, and none permits it.
    fn denied(self) -> Option<u8> {
        match self.shape {
            shape::WHOLE => None,
            _ if self.is_fragment() => Some(reason::FRAGMENT),
            _ => Some(reason::OPTIONS),
        }
    }

    fn is_fragment(self) -> bool {
        self.shape & shape::FRAGMENT != 0
    }
}

/// The headers of a packet.
struct Headers<'p> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Host order; the identifier for ICMP echo.
    ports: (u16, u16),
    icmp: (u8, u8),
    opener: u32,
    /// A TCP SYN without ACK, whose sequence number may be 0.
    opens: bool,
    shaped: Shaped,
    label: Option<(Label, u64)>,
    /// The transport's header, and what follows.
    rest: &'p [u8],
}

/// Extension headers of IPv6 behind which no label stands.
const EXTENSIONS: [u8; 11] = [0, 43, 44, 51, 60, 135, 139, 140, 253, 254, 255];
const FRAGMENT: u8 = 44;

/// What follows the extension headers of a packet, and whether there are any besides that of a fragment.
fn behind_extensions(
    protocol: IpNumber,
    rest: &[u8],
) -> Option<(IpNumber, &[u8], bool, Option<Fragment>)> {
    let (mut protocol, mut rest, mut options) = (protocol, rest, false);
    for _ in 0..EXTENSIONS_MAX {
        if protocol.0 == FRAGMENT || !EXTENSIONS.contains(&protocol.0) {
            break;
        }
        let [next, units, ..] = *rest else { return None };
        // RFC 4302 counts words of four bytes.
        let unit = if protocol == IpNumber::AUTHENTICATION_HEADER { 4 } else { 8 };
        let behind = rest.get(usize::from(units) * unit + 8..)?;
        (protocol, rest, options) = (IpNumber(next), behind, true);
    }
    let mut fragment = None;
    if protocol.0 == FRAGMENT {
        let [next, _, high, low, a, b, c, d, ref behind @ ..] = *rest else { return None };
        let identification = u32::from_be_bytes([a, b, c, d]);
        let is_first = high == 0 && low & 0xf8 == 0;
        fragment = Some(Fragment { identification, is_first });
        (protocol, rest) = (IpNumber(next), behind);
    }
    (!EXTENSIONS.contains(&protocol.0)).then_some((protocol, rest, options, fragment))
}

impl<'p> Headers<'p> {
    fn read(ip: &'p [u8]) -> Result<Self, u8> {
        match ip.first().ok_or(reason::TRUNCATED)? >> 4 {
            4 => Self::read_v4(ip),
            6 => Self::read_v6(ip),
            _ => Err(reason::NOT_IP),
        }
    }

    fn read_v4(ip: &'p [u8]) -> Result<Self, u8> {
        let header = Ipv4HeaderSlice::from_slice(ip).map_err(|_| reason::TRUNCATED)?;
        if header.protocol() == IpNumber::IGMP
            && header.ttl() == 1
            && header.destination_addr().is_multicast()
            && header.options().len() <= 4
        {
            return Err(reason::LINK_CONTROL);
        }
        let (label, options) = match header.options() {
            [] => (None, false),
            [1, 1, 0x9e, 30, body @ ..] if body.len() == label::BODY_LEN => (Some(body), false),
            _ => (None, true),
        };
        let fragment = header.is_fragmenting_payload().then(|| Fragment {
            identification: header.identification().into(),
            is_first: header.fragments_offset().value() == 0,
        });
        let refused = if fragment.is_some() { reason::FRAGMENT } else { reason::OPTIONS };
        let shaped = Shaped::new(options, fragment, refused);
        let rest = ip.get(header.slice().len()..).unwrap_or_default();
        let (source, destination) = (header.source_addr(), header.destination_addr());
        let protocol = header.protocol();
        let headers =
            Self::with((source.into(), destination.into()), protocol, shaped, (label, rest))?;
        let dhcp = protocol == IpNumber::UDP && matches!(headers.ports, (68, 67) | (67, 68));
        if dhcp && label.is_none() && (source.is_unspecified() || destination.is_broadcast()) {
            return Err(reason::LINK_CONTROL);
        }
        Ok(headers)
    }

    fn read_v6(ip: &'p [u8]) -> Result<Self, u8> {
        let header = Ipv6HeaderSlice::from_slice(ip).map_err(|_| reason::TRUNCATED)?;
        let ends = [header.source_addr(), header.destination_addr()];
        if ends.iter().any(|end| end.to_ipv4_mapped().is_some()) {
            return Err(reason::MALFORMED);
        }
        let rest = ip.get(header.slice().len()..).unwrap_or_default();
        // Multicast listeners report behind a router alert (RFC 2710, RFC 3810).
        if let (IpNumber::IPV6_HEADER_HOP_BY_HOP, [58, 0, _, _, _, _, _, _, kind, ..]) =
            (header.next_header(), rest)
            && matches!(kind, 130..=132 | 143)
            && header.hop_limit() == 1
        {
            return Err(reason::LINK_CONTROL);
        }
        let (protocol, label, rest) = match (header.next_header(), rest) {
            (IpNumber::IPV6_DESTINATION_OPTIONS, [next, 3, 0x1e | 0x5e, 28, more @ ..]) => {
                let body = more.get(..label::BODY_LEN).ok_or(reason::TRUNCATED)?;
                let behind = more.get(label::BODY_LEN..).unwrap_or_default();
                (IpNumber(*next), Some(body), behind)
            }
            (next, rest) => (next, None, rest),
        };
        let refused = match protocol.0 {
            FRAGMENT => reason::FRAGMENT,
            _ if label.is_some() => reason::MALFORMED,
            _ => reason::OPTIONS,
        };
        let mut near = rest;
        if EXTENSIONS.contains(&protocol.0) {
            // Headers that stand elsewhere than usual are looked for in the first bytes.
            let most = HEADERS_LEN.saturating_sub(ip.len() - rest.len());
            near = rest.get(..most).unwrap_or(rest);
        }
        let (protocol, rest, options, fragment) =
            behind_extensions(protocol, near).ok_or(refused)?;
        if options && label.is_some() {
            return Err(refused);
        }
        let shaped = Shaped::new(options, fragment, refused);
        let (source, destination) = (header.source_addr(), header.destination_addr());
        let headers =
            Self::with((source.into(), destination.into()), protocol, shaped, (label, rest))?;
        let discovery = (133..=137).contains(&headers.icmp.0) && header.hop_limit() == 255;
        if protocol == IpNumber::IPV6_ICMP && discovery && label.is_none() {
            return Err(reason::LINK_CONTROL);
        }
        let dhcp = protocol == IpNumber::UDP && matches!(headers.ports, (546, 547) | (547, 546));
        if dhcp && label.is_none() && header.source_addr().is_unicast_link_local() {
            return Err(reason::LINK_CONTROL);
        }
        Ok(headers)
    }

    fn role(&self) -> Role {
        match self.whole_role() {
            role if self.shaped.shape == shape::WHOLE => role,
            // What has options answers nothing without a rule of its own.
            Role::Either | Role::Opens if !self.shaped.is_fragment() => Role::Opens,
            _ => Role::None,
        }
    }

    fn whole_role(&self) -> Role {
        match IpNumber(self.protocol) {
            IpNumber::ICMP | IpNumber::IPV6_ICMP if self.is_error() => Role::Error,
            IpNumber::ICMP | IpNumber::IPV6_ICMP => match self.icmp.0 {
                8 | 128 if self.is_echo() => Role::Opens,
                0 | 129 if self.is_echo() => Role::Answers,
                _ => Role::None,
            },
            // It acknowledges nothing, so it answers nothing.
            _ if self.opens => Role::Opens,
            _ => Role::Either,
        }
    }

    fn is_echo(&self) -> bool {
        match IpNumber(self.protocol) {
            IpNumber::ICMP => [0, 8].contains(&self.icmp.0),
            IpNumber::IPV6_ICMP => [128, 129].contains(&self.icmp.0),
            _ => false,
        }
    }

    fn is_error(&self) -> bool {
        if self.shaped.shape != shape::WHOLE {
            return false;
        }
        match IpNumber(self.protocol) {
            IpNumber::ICMP => [3, 11, 12].contains(&self.icmp.0),
            IpNumber::IPV6_ICMP => (1..=4).contains(&self.icmp.0),
            _ => false,
        }
    }

    /// The packet that an ICMP error is about.
    fn quoted(&self, tunnels: bool) -> Option<Self> {
        let ip = self.rest.get(8..).filter(|_| self.is_error())?;
        let mut quoted = Self::read(ip).ok()?;
        if tunnels {
            quoted = tunnel::inside(quoted, ip).ok()?;
        }
        (quoted.shaped.shape == shape::WHOLE).then_some(quoted)
    }

    fn ends(&self) -> Ends {
        let (from, to) = self.ports;
        // Requests and replies have one identifier.
        let to = if self.is_echo() { from } else { to };
        (self.protocol, (self.source, from), (self.destination, to))
    }

    fn with(
        (source, destination): (IpAddr, IpAddr),
        protocol: IpNumber,
        shaped: Shaped,
        (label, rest): (Option<&[u8]>, &'p [u8]),
    ) -> Result<Self, u8> {
        let at = |place: usize| word(rest, place).ok_or(reason::TRUNCATED);
        let mut headers = Self {
            source,
            destination,
            protocol: protocol.0,
            ports: (0, 0),
            icmp: (0, 0),
            opener: 0,
            opens: false,
            shaped,
            label: None,
            rest,
        };
        match protocol {
            // The first fragment alone would show them.
            _ if shaped.is_fragment() => {}
            IpNumber::TCP | IpNumber::UDP | IpNumber::SCTP => {
                headers.ports = (at(0)?, at(2)?);
                if protocol == IpNumber::TCP && at(12)? & 0x12 == 0x02 {
                    headers.opens = true;
                    headers.opener = u32::from(at(4)?) << 16 | u32::from(at(6)?);
                }
            }
            IpNumber::ICMP | IpNumber::IPV6_ICMP => {
                headers.icmp = at(0)?.to_be_bytes().into();
                if headers.is_echo() {
                    headers.ports.0 = at(4)?;
                }
            }
            _ => {}
        }
        if let Some(body) = label {
            let body = body.try_into().map_err(|_| reason::TRUNCATED)?;
            headers.label = Some(Label::decode(body));
        }
        Ok(headers)
    }

    /// The attributes that the packet has by itself.
    fn fill(&self, request: &mut Request) {
        [request.source, request.destination] = [self.source, self.destination].map(|address| {
            let bits = mapped(address).to_bits();
            [(bits >> 64) as u64, bits as u64]
        });
        set(request, attribute::PROTOCOL, self.protocol.into());
        set(request, attribute::SHAPE, self.shaped.shape);
        if [IpNumber::ICMP.0, IpNumber::IPV6_ICMP.0].contains(&self.protocol) {
            set(request, attribute::ICMP, u32::from(self.icmp.0) << 8 | u32::from(self.icmp.1));
        } else {
            set(request, attribute::SOURCE_PORT, self.ports.0.into());
            set(request, attribute::DESTINATION_PORT, self.ports.1.into());
        }
    }

    /// What the MAC covers besides the label.
    fn flow(&self) -> Flow {
        let words = |address: IpAddr| {
            let octets = mapped(address).octets();
            let (halves, _) = octets.as_chunks::<8>();
            let half = |at: usize| halves.get(at).copied().unwrap_or_default();
            [u64::from_ne_bytes(half(0)), u64::from_ne_bytes(half(1))]
        };
        let icmp = [IpNumber::ICMP.0, IpNumber::IPV6_ICMP.0].contains(&self.protocol);
        let destination_port = if icmp {
            u16::from_ne_bytes([self.icmp.0, self.icmp.1])
        } else {
            self.ports.1.to_be()
        };
        let flow = Flow {
            source: words(self.source),
            destination: words(self.destination),
            source_port: self.ports.0.to_be(),
            destination_port,
            opener: self.opener.to_be(),
            protocol: self.protocol,
            pad: [0; 7],
        };
        if self.shaped.is_fragment() {
            flow.fragment(self.protocol, self.shaped.fragment.identification.to_be())
        } else {
            flow
        }
    }
}

fn mapped(address: IpAddr) -> std::net::Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn set(request: &mut Request, attribute: Attribute, value: u32) {
    if let Some(place) = request.scalars.get_mut(usize::from(attribute)) {
        *place = value;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// `no_rule`: what stands for a reason in counters and events.
pub fn reason_name(number: u8) -> Cow<'static, str> {
    reason::NAMES.get(usize::from(number)).copied().unwrap_or_default().into()
}
