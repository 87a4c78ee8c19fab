//! The service, and proxies before it.

use std::{
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
};

use govc_netlab::Namespace;
use http_body_util::{Either, Empty, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::SendRequest,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, oneshot},
};

use crate::{
    error::{BenchError, io},
    frames::Version,
    machine::{Core, stay_on},
    pair::{SERVICE, server_at},
};

/// What the service answers.
pub const BODY: [u8; 512] = [b'x'; 512];
/// What may be read.
const READABLE: &str = "/items/";

/// A thread that answers requests until this is dropped.
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Server {
    /// The service itself.
    pub fn service(namespace: &Namespace) -> Result<Self, BenchError> {
        Self::start(namespace, SERVICE, async |stream| {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            let _ = connection.await;
        })
    }

    /// A proxy before it, which has a connection to the service for each of its own.
    pub fn proxy(namespace: &Namespace, port: u16) -> Result<Self, BenchError> {
        Self::start(namespace, port, async |stream| {
            let upstream = Arc::new(Mutex::new(None));
            let service = service_fn(move |request| pass_on(request, Arc::clone(&upstream)));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        })
    }

    fn start<H>(namespace: &Namespace, port: u16, handle: H) -> Result<Self, BenchError>
    where
        H: AsyncFn(TcpStream) + Copy + Send + 'static,
    {
        let what = "start a server";
        let (stop, stopped) = oneshot::channel();
        let at = server_at(Version::V4, port);
        // Whatever the thread opens belongs to the namespace.
        let thread = namespace.try_run(move || {
            let listener = std::net::TcpListener::bind(at)?;
            listener.set_nonblocking(true)?;
            thread::Builder::new().name("service".to_owned()).spawn(move || {
                if let Err(error) = serve(listener, handle, stopped) {
                    eprintln!("error: a server ends: {error}");
                }
            })
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread.map_err(io(what))?) })
    }
}

fn serve<H>(
    listener: std::net::TcpListener,
    handle: H,
    stopped: oneshot::Receiver<()>,
) -> Result<(), BenchError>
where
    H: AsyncFn(TcpStream) + Copy + Send + 'static,
{
    let what = "serve";
    stay_on(Core::First)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let tasks = tokio::task::LocalSet::new();
    let work = async {
        let listener = TcpListener::from_std(listener).map_err(io(what))?;
        loop {
            let (stream, _) = listener.accept().await.map_err(io(what))?;
            stream.set_nodelay(true).map_err(io(what))?;
            tokio::task::spawn_local(async move { handle(stream).await });
        }
    };
    tasks.block_on(&runtime.map_err(io(what))?, async {
        tokio::select! {
            result = work => result,
            _ = stopped => Ok(()),
        }
    })
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(&BODY))))
}

type Upstream = Arc<Mutex<Option<SendRequest<Incoming>>>>;
type Passed = Response<Either<Incoming, Empty<Bytes>>>;

/// Lets through what only reads.
async fn pass_on(request: Request<Incoming>, upstream: Upstream) -> Result<Passed, BenchError> {
    let empty = |status| {
        let mut response = Response::new(Either::Right(Empty::new()));
        *response.status_mut() = status;
        Ok(response)
    };
    if request.method() != Method::GET || !request.uri().path().starts_with(READABLE) {
        return empty(StatusCode::FORBIDDEN);
    }
    let mut upstream = upstream.lock().await;
    if upstream.as_ref().is_none_or(SendRequest::is_closed) {
        *upstream = Some(connect(server_at(Version::V4, SERVICE)).await?);
    }
    let Some(sender) = upstream.as_mut() else { return empty(StatusCode::BAD_GATEWAY) };
    sender.ready().await.map_err(told)?;
    let response = sender.send_request(request).await.map_err(told)?;
    Ok(response.map(Either::Left))
}

async fn connect(to: SocketAddr) -> Result<SendRequest<Incoming>, BenchError> {
    let stream = TcpStream::connect(to).await.map_err(io("reach the service"))?;
    stream.set_nodelay(true).map_err(io("reach the service"))?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

/// What hyper has to say.
pub fn told(error: hyper::Error) -> BenchError {
    io("speak HTTP")(std::io::Error::other(error))
}

/// HAProxy before the service.
pub struct Haproxy {
    /// Its version.
    pub version: String,
    child: Child,
    configuration: PathBuf,
}

impl Haproxy {
    /// Starts it; `None` when it is not installed.
    pub fn start(namespace: &Namespace, port: u16) -> Result<Option<Self>, BenchError> {
        let what = "start haproxy";
        let Some(version) = haproxy_version() else { return Ok(None) };
        let name = format!("govc-bench-{}-haproxy", std::process::id());
        let configuration = std::env::temp_dir().join(name);
        fs::write(&configuration, haproxy_configuration(port)).map_err(io(what))?;
        let child = namespace.try_run(|| {
            stay_on(Core::First)?;
            let mut command = Command::new("haproxy");
            command.args(["-q", "-db", "-f"]).arg(&configuration);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().map_err(io(what))
        })??;
        Ok(Some(Self { version, child, configuration }))
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.configuration);
    }
}

fn haproxy_version() -> Option<String> {
    let output = Command::new("haproxy").arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // `HAProxy version 2.6.12-1+deb12u4 2026/01/28 - https://haproxy.org/`
    let version = text.split_whitespace().nth(2)?;
    version.split('-').next().map(str::to_owned)
}

fn haproxy_configuration(port: u16) -> String {
    format!(
        "global\n    nbthread 1\n    maxconn 1000\ndefaults\n    mode http\n    timeout connect \
         5s\n    timeout client 60s\n    timeout server 60s\n    http-reuse always\nfrontend \
         outside\n    bind {}\n    acl reads method GET\n    acl items path_beg {READABLE}\n    \
         http-request deny unless reads items\n    default_backend service\nbackend service\n    \
         server one {}\n",
        server_at(Version::V4, port),
        server_at(Version::V4, SERVICE)
    )
}
