//! How many retries there may be for the requests there were.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use http::Uri;
use tokio::time::Instant;

use super::account::{Account, RequestTarget};
use super::tally::Tally;
use crate::clock;
use crate::error::Error;
use crate::extensions::CredentialId;
use crate::retry::report::ReplayReason;

/// Keeps retries to a share of the requests, so that a server in trouble is not asked several times as much.
///
/// Each request adds a share of a retry to the balance of its origin and [`CredentialId`], each second adds some, and
/// each retry takes one. A retry of a request that provably was not sent takes a tenth of one: no server had to look at
/// it. If there is not enough left, the response is returned
/// ([`StopReason::BudgetExhausted`](crate::retry::StopReason::BudgetExhausted)). Replays with a new token are free, and
/// so are retries that wait at the [gate](crate::retry::RetryGate).
///
/// Clones share the balances, and so may several policies:
///
/// ```
/// use tower_oauth2::RetryPolicy;
/// use tower_oauth2::retry::RetryBudget;
///
/// let budget = RetryBudget::default().retry_ratio(0.1).burst(20);
/// let patient = RetryPolicy::builder().max_retries(8).budget(budget.clone()).build()?;
/// let brisk = RetryPolicy::builder().max_retries(1).budget(budget.clone()).build()?;
///
/// let uri = http::Uri::from_static("https://api.example.com/reports");
/// assert_eq!(budget.balance(&uri, None), 20.0);
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
///
/// A full balance takes no memory. Up to 4096 balances that are not full are kept; all others share one.
///
/// Defaults:
///
/// - `retry_ratio`: 0.2, one retry for five requests
/// - `min_per_second`: 3 retries per second besides
/// - `burst`: 10 retries, with which each balance begins
///
/// To set one of these makes a budget of its own, with full balances: share it afterwards. A policy refuses a budget whose
/// settings are wrong.
#[derive(Clone)]
#[must_use = "a budget does nothing until a policy has it"]
pub struct RetryBudget {
    inner: Arc<BudgetShared>,
}

struct BudgetShared {
    terms: BudgetTerms,
    /// The first account there was, and in most clients the only one: found without a hash or a lock.
    first: OnceLock<FirstAccount>,
    others: RwLock<OtherAccounts>,
    /// How many others there are: the one number that is read while there are none.
    count: AtomicUsize,
    hashes: RandomState,
}

/// Nearly every request counts against it.
struct FirstAccount {
    account: Arc<Account>,
    balance: Mutex<Balance>,
    /// Requests that were not added to the balance yet. Nothing is taken between two looks at the balance, so adding them up
    /// late and cutting the sum at the burst comes to the same as adding each and cutting each time.
    requests: Tally,
}

/// The balances of all other accounts, by their hash, as far as they are not full: one that is full is as good as new.
struct OtherAccounts {
    by_hash: HashMap<u64, Mutex<Balance>>,
    /// After how many additions they are looked through for those that are full again. As many as were not full the last
    /// time, so that looking costs a constant for each addition.
    sweep_in: usize,
    /// For accounts beyond what is kept.
    rest: Mutex<Balance>,
}

#[derive(Clone, Copy, Debug)]
struct BudgetTerms {
    ratio: f64,
    per_second: u32,
    burst: u32,
}

/// In thousandths of a retry, so that sums are exact.
#[derive(Clone, Copy)]
struct Balance {
    thousandths: u64,
    /// Up to when retries by time were added; moves by whole milliseconds.
    at: Instant,
}

/// One retry.
const RETRY: u64 = 1_000;

/// A retry of what was not sent. At 20 requests per second all that fail in a restart of 0.6 s, and the first retries of
/// half of them, are 20: two retries in all, where the burst is ten.
const UNSENT: u64 = RETRY / 10;

/// How many balances are kept besides the first.
const KEPT: usize = 4_096;

/// How many additions there are before they are looked through, at least.
const FIRST_SWEEP: usize = 64;

