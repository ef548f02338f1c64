//! Leases: granted, attached to keys, asked for, revoked. None ends by its time: that would
//! be a race with the machine.

use super::*;

/// Longer than any sequence takes, up to etcd's limit, and one past it.
const LONG_TTLS: [i64; 5] = [60, 600, 86_400, 9_000_000_000, 9_000_000_001];
/// Shorter than etcd's shortest; such a lease is revoked at once.
const SHORT_TTLS: [i64; 4] = [1, 0, -1, i64::MIN];

impl Generator {
    pub(super) fn lease_actions(&mut self) -> Vec<Action> {
        let id = self.lease();
        vec![match self.rng.random_range(0..20) {
            0..9 => return self.grants(),
            9..12 => Action::Revoke(LeaseRevokeRequest { id }),
            12..16 => Action::TimeToLive(LeaseTimeToLiveRequest { id, keys: self.once_in(2) }),
            16..18 => Action::KeepAlive(LeaseKeepAliveRequest { id }),
            _ => Action::Leases,
        }]
    }

    fn grants(&mut self) -> Vec<Action> {
        let id = match self.rng.random_range(0..10) {
            0..3 => 0,
            3 => -5,
            _ => self.rng.random_range(1..=LEASES),
        };
        if id != 0 && self.once_in(8) {
            let ttl = self.one_of(&SHORT_TTLS);
            return vec![
                Action::Grant(LeaseGrantRequest { ttl, id }),
                Action::Revoke(LeaseRevokeRequest { id }),
            ];
        }
        let grant = Action::Grant(LeaseGrantRequest { ttl: self.one_of(&LONG_TTLS), id });
        if id > 0 && self.once_in(2) {
            let put = PutRequest { lease: id, key: self.key(), ..PutRequest::default() };
            return vec![
                grant,
                Action::Put(put),
                Action::TimeToLive(LeaseTimeToLiveRequest { id, keys: true }),
            ];
        }
        vec![grant]
    }
}
