//! TLS on both doors: who trusts the authority gets in, and a certificate is changed while everything runs.

use std::path::Path;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use serde_json::json;
use sluice::dev;
use sluice::folder::Folder;
use sluice_client::{Client, admin};
use sluice_control_plane::Certificate;
use sluice_core::address::UrlPolicy;
use sluice_tests::{Authority, Numbers, RawHttp, Request, World, eventually, resources, within};
use sluice_tls::Files;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// Both planes with certificates of one authority.
async fn encrypted(authority: &Authority, folder: &Path, at_once: usize) -> World {
    let files = authority.write(folder, &NAMES);
    World::with(|options| {
        options.control_plane.tls = Some(Certificate::Files(files.clone()));
        options.trusts = Some(authority.pem());
        options.data_plane.ingress.tls = Some(files);
        options.data_plane.ingress.handshakes.at_once = at_once;
        options.data_plane.ingress.handshakes.time = Duration::from_millis(300);
    })
    .await
}

#[allow(clippy::disallowed_methods, reason = "the sender is outside of the building: it is the test that calls in")]
async fn plain(world: &World) -> TcpStream {
    TcpStream::connect(world.ingress()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_doors_speak_tls_and_nothing_else() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let world = encrypted(&authority, folder.path(), 256).await;
    let orders = world.acme.incoming("orders", resources::open()).await;
    world.served().await;
    let request = Request::post(&orders.endpoint_path, json!({"n": 1}).to_string());

    for version in [&TLS12, &TLS13] {
        let stream = authority.dial(world.ingress(), "localhost", &["http/1.1"], &[version]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
        let answer = RawHttp::over(stream).exchange(&request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let stream = authority.dial(world.ingress(), "127.0.0.1", &["h2", "http/1.1"], &[&TLS13]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let head = http::Request::post(format!("https://localhost{}", orders.endpoint_path));
    let head = head.header("content-type", "application/json").body(()).unwrap();
    let (answer, mut body) = sender.send_request(head, false).unwrap();
    body.send_data(json!({"n": 2}).to_string().into(), true).unwrap();
    assert_eq!(within("an answer over HTTP/2", answer).await.unwrap().status(), 200);

    let foreign = Authority::new();
    assert!(foreign.dial(world.ingress(), "localhost", &[], &[&TLS13]).await.is_err(), "another authority");
    assert!(authority.dial(world.ingress(), "other.example", &[], &[&TLS13]).await.is_err(), "another name");
    let mut stream = plain(&world).await;
    stream.write_all(&request.bytes()).await.unwrap();
    let mut heard = Vec::new();
    let _closed = within("the door to close", stream.read_to_end(&mut heard)).await;
    assert!(!heard.starts_with(b"HTTP/"), "plaintext is not answered: {heard:?}");

    let url = world.grpc_url().replace("http://", "https://");
    let foreign = Client::connect_trusting(&url, &world.admin_key, &foreign.pem()).await;
    assert!(foreign.is_err(), "a client trusts its own authority only");
    assert!(Client::connect(&url, &world.admin_key).await.is_err(), "which is no public one");
    let request = admin::ListDataPlanesRequest::default();
    assert!(world.client.data_planes().list_data_planes(request).await.is_ok());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handshake_is_ended_and_only_so_many_run_at_once() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let world = encrypted(&authority, folder.path(), 2).await;
    let mut silent = [plain(&world).await, plain(&world).await, plain(&world).await];
    let third = async { authority.dial(world.ingress(), "localhost", &[], &[&TLS13]).await };
    within("a handshake behind silent ones", third).await.unwrap();
    for stream in &mut silent {
        let ended = within("a silent connection to be closed", stream.read(&mut [0; 64])).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    let numbers = Numbers::of(world.health()).await;
    assert!(numbers.get("sluice_tls_events_total{event=\"handshake_timed_out\"}") >= 3.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_taken_up_and_a_broken_one_is_not() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let world = encrypted(&authority, folder.path(), 256).await;
    let orders = world.acme.incoming("orders", resources::open()).await;
    world.served().await;
    let request = Request::post(&orders.endpoint_path, json!({"n": 1}).to_string());
    let dial = async |name: &'static str| authority.dial(world.ingress(), name, &["http/1.1"], &[&TLS13]).await;
    let count = async |event: &str| {
        Numbers::of(world.health()).await.get(&format!("sluice_tls_events_total{{event=\"{event}\"}}"))
    };
    let mut open = RawHttp::over(dial("localhost").await.unwrap());
    assert_eq!(open.exchange(&request).await.status, 200);

    let files = authority.write(folder.path(), &["new.example", "127.0.0.1"]);
    eventually("the new certificate", async || dial("new.example").await.ok().map(drop)).await;
    assert!(dial("localhost").await.is_err(), "the one before is not shown any more");
    assert_eq!(open.exchange(&request).await.status, 200, "a connection that is open goes on");

    let (certificate, refused) = (std::fs::read(&files.certificate).unwrap(), count("reload_refused").await);
    for broken in [&b"not a certificate"[..], &certificate[..certificate.len() / 2], Authority::new().pem().as_bytes()]
    {
        let before = count("reload_refused").await;
        std::fs::write(&files.certificate, broken).unwrap();
        eventually("a refusal", async || (count("reload_refused").await > before).then_some(())).await;
        assert!(dial("new.example").await.is_ok(), "the good one stays");
    }
    std::fs::remove_file(&files.certificate).unwrap();
    eventually("one more", async || (count("reload_refused").await >= refused + 4.0).then_some(())).await;
    assert!(dial("new.example").await.is_ok(), "the good one stays");
    assert_eq!(open.exchange(&request).await.status, 200);
    authority.write(folder.path(), &NAMES);
    eventually("what is good again", async || dial("localhost").await.ok().map(drop)).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_leaves_the_machine_only_where_that_is_allowed() {
    let parent = tempfile::tempdir().unwrap();
    let folder = Folder::open(&parent.path().join("data")).unwrap();
    folder.ensure_master_key().unwrap();
    let mut settings = folder.control_plane(UrlPolicy::default());
    let [anywhere, local] = ["0.0.0.0:0", "127.0.0.1:0"].map(|address| address.parse().unwrap());
    let refused = dev::run_control_plane(settings.clone(), anywhere, local).await.unwrap_err().to_string();
    assert!(refused.contains("--tls-certificate") && refused.contains("--allow-plaintext"), "{refused}");
    settings.allow_plaintext = true;
    dev::run_control_plane(settings.clone(), anywhere, local).await.unwrap().stop().await.unwrap();
    settings.allow_plaintext = false;
    settings.tls = Some(Certificate::Files(Authority::new().write(parent.path(), &NAMES)));
    dev::run_control_plane(settings.clone(), anywhere, local).await.unwrap().stop().await.unwrap();
    settings.tls = Some(Certificate::Files(Files::new("nowhere.pem".into(), "nowhere.key".into())));
    let refused = dev::run_control_plane(settings, anywhere, local).await.unwrap_err().to_string();
    assert!(refused.contains("nowhere.pem"), "{refused}");
}
