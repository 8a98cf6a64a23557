//! Who may begin a TLS handshake next, on one worker. What its first answer costs is the dearest thing that a client can ask
//! for (a fifth of a millisecond, with an RSA key five times that), and a herd of clients asks thousands of times at once.
//!
//! Between two looks of the thread at its sockets handshakes begin for a millisecond at most, and one of them with a key
//! that is slower: sessions, and handshakes that have begun, go first. The newest of those that wait is next: an old one has
//! given up or is about to, and to answer in order would be to answer only such. Who has waited too long is let go, and
//! nothing was computed for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

/// What handshakes may take before sockets are looked at. A look costs a call, and a handshake with an ECDSA key a fifth of
/// this: few pay for it.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// The turns of one worker. What waits is bounded by `limits.handshakes`.
#[derive(Debug, Default)]
pub struct Turns {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    is_taken: bool,
    /// When the thread was last made to look at its sockets.
    looked: Option<Instant>,
    /// Oldest first. Some may have gone.
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// Leave to begin. The next one begins after it is dropped.
#[derive(Debug)]
pub struct Turn(Option<Arc<Turns>>);

impl Turns {
    /// Waits for a turn, at most `age`; `None` after that.
    ///
    /// CANCEL: who leaves is passed over.
    pub async fn next(self: &Arc<Self>, age: Duration) -> Option<Turn> {
        let turn = match self.take() {
            Ok(turn) => turn,
            Err(waiting) => match timeout(age, waiting).await {
                Ok(turn) => turn.ok()?,
                Err(_too_old) => {
                    self.forget_the_gone();
                    return None;
                }
            },
        };
        if self.is_time_to_look() {
            // tokio comes back to a task that yields when it has looked at the sockets and woken whom they concern.
            yield_now().await;
            self.lock().looked = Some(Instant::now());
        }
        Some(turn)
    }

    fn is_time_to_look(&self) -> bool {
        let looked = self.lock().looked;
        looked.is_none_or(|looked| looked.elapsed() >= BETWEEN_LOOKS)
    }

    fn take(self: &Arc<Self>) -> Result<Turn, oneshot::Receiver<Turn>> {
        let mut queue = self.lock();
        if !queue.is_taken {
            queue.is_taken = true;
            return Ok(Turn(Some(Arc::clone(self))));
        }
        let (sender, receiver) = oneshot::channel();
        queue.waiting.push_back(sender);
        Err(receiver)
    }

    fn pass_on(self: Arc<Self>) {
        let mut turn = Turn(Some(self));
        while let Some(turns) = turn.0.take() {
            let Some(newest) = turns.next_waiting() else {
                return;
            };
            // One that has gone hands it back, and must not pass it on by itself: that would be a recursion without a bound.
            match newest.send(Turn(Some(turns))) {
                Ok(()) => return,
                Err(back) => turn = back,
            }
        }
    }

    fn next_waiting(&self) -> Option<oneshot::Sender<Turn>> {
        let mut queue = self.lock();
        let newest = queue.waiting.pop_back();
        queue.is_taken = newest.is_some();
        newest
    }

    /// The oldest go first, so they are at the front. While more come than can be served, nobody else would take them out.
    fn forget_the_gone(&self) {
        let mut queue = self.lock();
        while queue
            .waiting
            .front()
            .is_some_and(oneshot::Sender::is_closed)
        {
            queue.waiting.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use futures_util::poll;

    use super::*;

    const AGE: Duration = Duration::from_secs(2);

    /// As many as ask at once.
    fn waiting(turns: &Arc<Turns>) -> usize {
        turns.lock().waiting.len()
    }

    #[tokio::test]
    async fn the_newest_is_next_and_one_at_a_time() {
        let turns = Arc::new(Turns::default());
        let first = turns.next(AGE).await.unwrap();
        let (mut second, mut third) = (pin!(turns.next(AGE)), pin!(turns.next(AGE)));
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        drop(first);
        let third = third.await.unwrap();
        assert!(poll!(&mut second).is_pending());
        drop(third);
        drop(second.await.unwrap());
        assert!(turns.next(AGE).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_too_long_is_let_go_and_forgotten() {
        let turns = Arc::new(Turns::default());
        let held = turns.next(AGE).await.unwrap();
        let began = Instant::now();
        let (old, older) = tokio::join!(turns.next(AGE), turns.next(AGE));
        assert!(old.is_none() && older.is_none());
        assert_eq!(began.elapsed().as_secs(), AGE.as_secs());
        assert_eq!(waiting(&turns), 0);
        drop(held);
        assert!(turns.next(AGE).await.is_some());
    }

    /// A client may leave while it waits, and also when its turn has just been given.
    #[tokio::test]
    async fn a_turn_is_not_lost_with_who_leaves() {
        let turns = Arc::new(Turns::default());
        let held = turns.next(AGE).await.unwrap();
        let mut patient = Box::pin(turns.next(AGE));
        assert!(poll!(&mut patient).is_pending());
        let mut leaving = Vec::new();
        for _ in 0..100_000 {
            let mut one = Box::pin(turns.next(AGE));
            assert!(poll!(&mut one).is_pending());
            leaving.push(one);
        }
        let mut given = leaving.pop().unwrap();
        drop(held);
        drop(leaving);
        assert!(
            poll!(&mut given).is_pending(),
            "it has yielded with its turn"
        );
        assert!(poll!(&mut patient).is_pending());
        drop(given);
        assert!(patient.await.is_some());
    }

    /// Whoever else is ready, or has something to read, comes before.
    #[tokio::test]
    async fn what_is_ready_goes_first() {
        let turns = Arc::new(Turns::default());
        let mut turn = pin!(turns.next(AGE));
        assert!(poll!(&mut turn).is_pending());
        assert!(matches!(poll!(turn), Poll::Ready(Some(_))));
    }
}
