//! What is measured of the machine itself.

pub mod fsync;
pub mod machine;
