//! `serve`: the same as `top` shows, as a page for a browser on this machine.
//!
//! One thread reads events and counters; every page is sent what it made of them once a second.
//! The page is part of the program: nothing is fetched from anywhere else.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::{Next, from_fn},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures_util::Stream;
use govc_image::Image;
use serde::Deserialize;
use tokio::sync::watch;

use super::{apply::place, observe::stop_on_signals};
use crate::{arguments::Serve, events::board::Board, excerpt, failure::Failure, output::line};

/// How long the reader waits for events before it looks at clocks and signals.
const WAIT: Duration = Duration::from_millis(50);
/// The page loads its own files, and talks to its own server; nobody frames it.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What pages are sent.
#[derive(Clone, Default)]
struct Published {
    view: Arc<str>,
    images: Arc<BTreeMap<String, Arc<Image>>>,
}

#[derive(Clone)]
struct Shared {
    published: watch::Receiver<Published>,
    below: Arc<PathBuf>,
    stop: Arc<AtomicBool>,
}

pub fn run(arguments: &Serve) -> Result<(), Failure> {
    let address = arguments.listen;
    if !address.ip().is_loopback() {
        return Err(Failure::Usage {
            message: format!("{address} is no loopback address"),
            help: "The page asks nobody who they are. Reach it from elsewhere through a tunnel: \
                   ssh -L 9401:127.0.0.1:9401 HOST"
                .into(),
        });
    }
    let stop = stop_on_signals()?;
    let mut board = Board::open(place(&arguments.watched.instance), !arguments.watched.denials)?;
    let (publish, published) = watch::channel(Published::default());
    let below = Arc::new(arguments.watched.sources.sources.clone());
    let shared = Shared { published, below, stop: stop.clone() };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let result = read(&mut board, &publish, &stop);
            // Whatever ended it, the pages end too.
            stop.store(true, Ordering::SeqCst);
            result
        });
        let served = listen(address, shared);
        stop.store(true, Ordering::SeqCst);
        let read = reader.join().unwrap_or_else(|_| {
            Err(Failure::Machine { message: "the reader of events failed".into(), help: None })
        });
        served.and(read)
    })
}

fn read(
    board: &mut Board,
    publish: &watch::Sender<Published>,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    while !stop.load(Ordering::SeqCst) {
        board.read(WAIT)?;
        if let Some(view) = board.due()? {
            let images = Arc::new(board.images(&view));
            let text = serde_json::to_string(&view).map_err(std::io::Error::from)?;
            publish.send_replace(Published { view: text.into(), images });
        }
    }
    Ok(())
}

fn listen(address: SocketAddr, shared: Shared) -> Result<(), Failure> {
    let no = |error: std::io::Error| Failure::Machine {
        message: format!("cannot serve on {address}: {error}"),
        help: Some("--listen names another address and port.".into()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no)?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.map_err(no)?;
        let address = listener.local_addr().map_err(no)?;
        line(&format!("http://{address}/"))?;
        let stop = shared.stop.clone();
        let stopped = async move {
            while !stop.load(Ordering::SeqCst) {
                tokio::time::sleep(WAIT).await;
            }
        };
        axum::serve(listener, router(shared)).with_graceful_shutdown(stopped).await.map_err(no)
    })
}

fn router(shared: Shared) -> Router {
    let page = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(header::CONTENT_TYPE, kind)], text) })
    };
    Router::new()
        .route("/", page("text/html; charset=utf-8", include_str!("serve/page.html")))
        .route("/page.css", page("text/css; charset=utf-8", include_str!("serve/page.css")))
        .route("/page.js", page("text/javascript; charset=utf-8", include_str!("serve/page.js")))
        .route("/view", get(view))
        .route("/views", get(views))
        .route("/source", get(source))
        .layer(from_fn(guard))
        .with_state(shared)
}

/// A page of another origin may have its own name lead here: only names of this machine count.
async fn guard(request: Request, next: Next) -> Response {
    if !is_local(request.headers(), request.uri()) {
        let text = "this page is for browsers on this machine\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

fn is_local(headers: &HeaderMap, uri: &Uri) -> bool {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(authority) = named.or_else(|| uri.authority().map(|one| one.as_str())) else {
        return false;
    };
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        _ => authority,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The newest view.
async fn view(State(shared): State<Shared>) -> Response {
    let mut published = shared.published;
    // There is none in the first second.
    let ready = published.wait_for(|published| !published.view.is_empty()).await;
    match ready.map(|published| published.view.to_string()) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// All views from now on.
async fn views(State(shared): State<Shared>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let stream = futures_util::stream::unfold(shared, |mut shared| async move {
        loop {
            let changed = tokio::time::timeout(WAIT * 4, shared.published.changed()).await;
            // The server waits for its pages before it ends.
            if shared.stop.load(Ordering::SeqCst) || matches!(changed, Ok(Err(_))) {
                return None;
            }
            if changed.is_ok() {
                let text = shared.published.borrow_and_update().view.clone();
                return Some((Ok(Event::default().data(&*text)), shared));
            }
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

#[derive(Deserialize)]
struct Asked {
    image: String,
    rule: u32,
}

/// The source of a rule of an image that is shown.
async fn source(State(shared): State<Shared>, Query(asked): Query<Asked>) -> Response {
    let images = shared.published.borrow().images.clone();
    let found = match images.get(&asked.image) {
        Some(image) => excerpt::excerpt(image.names(), asked.rule, &shared.below),
        None => Err("its policy is gone".to_owned()),
    };
    match found {
        Ok(excerpt) => Json(excerpt).into_response(),
        Err(why) => (StatusCode::NOT_FOUND, why).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_count() {
        let local = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            is_local(&headers, &Uri::from_static("/"))
        };
        for host in
            ["localhost", "localhost:9401", "127.0.0.1:1", "127.9.9.9", "[::1]:9401", "[::1]"]
        {
            assert!(local(host), "{host}");
        }
        for host in [
            "example.org",
            "127.0.0.1.example.org:9401",
            "10.0.0.1:9401",
            "localhost.example.org",
            "",
        ] {
            assert!(!local(host), "{host}");
        }
        assert!(!is_local(&HeaderMap::new(), &Uri::from_static("/")));
    }
}
