//! The closing line, and what must not have happened.

use std::collections::BTreeSet;

use bellwether_load::Outcome;

use super::watch::Seen;
use crate::number::{count, number};

pub struct Report {
    pub outcome: Outcome,
    pub seen: Seen,
    /// The slowest write to a log took between so many milliseconds.
    pub fsync: (f64, f64),
}

impl Report {
    pub fn line(&self) -> String {
        let Self { outcome, seen, fsync } = self;
        let terms = (seen.terms.first().unwrap_or(&0), seen.terms.last().unwrap_or(&0));
        let names: Vec<&str> = self.leaders().into_iter().collect();
        format!(
            "soak: {seconds:.0} s, terms {} to {}, led by {names}; {writes} writes, {rate}/s, {errors} errors; \
            longest gap {gap} ms, slowest write {max} ms, worst fsync {from} to {to} ms",
            terms.0,
            terms.1,
            seconds = outcome.seconds,
            names = names.join(", "),
            writes = count(outcome.operations),
            rate = number(Some(outcome.per_second), 0),
            errors = count(outcome.errors),
            gap = millis(outcome.longest_gap_us),
            max = millis(outcome.max_us),
            from = number(Some(fsync.0), 1),
            to = number(Some(fsync.1), 1),
        )
    }

    fn leaders(&self) -> BTreeSet<&str> {
        self.seen.leaders.iter().map(|(_, name)| name.as_str()).collect()
    }

    /// Everything that a healthy cluster doesn't do.
    pub fn broken(&self) -> Vec<String> {
        let Self { outcome, seen, .. } = self;
        let first = outcome.first_error.as_deref().unwrap_or_default();
        let bounds = [
            (outcome.operations == 0, "nothing was written".to_owned()),
            (seen.terms.len() != 1, format!("the term changed: {:?}", seen.terms)),
            (seen.leaders.len() != 1, format!("more than one leader, or none: {:?}", seen.leaders)),
            (outcome.errors > 0, format!("{} writes failed; the first: {first}", outcome.errors)),
        ];
        bounds.into_iter().filter(|(broken, _)| *broken).map(|(_, why)| why).collect()
    }
}

fn millis(micros: u64) -> String {
    number(Some(micros as f64 / 1000.0), 1)
}

#[cfg(test)]
mod tests {
    use bellwether_load::{Distribution, Workload};

    use super::*;

    fn outcome(operations: u64, errors: u64) -> Outcome {
        Outcome {
            workload: Workload::Put,
            clients: 64,
            distribution: Distribution::Uniform,
            value_bytes: 256,
            intended_per_second: None,
            seconds: 600.0,
            operations,
            per_second: operations as f64 / 600.0,
            errors,
            missing: 0,
            lost_races: 0,
            unanswered: 0,
            p50_us: 1,
            p90_us: 1,
            p99_us: 1,
            p999_us: 1,
            max_us: 95_200,
            longest_gap_us: 87_650,
            client_cpu_per_1000: 0.0,
            server_cpu_per_1000: None,
            server_resident_bytes: None,
            server_growth_bytes_per_operation: None,
            first_error: (errors > 0).then(|| "refused".to_owned()),
        }
    }

    fn report(operations: u64, errors: u64, leaders: &[(u64, &str)], terms: &[u64]) -> Report {
        let leaders = leaders.iter().map(|(term, name)| (*term, (*name).to_owned())).collect();
        let seen = Seen { terms: terms.iter().copied().collect(), leaders };
        Report { outcome: outcome(operations, errors), seen, fsync: (25.6, 51.2) }
    }

    #[test]
    fn one_term_and_one_leader_are_sound_and_nothing_else() {
        let sound = report(9_000_000, 0, &[(3, "node-2")], &[3]);
        assert_eq!(sound.broken(), Vec::<String>::new());
        for (bad, why) in [
            (report(0, 0, &[(3, "a")], &[3]), "nothing"),
            (report(1, 0, &[(3, "a")], &[3, 4]), "term changed"),
            (report(1, 0, &[(3, "a"), (3, "b")], &[3]), "more than one leader"),
            (report(1, 0, &[], &[3]), "or none"),
            (report(1, 2, &[(3, "a")], &[3]), "2 writes failed; the first: refused"),
        ] {
            let broken = bad.broken();
            assert!(broken.len() == 1 && broken[0].contains(why), "{why}: {broken:?}");
        }
    }

    #[test]
    fn the_line_says_it_all() {
        assert_eq!(
            report(9_000_000, 0, &[(3, "node-2")], &[3]).line(),
            "soak: 600 s, terms 3 to 3, led by node-2; 9,000,000 writes, 15,000/s, 0 errors; longest gap 87.7 ms, \
            slowest write 95.2 ms, worst fsync 25.6 to 51.2 ms"
        );
    }
}
