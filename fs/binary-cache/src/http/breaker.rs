//! Leaving dead hosts alone, so that nobody waits for them.
//!
//! Closed: everybody may try. After enough failures in a row over enough time it opens: everybody is refused at once, those
//! who wait between tries as well. When it has cooled down, one may try; that decides.
//!
//! Invariants
//! - one success closes it; an answer that refuses is a success, for the host is alive;
//! - while it is half open at most one attempt runs, and one that is dropped makes room for the next.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// When a host counts as dead, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Failures in a row at least,
    pub failures_min: u32,
    /// over this time at least.
    pub after: Duration,
    /// How long it is then left alone; doubles each time the next try fails,
    pub cool_down: Duration,
    /// up to this.
    pub cool_down_max: Duration,
}

/// 3 failures over 3 s, 30 s to 10 minutes of peace.
impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            failures_min: 3,
            after: Duration::from_secs(3),
            cool_down: Duration::from_secs(30),
            cool_down_max: Duration::from_secs(600),
        }
    }
}

/// One host's breaker.
#[derive(Debug)]
pub struct Breaker {
    options: BreakerOptions,
    state: Mutex<State>,
    opened: Notify,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// When the first of them was begun.
    since: Option<Instant>,
    open_until: Option<Instant>,
    probing: bool,
    /// How often it opened in a row.
    openings: u32,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(options: BreakerOptions) -> Self {
        Self {
            options,
            state: Mutex::default(),
            opened: Notify::new(),
        }
    }

    /// Asks to try.
    ///
    /// # Errors
    /// It is open; says when to ask again.
    pub fn enter(&self, now: Instant) -> Result<Attempt<'_>, Duration> {
        let mut state = self.lock();
        let mut probe = false;
        if let Some(until) = state.open_until {
            if now < until || state.probing {
                return Err(until.saturating_duration_since(now));
            }
            state.probing = true;
            probe = true;
        }
        Ok(Attempt {
            breaker: self,
            began: now,
            probe,
        })
    }

    /// Waits, but not longer than until it opens.
    pub async fn wait(&self, delay: Duration) {
        let opened = self.opened.notified();
        tokio::pin!(opened);
        opened.as_mut().enable();
        if self.lock().open_until.is_some() {
            return;
        }
        let _ = tokio::time::timeout(delay, opened).await;
    }

    fn succeeded(&self) {
        *self.lock() = State::default();
    }

    fn failed(&self, began: Instant, now: Instant, probe: bool) {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        let since = *state.since.get_or_insert(began);
        let enough =
            state.failures >= self.options.failures_min && now.duration_since(since) >= self.options.after;
        // those who were under way when it opened change nothing
        if probe || (enough && state.open_until.is_none()) {
            let factor = 1u32 << state.openings.min(16);
            let pause = self
                .options
                .cool_down
                .saturating_mul(factor)
                .min(self.options.cool_down_max);
            *state = State {
                open_until: Some(now + pause),
                openings: state.openings.saturating_add(1),
                ..State::default()
            };
            drop(state);
            self.opened.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // numbers only: a panic elsewhere leaves them usable
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to try once. Dropped without a word it says nothing about the host.
#[derive(Debug)]
pub struct Attempt<'a> {
    breaker: &'a Breaker,
    began: Instant,
    probe: bool,
}

impl Attempt<'_> {
    /// The host works.
    pub fn succeeded(mut self) {
        self.probe = false; // nothing is left to take back
        self.breaker.succeeded();
    }

    /// The host failed at `now`.
    pub fn failed(mut self, now: Instant) {
        let probe = std::mem::take(&mut self.probe);
        self.breaker.failed(self.began, now, probe);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.lock().probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerOptions {
            failures_min: 3,
            after: Duration::from_secs(3),
            cool_down: Duration::from_secs(10),
            cool_down_max: Duration::from_secs(30),
        })
    }

    fn fail(breaker: &Breaker, began: Instant, seconds: u64) {
        let now = began + Duration::from_secs(seconds);
        breaker.enter(began).unwrap().failed(now);
    }

    #[tokio::test(start_paused = true)]
    async fn many_failures_over_time_open_it_and_one_try_decides() {
        let breaker = breaker();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for _ in 0..100 {
            fail(&breaker, start, 1);
        }
        assert!(breaker.enter(at(1)).is_ok(), "a hundred at once are one hiccup");
        fail(&breaker, start, 4);
        assert_eq!(breaker.enter(at(4)).unwrap_err(), Duration::from_secs(10));
        // cooled down: one only
        let probe = breaker.enter(at(14)).unwrap();
        assert!(breaker.enter(at(14)).is_err());
        drop(probe);
        let probe = breaker.enter(at(14)).unwrap();
        probe.failed(at(15));
        assert_eq!(
            breaker.enter(at(15)).unwrap_err(),
            Duration::from_secs(20),
            "doubled"
        );
        breaker.enter(at(40)).unwrap().failed(at(40));
        assert_eq!(
            breaker.enter(at(40)).unwrap_err(),
            Duration::from_secs(30),
            "bounded"
        );
        breaker.enter(at(80)).unwrap().succeeded();
        let both = (breaker.enter(at(80)), breaker.enter(at(80)));
        assert!(both.0.is_ok() && both.1.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_between_failures_keeps_it_closed() {
        let breaker = breaker();
        let start = Instant::now();
        for seconds in 0..20 {
            fail(&breaker, start, seconds);
            fail(&breaker, start, seconds);
            breaker.enter(start).unwrap().succeeded();
        }
        assert!(breaker.enter(start + Duration::from_secs(20)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_when_it_opens() {
        let breaker = breaker();
        let start = Instant::now();
        let waiting = breaker.wait(Duration::from_secs(1000));
        let opening = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            for _ in 0..3 {
                breaker.enter(start).unwrap().failed(Instant::now());
            }
        };
        futures::join!(waiting, opening);
        assert_eq!(start.elapsed().as_secs(), 5);
    }
}