impl RetryBudget {
    /// Sets how many retries each request adds, in whole thousandths: 0.2 is one for five requests. From 0 to 1000.
    pub fn retry_ratio(self, ratio: f64) -> Self {
        Self::of(BudgetTerms { ratio, ..self.inner.terms })
    }

    /// Sets how many retries each second adds, however few requests there are.
    pub fn min_per_second(self, retries: u32) -> Self {
        Self::of(BudgetTerms { per_second: retries, ..self.inner.terms })
    }

    /// Sets how many retries a balance may hold, and begins with. Not zero.
    pub fn burst(self, retries: u32) -> Self {
        Self::of(BudgetTerms { burst: retries, ..self.inner.terms })
    }

    /// Returns how many retries there may be at once, just now, of requests to where `uri` goes.
    #[must_use]
    pub fn balance(&self, uri: &Uri, credential: Option<&CredentialId>) -> f64 {
        let balance = self.inner.find(RequestTarget { uri, credential }, 0);
        // A burst is a u32 of retries, so nothing is lost.
        balance.unwrap_or(self.inner.terms.most()) as f64 / RETRY as f64
    }

    /// Says which setting is wrong.
    pub(in crate::retry) fn check(&self) -> Result<(), Error> {
        let BudgetTerms { ratio, burst, .. } = self.inner.terms;
        if !(0.0..=1_000.0).contains(&ratio) {
            return Err(Error::config("retry_ratio of the retry budget must be a number from 0 to 1000"));
        }
        if burst == 0 {
            return Err(Error::config(
                "burst of the retry budget must not be 0; to have no retries, use max_retries(0)",
            ));
        }
        Ok(())
    }

    /// Adds the share of a request. Returns whether it counts against the [first account](Self::first_account).
    #[inline]
    pub(in crate::retry) fn deposit(&self, target: RequestTarget<'_>) -> bool {
        match self.inner.first.get() {
            Some(first) if first.account.is_of(target) => {
                first.requests.add_one();
                return true;
            }
            Some(_) => {}
            None => {
                self.inner.first(target);
            }
        }
        // A balance that is not kept is full.
        self.inner.find(target, 1);
        false
    }

    /// Returns the first account there was. It never changes.
    pub(in crate::retry) fn first_account(&self) -> Option<&Arc<Account>> {
        self.inner.first.get().map(|first| &first.account)
    }

    /// Takes what a retry for this reason costs. Returns how many are left; none if there were not enough.
    pub(in crate::retry) fn pay(&self, target: RequestTarget<'_>, reason: ReplayReason) -> Option<f64> {
        let first = self.inner.first(target);
        let left = match first.account.is_of(target) {
            true => first.change(self.inner.terms, |balance| balance.withdraw(price(reason))),
            false => self.inner.pay_as_other(target, price(reason)),
        };
        Some(left? as f64 / RETRY as f64)
    }

    /// Does the same for a request that counts against the [first account](Self::first_account).
    pub(in crate::retry) fn pay_as_first(&self, reason: ReplayReason) -> Option<f64> {
        let first = self.inner.first.get()?;
        let left = first.change(self.inner.terms, |balance| balance.withdraw(price(reason)));
        Some(left? as f64 / RETRY as f64)
    }

    fn of(terms: BudgetTerms) -> Self {
        let others =
            OtherAccounts { by_hash: HashMap::new(), sweep_in: FIRST_SWEEP, rest: Balance::full(terms) };
        Self {
            inner: Arc::new(BudgetShared {
                terms,
                first: OnceLock::new(),
                others: RwLock::new(others),
                count: AtomicUsize::new(0),
                hashes: RandomState::new(),
            }),
        }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::of(BudgetTerms { ratio: 0.2, per_second: 3, burst: 10 })
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget").field("terms", &self.inner.terms).finish_non_exhaustive()
    }
}

// --- BudgetShared ---

impl BudgetShared {
    fn first(&self, target: RequestTarget<'_>) -> &FirstAccount {
        self.first.get_or_init(|| FirstAccount {
            account: Arc::new(Account::of(target)),
            balance: Balance::full(self.terms),
            requests: Tally::default(),
        })
    }

