//! Protobuf and domain types, both ways.

use posthouse_proto::policy::v1 as policy;
use posthouse_proto::queue::v1 as queue;
use smtp::server::{BodyType, Ret};
use types::Reply;

/// What policy says instead of yes; a code that refuses nothing is a fault of ours and thus transient (invariant 2).
pub(crate) fn refusal(reply: &policy::Reply) -> Reply {
    match u16::try_from(reply.code) {
        Ok(code @ 400..=599) => Reply::new(code, reply.enhanced_code.parse().ok(), reply.text.clone()),
        _ => policy_trouble(),
    }
}

/// Policy cannot be asked.
pub(crate) fn policy_trouble() -> Reply {
    Reply::enhanced(451, 4, 3, 0, "local trouble, try again later")
}

/// The queue does not take a message.
pub(crate) fn queue_trouble(status: &tonic::Status) -> Reply {
    match status.code() {
        tonic::Code::ResourceExhausted => Reply::enhanced(452, 4, 3, 1, "storage is full, try again later"),
        _ => Reply::enhanced(451, 4, 3, 0, "local trouble, try again later"),
    }
}

pub(crate) fn body_type(body: BodyType) -> queue::BodyType {
    match body {
        BodyType::Unspecified => queue::BodyType::Unspecified,
        BodyType::SevenBit => queue::BodyType::BodyType7bit,
        BodyType::EightBit => queue::BodyType::BodyType8bitmime,
    }
}

pub(crate) fn dsn_return(ret: Option<Ret>) -> queue::DsnReturn {
    match ret {
        None => queue::DsnReturn::Unspecified,
        Some(Ret::Full) => queue::DsnReturn::Full,
        Some(Ret::Headers) => queue::DsnReturn::Headers,
    }
}

/// The answer of policy to one recipient: its destinations, or a refusal.
pub(crate) fn answer(answer: policy::Answer) -> Result<policy::Accepted, Reply> {
    match answer.answer {
        Some(policy::answer::Answer::Accepted(accepted)) if !accepted.destinations.is_empty() => Ok(accepted),
        Some(policy::answer::Answer::Refuse(reply)) => Err(refusal(&reply)),
        // Accepted for nowhere would be silent loss.
        Some(policy::answer::Answer::Accepted(_)) | None => Err(policy_trouble()),
    }
}

/// The same answer back again, for Decide.
pub(crate) fn accepted(accepted: policy::Accepted) -> policy::Answer {
    policy::Answer { answer: Some(policy::answer::Answer::Accepted(accepted)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_says_nothing_is_transient() {
        let reply = |code: u32| policy::Reply { code, enhanced_code: "5.7.1".to_owned(), text: "no".to_owned() };
        assert_eq!(refusal(&reply(550)).to_string(), "550 5.7.1 no");
        assert_eq!(refusal(&reply(250)), policy_trouble());
        assert_eq!(refusal(&reply(0)), policy_trouble());
        assert_eq!(answer(policy::Answer::default()), Err(policy_trouble()));
        assert_eq!(answer(accepted(policy::Accepted::default())), Err(policy_trouble()));
    }

    #[test]
    fn a_full_store_and_a_troubled_store_are_told_apart() {
        assert_eq!(queue_trouble(&tonic::Status::resource_exhausted("")).code, 452);
        for status in [tonic::Status::unavailable(""), tonic::Status::invalid_argument(""), tonic::Status::internal("")]
        {
            assert_eq!(queue_trouble(&status).code, 451);
        }
    }
}
