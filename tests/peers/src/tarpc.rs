//! tarpc: remote procedure calls over TCP, encoded with bincode.

use std::sync::Arc;

use futures::StreamExt;
use svcmap_tests::bench::Again;
use tarpc::server::{self, BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::{Framed, LengthDelimitedCodec};
use tarpc::{client, context, serde_transport};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::awaited::Awaited;
use crate::{Contender, PAYLOAD};

/// Room for requests and replies that wait: more than any window.
const BUFFER: usize = 4096;

#[tarpc::service]
trait Echo {
    async fn echo(payload: Vec<u8>) -> Vec<u8>;
}

#[derive(Clone)]
struct Echoes;

impl Echo for Echoes {
    async fn echo(self, _: context::Context, payload: Vec<u8>) -> Vec<u8> {
        payload
    }
}

/// A connection whose small messages leave at once, as those of libzmq and NATS do.
fn framed(stream: TcpStream) -> Framed<TcpStream, LengthDelimitedCodec> {
    stream.set_nodelay(true).expect("it is a setting");
    Framed::new(stream, LengthDelimitedCodec::new())
}

/// The process that answers.
pub struct Served(Again);

impl Served {
    /// Starts it.
    pub fn start() -> Self {
        Self(Again::start(&["--serve", "tarpc"]))
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Calls of it.
    pub fn contender(&self, runtime: &Arc<Runtime>) -> impl Contender + use<> {
        let address = self.0.first_line();
        let client = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("it listens");
            let mut config = client::Config::default();
            config.max_in_flight_requests = BUFFER;
            config.pending_request_buffer = BUFFER;
            EchoClient::new(config, serde_transport::new(framed(stream), Bincode::default()))
                .spawn()
        });
        Awaited::new(runtime, move || {
            let client = client.clone();
            async move {
                let reply = client.echo(context::current(), PAYLOAD.to_vec()).await;
                assert_eq!(reply.expect("a reply").len(), PAYLOAD.len());
            }
        })
    }
}

/// Answers one connection, until it is killed or that ends.
pub async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("it is bound"));
    let (stream, _) = listener.accept().await.expect("a connection");
    let transport = serde_transport::new(framed(stream), Bincode::default());
    let config = server::Config { pending_response_buffer: BUFFER };
    let requests = BaseChannel::new(config, transport).execute(Echoes.serve());
    requests.for_each(async |request| drop(tokio::spawn(request))).await;
}
