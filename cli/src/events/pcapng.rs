//! Events as a capture: the packet's headers as far as the event knows them, with the verdict as a
//! comment.

use std::{borrow::Cow, fs::File, io::BufWriter, path::Path, time::Duration};

use etherparse::{IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header, TcpHeader};
use govc_abi::{
    event::{Event, flag},
    label::{BLOCK_LEN, PREFIX_V4, V6_HDR_EXT_LEN, V6_OPTION_LEN, V6_OPTION_SKIP},
};
use pcap_file::{
    DataLink, PcapError,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};

use super::describe::{Described, address, is_arp, is_fragment, is_unread};
use crate::failure::Failure;

/// Timestamps count nanoseconds.
const NANOSECONDS: u8 = 9;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];

/// Writes a capture.
pub struct Capture {
    writer: PcapNgWriter<BufWriter<File>>,
    path: std::path::PathBuf,
    /// Interfaces by their number in the file: the index, and what the packets begin with.
    interfaces: Vec<(u32, DataLink)>,
}

impl Capture {
    /// Begins a file. One that is there is left alone.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let no = |what| move |source| Failure::File { what, path: path.into(), source };
        let file = File::create_new(path).map_err(no("create"))?;
        let writer =
            PcapNgWriter::new(BufWriter::new(file)).map_err(io_error).map_err(no("write"))?;
        Ok(Self { writer, path: path.into(), interfaces: Vec::new() })
    }

    /// Adds an event.
    pub fn event(
        &mut self,
        event: &Event,
        unix_ns: u64,
        described: &Described,
    ) -> Result<(), Failure> {
        self.try_event(event, unix_ns, described).map_err(|error| Failure::File {
            what: "write",
            path: self.path.clone(),
            source: io_error(error),
        })
    }

    fn try_event(
        &mut self,
        event: &Event,
        unix_ns: u64,
        described: &Described,
    ) -> Result<(), PcapError> {
        // A packet that is no IP, or was not read, has no IP header to begin with.
        let link = if is_unread(event) { DataLink::ETHERNET } else { DataLink::RAW };
        let wanted = (event.ifindex, link);
        let known = self.interfaces.iter().position(|known| *known == wanted);
        let interface = match known {
            Some(number) => number,
            None => {
                let name = described.interface.clone();
                let name = name.unwrap_or_else(|| format!("interface {}", event.ifindex));
                let mut block = InterfaceDescriptionBlock::new(link, 0);
                block.options.push(InterfaceDescriptionOption::IfName(Cow::Owned(name)));
                block.options.push(InterfaceDescriptionOption::IfTsResol(NANOSECONDS));
                self.writer.write_pcapng_block(block)?;
                self.interfaces.push(wanted);
                self.interfaces.len() - 1
            }
        };
        let headers = headers(event);
        let block = EnhancedPacketBlock {
            interface_id: interface as u32,
            timestamp: Duration::from_nanos(unix_ns),
            original_len: event.len.max(headers.len() as u32),
            data: Cow::Owned(headers),
            options: vec![EnhancedPacketOption::Comment(Cow::Owned(described.comment()))],
        };
        self.writer.write_pcapng_block(block).map(drop)
    }

    /// Hands everything to the kernel.
    pub fn flush(&mut self) -> Result<(), Failure> {
        use std::io::Write as _;
        let path = &self.path;
        self.writer.get_mut().flush().map_err(|source| Failure::File {
            what: "write",
            path: path.clone(),
            source,
        })
    }
}

fn io_error(error: PcapError) -> std::io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => std::io::Error::other(other),
    }
}

