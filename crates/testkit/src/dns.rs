//! A DNS server over UDP that says what the test told it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, MX, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// A whole name in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The server fails.
    ServFail,
    /// The server refuses.
    Refused,
    /// No answer comes.
    Silence,
}

/// Names without records and without trouble do not exist (NXDOMAIN). Ends when dropped.
pub struct FakeDns {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    records: HashMap<String, Vec<RData>>,
    troubles: HashMap<String, Trouble>,
    queries: HashMap<String, usize>,
}

impl FakeDns {
    /// On 127.0.0.1, some port.
    pub fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("the fake DNS server binds");
        let address = socket.local_addr().expect("it has an address");
        let dns = Self { address, state: Arc::default(), ends: Arc::default() };
        let (state, ends) = (Arc::clone(&dns.state), Arc::clone(&dns.ends));
        thread::spawn(move || {
            let mut packet = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                if let Some(answer) = answer(&packet[..length], &mut lock(&state)) {
                    // A client that is gone needs no answer.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        dns
    }

    /// What resolvers are pointed at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds an MX; `.` as `exchange` is the Null MX (RFC 7505).
    pub fn mx(&self, name: &str, preference: u16, exchange: &str) -> &Self {
        let exchange = Name::from_ascii(exchange).expect("a host name");
        self.add(name, RData::MX(MX::new(preference, exchange)))
    }

    /// Adds an address.
    pub fn host(&self, name: &str, address: IpAddr) -> &Self {
        self.add(
            name,
            match address {
                IpAddr::V4(address) => RData::A(A(address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(address)),
            },
        )
    }

    /// Adds a text.
    pub fn txt(&self, name: &str, text: &str) -> &Self {
        self.add(name, RData::TXT(TXT::new(vec![text.to_owned()])))
    }

    /// All questions about the name meet this trouble from now on.
    pub fn trouble(&self, name: &str, trouble: Trouble) -> &Self {
        lock(&self.state).troubles.insert(key(name), trouble);
        self
    }

    /// Takes the records and the trouble of a name away.
    pub fn forget(&self, name: &str) -> &Self {
        let mut state = lock(&self.state);
        state.records.remove(&key(name));
        state.troubles.remove(&key(name));
        drop(state);
        self
    }

    /// How many questions of any type there were about the name.
    pub fn queries(&self, name: &str) -> usize {
        lock(&self.state).queries.get(&key(name)).copied().unwrap_or(0)
    }

    /// All names that were asked for, sorted.
    pub fn names_asked(&self) -> Vec<String> {
        let mut names: Vec<_> = lock(&self.state).queries.keys().cloned().collect();
        names.sort();
        names
    }

    fn add(&self, name: &str, data: RData) -> &Self {
        lock(&self.state).records.entry(key(name)).or_default().push(data);
        self
    }
}

impl Drop for FakeDns {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // Wakes the thread.
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.send_to(&[], self.address);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn answer(packet: &[u8], state: &mut State) -> Option<Vec<u8>> {
    let question = Message::from_vec(packet).ok()?;
    let query = question.queries.first()?.clone();
    let name = key(&query.name().to_ascii());
    *state.queries.entry(name.clone()).or_default() += 1;
    let mut answer = Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    match state.troubles.get(&name) {
        Some(Trouble::Silence) => return None,
        Some(Trouble::ServFail) => answer.metadata.response_code = ResponseCode::ServFail,
        Some(Trouble::Refused) => answer.metadata.response_code = ResponseCode::Refused,
        None => match state.records.get(&name) {
            None => answer.metadata.response_code = ResponseCode::NXDomain,
            Some(records) => add_records(&mut answer, query.name(), query.query_type(), records),
        },
    }
    answer.to_vec().ok()
}

fn add_records(answer: &mut Message, name: &Name, wanted: RecordType, records: &[RData]) {
    for data in records.iter().filter(|data| data.record_type() == wanted) {
        answer.add_answer(Record::from_rdata(name.clone(), 300, data.clone()));
    }
}
