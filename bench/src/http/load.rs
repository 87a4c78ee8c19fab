//! Clients that ask as fast as they are answered.

use std::{
    net::SocketAddr,
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use govc_netlab::Namespace;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;

use super::serve::{BODY, told};
use crate::{
    error::{BenchError, io},
    frames::Version,
    interrupt,
    machine::{Core, stay_on},
    pair::{OPERATION, server_at},
};

/// How long a service may take to begin, and a client to be answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for what is not to come.
const DENIED_WAIT: Duration = Duration::from_millis(300);

/// What one sample asks for.
#[derive(Clone, Copy)]
pub struct Load {
    /// Where.
    pub port: u16,
    /// What its connections declare.
    pub declares: Option<&'static str>,
    /// How many of them.
    pub connections: usize,
    /// How long they are at work before requests count.
    pub warm: Duration,
    /// How long requests count.
    pub sample: Duration,
}

impl Load {
    /// Asks from a namespace; what each request took, nanoseconds.
    pub fn run(self, client: &Namespace) -> Result<Vec<u32>, BenchError> {
        interrupt::check()?;
        client.try_run(|| {
            stay_on(Core::Last)?;
            run_local(async {
                // What is dropped on the way would be waited for much longer.
                let limit = self.warm + self.sample + PATIENCE;
                let late = |_| io("wait for answers")(std::io::ErrorKind::TimedOut.into());
                tokio::time::timeout(limit, self.all_connections()).await.map_err(late)?
            })
        })?
    }

    async fn all_connections(self) -> Result<Vec<u32>, BenchError> {
        let started = Instant::now() + self.warm;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..self.connections {
            tasks.spawn_local(self.connection(started));
        }
        let mut all = Vec::new();
        while let Some(taken) = tasks.join_next().await {
            let gone = |error| io("ask in parallel")(std::io::Error::other(error));
            all.extend(taken.map_err(gone)??);
        }
        Ok(all)
    }

    /// One connection with its requests, those that end in the second part of the time.
    async fn connection(self, started: Instant) -> Result<Vec<u32>, BenchError> {
        let mut sender = connect(self.port, self.declares).await?;
        let end = started + self.sample;
        let mut taken = Vec::new();
        loop {
            let asked = Instant::now();
            let (status, len) = ask(&mut sender, self.port, "GET").await?;
            let answered = Instant::now();
            if status != StatusCode::OK || len != BODY.len() {
                let found = format!("{status} with {len} bytes");
                return Err(io("get what was asked for")(std::io::Error::other(found)));
            }
            if answered >= end {
                return Ok(taken);
            }
            if answered >= started {
                taken.push((answered - asked).as_nanos() as u32);
            }
        }
    }
}

/// Waits until a service answers.
pub fn wait_for(client: &Namespace, port: u16, declares: bool) -> Result<(), BenchError> {
    let end = Instant::now() + PATIENCE;
    let declares = declares.then_some(OPERATION);
    loop {
        let load = Load {
            port,
            declares,
            connections: 1,
            warm: Duration::ZERO,
            sample: Duration::from_millis(5),
        };
        match load.run(client) {
            Err(error) if Instant::now() >= end => return Err(error),
            Err(BenchError::Io { .. }) => std::thread::sleep(Duration::from_millis(20)),
            other => return other.map(drop),
        }
    }
}

/// Whether a connection that declares nothing gets no answer at all.
pub fn is_unheard(client: &Namespace, port: u16) -> Result<bool, BenchError> {
    wait_for(client, port, true)?;
    let to = server_at(Version::V4, port);
    let tried = client.try_run(|| std::net::TcpStream::connect_timeout(&to, DENIED_WAIT))?;
    Ok(tried.is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut))
}

/// Whether a proxy that lets reads through refuses to write.
pub fn refuses_writes(client: &Namespace, port: u16) -> Result<bool, BenchError> {
    wait_for(client, port, false)?;
    client.try_run(|| {
        run_local(async {
            let mut sender = connect(port, None).await?;
            let (status, _) = ask(&mut sender, port, "POST").await?;
            Ok(status == StatusCode::FORBIDDEN)
        })
    })?
}

fn run_local<T>(work: impl Future<Output = Result<T, BenchError>>) -> Result<T, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(io("start a client"))?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

async fn connect(
    port: u16,
    declares: Option<&str>,
) -> Result<SendRequest<Empty<Bytes>>, BenchError> {
    let what = "connect";
    let socket = TcpSocket::new_v4().map_err(io(what))?;
    if let Some(operation) = declares {
        // Before the first packet, which carries it already.
        govc_client::declare(socket.as_raw_fd(), operation)
            .map_err(|error| io("declare")(std::io::Error::other(error)))?;
    }
    let to: SocketAddr = server_at(Version::V4, port);
    let stream = socket.connect(to).await.map_err(io(what))?;
    stream.set_nodelay(true).map_err(io(what))?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

/// One request; status and length of its answer.
async fn ask(
    sender: &mut SendRequest<Empty<Bytes>>,
    port: u16,
    method: &str,
) -> Result<(StatusCode, usize), BenchError> {
    let request = Request::builder()
        .method(method)
        .uri("/items/7")
        .header("host", server_at(Version::V4, port).to_string())
        .body(Empty::new())
        .map_err(|error| io("write a request")(std::io::Error::other(error)))?;
    sender.ready().await.map_err(told)?;
    let response = sender.send_request(request).await.map_err(told)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(told)?;
    Ok((status, body.to_bytes().len()))
}
