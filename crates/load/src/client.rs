//! One client: draws a key, sends, waits for the answer, counts it.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use crate::keys::{Keys, Values, write_key};
use crate::load::{Load, Workload};
use crate::pace::{Turn, Turns};
use crate::tally::{Answer, Tally, bump};
use crate::target::{Session, Swap};
use crate::watch::stamped;

/// How long a client rests after an error, so that a dead server is not asked in a frenzy.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// What all clients of a load have in common.
pub struct Shared {
    pub load: Load,
    pub tally: Rc<Tally>,
    pub values: Values,
    /// The next of keys that are written in a row.
    next_key: Rc<Cell<u64>>,
    /// By key: the revision at which a reply last said that it was modified. Only
    /// compare-and-swaps need it.
    seen: Vec<Cell<u64>>,
    /// Writes that watchers must be told of.
    pub announced: Cell<u64>,
    pub start: Instant,
}

impl Shared {
    pub fn new(load: &Load) -> Result<Rc<Self>> {
        let seen = if load.workload == Workload::Txn { load.keys } else { 0 };
        Ok(Rc::new(Self {
            load: load.clone(),
            tally: Tally::new(load.extent)?,
            values: Values::new(load.value_bytes, load.seed),
            next_key: Rc::default(),
            seen: (0..seen).map(|_| Cell::new(0)).collect(),
            announced: Cell::default(),
            start: Instant::now(),
        }))
    }
}

pub struct Client<S> {
    session: S,
    shared: Rc<Shared>,
    keys: Keys,
    rng: SmallRng,
    turns: Turns,
    /// The current key; kept, so that none of them takes an allocation.
    key: String,
}

impl<S: Session> Client<S> {
    pub fn new(session: S, shared: Rc<Shared>, number: usize) -> Result<Self> {
        let load = &shared.load;
        Ok(Self {
            session,
            keys: Keys::new(load.distribution, load.keys, &shared.next_key)?,
            rng: SmallRng::seed_from_u64(load.seed.wrapping_add(number as u64)),
            turns: Turns::new(load.pace, shared.start, number, load.clients),
            key: String::new(),
            shared,
        })
    }

    /// Until the tally wants no more.
    pub async fn run(mut self) {
        // One timer for all requests: to set it to a later time costs next to nothing.
        let mut deadline = pin!(sleep_until(self.shared.start));
        let mut answered = None;
        loop {
            let Turn { since, now } = self.turns.turn(answered.take()).await;
            let Some(ticket) = self.shared.tally.begin() else { return };
            deadline.as_mut().reset(now + self.shared.load.timeout);
            let answer = self.answer(deadline.as_mut()).await;
            let now = Instant::now();
            self.shared.tally.end(ticket, since, now, &answer);
            answered = answer.is_ok().then_some(now);
            if answer.is_err() {
                sleep(ERROR_PAUSE).await;
                // A node that hangs may hang here, too; then the next request fails as well.
                let _ = timeout(self.shared.load.timeout, self.session.recover()).await;
            }
        }
    }

    async fn answer(&mut self, deadline: Pin<&mut Sleep>) -> Result<Answer> {
        tokio::select! { biased;
            answer = self.request() => answer,
            () = deadline => {
                self.session.give_up();
                let limit = self.shared.load.timeout;
                Err(anyhow!("no answer within {limit:?}: whether it was carried out is unknown"))
            }
        }
    }

    async fn request(&mut self) -> Result<Answer> {
        let load = &self.shared.load;
        let number = self.keys.draw(&mut self.rng);
        write_key(&mut self.key, number);
        match load.workload {
            Workload::Get => self.get().await,
            Workload::Mixed if !self.rng.random_ratio(1, 10) => self.get().await,
            Workload::Put | Workload::Mixed => {
                let value = self.shared.values.get(self.rng.random());
                self.session.put(&self.key, value).await.map(|()| Answer::Done)
            }
            Workload::Watch => self.announce().await,
            Workload::Txn => self.swap(number).await,
            Workload::Range => {
                let found = self.session.range(&self.key, load.range_size, load.freshness).await?;
                Ok(if found > 0 { Answer::Done } else { Answer::Missing })
            }
            Workload::Lease => self.session.keep_alive().await.map(|()| Answer::Done),
        }
    }

    async fn get(&mut self) -> Result<Answer> {
        let found = self.session.get(&self.key, self.shared.load.freshness).await?;
        Ok(if found { Answer::Done } else { Answer::Missing })
    }

    async fn announce(&mut self) -> Result<Answer> {
        let value = stamped(self.shared.values.get(self.rng.random()), self.shared.start);
        self.session.put(&self.key, &value).await?;
        bump(&self.shared.announced, 1);
        Ok(Answer::Done)
    }

    async fn swap(&mut self, number: u64) -> Result<Answer> {
        let value = self.shared.values.get(self.rng.random());
        let seen = &self.shared.seen[number as usize];
        let (revision, answer) = match self.session.swap(&self.key, value, seen.get()).await? {
            Swap::Done(revision) => (revision, Answer::Done),
            Swap::Lost(revision) => (revision, Answer::Lost),
        };
        // Replies may overtake each other: an older one must not undo a newer.
        seen.set(seen.get().max(revision));
        Ok(answer)
    }
}
