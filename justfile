# The commands people repeat; each is one line that works without `just`, too.

# What the README promises: everything but the containers.
test:
    cargo test --workspace && (cd crates/sim && cargo test)

# Writes the elections under src/consensus/election/tests anew; read the diff.
bless:
    BELLWETHER_BLESS=1 cargo test --lib elections_go_as_written_down

# Everything that continuous integration runs.
ci:
    .ci/run

# Whole clusters in simulated time: as many random histories as asked.
sim histories="20":
    cd crates/sim && cargo run -- --quiet --histories {{histories}}

# Every planted bug must be noticed within so many seeds.
sim-bugs seeds="20":
    cd crates/sim && cargo run -- --histories {{seeds}} bugs

# Kill -9 of random nodes under writers, checked for linearizability.
kill-loop rounds="50":
    BELLWETHER_KILL_ROUNDS={{rounds}} cargo test --release --test it kill_loop -- --nocapture

# The pause of writes when the highest returns under highest-id: the median of so many.
takeovers rounds="15":
    BELLWETHER_TAKEOVERS={{rounds}} cargo test --release --test it takes_over_without -- --nocapture

# Random input for one target, for some minutes; `just fuzz` alone lists them.
fuzz target="" seconds="300":
    @if [ -z "{{target}}" ]; then grep -rhoE 'explore[a-z_]*\("[a-z_]+"' src | cut -d'"' -f2 | sort; else \
        BELLWETHER_FUZZ_SECONDS={{seconds}} cargo test --release --lib {{target}} -- --nocapture; fi

# The chapter's walk and its failures in containers.
containers:
    tests/containers/run

# Random sequences of requests to Bellwether and to a real etcd, every reply compared.
etcd-diff N="2000":
    tests/etcd/run prepare
    target/debug/bellwether-parity diff --sequences {{N}}

# The same in short, tours with etcdctl, and two client libraries while a leader is killed.
etcd:
    tests/etcd/run

# A local cluster; Ctrl-C stops it.
up *flags:
    cargo run --release -- up {{flags}}

# docs/configuration.md as the code has it, and the API documentation.
docs:
    cargo run -- docs > docs/configuration.md
    cargo doc --workspace --no-deps --document-private-items

# Ten times more writers than a cluster serves, for a minute; fails when a bound is broken.
overload seconds="60":
    cargo build --release -p bellwether -p bellwether-bench
    target/release/bellwether-bench overload --seconds {{seconds}}

# Ten minutes of 64 writers on three nodes; fails when a term changes.
soak seconds="600":
    bench/soak --seconds {{seconds}}

# Beside etcd on this machine; leave it alone meanwhile. Writes docs/benchmarks.md.
bench:
    bench/compare

# Instructions that the hot parts take, and the ratios between them that must hold.
instructions:
    bench/instructions

# The same as the data grows, up to ten million revisions. Writes docs/benchmarks-growth.md.
bench-growth:
    bench/compare --growth
