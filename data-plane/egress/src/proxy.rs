//! The operator's way out, where a network has only one: an HTTP proxy that opens a tunnel per connection (D20).
//!
//! Hides the CONNECT exchange. Through a proxy the *proxy* resolves names and decides about addresses (it must be one
//! that does, for example smokescreen); our URL checks still run, and TLS is with the destination, so the proxy sees
//! a name and a port and nothing else. Proxies named in the environment are never used.

use sluice_core::credentials::basic;
use sluice_core::seal::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::limits::PROXY_ANSWER_BYTES;
use crate::error::SendError;

/// An HTTP proxy, chosen by the operator; its own address is not held against the address policy.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Name or address of the proxy.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Login and password, if it wants them.
    pub credentials: Option<(String, Secret)>,
}

impl Proxy {
    /// Asks for a tunnel to `host:port` on a fresh connection to the proxy. The caller sets the deadline.
    pub(crate) async fn open_tunnel(&self, socket: &mut TcpStream, host: &str, port: u16) -> Result<(), SendError> {
        let authorization = match &self.credentials {
            Some((login, password)) => {
                format!("Proxy-Authorization: {}\r\n", basic(login, password).expose())
            }
            None => String::new(),
        };
        let question = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{authorization}\r\n");
        socket.write_all(question.as_bytes()).await.map_err(|_| SendError::Connect)?;

        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            // One byte at a time, because what follows the head belongs to the tunnel. It is a short head, once per
            // connection.
            let byte = socket.read_u8().await.map_err(|_| SendError::Connect)?;
            answer.push(byte);
            if answer.len() > PROXY_ANSWER_BYTES {
                return Err(SendError::ProxyDenied);
            }
        }
        // `HTTP/1.x 2..`: every 2xx opens the tunnel (RFC 9110, 9.3.6), nothing else does.
        let opened = answer.starts_with(b"HTTP/1.") && answer.get(8..10) == Some(b" 2");
        if opened { Ok(()) } else { Err(SendError::ProxyDenied) }
    }
}
