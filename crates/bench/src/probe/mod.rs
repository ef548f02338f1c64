//! What is measured beside the load: processes, the disk, the machine.

pub mod fsync;
pub mod machine;
pub mod process;
