//! A packet leaves: choose its subject and label, decide, compute the MAC.

use govc_abi::{
    attribute::{self, state},
    event::hook,
    flow::Control,
    image::{carriage, program},
    label::{BLOCK_LEN, FLAG_REPLY, Label, VERSION},
    limits::LIFE_DEFAULT,
    mac,
    node::LEAF_NONE,
    reason,
    walk::Tables,
};

use crate::{
    authority::{self, EpochKey},
    decide::{self, Verdict},
    declare::govc_declared_label,
    flows::{self, News},
    ingress,
    maps::{self, Active, Cpu, Table},
    restamp, shape, tunnel,
};

/// What is known about a leaving packet besides its bytes.
pub struct Origin {
    /// Zone of the interface that it leaves by.
    pub zone: u32,
    /// It was sent on this node.
    pub is_local: bool,
    /// Zone of the interface that it came in by; 0 for local traffic, and for what came in where nothing is
    /// enforced. [`attribute::ZONE_UNNAMED`] where something is, and the policy names no zone.
    pub from_zone: u32,
    /// Number of the cgroup pattern that the sending socket's cgroup matches; 0 for none.
    pub pattern: u32,
    /// What it has declared; 0 for nothing.
    pub declared: u64,
}

impl Origin {
    /// What [`crate::restamp::restamp`] has found out.
    #[inline(always)]
    pub fn of(cpu: Cpu) -> Self {
        let packed = cpu.origin;
        Self {
            zone: (packed >> 40) as u32 & 0xff,
            is_local: packed >> 48 & 1 != 0,
            from_zone: (packed >> 32) as u32 & 0xff,
            pattern: packed as u32,
            declared: cpu.declared,
        }
    }
}

/// How a permitted packet leaves.
#[derive(Clone, Copy)]
pub enum Carriage {
    /// As it is: without a label, as the destination is a legacy neighbour, or with the one that it came
    /// with.
    Bare,
    /// With the label in `cpu.label` and this MAC.
    Label(u64),
    /// With the label in `cpu.translated` and this MAC in the place of its own.
    Again(u64),
    /// Likewise, in a tunnel.
    Tunnel(u64),
}

impl Carriage {
    /// Bytes that it adds to a packet.
    #[inline(always)]
    pub fn overhead(self, version: u8) -> u32 {
        match self {
            Self::Bare | Self::Again(_) => 0,
            Self::Label(_) => BLOCK_LEN as u32,
            Self::Tunnel(_) => tunnel::overhead(version),
        }
    }
}

/// Decides a parsed packet.
#[inline(always)]
pub fn decide(
    origin: &Origin,
    control: &Control,
    active: Active,
    slot: u64,
    table: Table,
    mut cpu: Cpu,
) -> (Verdict, Carriage) {
    if cpu.packet.labelled != 0 {
        // Nothing on this node writes labels but this program. What passes through has to prove
        // its own again.
        if origin.is_local || !decide::forwards(table) {
            maps::clear_request(cpu);
            decide::set_packet(table, slot, cpu);
            return (Verdict::deny(reason::LABEL_FORGED), Carriage::Bare);
        }
        let zones = (origin.from_zone, origin.zone);
        return ingress::decide_transit(zones, active, slot, table, cpu);
    }
    let passes = decide::forwards(table);
    if passes {
        ingress::vouch(active, slot, cpu);
    }
    maps::clear_request(cpu);
    decide::set_packet(table, slot, cpu);
    // What this node, or one before it, says about what passed through.
    if cpu.packet.vouched != 0
        && let Some(verdict) = flows::reply(hook::FORWARD, false, active, cpu)
    {
        return (Verdict { transit: true, ..verdict }, Carriage::Bare);
    }
    let bare = is_legacy_neighbour(origin, table, cpu);
    // What this node says about a packet that came in is its own: it passes nothing on.
    let answers = origin.from_zone != 0 && flows::told(hook::EGRESS, bare, active, cpu).is_some();
    let scalars = &mut cpu.request.scalars;
    scalars[attribute::EGRESS_ZONE as usize] = origin.zone;
    scalars[attribute::INGRESS_ZONE as usize] = if answers { 0 } else { origin.from_zone };
    scalars[attribute::CGROUP as usize] = origin.pattern;
    let winner = decide::outcome(table, program::STAMP).winner;
    let stamped = if winner == LEAF_NONE {
        speaks_for(bare, active, slot, table, cpu)
    } else {
        stamp(winner, Stamping { declared: origin.declared, bare, slot }, active, table, cpu)
    };
    let (domain, stamp) = match stamped {
        Ok(stamped) => stamped,
        Err(reason) => return (Verdict::deny(reason), Carriage::Bare),
    };
    if !bare && let Err(reason) = authority::granted(active.buffer, domain, cpu.label.grant()) {
        return (Verdict::deny(reason), Carriage::Bare);
    }
    // Before the table is asked: what comes in meanwhile is news.
    cpu.arrival = flows::last_arrival(&cpu.packet.flow);
    let answered = flows::reply(hook::EGRESS, bare, active, cpu);
    let (verdict, flags) = match answered {
        Some(verdict) => (verdict, FLAG_REPLY),
        None => (decide::decide(table, program::EGRESS, cpu), 0),
    };
    if !verdict.permit || bare {
        if verdict.permit && flags == 0 {
            flows::remember(hook::EGRESS, active, verdict.rule, true, cpu);
        }
        return (verdict, Carriage::Bare);
    }
    if cpu.packet.shape != 0 && !shape::is_labelled(table, stamp, &cpu.packet) {
        let reason = shape::reason(cpu.packet.shape as u32);
        return (Verdict::deny(reason), Carriage::Bare);
    }
    match seal(active, slot, domain, flags, cpu) {
        Ok((mac, key)) => {
            let news = if flags != 0 {
                News::NextSlot
            } else {
                flows::remember(hook::EGRESS, active, verdict.rule, false, cpu)
            };
            let carriage = carriage(mac, table);
            if matches!(carriage, Carriage::Label(_)) {
                let when = (control, active, slot);
                restamp::remember(&key, mac, when, table, (&verdict, news), cpu);
            }
            (verdict, carriage)
        }
        Err(reason) => (Verdict::deny(reason), Carriage::Bare),
    }
}

