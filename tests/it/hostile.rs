//! Clients that mean harm, or are broken: whatever they say, they get the right status or a
//! closed connection, nothing is changed, the leader leads on in the same term, and the log
//! stays readable. Many well-meaning clients are in `overload.rs`.

mod http1;
mod http2;
mod peers;
mod slow;
