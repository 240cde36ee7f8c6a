//! Answers remembered for a while, and asked for once at a time.
//!
//! Invariants
//! - for one key at most one question is under way; who asks meanwhile gets its answer;
//! - when the one who asks is dropped, the next who waits asks;
//! - failures are not remembered;
//! - never more than `capacity` answers are kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

type Slot<V> = Arc<OnceCell<(V, Instant)>>;

/// Answers by key.
#[derive(Debug)]
pub(crate) struct Memo<K, V> {
    slots: Mutex<HashMap<K, Slot<V>>>,
    capacity: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Memo<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            slots: Mutex::default(),
            capacity: capacity.max(1),
        }
    }

    /// The answer that is remembered, or the one `ask` gives together with how long to remember it.
    pub(crate) async fn get_or_ask<E, F>(&self, key: &K, ask: impl FnOnce() -> F) -> Result<V, E>
    where
        F: Future<Output = Result<(V, Duration), E>>,
    {
        let slot = self.slot(key);
        let answer = slot
            .get_or_try_init(|| async {
                let (value, keep) = ask().await?;
                Ok((value, Instant::now() + keep))
            })
            .await;
        answer.map(|(value, _)| value.clone())
    }

    /// Forgets an answer; a question under way goes on.
    pub(crate) fn forget(&self, key: &K) {
        self.lock().remove(key);
    }

    fn slot(&self, key: &K) -> Slot<V> {
        let now = Instant::now();
        let mut slots = self.lock();
        if let Some(slot) = slots.get(key)
            && slot.get().is_none_or(|(_, until)| *until > now)
        {
            return slot.clone();
        }
        if slots.len() >= self.capacity {
            // what is asked or fresh stays; when that is too much, only what is asked
            let is_asked = |slot: &Slot<V>| slot.get().is_none() && Arc::strong_count(slot) > 1;
            slots.retain(|_, slot| is_asked(slot) || slot.get().is_some_and(|(_, until)| *until > now));
            if slots.len() >= self.capacity {
                slots.retain(|_, slot| is_asked(slot));
            }
        }
        let slot = Slot::default();
        slots.insert(key.clone(), slot.clone());
        slot
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Slot<V>>> {
        // a panic elsewhere leaves it whole: entries come and go one at a time
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_asked_for_once_and_for_a_while() {
        let memo = Memo::<u8, u32>::new(10);
        let asked = AtomicU32::new(0);
        let ask = || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, ()>((asked.fetch_add(1, Ordering::SeqCst), MINUTE))
        };
        let answers = futures::future::join_all((0..50).map(|_| memo.get_or_ask(&1, ask))).await;
        assert!(answers.iter().all(|answer| *answer == Ok(0)));
        tokio::time::advance(MINUTE - Duration::from_secs(1)).await;
        assert_eq!(memo.get_or_ask(&1, ask).await, Ok(0));
        tokio::time::advance(MINUTE).await;
        assert_eq!(memo.get_or_ask(&1, ask).await, Ok(1));
        memo.forget(&1);
        assert_eq!(memo.get_or_ask(&1, ask).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn failing_and_leaving_let_the_next_ask() {
        let memo = Memo::<u8, u32>::new(10);
        assert_eq!(memo.get_or_ask(&1, async || Err("no")).await, Err("no"));
        let never = memo.get_or_ask(&1, std::future::pending::<Result<_, &str>>);
        let mut never = Box::pin(never);
        assert!(futures::poll!(never.as_mut()).is_pending());
        let mut next = Box::pin(memo.get_or_ask(&1, async || Ok::<_, &str>((7, MINUTE))));
        assert!(futures::poll!(next.as_mut()).is_pending(), "one at a time");
        drop(never);
        assert_eq!(next.await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_grows_beyond_its_capacity() {
        let memo = Memo::<u32, u32>::new(10);
        for key in 0..1000 {
            let answer = memo.get_or_ask(
                &key,
                async || if key % 2 == 0 { Ok((key, MINUTE)) } else { Err(()) },
            );
            let _ = answer.await;
            assert!(memo.lock().len() <= 10);
        }
    }
}
