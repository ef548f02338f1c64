//! etcd's Watch service on real nodes: what it answers, what a client that resumes sees
//! when nodes die, and what many watchers cost.

mod answers;
mod crowd;
mod resume;
