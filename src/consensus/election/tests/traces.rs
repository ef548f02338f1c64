//! Elections as readable exchanges: each text file beside this one is a script, its lines
//! beginning with `>`, and below each line what follows from it. `just bless` writes
//! what follows anew; a change of a policy shows in the diff.
//!
//! The decisions are the policies' own. Around them is a model of what the engine does
//! with them: votes as in Raft, instant messages, one tick of time after the other, and
//! random waits that are written down, so that a trace is the same every time.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::types::{ElectionPolicy, MemberId, MemberName};

use super::tests::{LEASE, STEP};
use super::{Decision, ElectionView, Voter, decide};

const TICK: Duration = Duration::from_millis(20);
/// What `raft` waits after the lease, campaign after campaign: 30 to 100 percent of it.
const WAITS: [u64; 5] = [180, 100, 260, 140, 220];

struct Node {
    name: MemberName,
    up: bool,
    /// Its whole machine is off: nobody answers in its place.
    dark: bool,
    /// Whom it cannot exchange messages with.
    apart: Vec<usize>,
    term: u64,
    voted: Option<(u64, usize)>,
    leads: bool,
    leader: Option<usize>,
    heard: Duration,
    /// It found that its leader has ended.
    leader_gone: bool,
    /// Last word of a leader, change of vote, or start.
    quiet_since: Duration,
    acknowledged: Duration,
    log: u64,
    campaigned: Option<Duration>,
    waits: usize,
}

struct World {
    policy: ElectionPolicy,
    now: Duration,
    nodes: Vec<Node>,
    told: String,
}

impl Node {
    fn end(&mut self) {
        (self.up, self.leads) = (false, false);
    }
}

impl World {
    fn new(policy: ElectionPolicy) -> Self {
        let node = |number: usize| Node {
            name: MemberName::parse(&format!("node-{number}")).expect("a name"),
            up: false,
            dark: false,
            apart: Vec::new(),
            term: 0,
            voted: None,
            leads: false,
            leader: None,
            heard: Duration::ZERO,
            leader_gone: false,
            quiet_since: Duration::ZERO,
            acknowledged: Duration::ZERO,
            log: 0,
            campaigned: None,
            waits: number - 1,
        };
        Self { policy, now: Duration::ZERO, nodes: (1..=3).map(node).collect(), told: String::new() }
    }

    fn tell(&mut self, line: &str) {
        let _ = writeln!(self.told, "{:>6} ms  {line}", self.now.as_millis());
    }

    fn name(&self, i: usize) -> String {
        self.nodes[i].name.to_string()
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        self.nodes[to].up && !self.nodes[from].apart.contains(&to)
    }