    /// Adds so many requests to the balance of an account, if it is kept, and returns it.
    fn find(&self, target: RequestTarget<'_>, requests: u64) -> Option<u64> {
        if let Some(first) = self.first.get().filter(|first| first.account.is_of(target)) {
            return Some(first.change(self.terms, |balance| balance.thousandths));
        }
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        let balance = others.balance(self.hash(target))?;
        Some(Balance::change(balance, requests, self.terms, |balance| balance.thousandths))
    }

    /// Takes from the balance of an account that is not the first, and keeps it from now on.
    fn pay_as_other(&self, target: RequestTarget<'_>, price: u64) -> Option<u64> {
        let hash = self.hash(target);
        let withdraw =
            |balance: &Mutex<_>| Balance::change(balance, 0, self.terms, |balance| balance.withdraw(price));
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(balance) = others.by_hash.get(&hash) {
            return withdraw(balance);
        }
        drop(others);
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        let left = withdraw(others.add(hash, self.terms));
        self.count.store(others.by_hash.len(), Ordering::Relaxed);
        left
    }

    fn hash(&self, target: RequestTarget<'_>) -> u64 {
        let mut state = self.hashes.build_hasher();
        Account::hash_of(target, &mut state);
        state.finish()
    }
}

// --- FirstAccount ---

impl FirstAccount {
    /// Does something with the balance, told of all requests so far.
    fn change<T>(&self, terms: BudgetTerms, act: impl FnOnce(&mut Balance) -> T) -> T {
        Balance::change(&self.balance, self.requests.take(), terms, act)
    }
}

// --- OtherAccounts ---

impl OtherAccounts {
    /// Returns the balance of an account, if it is not full.
    fn balance(&self, hash: u64) -> Option<&Mutex<Balance>> {
        let rest = (self.by_hash.len() >= KEPT).then_some(&self.rest);
        self.by_hash.get(&hash).or(rest)
    }

    /// Makes a balance for an account.
    fn add(&mut self, hash: u64, terms: BudgetTerms) -> &Mutex<Balance> {
        if self.sweep_in == 0 {
            self.by_hash.retain(|_, balance| {
                Balance::change(balance, 0, terms, |balance| balance.thousandths < terms.most())
            });
            self.sweep_in = self.by_hash.len().max(FIRST_SWEEP);
        }
        self.sweep_in -= 1;
        if self.by_hash.len() >= KEPT && !self.by_hash.contains_key(&hash) {
            return &self.rest;
        }
        self.by_hash.entry(hash).or_insert_with(|| Balance::full(terms))
    }
}

// --- BudgetTerms ---

impl BudgetTerms {
    /// Returns the credit for one request, in thousandths.
    fn per_request(self) -> u64 {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 1000000, as checked"
        )]
        let thousandths = (self.ratio * RETRY as f64).round() as u64;
        thousandths
    }

    /// Returns the highest balance, in thousandths.
    fn most(self) -> u64 {
        u64::from(self.burst) * RETRY
    }
}

// --- Balance ---

impl Balance {
    fn full(terms: BudgetTerms) -> Mutex<Self> {
        Mutex::new(Self { thousandths: terms.most(), at: clock::now() })
    }

    /// Adds what so many requests and the time bring, and does something with it.
    fn change<T>(
        balance: &Mutex<Self>,
        requests: u64,
        terms: BudgetTerms,
        act: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let mut balance = balance.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = clock::now().saturating_duration_since(balance.at);
        let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        balance.at += Duration::from_millis(milliseconds);
        let by_requests = requests.saturating_mul(terms.per_request());
        // Thousandths per millisecond are whole ones per second.
        let by_time = milliseconds.saturating_mul(terms.per_second.into());
        let sum = balance.thousandths.saturating_add(by_requests).saturating_add(by_time);
        balance.thousandths = sum.min(terms.most());
        act(&mut balance)
    }

    /// Takes the price. Returns what is left; none if there is not enough.
    fn withdraw(&mut self, price: u64) -> Option<u64> {
        self.thousandths = self.thousandths.checked_sub(price)?;
        Some(self.thousandths)
    }
}

