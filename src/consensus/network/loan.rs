//! A stream on loan to a connection, which gives it back when the lender says so. A connection
//! keeps what it sends for as long as it likes, also when nobody waits for the answers any
//! more; and what the engine gives to be sent takes from the engine each time it is polled.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::{Stream, StreamExt};
use parking_lot::Mutex;

struct Loan<S> {
    stream: Option<S>,
    /// The borrower, when it waits for the next message.
    waiting: Option<Waker>,
}

/// What the borrower has.
pub struct Lent<S>(Arc<Mutex<Loan<S>>>);

/// Takes the stream back when it is dropped: it is gone at once, and ends for the borrower.
pub struct Lender<S>(Arc<Mutex<Loan<S>>>);

pub fn lend<S: Stream + Unpin>(stream: S) -> (Lent<S>, Lender<S>) {
    let loan = Arc::new(Mutex::new(Loan { stream: Some(stream), waiting: None }));
    (Lent(loan.clone()), Lender(loan))
}

impl<S: Stream + Unpin> Stream for Lent<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let mut loan = self.0.lock();
        let Loan { stream: Some(stream), waiting } = &mut *loan else { return Poll::Ready(None) };
        let next = stream.poll_next_unpin(context);
        if next.is_pending() {
            match waiting {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waiting = Some(context.waker().clone()),
            }
        }
        next
    }
}

impl<S> Drop for Lender<S> {
    fn drop(&mut self) {
        let (stream, waiting) = {
            let mut loan = self.0.lock();
            (loan.stream.take(), loan.waiting.take())
        };
        drop(stream);
        if let Some(borrower) = waiting {
            borrower.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_stream_taken_back_is_gone_and_ends_for_who_waits_for_it() {
        let held = Arc::new(());
        let inside = held.clone();
        let (mut lent, lender) = lend(Box::pin(async_stream::stream! {
            let _held = inside;
            yield 1;
            pending::<()>().await;
        }));
        assert_eq!(lent.next().await, Some(1));
        let waiting = tokio::spawn(async move { (lent.next().await, lent) });
        while lender.0.lock().waiting.is_none() {
            tokio::task::yield_now().await;
        }
        drop(lender);
        assert_eq!(Arc::strong_count(&held), 1, "it is still there");
        assert_eq!(waiting.await.expect("no panic").0, None);
    }
}
