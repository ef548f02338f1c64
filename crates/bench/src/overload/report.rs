//! The table, and the bounds.

use hdrhistogram::Histogram;

use super::Phase;

/// The slowest hundredth of the accepted writes may take so many times what it took in the
/// calm: the refusals share the leader's thread, and on a small machine the generator its
/// cores.
const MAX_ACCEPTED_RATIO: f64 = 10.0;
/// Clients that ask again at once, whatever Retry-After says, wait for each other's answers
/// on any server: as long as it takes to answer all of them in turn. A refusal is early
/// when it takes no more than twice that, the slowest hundredth included.
const MAX_REFUSED_TURNS: f64 = 2.0;
/// What a node may take for the storm: buffers of some thousand connections, and what is
/// written between two compactions.
const MAX_GROWTH_MIB: u64 = 256;

pub struct Report {
    pub calm: Phase,
    pub storm: Phase,
    /// Acknowledged writes that are gone.
    pub lost: u64,
}

fn p99(latencies: &Histogram<u64>) -> u64 {
    latencies.value_at_quantile(0.99)
}

fn ms(micros: u64) -> String {
    format!("{:.1}", micros as f64 / 1000.0)
}

fn per_second(count: u64, phase: &Phase) -> String {
    format!("{:.0}", count as f64 / phase.took.as_secs_f64())
}

fn mib(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}

impl Report {
    fn accepted_ratio(&self) -> f64 {
        p99(&self.storm.seen.accepted) as f64 / p99(&self.calm.seen.accepted).max(1) as f64
    }

    /// How many turns of the whole line the slowest hundredth of the refusals took.
    fn refused_turns(&self) -> f64 {
        let Phase { seen, took, writers, .. } = &self.storm;
        let answers = (seen.accepted.len() + seen.refused.len()).max(1);
        let turn_us = took.as_micros() as f64 * *writers as f64 / answers as f64;
        p99(&seen.refused) as f64 / turn_us.max(1.0)
    }

    fn growth_mib(&self) -> Vec<u64> {
        self.storm.memory.iter().map(|(start, most)| mib(most.saturating_sub(*start))).collect()
    }

    pub fn table(&self) -> String {
        let mut rows = vec![[String::new(), "calm".into(), "storm".into(), "bound".into()]];
        let mut row = |name: &str, of: &dyn Fn(&Phase) -> String, bound: String| {
            rows.push([name.into(), of(&self.calm), of(&self.storm), bound]);
        };
        row("writers", &|phase| phase.writers.to_string(), String::new());
        row("seconds", &|phase| format!("{:.0}", phase.took.as_secs_f64()), String::new());
        row("acknowledged/s", &|phase| per_second(phase.seen.accepted.len(), phase), "> 0".into());
        row("refused/s", &|phase| per_second(phase.seen.refused.len(), phase), "> 0 in the storm".into());
        row("without Retry-After", &|phase| phase.seen.without_retry_after.to_string(), "0".into());
        row("unknown", &|phase| phase.seen.unknown.to_string(), String::new());
        row("accepted p50 ms", &|phase| ms(phase.seen.accepted.value_at_quantile(0.5)), String::new());
        row(
            "accepted p99 ms",
            &|phase| ms(p99(&phase.seen.accepted)),
            format!("{MAX_ACCEPTED_RATIO} x calm"),
        );
        row(
            "refused p99 ms",
            &|phase| ms(p99(&phase.seen.refused)),
            format!("{MAX_REFUSED_TURNS} x all in turn"),
        );
        row("terms", &|phase| format!("{} to {}", phase.terms.0, phase.terms.1), "one".into());
        for node in 0..self.storm.memory.len() {
            let name = format!("node-{} MiB, start and most", node + 1);
            let memory =
                |phase: &Phase| format!("{}, {}", mib(phase.memory[node].0), mib(phase.memory[node].1));
            row(&name, &memory, format!("+{MAX_GROWTH_MIB}"));
        }
        let lost = format!("acknowledged writes that are gone: {} (bound: 0)", self.lost);
        let line =
            |[name, calm, storm, bound]: &[String; 4]| format!("{name:28}{calm:>12}{storm:>12}   {bound}\n");
        let ratios = format!(
            "accepted p99 x {:.1} of the calm, refused p99 x {:.1} of all in turn; memory +{:?} MiB\n",
            self.accepted_ratio(),
            self.refused_turns(),
            self.growth_mib()
        );
        rows.iter().map(line).collect::<String>() + &ratios + &lost + "\n"
    }

