//! Questions to a peer that every linearizable read asks: whether it still follows, and how
//! far a read must see. They share one stream, as a call each would cost several times as
//! much; an answer names its question, so they may come in any order.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;

use crate::proto::peer as pb;

use super::pool::Client;

pub use pb::answer::Answer;
pub use pb::question::Question;

/// Questions to one peer that wait for their answers, and that a node answers at a time. Each
/// has a deadline; so many come together only when a peer hangs.
pub const MAX_QUESTIONS: usize = 1024;

/// One stream of questions; those that wait are given up when it is dropped.
pub struct Questions {
    queue: mpsc::UnboundedSender<pb::Question>,
    waiting: Arc<Mutex<Waiting>>,
    listening: AbortHandle,
}

type Answered = Result<Answer, Status>;

#[derive(Default)]
struct Waiting {
    last_id: u64,
    by_id: HashMap<u64, oneshot::Sender<Answered>>,
    /// Why there will be no more answers.
    ended: Option<Status>,
}

impl Questions {
    /// Who asks is told in the stream's first message, before any question.
    pub fn open(client: Client, header: pb::Header) -> Self {
        let (queue, questions) = mpsc::unbounded_channel();
        let introduction = pb::Question { header: Some(header), id: 0, question: None };
        // It holds the other end.
        let _ = queue.send(introduction);
        let waiting = Arc::<Mutex<Waiting>>::default();
        let listening = tokio::spawn(listen(client, questions, waiting.clone())).abort_handle();
        Self { queue, waiting, listening }
    }

    pub fn has_ended(&self) -> bool {
        self.waiting.lock().ended.is_some()
    }

    /// Asks at once; the answer does not need this any more.
    pub fn ask(&self, question: Question) -> impl Future<Output = Answered> + Send + use<> {
        let asked = self.waiting.lock().admit().map(|(id, answer)| {
            let question = pb::Question { header: None, id, question: Some(question) };
            // When the stream has ended meanwhile, the answer says so.
            let _ = self.queue.send(question);
            answer
        });
        async move { asked?.await.unwrap_or_else(|_| Err(given_up())) }
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        self.listening.abort();
        self.waiting.lock().end(given_up());
    }
}

fn given_up() -> Status {
    Status::unavailable("the connection was given up")
}

impl Waiting {
    /// The question's id, and where its answer will be.
    fn admit(&mut self) -> Result<(u64, oneshot::Receiver<Answered>), Status> {
        if let Some(why) = &self.ended {
            return Err(why.clone());
        }
        if self.by_id.len() >= MAX_QUESTIONS {
            self.by_id.retain(|_, asker| !asker.is_closed());
        }
        if self.by_id.len() >= MAX_QUESTIONS {
            return Err(Status::unavailable("too many questions have no answer yet"));
        }
        self.last_id += 1;
        let (asker, answer) = oneshot::channel();
        self.by_id.insert(self.last_id, asker);
        Ok((self.last_id, answer))
    }

    fn answer(&mut self, answer: pb::Answer) {
        let outcome = match answer.answer {
            Some(Answer::Failed(why)) => Err(Status::unavailable(why)),
            Some(answer) => Ok(answer),
            None => Err(Status::internal("an answer of a kind this version does not know")),
        };
        if let Some(asker) = self.by_id.remove(&answer.id) {
            // Who asked may have given up.
            let _ = asker.send(outcome);
        }
    }

    fn end(&mut self, why: Status) {
        for (_, asker) in self.by_id.drain() {
            let _ = asker.send(Err(why.clone()));
        }
        self.ended = Some(why);
    }
}

/// Hands out answers until the stream ends.
async fn listen(
    mut client: Client,
    questions: mpsc::UnboundedReceiver<pb::Question>,
    waiting: Arc<Mutex<Waiting>>,
) {
    let ended = match client.ask(UnboundedReceiverStream::new(questions)).await {
        Err(status) => status,
        Ok(response) => {
            let mut answers = response.into_inner();
            loop {
                match answers.message().await {
                    Ok(Some(answer)) => waiting.lock().answer(answer),
                    Ok(None) => break Status::unavailable("the peer hung up"),
                    Err(status) => break status,
                }
            }
        }
    };
    waiting.lock().end(ended);
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn asked(waiting: &mut Waiting) -> (u64, oneshot::Receiver<Answered>) {
        waiting.admit().expect("room")
    }

    fn read_index(id: u64, lease_clock_ms: u64) -> pb::Answer {
        let reply = pb::ReadIndexReply { lease_clock_ms, ..Default::default() };
        pb::Answer { id, answer: Some(Answer::ReadIndex(reply)) }
    }

    fn heard(answered: &mut oneshot::Receiver<Answered>) -> Option<Result<Answer, tonic::Code>> {
        answered.now_or_never().map(|answer| answer.expect("never dropped").map_err(|status| status.code()))
    }

    #[test]
    fn an_answer_goes_to_its_own_question_whatever_the_order() {
        let mut waiting = Waiting::default();
        let ((first, mut to_first), (second, mut to_second)) = (asked(&mut waiting), asked(&mut waiting));
        waiting.answer(read_index(second, 2));
        waiting.answer(read_index(second, 3));
        assert_eq!(heard(&mut to_first), None);
        assert_eq!(heard(&mut to_second), Some(Ok(read_index(0, 2).answer.expect("set"))));
        waiting.answer(pb::Answer { id: first, answer: Some(Answer::Failed("no".to_owned())) });
        assert_eq!(heard(&mut to_first), Some(Err(tonic::Code::Unavailable)));
    }

    #[test]
    fn the_end_of_the_stream_answers_all_that_wait_and_all_that_come() {
        let mut waiting = Waiting::default();
        let (_, mut answered) = asked(&mut waiting);
        waiting.end(Status::aborted("over"));
        assert_eq!(heard(&mut answered), Some(Err(tonic::Code::Aborted)));
        assert!(waiting.admit().is_err_and(|why| why.code() == tonic::Code::Aborted));
    }

    #[test]
    fn questions_without_an_answer_are_bounded_and_forgotten_when_nobody_waits() {
        let mut waiting = Waiting::default();
        let all: Vec<_> = (0..MAX_QUESTIONS).map(|_| asked(&mut waiting)).collect();
        assert!(waiting.admit().is_err());
        drop(all);
        asked(&mut waiting);
        assert_eq!(waiting.by_id.len(), 1);
    }
}
