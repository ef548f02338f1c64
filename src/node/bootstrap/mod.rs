//! How a cluster comes to be: any start order, one cluster, whichever node dies
//! meanwhile.
//!
//! A node whose directory names no cluster asks every peer URL who it is. When all have
//! answered, each node writes down the same sorted *founding set* of (name,
//! incarnation, address); the cluster's id is its hash, so nobody has to propose it and
//! two sets make two clusters that refuse each other. When all report the same set, or
//! one says that it has begun, each node seeds its log with it and starts consensus.
//!
//! A node that has written a set down but not begun may replace it only when all
//! answer, none has begun and a founder shows a new incarnation (its directory was
//! wiped), twice in a row; from then on it refuses the old set, durably. A node that had already begun
//! the old one learns from the refusals that it can never have a majority, and starts
//! afresh (`abandon`). A node whose name a begun cluster knows under another
//! incarnation asks to be let back in (`node::rejoin`).
//!
//! `decide` is pure and explored exhaustively by its tests; `run` asks, acts and says
//! what it waits for.

pub mod decide;
mod explore;
pub mod founding;
pub mod run;