/// How a label with this MAC rides to the destination.
#[inline(always)]
fn carriage(mac: u64, table: Table) -> Carriage {
    if tunnel::are_due(table) {
        let winner = decide::outcome(table, program::CARRIAGE).winner;
        if winner != LEAF_NONE && winner & carriage::KIND_MASK == carriage::TUNNEL {
            return Carriage::Tunnel(mac);
        }
    }
    Carriage::Label(mac)
}

/// How a packet that leaves is stamped.
pub struct Stamping {
    /// What its socket has declared; 0 for nothing.
    pub declared: u64,
    /// It goes to a legacy neighbour: no label is written, and no grant used.
    pub bare: bool,
    /// The slot that it is.
    pub slot: u64,
}

/// Writes the label that stamp rule `winner` gives what leaves to the request and to `cpu.label`: the index of its domain,
/// and its number among the labels of the image.
///
/// # Errors
/// The reason to drop the packet; [`reason::NO_SUBJECT`] where no rule names one.
#[inline(always)]
pub fn stamp(
    winner: u32,
    Stamping { declared, bare, slot }: Stamping,
    active: Active,
    table: Table,
    mut cpu: Cpu,
) -> Result<(u32, u32), u8> {
    let mut stamp = winner;
    if stamp == LEAF_NONE {
        return Err(reason::NO_SUBJECT);
    }
    if declared != 0 {
        stamp = govc_declared_label(table.buffer(), stamp, declared);
        if stamp == LEAF_NONE {
            return Err(reason::OPERATION_UNGRANTED);
        }
    }
    let domain = decide::write_label(table, stamp, state::VALID, cpu);
    if !bare {
        let (serial, ended) = authority::grant(active.buffer, stamp, slot)?;
        cpu.label = cpu.label.with_grant(serial);
        if ended {
            return Err(reason::GRANT_EXPIRED);
        }
    }
    Ok((domain, stamp))
}

/// Whether a legacy rule speaks for the destination: such neighbours get no labels either.
#[inline(always)]
fn is_legacy_neighbour(origin: &Origin, table: Table, mut cpu: Cpu) -> bool {
    let source = cpu.request.source;
    cpu.request.source = cpu.request.destination;
    cpu.request.scalars[attribute::INGRESS_ZONE as usize] = origin.zone;
    let winner = decide::outcome(table, program::LEGACY).winner;
    cpu.request.source = source;
    winner != LEAF_NONE
}

/// Where no stamp rule names a subject, what this node itself says about a denied packet is said
/// for the workload that the packet was for, with no further authority; its domain, and the
/// number of no label.
///
/// # Errors
/// The reason to drop the packet: there is nothing to say, or no grant any more to say it under.
#[inline(always)]
fn speaks_for(
    bare: bool,
    active: Active,
    slot: u64,
    table: Table,
    mut cpu: Cpu,
) -> Result<(u32, u32), u8> {
    let told = flows::told(hook::EGRESS, bare, active, cpu);
    let Some((sender, object)) = told else { return Err(reason::NO_SUBJECT) };
    let known = object != attribute::SCOPE_NONE;
    let domain = (if known { object } else { sender }) >> 24 & 15;
    let subject = if known { object & 0x00ff_ffff } else { 0 };
    let number = table.word(govc_abi::image::AT_DOMAINS + domain);
    let (serial, ended) = authority::own(active.buffer, domain, slot)?;
    cpu.label = Label::default()
        .with_life(LIFE_DEFAULT)
        .with_domain(number as u16)
        .with_subject(subject)
        .with_grant(serial);
    // Where no label is written, no grant is used.
    if ended && !bare { Err(reason::GRANT_EXPIRED) } else { Ok((domain, LEAF_NONE)) }
}

/// Completes `cpu.label` for this slot and computes its MAC, with the key that it tells.
///
/// # Errors
/// The reason to drop the packet: without a key nothing leaves.
#[inline(always)]
fn seal(
    active: Active,
    slot: u64,
    domain: u32,
    flags: u8,
    mut cpu: Cpu,
) -> Result<(u64, EpochKey), u8> {
    let Some(keys) = maps::keys(active) else { return Err(reason::KEY_MISSING) };
    let epoch = slot >> (maps::epoch_shift(keys, domain) & 15);
    let key = authority::epoch_key(keys, domain, epoch, slot)?;
    let [k0, k1] = key.of_sender(&cpu.label)?;
    let label = cpu
        .label
        .with_version(VERSION)
        .with_flags(flags)
        .with_epoch(epoch as u8)
        .with_slot(slot as u16);
    cpu.label = label;
    Ok((mac::mac(k0, k1, &label, &cpu.packet.flow), key))
}

/// Whether the STAMP program looks at cgroups: the lookup is saved when it does not.
#[inline(always)]
pub fn wants_cgroup(table: Table) -> bool {
    let at = govc_abi::image::AT_PROGRAMS
        + program::STAMP * govc_abi::image::PROGRAM_WORDS
        + govc_abi::image::PROGRAM_ATTRIBUTES;
    table.word(at) & 1 << attribute::CGROUP != 0
}
