//! A connection that is dead at one end, or in the middle: nothing comes and nothing says that it is over. Both ends find out by their pings
//! (row 16 of the failure matrix).

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use sluice_client::admin;
use sluice_tests::{World, eventually, resources};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const PING: Duration = Duration::from_millis(400);

/// Stands between the planes. What it has connected can be made to lose everything both ways, without a word.
struct Wire {
    address: SocketAddr,
    control: watch::Sender<Control>,
    _task: JoinSet<()>,
}

#[derive(Clone, Copy, Default)]
struct Control {
    /// Connections numbered below this are dead.
    dead_below: usize,
    /// No more are taken.
    closed: bool,
    /// How many there have been.
    taken: usize,
}

impl Wire {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = watch::Sender::new(Control::default());
        let mut task = JoinSet::new();
        task.spawn(serve(listener, target, control.clone()));
        Self { address, control, _task: task }
    }

    /// From now on nothing gets through what is connected; whether others may connect.
    fn cut(&self, others_may_connect: bool) {
        self.control.send_modify(|control| {
            control.dead_below = control.taken;
            control.closed = !others_may_connect;
        });
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, control: watch::Sender<Control>) {
    let mut connections = JoinSet::new();
    let mut told = control.subscribe();
    loop {
        let (mut near, _peer) = tokio::select! {
            accepted = listener.accept() => accepted.unwrap(),
            _ = told.wait_for(|control| control.closed) => break,
        };
        let number = control.borrow().taken;
        control.send_modify(|control| control.taken += 1);
        let mut dead = control.subscribe();
        connections.spawn(async move {
            let Ok(mut far) = TcpStream::connect(target).await else { return };
            let cut = tokio::select! {
                _ended = copy_bidirectional(&mut near, &mut far) => false,
                _ = dead.wait_for(|control| number < control.dead_below) => true,
            };
            // Both sockets stay open: nobody is told.
            if cut {
                std::future::pending::<()>().await;
            }
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connected(world: &World) -> bool {
    let request = admin::ListDataPlanesRequest::default();
    let planes = world.client.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
    planes.iter().any(|plane| plane.connected)
}

/// A world whose data plane reaches its control plane through a wire.
async fn wired() -> (World, Wire) {
    let mut world = World::with(|options| {
        options.data_plane.pings.every = PING;
        options.data_plane.pings.answer = PING;
        options.control_plane.limits.ping_every = PING;
        options.control_plane.limits.ping_answer = PING;
    })
    .await;
    let wire = Wire::to(world.grpc()).await;
    world.settings.data_plane.control_plane_url = format!("http://{}", wire.address);
    world.restart_data_plane().await;
    (world, wire)
}

#[tokio::test(flavor = "multi_thread")]
async fn row_16_a_data_plane_whose_connection_is_dead_connects_again() {
    let (world, wire) = wired().await;
    let incoming = world.acme.incoming("orders", resources::open()).await;
    world.served().await;
    wire.cut(true);
    // It is published while nobody knows.
    let later = world.acme.incoming("later", resources::open()).await;
    world.served().await;
    for incoming in [&incoming, &later] {
        assert_eq!(world.trigger(incoming, &json!({})).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_16_a_control_plane_whose_connection_is_dead_shows_it() {
    let (world, wire) = wired().await;
    let incoming = world.acme.incoming("orders", resources::open()).await;
    world.served().await;
    eventually("the data plane to be connected", async || connected(&world).await.then_some(())).await;
    wire.cut(false);
    eventually("the data plane to be gone", async || (!connected(&world).await).then_some(())).await;
    // It serves on.
    assert_eq!(world.trigger(&incoming, &json!({})).await.status, 200);
}
