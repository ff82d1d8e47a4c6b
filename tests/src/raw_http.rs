//! HTTP/1.1 by hand: sends the very bytes it is given, however wrong, and reads what comes back.
//!
//! Hides how an answer is framed. Nothing is corrected, added or repeated, so that a test says exactly what a sender sends.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::patience::within;

/// A request under construction; [`bytes`](Self::bytes) is what goes over the wire.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Request {
    /// A request with a `Host` header and nothing else.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            headers: vec![("Host".into(), b"sluice.test".to_vec())],
            body: Vec::new(),
        }
    }

    /// `POST` of this text as `application/json`, with its length.
    pub fn post(target: &str, body: impl AsRef<[u8]>) -> Self {
        Self::new("POST", target).header("Content-Type", "application/json").body(body)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Takes every header of this name away.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(sent, _)| !sent.eq_ignore_ascii_case(name));
        self
    }

    /// Puts a header in the place of every one of its name.
    #[must_use]
    pub fn with(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).header(name, value)
    }

    /// Sets the body, and its length.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        let length = self.body.len().to_string();
        self.with("Content-Length", length)
    }

    /// Sends the body in chunks of at most this many bytes, instead of with its length.
    #[must_use]
    pub fn chunked(mut self, size: usize) -> Self {
        let mut chunks = Vec::new();
        for chunk in self.body.chunks(size) {
            chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            chunks.extend_from_slice(chunk);
            chunks.extend_from_slice(b"\r\n");
        }
        chunks.extend_from_slice(b"0\r\n\r\n");
        self.body = chunks;
        self.without("Content-Length").header("Transfer-Encoding", "chunked")
    }

    /// Everything up to the body.
    pub fn head(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    /// All of it.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// In order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(sent, _)| sent == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// `error.code` of a refusal (D12); empty when the answer is none.
    pub fn code(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A connection.
#[derive(Debug)]
pub struct RawHttp<S = TcpStream> {
    stream: S,
    buffer: Vec<u8>,
}

impl RawHttp {
    /// Connects.
    ///
    /// # Panics
    /// If nobody listens there.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    /// Connects, if somebody listens there.
    ///
    /// # Errors
    /// Nobody does.
    #[allow(clippy::disallowed_methods, reason = "the sender is outside of the building: it is the test that calls in")]
    pub async fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = within("a connection", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Whether the peer has closed it, for all that has come so far. A client that keeps connections asks before it uses one again.
    pub fn is_closed(&self) -> bool {
        !matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends these bytes again and again with this pause, until an answer comes.
    pub async fn answer_while_sending(&mut self, bytes: &[u8], pause: Duration) -> Answer {
        let trickle = async {
            loop {
                let _closed = self.stream.write_all(bytes).await;
                if tokio::time::timeout(pause, self.stream.readable()).await.is_ok() {
                    return;
                }
            }
        };
        within("an answer to what trickles in", trickle).await;
        self.answer().await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawHttp<S> {
    /// Speaks over a connection that is there already.
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Sends these bytes. A peer that has closed already is not an error: its answer tells.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _closed = within("the bytes to be taken", self.stream.write_all(bytes)).await;
    }

    /// Says that nothing more is sent.
    pub async fn finish(&mut self) {
        let _closed = self.stream.shutdown().await;
    }

    /// Reads one answer. `100 Continue` is skipped.
    ///
    /// # Panics
    /// If the connection ends before the answer is whole.
    pub async fn answer(&mut self) -> Answer {
        within("an answer", self.read_answer(true)).await.expect("the connection ended without a whole answer")
    }

    /// Waits until the peer asks for the body with `100 Continue`.
    ///
    /// # Panics
    /// If it answers something else.
    pub async fn expect_continue(&mut self) {
        let (status, _) = within("100 Continue", self.read_head()).await.expect("the connection ended");
        assert_eq!(status, 100);
    }

    /// Reads one answer to a `HEAD` request: it has no body, whatever its headers say.
    ///
    /// # Panics
    /// If the connection ends before the answer is whole.
    pub async fn answer_to_head(&mut self) -> Answer {
        within("an answer", self.read_answer(false)).await.expect("the connection ended without a whole answer")
    }

    /// Reads one answer, or nothing when the peer closes the connection instead.
    pub async fn answer_or_end(&mut self) -> Option<Answer> {
        within("an answer or the end", self.read_answer(true)).await.ok()
    }

    /// Sends a request and reads its answer.
    pub async fn exchange(&mut self, request: &Request) -> Answer {
        self.send(&request.bytes()).await;
        self.answer().await
    }

    /// Waits until the peer closes the connection, and returns what it still sent.
    pub async fn closed(&mut self) -> Vec<u8> {
        within("the peer to close the connection", async {
            while let Ok(read) = self.read().await
                && read > 0
            {}
        })
        .await;
        std::mem::take(&mut self.buffer)
    }

    async fn read(&mut self) -> io::Result<usize> {
        let mut piece = [0; 16 * 1024];
        let read = self.stream.read(&mut piece).await?;
        self.buffer.extend_from_slice(&piece[..read]);
        Ok(read)
    }

    async fn more(&mut self) -> io::Result<()> {
        if self.read().await? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    async fn read_answer(&mut self, with_body: bool) -> io::Result<Answer> {
        loop {
            let (status, headers) = self.read_head().await?;
            if status == 100 {
                continue;
            }
            let of = |name: &str| headers.iter().find(|(sent, _)| sent == name).map(|(_, value)| value.as_str());
            let body = if !with_body || status == 204 {
                Vec::new()
            } else if of("transfer-encoding").is_some() {
                self.read_chunks().await?
            } else {
                let length = of("content-length").map_or(0, |length| length.parse().expect("a length"));
                self.read_exactly(length).await?
            };
            return Ok(Answer { status, headers, body });
        }
    }

    async fn read_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let head = self.read_until(b"\r\n\r\n").await?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not an answer: {head}"));
        let header =
            |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
        Ok((status, lines.filter_map(header).collect()))
    }

    async fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.read_until(b"\r\n").await?;
            let size = String::from_utf8_lossy(&size).into_owned();
            let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
            body.extend(self.read_exactly(size).await?);
            self.read_exactly(2).await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn read_until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                let rest = self.buffer.split_off(at + end.len());
                return Ok(std::mem::replace(&mut self.buffer, rest));
            }
            self.more().await?;
        }
    }

    async fn read_exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }
}
