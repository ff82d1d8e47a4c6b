//! What the machine can do without Sluice: servers that read a request's body and answer, each in a process of its own.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sluice::destination::{self, Destination};
use sluice_egress::Egress;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::process::until_alone;

/// What a server does between the body and its answer.
#[derive(Clone)]
enum Work {
    Nothing,
    /// Keeps the body in a file: one fsync for all that wait.
    Keep(mpsc::Sender<(Bytes, oneshot::Sender<()>)>),
    /// Calls a destination.
    Call(Arc<Egress>),
}

/// `bare`: reads the body, answers 200.
pub(crate) async fn server() {
    serve(Work::Nothing).await;
}

/// `keeping`: the same after an fsync of the body in a plain file.
pub(crate) async fn keeping() {
    let (keep, mut bodies) = mpsc::channel::<(Bytes, oneshot::Sender<()>)>(AT_ONCE);
    let folder = tempfile::tempdir().expect("a folder");
    let mut file = File::create(folder.path().join("log")).expect("a file");
    std::thread::spawn(move || {
        let _folder = folder;
        while let Some(first) = bodies.blocking_recv() {
            let mut group = vec![first];
            while let Ok(next) = bodies.try_recv() {
                group.push(next);
            }
            let bytes: Vec<u8> = group.iter().flat_map(|(body, _)| body.iter().copied()).collect();
            file.write_all(&bytes).and_then(|()| file.sync_data()).expect("a disk");
            for (_, answer) in group {
                // Who is gone needs no answer.
                let _ = answer.send(());
            }
        }
    });
    serve(Work::Keep(keep)).await;
}

/// `calling`: the same after a call of a destination, whose address and authority are the argument.
pub(crate) async fn calling(sink: &str) {
    serve(Work::Call(Arc::new(Egress::new(Sink::read(sink).egress()).expect("a client")))).await;
}

/// `sink`: a destination that answers everything 200.
pub(crate) async fn sink() {
    let options = destination::Options { remembered: 1, ..destination::Options::named([NAME]) };
    let destination = Destination::start(options).await.expect("a destination");
    let address = destination.static_addresses()[NAME][0];
    let said = serde_json::json!({ "address": address.to_string(), "ca_pem": destination.ca_pem() });
    println!("{said}");
    until_alone().await;
}

/// Bodies that may wait to be kept.
const AT_ONCE: usize = 1024;
/// The destination's name.
pub(crate) const NAME: &str = "api.example.com";

/// Where a destination is that runs in another process.
pub(crate) struct Sink {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) ca_pem: String,
}

impl Sink {
    pub(crate) fn read(said: &str) -> Self {
        let said: serde_json::Value = serde_json::from_str(said).expect("what a sink says");
        let text = |key: &str| said[key].as_str().expect("a text").to_owned();
        Self { address: text("address").parse().expect("an address"), ca_pem: text("ca_pem") }
    }

    pub(crate) fn egress(&self) -> sluice_egress::Settings {
        sluice_egress::Settings {
            extra_networks: vec!["127.0.0.0/8".parse().expect("a network")],
            static_addresses: [(NAME.to_owned(), vec![self.address])].into(),
            extra_ca_pem: vec![self.ca_pem.clone().into_bytes()],
            ..sluice_egress::Settings::default()
        }
    }
}

/// One request of the kind that deliveries make.
pub(crate) async fn call(egress: &Egress) {
    let request = sluice_egress::Request {
        method: "POST".parse().expect("a method"),
        url: format!("https://{NAME}/in"),
        headers: vec![
            ("Content-Type".to_owned(), "application/json".to_owned()),
            ("Idempotency-Key".to_owned(), Uuid::now_v7().to_string()),
        ],
        body: Bytes::from_static(br#"{"order": "000000000001"}"#),
        hops: 0,
    };
    let answered = egress.send(request, Duration::from_secs(30)).await;
    assert_eq!(answered.expect("an answer").status, 200);
}

async fn serve(work: Work) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let serving = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            // As ours does.
            let _ = stream.set_nodelay(true);
            let work = work.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, work.clone()));
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
                // Whoever ends a connection ends it.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    };
    tokio::select! {
        () = serving => {}
        () = until_alone() => {}
    }
}

async fn answer(request: Request<Incoming>, work: Work) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    match work {
        Work::Nothing => {}
        Work::Keep(keep) => {
            let (answer, kept) = oneshot::channel();
            keep.send((body, answer)).await.expect("it keeps");
            kept.await.expect("it is kept");
        }
        Work::Call(egress) => call(&egress).await,
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"OK"))))
}
