//! Every call of policy with any message.

use std::sync::LazyLock;
use std::time::Duration;

use node::{Clock, Node, Peer, Snapshots};
use posthouse_proto::policy::v1 as proto;
use prost::Message as _;
use tempfile::TempDir;

use crate::grpc::{Answered, RUNTIME, call, check_status, decodes, frame, records, watch_for_panics};

/// A name of a call and whether a message is one of its requests.
type Call = (&'static str, fn(&[u8]) -> bool);

const CALLS: [Call; 5] = [
    ("Envelope", decodes::<proto::EnvelopeRequest>),
    ("Explain", decodes::<proto::EnvelopeRequest>),
    ("Connect", decodes::<proto::ConnectRequest>),
    ("Authenticate", decodes::<proto::AuthenticateRequest>),
    ("Decide", decodes::<proto::DecideRequest>),
];

/// Something of every kind that a decision rests on.
const SITE: &str = include_str!("site.yaml");

struct Site {
    node: Node,
    _state: TempDir,
}

static SITE_RUNNING: LazyLock<Site> = LazyLock::new(|| {
    let mut snapshot = resources::snapshot_from_yaml(SITE).unwrap_or_else(|faults| panic!("{faults:#?}"));
    snapshot.platform.auth_failure_floor = Duration::ZERO;
    let state = TempDir::new().unwrap();
    let node = Node::new(Snapshots::new(snapshot), state.path().to_owned(), Clock::system());
    RUNTIME.block_on(policy::start(&node)).unwrap();
    Site { node, _state: state }
});

/// Records: an octet that chooses a call (above 0x7F the frame is the fuzzer's, too), a length, a message. Properties: no
/// panic; errors are INVALID_ARGUMENT; the same question has the same answer, explained or not; every recipient has one
/// answer, which refuses with 4xx or 5xx or names destinations that are addresses.
pub fn proto_policy(data: &[u8]) {
    watch_for_panics();
    for (number, message) in records(data) {
        let (name, decodes) = CALLS[usize::from(number & 0x7f) % CALLS.len()];
        if number > 0x7f {
            let answered = ask(name, message.to_vec().into());
            check_status(name, false, &answered);
            continue;
        }
        let answered = ask(name, frame(message));
        check_status(name, decodes(message), &answered);
        if answered.code == tonic::Code::Ok {
            check(name, message, &answered);
        }
    }
    watch_for_panics();
}

fn ask(name: &str, body: bytes::Bytes) -> Answered {
    let wire = SITE_RUNNING.node.wire(Peer::Policy);
    RUNTIME.block_on(call(wire, &format!("posthouse.policy.v1.Policy/{name}"), body, false))
}

fn check(name: &str, message: &[u8], answered: &Answered) {
    match name {
        "Envelope" | "Explain" => {
            let request = proto::EnvelopeRequest::decode(message).unwrap();
            let other = ask(if name == "Envelope" { "Explain" } else { "Envelope" }, frame(message));
            let (plain, explained) = if name == "Envelope" { (answered, &other) } else { (&other, answered) };
            let plain = plain.messages::<proto::EnvelopeResponse>().remove(0);
            let explained = explained.messages::<proto::ExplainResponse>().remove(0);
            assert_eq!(explained.response.as_ref(), Some(&plain), "explained otherwise than answered");
            assert_eq!(plain.answers.len(), request.recipients.len());
            assert_eq!(explained.stories.len(), request.recipients.len());
            plain.answers.iter().for_each(check_answer);
        }
        "Connect" => answered.messages::<proto::ConnectResponse>().remove(0).refuse.iter().for_each(check_reply),
        "Authenticate" => match answered.messages::<proto::AuthenticateResponse>().remove(0).answer {
            Some(proto::authenticate_response::Answer::User(user)) => assert!(user.parse::<types::Address>().is_ok()),
            Some(proto::authenticate_response::Answer::Refuse(reply)) => check_reply(&reply),
            None => panic!("no answer"),
        },
        _ => answered.messages::<proto::DecideResponse>().remove(0).refuse.iter().for_each(check_reply),
    }
}

fn check_answer(answer: &proto::Answer) {
    match answer.answer.as_ref().expect("an answer says something") {
        proto::answer::Answer::Refuse(reply) => check_reply(reply),
        proto::answer::Answer::Accepted(accepted) => {
            assert!(!accepted.destinations.is_empty(), "accepted for nowhere");
            for destination in &accepted.destinations {
                let address = |text: &str| assert!(text.parse::<types::Address>().is_ok(), "{text:?} is no address");
                address(&destination.address);
                address(&destination.delivered_to);
                if !destination.sender.is_empty() {
                    address(&destination.sender);
                }
                assert!(!destination.transport.is_empty() && !destination.route.is_empty());
            }
        }
    }
}

fn check_reply(reply: &proto::Reply) {
    assert!((400..600).contains(&reply.code), "{reply:?}");
    let enhanced = reply.enhanced_code.parse::<types::EnhancedCode>().expect("an enhanced code");
    assert_eq!(u32::from(enhanced.class), reply.code / 100);
    assert!(!reply.text.chars().any(|c| c.is_control() && c != '\n'), "{reply:?}");
}
