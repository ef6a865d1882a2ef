//! NATS: a broker, a process that subscribes and replies, and requests of this one.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use svcmap_tests::bench::Again;
use tokio::runtime::Runtime;

use crate::awaited::Awaited;
use crate::{Contender, PAYLOAD};

const SUBJECT: &str = "echo";

/// How long the broker may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// The broker and who replies, both ended when this is dropped.
pub struct Broker {
    broker: Child,
    replier: Option<Again>,
    address: String,
}

impl Broker {
    /// Starts both.
    pub fn start(runtime: &Runtime) -> Result<Self, String> {
        // Free now; whoever takes it meanwhile is noticed.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.map_err(|error| error.to_string())?.port().to_string();
        let broker = Command::new("nats-server")
            .args(["--addr", "127.0.0.1", "--port", &port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let address = format!("nats://127.0.0.1:{port}");
        let mut started = Self { broker, replier: None, address };
        runtime.block_on(started.wait_listening())?;
        started.replier = Some(Again::start(&["--serve", "nats", &started.address]));
        Ok(started)
    }

    async fn wait_listening(&mut self) -> Result<(), String> {
        let connected = async {
            while async_nats::connect(&self.address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, connected).await.map_err(|_| "nobody listens".to_owned())
    }

    /// The processes beside this one.
    pub fn pids(&self) -> Vec<u32> {
        let replier = self.replier.iter().map(Again::pid);
        replier.chain([self.broker.id()]).collect()
    }

    /// Requests through it.
    pub fn contender(&self, runtime: &Arc<Runtime>) -> impl Contender + use<> {
        let client = runtime.block_on(async_nats::connect(&self.address)).expect("it listens");
        Awaited::new(runtime, move || {
            let client = client.clone();
            async move {
                let reply = client.request(SUBJECT, PAYLOAD.to_vec().into()).await;
                assert_eq!(reply.expect("a reply").payload.len(), PAYLOAD.len());
            }
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.replier = None;
        // Its own child; whatever fails here, it has ended already.
        let _ = self.broker.kill();
        let _ = self.broker.wait();
    }
}

/// Sends back what comes, until it is killed or the broker is gone.
pub async fn serve(address: &str) {
    let client = async_nats::connect(address).await.expect("the broker listens");
    let mut requests = client.subscribe(SUBJECT).await.expect("a subscription");
    client.flush().await.expect("the broker knows of it");
    println!("ready");
    while let Some(request) = requests.next().await {
        let to = request.reply.expect("who asks waits for a reply");
        client.publish(to, request.payload).await.expect("the broker is there");
    }
}
