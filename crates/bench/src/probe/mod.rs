//! What is measured of the machine itself.

pub mod disk;
pub mod fsync;
pub mod machine;
