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

use super::describe::{Described, address, is_fragment};
use crate::failure::Failure;

/// Timestamps count nanoseconds.
const NANOSECONDS: u8 = 9;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;

/// Writes a capture.
pub struct Capture {
    writer: PcapNgWriter<BufWriter<File>>,
    path: std::path::PathBuf,
    /// Interface indices by their number in the file.
    interfaces: Vec<u32>,
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
        let known = self.interfaces.iter().position(|index| *index == event.ifindex);
        let interface = match known {
            Some(number) => number,
            None => {
                let name = described.interface.clone();
                let name = name.unwrap_or_else(|| format!("interface {}", event.ifindex));
                let mut block = InterfaceDescriptionBlock::new(DataLink::RAW, 0);
                block.options.push(InterfaceDescriptionOption::IfName(Cow::Owned(name)));
                block.options.push(InterfaceDescriptionOption::IfTsResol(NANOSECONDS));
                self.writer.write_pcapng_block(block)?;
                self.interfaces.push(event.ifindex);
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
/// identification, hop limit and sequence numbers are zero.
pub fn headers(event: &Event) -> Vec<u8> {
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