/// The headers of an event's packet: addresses, ports, and the label if one travelled or was to; that it
/// is a fragment, the first of several. An event does not say the rest: MAC, payload, options,
/// identification, hop limit and sequence numbers are zero. Of a packet that was not read there is
/// nothing but, where it is ARP, the Ethernet header that says so.
pub fn headers(event: &Event) -> Vec<u8> {
    if is_arp(event) {
        return [&[0; 12][..], &ETHERTYPE_ARP].concat();
    }
    if is_unread(event) {
        return Vec::new();
    }
    let label =
        (event.flags & (flag::LABELLED | flag::CLAIMED) != 0).then(|| event.label.encode(0));
    let transport = transport(event);
    let [source, destination] = [event.source, event.destination].map(address);
    // What the packet had besides: payload, and whatever lay before its IP header.
    let len = (event.len as usize).clamp(transport.len(), usize::from(u16::MAX) - 64);
    let mut bytes = Vec::with_capacity(128);
    if let (Some(source), Some(destination)) =
        (source.to_ipv4_mapped(), destination.to_ipv4_mapped())
    {
        let mut header = Ipv4Header {
            protocol: IpNumber(event.protocol),
            source: source.octets(),
            destination: destination.octets(),
            more_fragments: is_fragment(event),
            ..Ipv4Header::default()
        };
        if let Some(label) = label {
            let mut options = [0; BLOCK_LEN];
            let (prefix, body) = options.split_at_mut(PREFIX_V4.len());
            prefix.copy_from_slice(&PREFIX_V4);
            body.copy_from_slice(&label);
            header.options = Ipv4Options::from(options);
        }
        header.total_len = (len.max(header.header_len() + transport.len())) as u16;
        header.header_checksum = header.calc_header_checksum();
        bytes.extend_from_slice(&header.to_bytes());
    } else {
        let block = if label.is_some() { BLOCK_LEN } else { 0 };
        let behind = if is_fragment(event) { FRAGMENT } else { event.protocol };
        let next = if label.is_some() { DESTINATION_OPTIONS } else { behind };
        let header = Ipv6Header {
            traffic_class: 0,
            flow_label: Ipv6FlowLabel::ZERO,
            payload_length: len.saturating_sub(Ipv6Header::LEN).max(block + transport.len()) as u16,
            next_header: IpNumber(next),
            hop_limit: 0,
            source: source.octets(),
            destination: destination.octets(),
        };
        bytes.extend_from_slice(&header.to_bytes());
        if let Some(label) = label {
            bytes.extend([behind, V6_HDR_EXT_LEN, V6_OPTION_SKIP, V6_OPTION_LEN]);
            bytes.extend(label);
        }
    }
    bytes.extend(transport);
    bytes
}

/// The first bytes behind the IP header.
fn transport(event: &Event) -> Vec<u8> {
    let (source, destination) = (event.source_port, event.destination_port);
    match event.protocol {
        // A fragment header of IPv6 says that there is more.
        protocol if is_fragment(event) && event.flags & flag::V6 != 0 => {
            vec![protocol, 0, 0, 1, 0, 0, 0, 0]
        }
        _ if is_fragment(event) => Vec::new(),
        TCP => TcpHeader::new(source, destination, 0, 0).to_bytes().to_vec(),
        UDP => [source, destination, 8, 0].map(u16::to_be_bytes).as_flattened().to_vec(),
        1 | 58 => [event.icmp, 0, 0, 0].map(u16::to_be_bytes).as_flattened().to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use govc_abi::{event::verdict, reason};

    use super::{
        super::{describe::describe, sample},
        *,
    };

    /// What was decided before its addresses were read.
    fn unread(reason: u8, verdict: u8) -> Event {
        let nowhere = [0; 2];
        Event {
            reason,
            verdict,
            protocol: 0,
            source: nowhere,
            destination: nowhere,
            source_port: 0,
            destination_port: 0,
            len: 42,
            ..sample::event()
        }
    }

    #[test]
    fn what_was_not_read_is_not_made_up() {
        let arp = unread(reason::LINK_CONTROL, verdict::PERMIT);
        let described = describe(&arp, None);
        assert_eq!((described.protocol.as_str(), described.ends()), ("arp", String::new()));
        assert_eq!(headers(&arp), [&[0; 12][..], &[8, 6]].concat());
        let line = described.line(&crate::output::Style::plain(80));
        assert!(line.contains(" arp  ") && !line.contains("::"), "{line}");
        let other = unread(reason::NOT_IP, verdict::DENY);
        assert_eq!(describe(&other, None).protocol, "unread");
        assert_eq!(headers(&other), [0; 0]);
        // IPv4 has an address even where that is none.
        let none = [0, u64::to_be(0xffff_0000_0000)];
        let discover = Event { source: none, destination: none, protocol: 17, ..arp };
        assert_eq!(describe(&discover, None).protocol, "udp");
        assert_eq!(headers(&discover).first(), Some(&0x45));
    }

    #[test]
    fn captures_say_what_their_packets_begin_with() {
        let path = std::env::temp_dir().join(format!("govc-capture-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let mut capture = Capture::create(&path).unwrap();
        let arp = unread(reason::LINK_CONTROL, verdict::PERMIT);
        for event in [sample::event(), arp, sample::event(), arp] {
            capture.event(&event, 1, &describe(&event, None)).unwrap();
        }
        capture.flush().unwrap();
        let kinds: Vec<DataLink> = capture.interfaces.iter().map(|(_, link)| *link).collect();
        assert_eq!(kinds, [DataLink::RAW, DataLink::ETHERNET]);
        let bytes = std::fs::read(&path).unwrap();
        let mut reader = pcap_file::pcapng::PcapNgReader::new(bytes.as_slice()).unwrap();
        let mut numbers = Vec::new();
        while let Some(block) = reader.next_block() {
            if let pcap_file::pcapng::Block::EnhancedPacket(one) = block.unwrap() {
                numbers.push(one.interface_id);
            }
        }
        assert_eq!(numbers, [0, 1, 0, 1]);
        std::fs::remove_file(&path).unwrap();
    }
}
