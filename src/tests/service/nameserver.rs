//! A name server whose answers a test defines, over UDP and TCP.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};

/// The type numbers of RFC 1035 section 3.2.2 and RFC 3596.
pub(crate) const A: u16 = 1;
pub(crate) const AAAA: u16 = 28;
const CNAME: u16 = 5;
const SOA: u16 = 6;

/// A query that the server received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) is_tcp: bool,
}

/// The answer to a query.
pub(crate) enum Reply {
    /// NOERROR with these records, or with no records if the list is empty.
    Records(Vec<Record>),
    /// An error without records: 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED.
    Code(u8),
    /// A truncated reply, as for an answer that does not fit into a datagram.
    Truncated,
    /// The server sends no reply.
    Silence,
    /// The server sends forged replies with a false address, and then the true records.
    Forged(Vec<Record>),
}

/// A resource record with a TTL of one minute.
#[derive(Clone)]
pub(crate) struct Record {
    owner: String,
    kind: u16,
    data: Vec<u8>,
}

impl Record {
    pub(crate) fn address(owner: &str, address: impl Into<IpAddr>) -> Self {
        let (kind, data) = match address.into() {
            IpAddr::V4(v4) => (A, v4.octets().to_vec()),
            IpAddr::V6(v6) => (AAAA, v6.octets().to_vec()),
        };
        Self { owner: owner.to_owned(), kind, data }
    }

    pub(crate) fn alias(owner: &str, target: &str) -> Self {
        Self { owner: owner.to_owned(), kind: CNAME, data: encode_name(target) }
    }

    /// An SOA record, which makes a negative answer cacheable (RFC 2308 section 5).
    fn authority() -> Self {
        let names = [encode_name("ns.example"), encode_name("admin.example")].concat();
        let numbers = [1, 3600, 600, 86_400, 60_u32].map(u32::to_be_bytes).concat();
        Self { owner: "example".to_owned(), kind: SOA, data: [names, numbers].concat() }
    }
}

impl Query {
    /// Answers with this address if the query is for its family, and otherwise with no records.
    pub(crate) fn answer(&self, address: impl Into<IpAddr>) -> Reply {
        let record = Record::address(&self.name, address);
        Reply::Records(if record.kind == self.kind { vec![record] } else { Vec::new() })
    }
}

/// A server on port 53 of a local address. It runs until the process of the test ends.
pub(crate) struct NameServer(Arc<Mutex<Vec<Query>>>);

impl NameServer {
    pub(crate) fn start(
        address: &str,
        reply: impl Fn(&Query) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let at: SocketAddr = (address.parse::<Ipv4Addr>().unwrap(), 53).into();
        let udp = UdpSocket::bind(at).expect("port 53 is free in the network of the test");
        let tcp = TcpListener::bind(at).expect("port 53 is free in the network of the test");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new({
            let seen = Arc::clone(&seen);
            move |query: &Query| {
                seen.lock().unwrap().push(query.clone());
                reply(query)
            }
        });
        let by_tcp = Arc::clone(&answer);
        std::thread::spawn(move || serve_udp(&udp, &*answer));
        std::thread::spawn(move || {
            tcp.incoming().flatten().for_each(|stream| serve_tcp(stream, &*by_tcp));
        });
        Self(seen)
    }

    /// All queries so far.
    pub(crate) fn seen(&self) -> Vec<Query> {
        self.0.lock().unwrap().clone()
    }

    /// The names whose IPv4 address was queried, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let seen = self.seen().into_iter().filter(|query| query.kind == A);
        seen.map(|query| query.name).collect()
    }
}

fn serve_udp(socket: &UdpSocket, answer: &dyn Fn(&Query) -> Reply) {
    let mut bytes = [0; 512];
    while let Ok((count, from)) = socket.recv_from(&mut bytes) {
        let message = &bytes[..count];
        for reply in replies(message, false, answer) {
            let _ = socket.send_to(&reply, from);
        }
    }
}

fn serve_tcp(mut stream: TcpStream, answer: &dyn Fn(&Query) -> Reply) {
    let mut length = [0; 2];
    if stream.read_exact(&mut length).is_err() {
        return;
    }
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).expect("the query is complete");
    for reply in replies(&message, true, answer) {
        let length =
            u16::try_from(reply.len()).expect("a message has at most 65,535 bytes").to_be_bytes();
        // The reply is written in pieces, as a network may deliver it.
        for piece in [&length[..1], &length[1..], &reply[..7], &reply[7..]] {
            let _ = stream.write_all(piece);
        }
    }
}

/// The reply messages to a query.
fn replies(message: &[u8], is_tcp: bool, answer: &dyn Fn(&Query) -> Reply) -> Vec<Vec<u8>> {
    let (name, rest) = decode_name(&message[12..]);
    let kind = u16::from_be_bytes([rest[0], rest[1]]);
    let query = Query { name, kind, is_tcp };
    let id = u16::from_be_bytes([message[0], message[1]]);
    let encoded = |id, flags, records: &[Record]| encode(id, flags, &query, records);
    /// The flags QR, RD and RA.
    const ANSWER: u16 = 0x8180;
    const TRUNCATED: u16 = 0x0200;
    match answer(&query) {
        Reply::Records(records) => vec![encoded(id, ANSWER, &records)],
        Reply::Code(code) => vec![encoded(id, ANSWER | u16::from(code), &[])],
        Reply::Truncated => vec![encoded(id, ANSWER | TRUNCATED, &[])],
        Reply::Silence => Vec::new(),
        Reply::Forged(genuine) => {
            let forged = [Record::address(&query.name, [203, 0, 113, 66])];
            let other = Query { name: "other.example".to_owned(), ..query.clone() };
            let other_kind = Query { kind: 16, ..query.clone() };
            vec![
                Vec::new(),
                b"short".to_vec(),
                vec![0xff; 300],
                encoded(id ^ 1, ANSWER, &forged),
                encoded(id, 0x0100, &forged),
                encoded(id, ANSWER | 0x2800, &forged),
                encode(id, ANSWER, &other, &forged),
                encode(id, ANSWER, &other_kind, &forged),
                encoded(id, ANSWER, &genuine),
            ]
        }
    }
}

fn encode(id: u16, flags: u16, query: &Query, records: &[Record]) -> Vec<u8> {
    let count = u16::try_from(records.len()).expect("there are fewer than 65,536 records");
    let authority: &[Record] = if records.is_empty() { &[Record::authority()] } else { &[] };
    let mut bytes = Vec::new();
    for word in [id, flags, 1, count, u16::from(records.is_empty()), 0] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.extend_from_slice(&encode_name(&query.name));
    bytes.extend_from_slice(&query.kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    for record in records.iter().chain(authority) {
        bytes.extend_from_slice(&encode_name(&record.owner));
        bytes.extend_from_slice(&record.kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        let length = u16::try_from(record.data.len()).expect("the data is shorter than 64 KiB");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&record.data);
    }
    bytes
}

fn encode_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("the label is shorter than 256 bytes"));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// The name at the start of the bytes, and the remaining bytes.
fn decode_name(mut bytes: &[u8]) -> (String, &[u8]) {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(bytes[0]);
        if length == 0 {
            return (labels.join("."), &bytes[1..]);
        }
        labels.push(
            String::from_utf8(bytes[1..=length].to_vec()).expect("the queried names are text"),
        );
        bytes = &bytes[1 + length..];
    }
}
