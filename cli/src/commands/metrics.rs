//! `metrics`: all counters as OpenMetrics text, printed once or served.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use govc_loader::{
    LoadError, clock,
    instance::Place,
    status::{self, Status},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::{apply::place, observe::stop_on_signals};
use crate::{arguments::Metrics, failure::Failure, output::line};

/// What the text is called when it is served.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn run(arguments: &Metrics) -> Result<(), Failure> {
    let place = place(&arguments.instance);
    match arguments.listen {
        Some(address) => serve(place, address),
        None => {
            let text = text(&Snapshot(Some(look(&place)?)))?;
            line(text.trim_end_matches('\n'))
        }
    }
}

/// The state of an instance, whose clock is looked after on the way.
fn look(place: &Place) -> Result<Status, LoadError> {
    clock::keep(place)?;
    status::status(place)
}

/// An instance at one moment; `None` when there is none.
#[derive(Debug)]
pub struct Snapshot(pub Option<Status>);

/// The OpenMetrics text of an instance.
pub fn text(snapshot: &Snapshot) -> Result<String, Failure> {
    let mut registry = Registry::with_prefix("govc");
    registry.register_collector(Box::new(Families(snapshot.0.clone())));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).map_err(|error| {
        Failure::Machine { message: format!("cannot write metrics: {error}"), help: None }
    })?;
    Ok(text)
}

#[derive(Debug)]
struct Families(Option<Status>);

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// One family of metrics: its name, what it tells, and its samples.
struct Family<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
}