    /// Runs one line of a script and returns what it told.
    fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let node =
            |name: &&str| self.nodes.iter().position(|node| node.name.as_str() == *name).expect("a node");
        match words.as_slice() {
            ["wait", ms, "ms"] => {
                let until = self.now + Duration::from_millis(ms.parse().expect("milliseconds"));
                while self.now < until {
                    self.tick();
                    self.now += TICK;
                }
            }
            ["start", names @ ..] => {
                names.iter().map(node).collect::<Vec<_>>().into_iter().for_each(|i| self.start(i))
            }
            ["kill", name] => {
                let i = node(name);
                self.nodes[i].end();
            }
            ["power", "off", name] => {
                let i = node(name);
                self.nodes[i].end();
                self.nodes[i].dark = true;
            }
            ["cut", name] => {
                let i = node(name);
                for other in (0..3).filter(|other| *other != i) {
                    self.nodes[i].apart.push(other);
                    self.nodes[other].apart.push(i);
                }
            }
            ["heal"] => self.nodes.iter_mut().for_each(|node| node.apart.clear()),
            ["write"] => self.write(),
            _ => panic!("no command of a script: {line}"),
        }
        std::mem::take(&mut self.told)
    }

    fn start(&mut self, i: usize) {
        let now = self.now;
        let node = &mut self.nodes[i];
        (node.up, node.dark, node.leader, node.heard, node.quiet_since) =
            (true, false, None, Duration::ZERO, now);
    }

    /// One more entry, on the leader and whoever hears it, if they are a majority.
    fn write(&mut self) {
        let Some(leader) = (0..3).find(|i| self.nodes[*i].leads) else {
            return self.tell("refused: nobody leads");
        };
        let holders: Vec<usize> = (0..3).filter(|to| *to == leader || self.reaches(leader, *to)).collect();
        if holders.len() < 2 {
            return self.tell(&format!("{} refuses: no majority", self.name(leader)));
        }
        let index = self.nodes[leader].log + 1;
        holders.iter().for_each(|i| self.nodes[*i].log = index);
        let names: Vec<String> = holders.iter().map(|i| self.name(*i)).collect();
        self.tell(&format!("entry {index} is on {}", names.join(", ")));
    }

    fn tick(&mut self) {
        for i in 0..3 {
            if self.nodes[i].up && self.nodes[i].leads {
                self.heartbeat(i);
            }
        }
        for i in (0..3).filter(|i| self.nodes[*i].up).collect::<Vec<_>>() {
            self.detect(i);
        }
        for i in 0..3 {
            if self.nodes[i].up {
                self.look(i);
            }
        }
    }

    /// Whose leader's process has ended is told so by the leader's machine.
    fn detect(&mut self, i: usize) {
        let Some(leader) = self.nodes[i].leader.filter(|_| self.leader_alive(i)) else { return };
        if self.nodes[leader].up || self.nodes[leader].dark || self.nodes[i].apart.contains(&leader) {
            return;
        }
        let now = self.now;
        let node = &mut self.nodes[i];
        (node.leader_gone, node.quiet_since) = (true, now);
        self.tell(&format!("{} → {}: your port is closed", self.name(i), self.name(leader)));
    }

    fn heartbeat(&mut self, leader: usize) {
        let term = self.nodes[leader].term;
        for to in (0..3).filter(|to| *to != leader) {
            if !self.reaches(leader, to) {
                continue;
            }
            if self.nodes[to].term > term {
                self.tell(&format!("{} answers {}: term {} is over", self.name(to), self.name(leader), term));
                let newer = self.nodes[to].term;
                let deposed = &mut self.nodes[leader];
                (deposed.leads, deposed.term) = (false, newer);
                self.tell(&format!("{} steps down", self.name(leader)));
                return;
            }
            let (now, log) = (self.now, self.nodes[leader].log);
            let node = &mut self.nodes[to];
            (node.term, node.heard, node.quiet_since, node.log) = (term, now, now, log);
            (node.leads, node.leader_gone) = (false, false);
            if node.leader.replace(leader) != Some(leader) {
                self.tell(&format!("{} → {}: I lead term {term}", self.name(leader), self.name(to)));
            }
            self.nodes[leader].acknowledged = self.now;
        }
        if self.now.saturating_sub(self.nodes[leader].acknowledged) > LEASE {
            self.nodes[leader].leads = false;
            self.nodes[leader].leader = None;
            self.tell(&format!(
                "{} hears no majority any more: it steps down and falls silent",
                self.name(leader)
            ));
        }
    }

    fn leader_alive(&self, i: usize) -> bool {
        let node = &self.nodes[i];
        let heard = node.leader.is_some() && self.now.saturating_sub(node.heard) <= LEASE;
        node.leads || (heard && !node.leader_gone)
    }

    fn view(&self, me: usize) -> ElectionView {
        let node = &self.nodes[me];
        let voter = |i: usize| Voter {
            id: MemberId(i as u64),
            name: self.nodes[i].name.clone(),
            draining: false,
            caught_up: node.leads && self.reaches(me, i) && self.nodes[i].log == node.log,
        };
        ElectionView {
            me: MemberId(me as u64),
            voters: (0..3).map(voter).collect(),
            unsound: false,
            leads: node.leads,
            leader_alive: self.leader_alive(me),
            last_leader: node.leader.map(|leader| MemberId(leader as u64)),
            leader_gone: node.leader_gone,
            quiet_for: self.now.saturating_sub(node.quiet_since),
            fresh: node.term == 0,
            lease: LEASE,
            step: STEP,
        }
    }

    fn look(&mut self, i: usize) {
        let view = self.view(i);
        match decide(self.policy, &view) {
            Decision::TransferTo(to) => {
                let to = to.0 as usize;
                self.tell(&format!("{} → {}: you rank higher, take over", self.name(i), self.name(to)));
                self.ask_for_votes(to);
            }
            Decision::Campaign if self.may_campaign(i) => self.campaign(i),
            _ if self.engine_campaigns(i, &view) => self.campaign(i),
            _ => {}
        }
    }

    /// At most once a step.
    fn may_campaign(&self, i: usize) -> bool {
        self.nodes[i].campaigned.is_none_or(|at| self.now >= at + STEP)
    }

    fn engine_campaigns(&mut self, i: usize, view: &ElectionView) -> bool {
        let node = &mut self.nodes[i];
        let wait = Duration::from_millis(WAITS[node.waits % WAITS.len()]);
        let since =
            node.campaigned.map_or(view.quiet_for, |at| view.quiet_for.min(self.now.saturating_sub(at)));
        let due = self.policy == ElectionPolicy::Raft && !view.leads && !view.fresh && since >= LEASE + wait;
        node.waits += usize::from(due);
        due
    }

    fn campaign(&mut self, me: usize) {
        self.nodes[me].campaigned = Some(self.now);
        let next = self.nodes[me].term + 1;
        self.tell(&format!("{} → all: would you vote for me in term {next}?", self.name(me)));
        let mut granted = 1;
        for voter in (0..3).filter(|voter| *voter != me) {
            if !self.reaches(me, voter) {
                continue;
            }
            let answer = if self.leader_alive(voter) {
                format!("no, I hear {}", self.name(self.nodes[voter].leader.unwrap_or(voter)))
            } else if self.nodes[voter].log > self.nodes[me].log {
                "no, my log is longer".to_owned()
            } else {
                granted += 1;
                "yes".to_owned()
            };
            self.tell(&format!("{} → {}: {answer}", self.name(voter), self.name(me)));
        }
        if granted >= 2 {
            self.ask_for_votes(me);
        }
    }

    fn ask_for_votes(&mut self, me: usize) {
        let term = self.nodes[me].term + 1;
        self.vote(me, term, me);
        self.tell(&format!("{} → all: vote for me in term {term}", self.name(me)));
        let mut votes = 1;
        for voter in (0..3).filter(|voter| *voter != me) {
            let free = self.nodes[voter].voted.is_none_or(|(voted, _)| voted < term);
            if self.reaches(me, voter) && free && self.nodes[voter].log <= self.nodes[me].log {
                self.vote(voter, term, me);
                self.tell(&format!("{} → {}: you have my vote", self.name(voter), self.name(me)));
                votes += 1;
            }
        }
        if votes >= 2 {
            let now = self.now;
            let node = &mut self.nodes[me];
            (node.leads, node.leader, node.acknowledged) = (true, Some(me), now);
            self.tell(&format!("{} leads term {term}", self.name(me)));
            self.heartbeat(me);
        }
    }

    fn vote(&mut self, voter: usize, term: u64, candidate: usize) {
        let now = self.now;
        let node = &mut self.nodes[voter];
        (node.term, node.voted, node.quiet_since, node.leads) = (term, Some((term, candidate)), now, false);
        node.leader_gone = false;
    }
}

