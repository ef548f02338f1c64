//! How many files and sockets this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, and returns what holds now. The soft one is
/// often 1024, for the sake of old programs that break on larger numbers; this one doesn't.
pub fn raise_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let holds = if raised.is_ok() { maximum } else { current };
    // No limit at all is `None`.
    holds.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}