impl Family<'_, '_> {
    fn counters<'l>(
        &mut self,
        (name, help): (&str, &str),
        samples: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A gauge that has no labels.
    fn gauge(&mut self, (name, help): (&str, &str), value: f64) -> fmt::Result {
        let encoder = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn gauges<'l>(
        &mut self,
        (name, help): (&str, &str),
        samples: impl IntoIterator<Item = (Labels<'l>, f64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn infos<'l>(
        &mut self,
        (name, help): (&str, &str),
        samples: impl IntoIterator<Item = Labels<'l>>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Info)?;
        for labels in samples {
            family.encode_info(&labels)?;
        }
        Ok(())
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = Family { encoder: &mut encoder };
        family.infos(
            ("build", "The govc that tells this."),
            [vec![("version", env!("CARGO_PKG_VERSION"))]],
        )?;
        let up = ("up", "Whether the instance holds a policy.");
        family.gauge(up, f64::from(u8::from(self.0.is_some())))?;
        let Some(status) = &self.0 else { return Ok(()) };
        in_force(&mut family, status)?;
        packets(&mut family, status)?;
        rules(&mut family, status)?;
        surroundings(&mut family, status)
    }
}

fn in_force(family: &mut Family<'_, '_>, status: &Status) -> fmt::Result {
    let generation = &status.generation;
    family.infos(
        ("policy", "The policy in force."),
        [vec![
            ("name", status.instance.as_str()),
            ("policy", generation.policy.as_str()),
            ("digest", generation.digest.as_str()),
        ]],
    )?;
    family.gauge(("generation", "Number of the generation in force."), generation.number as f64)?;
    family.gauge(
        ("generation_published_timestamp_seconds", "When the generation in force was published."),
        generation.published_ns as f64 / 1e9,
    )?;
    family.gauge(("rules", "Rules in force."), generation.rules.into())?;
    family.gauge(("image_bytes", "Size of the image in force."), generation.image_len as f64)?;
    if let Some(not_after) = generation.not_after {
        let end = (
            "policy_expiry_timestamp_seconds",
            "Last second of the bundle in force; then nothing passes.",
        );
        family.gauge(end, not_after as f64)?;
    }
    let waits = f64::from(u8::from(status.pending.is_some()));
    family.gauge(("confirm_pending", "Whether what is in force waits to be confirmed."), waits)
}

fn packets(family: &mut Family<'_, '_>, status: &Status) -> fmt::Result {
    let labels = |count: &status::ReasonCount| {
        let verdict = match count.permitted {
            Some(true) => "permit",
            Some(false) => "deny",
            // Rules go either way; `govc_rule_packets` has the action.
            None => "rule",
        };
        vec![("hook", count.hook), ("reason", count.reason), ("verdict", verdict)]
    };
    let reasons = &status.reasons;
    family.counters(
        ("packets", "Packets decided, by hook and reason, since the instance began."),
        reasons.iter().map(|count| (labels(count), count.packets)),
    )?;
    family.counters(
        ("packet_bytes", "Bytes of packets decided, with headers, by hook and reason."),
        reasons.iter().map(|count| (labels(count), count.bytes)),
    )?;
    let events = status.events;
    let outcomes = [
        ("delivered", events.delivered),
        ("lost_rate", events.lost_rate),
        ("lost_full", events.lost_full),
    ];
    family.counters(
        ("events", "Events by what became of them; lost ones were beyond the rate limit or found the ring full."),
        outcomes.map(|(outcome, count)| (vec![("outcome", outcome)], count)),
    )?;
    family.gauge(
        ("permits_reported", "Whether permitted packets are reported too."),
        f64::from(u8::from(events.permits)),
    )
}

fn rules(family: &mut Family<'_, '_>, status: &Status) -> fmt::Result {
    // Apart from the counters: a rule whose line moves goes on counting where it was.
    family.infos(
        ("rule", "Rules in force, and where they are written."),
        status.rules.iter().filter_map(|rule| {
            let place = ("place", rule.place.as_str());
            Some(rule_labels(rule)?.into_iter().chain([place]).collect::<Vec<_>>())
        }),
    )?;
    let counted = |count: fn(&status::RuleCount) -> u64| {
        status.rules.iter().filter_map(move |rule| Some((rule_labels(rule)?, count(rule))))
    };
    family.counters(
        ("rule_packets", "Packets that a rule decided, as long as it means the same."),
        counted(|rule| rule.packets),
    )?;
    family.counters(
        ("rule_bytes", "Bytes of packets that a rule decided."),
        counted(|rule| rule.bytes),
    )?;
    family.counters(
        ("rule_would_packets", "Packets that a rule which only observes would have decided."),
        counted(|rule| rule.would),
    )
}

fn rule_labels(rule: &status::RuleCount) -> Option<Labels<'_>> {
    let (policy, name) = rule.rule.split_once('.')?;
    Some(vec![("policy", policy), ("rule", name), ("action", rule.action)])
}

fn surroundings(family: &mut Family<'_, '_>, status: &Status) -> fmt::Result {
    let indices: Vec<String> =
        status.interfaces.iter().map(|one| one.attached.index.to_string()).collect();
    family.infos(
        ("interface", "Interfaces that the instance enforces on."),
        status.interfaces.iter().zip(&indices).map(|(one, index)| {
            vec![
                ("interface", one.attached.interface.as_str()),
                ("index", index.as_str()),
                ("hook", one.attached.ingress.as_str()),
                ("zone", one.zone.as_deref().unwrap_or_default()),
            ]
        }),
    )?;
    family.gauges(
        ("key_valid", "Whether a domain has a key for this moment; without one nothing passes."),
        status
            .keys
            .iter()
            .map(|key| (vec![("domain", key.domain.as_str())], f64::from(u8::from(key.valid_now)))),
    )?;
    family.gauges(
        ("key_expiry_seconds", "Time until the last staged key of a domain ends."),
        status.keys.iter().map(|key| (vec![("domain", key.domain.as_str())], key.ends_in_s as f64)),
    )?;
    family.gauges(
        (
            "grants_revoked",
            "Serials of grants that were taken back, in domains whose labels need one or that said so.",
        ),
        status
            .grants
            .iter()
            .map(|grants| (vec![("domain", grants.domain.as_str())], grants.revoked.into())),
    )?;
    grants(family, status)
}

/// Until when labels can be stamped and translated.
fn grants(family: &mut Family<'_, '_>, status: &Status) -> fmt::Result {
    let ends: Vec<(&str, String, &'static str, u64)> = status
        .grants
        .iter()
        .flat_map(|grants| {
            let stamps = grants.stamps.iter().map(|held| ("stamp", held));
            let all = stamps.chain(grants.translates.iter().map(|held| ("translate", held)));
            all.map(move |(purpose, held)| {
                (grants.domain.as_str(), held.serial.to_string(), purpose, held.not_after)
            })
        })
        .collect();
    // Where nobody needs a grant, there is no family of them.
    if ends.is_empty() {
        return Ok(());
    }
    family.gauges(
        (
            "grant_expiry_timestamp_seconds",
            "Last second of a grant that labels are stamped or translated under here; then none are.",
        ),
        ends.iter().map(|(domain, serial, purpose, not_after)| {
            let labels = vec![("domain", *domain), ("serial", serial.as_str()), ("use", *purpose)];
            (labels, *not_after as f64)
        }),
    )
}

fn serve(place: Place, address: SocketAddr) -> Result<(), Failure> {
    let no = |what: &str| {
        let message = format!("cannot {what} {address}");
        move |error: std::io::Error| Failure::Machine {
            message: format!("{message}: {error}"),
            help: None,
        }
    };
    let stop = stop_on_signals()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(no("serve on"))?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.map_err(no("listen on"))?;
        let address = listener.local_addr().map_err(no("listen on"))?;
        line(&format!("http://{address}/metrics"))?;
        let place = Arc::new(place);
        let app = Router::new().route("/metrics", get(move || scrape(place.clone())));
        let stopped = async move {
            while !stop.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        axum::serve(listener, app).with_graceful_shutdown(stopped).await.map_err(no("serve on"))
    })
}

async fn scrape(place: Arc<Place>) -> Response {
    // The loader has a runtime of its own for netlink.
    let read = tokio::task::spawn_blocking(move || match look(&place) {
        Ok(status) => text(&Snapshot(Some(status))),
        Err(LoadError::NoInstance(_)) => text(&Snapshot(None)),
        Err(error) => Err(error.into()),
    });
    match read.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        // Nobody knows then whether there is a policy: no sample says that there is none.
        Ok(Err(failure)) => {
            let help = failure.help().map(|help| format!("{help}\n")).unwrap_or_default();
            (StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n{help}")).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