    /// Every bound that was broken.
    pub fn broken(&self) -> Vec<String> {
        let terms = (self.calm.terms.0.min(self.storm.terms.0), self.calm.terms.1.max(self.storm.terms.1));
        let growth = self.growth_mib();
        let bounds = [
            (self.storm.seen.accepted.is_empty(), "no write was accepted in the storm".to_owned()),
            (self.storm.seen.refused.is_empty(), "nobody was refused: that was no storm".to_owned()),
            (self.storm.seen.without_retry_after > 0, "refusals without Retry-After".to_owned()),
            (
                self.accepted_ratio() > MAX_ACCEPTED_RATIO,
                format!("accepted p99: {:.1} times the calm", self.accepted_ratio()),
            ),
            (
                self.refused_turns() > MAX_REFUSED_TURNS,
                format!("refusals are late: {:.1} times as long as all in turn", self.refused_turns()),
            ),
            (growth.iter().any(|mib| *mib > MAX_GROWTH_MIB), format!("memory grew by {growth:?} MiB")),
            (terms.0 != terms.1, format!("an election: terms {} to {}", terms.0, terms.1)),
            (self.lost > 0, format!("{} acknowledged writes are gone", self.lost)),
        ];
        bounds.into_iter().filter(|(broken, _)| *broken).map(|(_, why)| why).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::writers::Seen;
    use super::*;
    use bellwether_load::probe::latencies;

    fn phase(accepted_us: u64, refusals: u64, most: u64, terms: (u64, u64)) -> Phase {
        refused_after(1000, accepted_us, refusals, most, terms)
    }

    fn refused_after(
        refused_us: u64,
        accepted_us: u64,
        refusals: u64,
        most: u64,
        terms: (u64, u64),
    ) -> Phase {
        let (mut accepted, mut refused) = (latencies().expect("fine"), latencies().expect("fine"));
        accepted.saturating_record(accepted_us);
        refused.saturating_record_n(refused_us, refusals);
        let seen = Seen { accepted, refused, without_retry_after: 0, unknown: 0 };
        Phase { writers: 1, took: Duration::from_secs(1), seen, memory: vec![(0, most)], terms }
    }

    #[test]
    fn every_bound_can_be_broken() {
        let report = |storm, lost| Report { calm: phase(1000, 0, 0, (1, 1)), storm, lost };
        assert_eq!(report(phase(2000, 9, 1 << 20, (1, 1)), 0).broken(), Vec::<String>::new());
        for (storm, lost, why) in [
            (phase(20_000, 9, 0, (1, 1)), 0, "accepted p99"),
            (phase(1000, 0, 0, (1, 1)), 0, "no storm"),
            // Ten answers in a second, to one writer: a turn takes a tenth of it.
            (refused_after(250_000, 1000, 9, 0, (1, 1)), 0, "refusals are late"),
            (phase(1000, 9, 1 << 30, (1, 1)), 0, "memory"),
            (phase(1000, 9, 0, (1, 2)), 0, "election"),
            (phase(1000, 9, 0, (1, 1)), 1, "gone"),
        ] {
            let broken = report(storm, lost).broken();
            assert!(broken.len() == 1 && broken[0].contains(why), "{why}: {broken:?}");
        }
    }

    #[test]
    fn the_table_says_what_was_bound() {
        let report = Report { calm: phase(1000, 0, 0, (1, 1)), storm: phase(2000, 9, 0, (1, 1)), lost: 0 };
        let table = report.table();
        assert!(table.contains("accepted p99 ms") && table.contains("10 x calm"), "{table}");
    }
}
