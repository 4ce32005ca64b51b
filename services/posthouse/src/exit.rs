//! How a command ends.

use std::io;

/// What the shell is told. The numbers are those of sysexits.h where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Something failed.
    Failed = 1,
    /// The configuration has faults, or the command line cannot be understood.
    Usage = 64,
    /// The message cannot be understood.
    Data = 65,
    /// A recipient is unknown or refused.
    NoUser = 67,
    /// What is needed is not running or refuses.
    Unavailable = 69,
    /// A file cannot be written.
    CannotCreate = 73,
    /// Try again later.
    TemporaryFailure = 75,
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// What the shell is told.
    pub code: Code,
    /// What the person is told.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure with its text.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, error: anyhow::Error::msg(text.into()) }
    }

    /// Whether the reader of our output went away, as `head` does.
    pub fn is_broken_pipe(&self) -> bool {
        self.error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let code = match error.downcast_ref::<tonic::Status>().map(tonic::Status::code) {
            Some(tonic::Code::Unavailable | tonic::Code::ResourceExhausted) => Code::TemporaryFailure,
            Some(tonic::Code::InvalidArgument) => Code::Usage,
            _ => Code::Failed,
        };
        Self { code, error }
    }
}

/// What a command gives.
pub type Outcome = Result<(), Failure>;

/// The text of a failure for people: of an answer, what it says and not how it was carried.
pub fn text(failure: &Failure) -> String {
    match failure.error.downcast_ref::<tonic::Status>() {
        Some(status) if status.message().is_empty() => format!("the platform answered {:?}", status.code()),
        Some(status) => status.message().to_owned(),
        None => format!("{:#}", failure.error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_platform_become_exit_codes_and_plain_text() {
        let cases = [
            (tonic::Status::unavailable("the store is away"), Code::TemporaryFailure, "the store is away"),
            (tonic::Status::invalid_argument("name what you mean"), Code::Usage, "name what you mean"),
            (tonic::Status::not_found("no such message"), Code::Failed, "no such message"),
            (tonic::Status::internal(""), Code::Failed, "the platform answered Internal"),
        ];
        for (status, code, expected) in cases {
            let failure = Failure::from(status);
            assert_eq!((failure.code, text(&failure)), (code, expected.to_owned()));
        }
        assert!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).is_broken_pipe());
        assert!(!Failure::new(Code::Failed, "x").is_broken_pipe());
    }
}
