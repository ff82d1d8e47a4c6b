//! A name server that plays a script, over UDP and TCP.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::CNAME;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// As it was sent, with its final dot.
    pub(super) name: String,
    pub(super) kind: RecordType,
    pub(super) over_tcp: bool,
}

/// What is said to it.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// These records, in order; none: the name exists and has nothing of this kind.
    Records(Vec<(String, Data)>),
    /// That it cannot be said.
    Code(ResponseCode),
    /// Bytes after the right id.
    Garbage(Vec<u8>),
    /// Nothing.
    Silence,
}

#[derive(Debug, Clone)]
pub(super) enum Data {
    Address(IpAddr),
    Alias(String),
}

/// Those of the addresses that the question is about.
pub(super) fn addresses<A: AsRef<str>>(asked: &Asked, addresses: &[A]) -> Reply {
    let addresses = addresses.iter().map(|address| address.as_ref().parse::<IpAddr>().unwrap());
    let wanted = addresses.filter(|address| address.is_ipv4() == (asked.kind == RecordType::A));
    Reply::Records(wanted.map(|address| (asked.name.clone(), Data::Address(address))).collect())
}

/// `from` is another name for `to`.
pub(super) fn alias(from: &str, to: &str) -> (String, Data) {
    (from.to_owned(), Data::Alias(to.to_owned()))
}

type Script = Box<dyn FnMut(&Asked) -> Reply + Send>;

#[derive(Clone)]
pub(super) struct Dns {
    pub(super) address: SocketAddr,
    stage: Arc<Mutex<(Script, Vec<Asked>)>>,
}

impl Dns {
    pub(super) async fn start(script: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        // The same port for both; somebody else may have the second one.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let stage: Arc<Mutex<(Script, Vec<Asked>)>> = Arc::new(Mutex::new((Box::new(script), Vec::new())));
        let dns = Self { address: udp.local_addr().unwrap(), stage };
        tokio::spawn(dns.clone().serve_udp(udp));
        tokio::spawn(dns.clone().serve_tcp(tcp));
        dns
    }

    /// For every name the addresses of the next entry; the last one stays.
    pub(super) async fn playing(answers: &[&[&str]]) -> Self {
        let mut answers: VecDeque<Vec<String>> =
            answers.iter().map(|answer| answer.iter().map(ToString::to_string).collect()).collect();
        let mut halves = 0;
        Self::start(move |asked| {
            // A lookup is two questions.
            halves += 1;
            if halves > 2 && answers.len() > 1 {
                halves = 1;
                answers.pop_front();
            }
            addresses(asked, &answers[0])
        })
        .await
    }

    /// What was asked so far, and forgets it.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.stage.lock().unwrap().1)
    }

    /// How often a name was looked up so far, IPv4 and IPv6 counted as one; forgets it.
    pub(super) fn lookups(&self) -> usize {
        let asked = self.asked();
        let of = |kind| asked.iter().filter(|asked| asked.kind == kind).count();
        assert_eq!(of(RecordType::A), of(RecordType::AAAA), "{asked:?}");
        of(RecordType::A)
    }

    async fn serve_udp(self, socket: UdpSocket) {
        let mut packet = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            if let Some(answer) = self.answer(&packet[..length], false) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    }

    async fn serve_tcp(self, listener: TcpListener) {
        while let Ok((mut socket, _)) = listener.accept().await {
            let dns = self.clone();
            tokio::spawn(async move {
                while let Ok(length) = socket.read_u16().await {
                    let mut question = vec![0; length.into()];
                    socket.read_exact(&mut question).await?;
                    if let Some(answer) = dns.answer(&question, true) {
                        socket.write_u16(answer.len().try_into().unwrap()).await?;
                        socket.write_all(&answer).await?;
                    }
                }
                std::io::Result::Ok(())
            });
        }
    }

    fn answer(&self, question: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        /// What fits into one packet everywhere.
        const PACKET: usize = 1232;
        let question = Message::from_vec(question).unwrap();
        let query = question.queries[0].clone();
        let asked = Asked { name: query.name().to_ascii(), kind: query.query_type(), over_tcp };
        let reply = {
            let mut stage = self.stage.lock().unwrap();
            stage.1.push(asked.clone());
            (stage.0)(&asked)
        };
        let mut answer = Message::response(question.id, question.op_code);
        answer.add_query(query);
        match reply {
            Reply::Records(records) => {
                answer.add_answers(records.into_iter().map(|(name, data)| {
                    let data = match data {
                        Data::Address(address) => RData::from(address),
                        Data::Alias(name) => RData::CNAME(CNAME(Name::from_ascii(name).unwrap())),
                    };
                    Record::from_rdata(Name::from_ascii(name).unwrap(), 0, data)
                }));
            }
            Reply::Code(code) => answer.metadata.response_code = code,
            Reply::Garbage(bytes) => return Some([&question.id.to_be_bytes(), &bytes[..]].concat()),
            Reply::Silence => return None,
        }
        let bytes = answer.to_vec().unwrap();
        if over_tcp || bytes.len() <= PACKET {
            return Some(bytes);
        }
        answer.metadata.truncation = true;
        answer.answers.clear();
        Some(answer.to_vec().unwrap())
    }
}