/// Returns the price of a retry for this reason. The server does not suffer from a token that is refused or missing.
fn price(reason: ReplayReason) -> u64 {
    match reason {
        ReplayReason::TokenRejected | ReplayReason::TokenUnavailable => 0,
        ReplayReason::Unsent => UNSENT,
        ReplayReason::Throttled | ReplayReason::Unavailable | ReplayReason::Ambiguous => RETRY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THROTTLED: ReplayReason = ReplayReason::Throttled;

    fn api() -> Uri {
        Uri::from_static("https://api.example.com/reports")
    }

    fn to<'a>(uri: &'a Uri, credential: Option<&'a CredentialId>) -> RequestTarget<'a> {
        RequestTarget { uri, credential }
    }

    fn drain(budget: &RetryBudget, uri: &Uri, credential: Option<&CredentialId>) -> u64 {
        let mut taken = 0;
        while budget.pay(to(uri, credential), THROTTLED).is_some() {
            taken += 1;
        }
        taken
    }

    // A sum over rounded weights once allowed 333 retries where 300 were meant (cases E2 and G01).
    #[tokio::test(start_paused = true)]
    async fn a_thousand_requests_pay_for_their_share_of_retries_exactly() {
        for hundredths in 5..=300_u32 {
            let share = f64::from(hundredths) / 100.0;
            let budget = RetryBudget::default().retry_ratio(share).min_per_second(0).burst(5_000);
            assert_eq!(drain(&budget, &api(), None), 5_000);
            for _ in 0..1_000 {
                budget.deposit(to(&api(), None));
            }
            assert_eq!(drain(&budget, &api(), None), u64::from(hundredths) * 10, "at {share}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_makes_no_difference_when_deposits_are_added_up() {
        let budget = RetryBudget::default().retry_ratio(0.3).min_per_second(0).burst(4);
        let (mut rng, mut model) = (fastrand::Rng::with_seed(7), 4_000_u64);
        for _ in 0..10_000 {
            if rng.f64() < 0.8 {
                budget.deposit(to(&api(), None));
                model = (model + 300).min(4_000);
            } else {
                let expected = model.checked_sub(1_000);
                model = expected.unwrap_or(model);
                assert_eq!(
                    budget.pay(to(&api(), None), THROTTLED),
                    expected.map(|left| left as f64 / 1_000.0)
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_each_second_adds_is_paid_by_time_and_a_long_silence_pays_no_more_than_the_burst() {
        let budget = RetryBudget::default();
        assert_eq!(budget.balance(&api(), None), 10.0);
        assert_eq!(drain(&budget, &api(), None), 10);
        // Looking often loses nothing.
        for _ in 0..10_000 {
            tokio::time::advance(Duration::from_micros(100)).await;
            assert!(budget.balance(&api(), None) <= 3.0);
        }
        assert_eq!(budget.balance(&api(), None), 3.0);
        assert_eq!(drain(&budget, &api(), None), 3);
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert_eq!(drain(&budget, &api(), None), 10);
    }

    #[test]
    fn sixty_four_threads_cannot_overdraw_it_and_lose_no_deposit() {
        let budget = RetryBudget::default().retry_ratio(0.5).min_per_second(0).burst(1_000_000);
        drain(&budget, &api(), None);
        let taken: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..64)
                .map(|_| {
                    let budget = budget.clone();
                    scope.spawn(move || {
                        (0..1_000)
                            .filter(|_| {
                                budget.deposit(to(&api(), None));
                                budget.pay(to(&api(), None), THROTTLED).is_some()
                            })
                            .count() as u64
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(taken <= 32_000, "{taken}");
        assert_eq!(taken + drain(&budget, &api(), None), 32_000);
    }

    #[tokio::test(start_paused = true)]
    async fn origins_and_credentials_have_balances_of_their_own() {
        let budget = RetryBudget::default().min_per_second(0);
        let (a, b) = (CredentialId::new("a"), CredentialId::new("b"));
        let (api, other) = (api(), Uri::from_static("https://other.example.com/"));
        let accounts = [(&api, None), (&api, Some(&a)), (&api, Some(&b)), (&other, None), (&other, Some(&a))];
        for (uri, credential) in accounts {
            assert_eq!(drain(&budget, uri, credential), 10, "{uri} {credential:?}");
        }
        for _ in 0..5 {
            budget.deposit(to(&other, Some(&a)));
        }
        for (uri, credential) in accounts {
            let expected = if (uri, credential) == (&other, Some(&a)) { 1.0 } else { 0.0 };
            assert_eq!(budget.balance(uri, credential), expected, "{uri} {credential:?}");
        }
        // Another path, another spelling: the same server.
        let spelled = Uri::from_static("https://OTHER.example.com:443/a?b");
        assert_eq!(budget.balance(&spelled, Some(&a)), 1.0);
        let shared = budget.clone();
        assert!(shared.pay(to(&spelled, Some(&a)), THROTTLED).is_some());
        assert_eq!(budget.balance(&other, Some(&a)), 0.0);
    }

    fn origin(n: usize) -> Uri {
        format!("https://{n}.example.com/").parse().unwrap()
    }

    // With a thousand and more accounts each was forgotten before it came again, and full then: nothing was limited.
    #[tokio::test(start_paused = true)]
    async fn three_thousand_accounts_in_turn_are_limited_each() {
        let budget = RetryBudget::default().min_per_second(0).retry_ratio(0.0);
        let retries = (0..20).flat_map(|_| 0..3_000).filter(|n| {
            budget.deposit(to(&origin(*n), None));
            budget.pay(to(&origin(*n), None), THROTTLED).is_some()
        });
        assert_eq!(retries.count(), 3_000 * 10);
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_beyond_what_is_kept_share_one_balance_until_there_is_room() {
        let budget = RetryBudget::default().min_per_second(1).retry_ratio(0.0).burst(2);
        let drained = |n: usize| drain(&budget, &origin(n), None);
        assert!((0..=KEPT).all(|n| drained(n) == 2));
        assert_eq!(budget.inner.others.read().unwrap().by_hash.len(), KEPT);
        assert_eq!((drained(KEPT + 1), drained(KEPT + 2), drained(1)), (2, 0, 0));
        assert_eq!(budget.balance(&origin(KEPT + 3), None), 0.0);
        assert_eq!(budget.balance(&origin(0), None), 0.0, "the first is always kept");
        // All are full again, so there is room as soon as somebody looks.
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!((0..KEPT).all(|n| drained(KEPT + 3 + n) <= 2));
        assert!(budget.inner.others.read().unwrap().by_hash.len() <= KEPT);
        assert_eq!((drained(9_999_998), drained(9_999_999)), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_without_a_retry_take_no_room() {
        let budget = RetryBudget::default();
        for n in 0..5_000 {
            budget.deposit(to(&origin(n), None));
        }
        assert_eq!(budget.inner.others.read().unwrap().by_hash.len(), 0);
        assert_eq!(budget.balance(&origin(4_999), None), 10.0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_sent_costs_a_tenth() {
        let budget = RetryBudget::default().min_per_second(0).retry_ratio(0.0);
        let mut unsent = 0;
        while budget.pay(to(&api(), None), ReplayReason::Unsent).is_some() {
            unsent += 1;
        }
        assert_eq!(unsent, 100);
        budget.deposit(to(&api(), None));
        assert_eq!(budget.pay(to(&api(), None), THROTTLED), None);
    }

    #[test]
    fn a_bad_setting_is_refused_by_name() {
        for share in [f64::NAN, -0.1, 1_000.1, f64::INFINITY] {
            let error = RetryBudget::default().retry_ratio(share).check().unwrap_err();
            assert!(error.is_config() && error.to_string().starts_with("retry_ratio of"), "{error}");
        }
        let error = RetryBudget::default().burst(0).check().unwrap_err();
        assert!(error.is_config() && error.to_string().starts_with("burst of"), "{error}");
        assert!(RetryBudget::default().retry_ratio(0.0).min_per_second(0).burst(1).check().is_ok());
    }
}
