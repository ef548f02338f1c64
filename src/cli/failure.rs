//! How a command ends when it does not succeed: one message, one hint, one exit code.
//! The only map from client errors to exit codes is here.

use std::fmt::Display;
use std::process::ExitCode;

use bellwether_client::Error;

/// The exit codes, so that scripts can tell the cases apart. 0 is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Error = 1,
    Usage = 2,
    NotFound = 3,
    PreconditionFailed = 4,
    NoLeader = 5,
    /// A read timed out, or a write's outcome is unknown.
    Unknown = 6,
    Authentication = 7,
    Interrupted = 130,
}

#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string(), hint: None }
    }

    pub fn error(message: impl Display) -> Self {
        Self::new(Exit::Error, message)
    }

    pub fn usage(message: impl Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Says what went wrong on standard error, and gives the code to exit with.
    pub fn report(&self) -> ExitCode {
        let red = anstyle::AnsiColor::Red.on_default().bold();
        anstream::eprintln!("{red}error:{red:#} {}", self.message);
        if let Some(hint) = &self.hint {
            anstream::eprintln!("hint: {hint}");
        }
        ExitCode::from(self.exit as u8)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (exit, hint) = match &error {
            Error::BadEndpoint { .. } => (Exit::Usage, None),
            Error::Invalid { .. } | Error::Server { .. } => (Exit::Error, None),
            Error::Refused { .. } => (Exit::Error, Some("nothing was changed; try again in a moment")),
            Error::Unreachable { .. } => {
                let hint = "start a cluster with `bellwether up`, or name its nodes with --endpoint";
                (Exit::Error, Some(hint))
            }
            Error::PreconditionFailed { .. } => {
                (Exit::PreconditionFailed, Some("somebody else changed the key; get it again"))
            }
            Error::NoLeader { .. } => {
                (Exit::NoLeader, Some("nothing was changed; see `bellwether status` for who is up"))
            }
            Error::Unknown { .. } => (
                Exit::Unknown,
                Some("the write may or may not have been applied; get the key before repeating it"),
            ),
            Error::Timeout { .. } => {
                (Exit::Unknown, Some("reads change nothing; try again, or raise --timeout"))
            }
            Error::Unauthenticated { .. } => (Exit::Authentication, None),
        };
        let hint = error.hint().or(hint).map(str::to_owned);
        Self { exit, message: error.to_string(), hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_errors_have_the_documented_exit_codes() {
        let text = String::new;
        for (error, exit) in [
            (Error::BadEndpoint { text: text(), why: text() }, 2),
            (Error::Invalid { message: text(), hint: None }, 1),
            (Error::Server { status: 500, message: text() }, 1),
            (Error::Refused { message: text(), hint: None }, 1),
            (Error::Unreachable { why: text() }, 1),
            (Error::PreconditionFailed { message: text() }, 4),
            (Error::NoLeader { why: text() }, 5),
            (Error::Unknown { why: text() }, 6),
            (Error::Timeout { why: text() }, 6),
            (Error::Unauthenticated { message: text() }, 7),
        ] {
            let shown = format!("{error:?}");
            assert_eq!(Failure::from(error).exit() as u8, exit, "{shown}");
        }
        assert_eq!(Exit::NotFound as u8, 3);
        assert_eq!(Exit::Interrupted as u8, 130);
    }

    #[test]
    fn the_servers_hint_wins() {
        let error = Error::Refused { message: "busy".into(), hint: Some("wait 2 s".into()) };
        assert_eq!(Failure::from(error).hint.as_deref(), Some("wait 2 s"));
    }
}