/// What the file says when its script is run again.
fn replay(text: &str) -> String {
    let mut replayed = String::new();
    let mut world = None;
    for line in text.lines() {
        if let Some(policy) = line.strip_prefix("policy: ") {
            let all = [ElectionPolicy::Raft, ElectionPolicy::LowestId, ElectionPolicy::HighestId];
            let policy = all.into_iter().find(|known| known.as_str() == policy).expect("a policy");
            world = Some(World::new(policy));
        }
        if let Some(command) = line.strip_prefix("> ") {
            let told = world.as_mut().expect("the policy comes first").run(command);
            let _ = write!(replayed, "{line}\n{told}");
        } else if line.is_empty() || line.starts_with('#') || line.starts_with("policy: ") {
            let _ = writeln!(replayed, "{line}");
        }
    }
    replayed
}

#[test]
fn elections_go_as_written_down() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/consensus/election/tests");
    let files = std::fs::read_dir(&dir).expect("the traces").map(|entry| entry.expect("a file").path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|kind| kind == "txt")).collect();
    files.sort();
    assert!(files.len() >= 6, "traces are missing in {}", dir.display());
    for file in files {
        let written = std::fs::read_to_string(&file).expect("a trace");
        let replayed = replay(&written);
        if std::env::var_os("BELLWETHER_BLESS").is_some() {
            std::fs::write(&file, &replayed).expect("written");
        } else {
            assert_eq!(written, replayed, "{}: `just bless` writes it anew", file.display());
        }
    }
}
