//! The pool: who is in it, and who is next.

use std::cmp::Reverse;
use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::one_at_a_time::OneAtATime;
use super::room::Room;
use crate::cache::{ResponseObserver, TokenCache, TokenCacheBuilder};
use crate::clock;
use crate::error::Error;
use crate::extensions::CredentialId;
use crate::headers::rate_limit;
use crate::retry::RateLimitProfile;
use crate::telemetry;

/// Several tokens of one client, for APIs that limit each token. Rules and examples are on the page of the [module](super).
///
/// It is a [`Layer`](tower_layer::Layer) that gives each request a token, and goes above the retry layer. From the
/// [`AuthLayer`](crate::AuthLayer) below, the pool learns what each attempt says about the limits.
///
/// A handle is cheap to clone, and clones share everything.
#[derive(Clone)]
#[doc(alias = "token_pool_size")]
pub struct TokenPool {
    pub(super) inner: Arc<PoolShared>,
}

/// Builds a [`TokenPool`].
///
/// Defaults:
///
/// - `name`: none
/// - `profile`: [`RateLimitProfile::generic`]
/// - `longest_wait`: two minutes
/// - `grow_to`: the size
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::AccessToken;
/// use tower_oauth2::pool::TokenPool;
///
/// // Such as a grant with the same client each time.
/// let pool = TokenPool::builder(4, |_number| AccessToken::bearer("mF_9.B5f-4.1JqM"))
///     .name("reports")
///     .longest_wait(Duration::from_secs(30))
///     .build()?;
/// assert_eq!(pool.status().len(), 4);
/// # Ok::<_, tower_oauth2::Error>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct TokenPoolBuilder {
    make: Box<dyn Fn(usize) -> Result<TokenCacheBuilder, Error> + Send + Sync>,
    least: usize,
    most: usize,
    name: Option<String>,
    profile: RateLimitProfile,
    longest_wait: Duration,
}

/// How one token of a pool is.
///
/// # Examples
///
/// ```
/// use tower_oauth2::AccessToken;
/// use tower_oauth2::pool::{PoolMember, TokenPool};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let pool = TokenPool::builder(2, |_number| AccessToken::bearer("mF_9.B5f-4.1JqM")).build()?;
/// pool.first().get().await?;
/// for member in pool.status() {
///     println!("{}: {} in flight, {:?} left", member.credential().as_str(), member.in_flight(), member.left());
/// }
/// assert_eq!(pool.status().iter().map(PoolMember::has_token).collect::<Vec<_>>(), [true, false]);
/// # Ok::<_, tower_oauth2::Error>(()) })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PoolMember {
    credential: CredentialId,
    has_token: bool,
    in_flight: u64,
    left: Option<u64>,
    opens_in: Option<Duration>,
}

pub(super) struct PoolShared {
    name: Option<Arc<str>>,
    members: Vec<Arc<PooledToken>>,
    /// So many are in use from the beginning; the others when these are used up.
    least: usize,
    pub(super) longest_wait: Duration,
    /// The one whose first token is being fetched, and where the next look begins.
    turn: Mutex<FetchTurn>,
    /// The line of the requests for which there is no room.
    pub(super) line: Semaphore,
    pub(super) waiting: AtomicUsize,
    /// Room came back.
    pub(super) freed: Notify,
}

#[derive(Default)]
struct FetchTurn {
    next: usize,
    starting: Option<usize>,
}

/// One token.
pub(super) struct PooledToken {
    cache: TokenCache,
    /// The same cache for the requests that get a token of the pool. Responses to other users of the token may be of another API.
    pub(super) lent: TokenCache,
    pub(super) credential: CredentialId,
    pub(super) limits: Arc<TokenLimits>,
}

/// The limits of one token. The handle that is lent has them too.
pub(super) struct TokenLimits {
    credential: CredentialId,
    profile: RateLimitProfile,
    room: Mutex<Room>,
}

/// The use of a token by one request, until the head of its response.
pub(super) struct TokenLoan {
    pub(super) member: Arc<PooledToken>,
    pool: Arc<PoolShared>,
}

/// The choice for a request.
pub(super) enum TokenChoice {
    Token(TokenLoan),
    /// There is no room before this instant, or before a request comes back or a token comes.
    Wait {
        until: Option<Instant>,
        starting: Option<TokenCache>,
    },
}

/// How long a token is left alone after a refusal without a word about time.
const UNHINTED: Duration = Duration::from_secs(1);

/// More would be no pool but a way around a limit; the vendor's own tool goes up to 50.
const MOST: usize = 50;

// --- TokenPool ---

impl TokenPool {
    /// Starts a pool of `size` tokens. `make` makes the source of each, or a cache builder with windows of its own: the same
    /// client each time, as a rule.
    pub fn builder<C>(
        size: usize,
        make: impl Fn(usize) -> Result<C, Error> + Send + Sync + 'static,
    ) -> TokenPoolBuilder
    where
        C: Into<TokenCacheBuilder>,
    {
        TokenPoolBuilder {
            make: Box::new(move |number| make(number).map(Into::into)),
            least: size,
            most: size,
            name: None,
            profile: RateLimitProfile::generic(),
            longest_wait: Duration::from_secs(120),
        }
    }

    /// Returns the cache of the first token, for warm-up and health checks.
    #[must_use]
    pub fn first(&self) -> &TokenCache {
        &self.inner.members[0].cache
    }

    /// Returns how each token is. Those of a growing pool that were never needed have none.
    #[must_use]
    pub fn status(&self) -> Vec<PoolMember> {
        let now = clock::now();
        let status = |member: &Arc<PooledToken>| {
            let room = *member.room();
            PoolMember {
                credential: member.credential.clone(),
                has_token: member.cache.peek().is_some(),
                in_flight: room.in_flight(),
                left: Some(room.left(now, None)).filter(|left| *left < u64::MAX - room.in_flight()),
                opens_in: room.opens_at(now).map(|at| at - now),
            }
        };
        self.inner.members.iter().map(status).collect()
    }

    /// Ends all tokens as [`TokenCache::shutdown`] does.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves those that were not ended as they are.
    ///
    /// # Errors
    ///
    /// That of the first one that did not end in order. All are ended in any case.
    pub async fn shutdown(&self, within: Duration) -> Result<(), Error> {
        let endings = self.inner.members.iter().map(|member| member.cache.shutdown(within));
        let ended = futures_util::future::join_all(endings).await.into_iter().collect();
        // The requests that wait for room now end in the error of a cache that was shut down.
        self.inner.freed.notify_one();
        ended
    }
}

impl fmt::Debug for TokenPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenPool").field("members", &self.status()).finish_non_exhaustive()
    }
}

// --- TokenPoolBuilder ---

impl TokenPoolBuilder {
    /// Lets the pool grow to so many tokens: one more is fetched when all others are used up.
    pub fn grow_to(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// Sets the name of the pool in the log: its tokens are `billing, token 2 of 4` in its lines and in those of their caches,
    /// in place of the names that the caches had.
    ///
    /// Two pools that share a retry policy and an API need names: by these the policy tells their tokens apart.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets what the API says about its rate limits beyond what everybody says.
    pub fn profile(mut self, profile: RateLimitProfile) -> Self {
        self.profile = profile;
        self
    }

    /// Sets how long a request waits where all tokens are used up. Then it is sent all the same, as is a request whose
    /// [`Deadline`](crate::extensions::Deadline) is before the time at which a token is free again.
    pub fn longest_wait(mut self, wait: Duration) -> Self {
        self.longest_wait = wait;
        self
    }

    /// Builds the pool. Nothing is fetched before the first request.
    ///
    /// # Errors
    ///
    /// A configuration error if the pool would have no token, more than 50, or be larger than it may grow; that of the closure
    /// that makes the sources.
    pub fn build(self) -> Result<TokenPool, Error> {
        if self.least == 0 || self.most > MOST || self.least > self.most {
            return Err(Error::config(format!(
                "a pool has 1 to {MOST} tokens, and grows to no less than it begins with; this one would have {} to {}",
                self.least, self.most
            )));
        }
        let turn = Arc::new(Semaphore::new(1));
        let member = |number: usize| {
            let turn = Arc::clone(&turn);
            let token = format!("token {} of {}", number + 1, self.most);
            let mut cache = (self.make)(number)?;
            let credential = match &self.name {
                None => CredentialId::new(token),
                Some(name) => {
                    let name = format!("{name}, {token}");
                    cache = cache.name(name.clone());
                    CredentialId::new(name)
                }
            };
            let limits = Arc::new(TokenLimits {
                credential: credential.clone(),
                profile: self.profile.clone(),
                room: Mutex::default(),
            });
            let observed = Arc::clone(&limits);
            let cache = cache.around(OneAtATime { turn, credential: credential.clone() }).build();
            let lent = cache.observed_by(ResponseObserver::new(move |status, headers| {
                observed.learn(status, headers);
            }));
            Ok(Arc::new(PooledToken { cache, lent, credential, limits }))
        };
        let inner = PoolShared {
            name: self.name.clone().map(Into::into),
            members: (0..self.most).map(member).collect::<Result<_, Error>>()?,
            least: self.least,
            longest_wait: self.longest_wait,
            turn: Mutex::default(),
            line: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        };
        Ok(TokenPool { inner: Arc::new(inner) })
    }
}

impl fmt::Debug for TokenPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenPoolBuilder")
            .field("least", &self.least)
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

// --- PoolMember ---

impl PoolMember {
    /// Returns the name under which the retry layer knows the token.
    #[must_use]
    pub fn credential(&self) -> &CredentialId {
        &self.credential
    }

    /// Returns whether there is a valid token.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.has_token
    }

    /// Returns how many requests are under way with it.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Returns for how many more requests there is room, if the API says so.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        self.left
    }

    /// Returns how long there is no room.
    #[must_use]
    pub fn opens_in(&self) -> Option<Duration> {
        self.opens_in
    }
}

// --- PoolShared ---

impl PoolShared {
    /// Chooses the token for a request.
    pub(super) fn choose(self: &Arc<Self>) -> TokenChoice {
        let now = clock::now();
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let most = self.members.iter().filter_map(|member| member.room().most()).max();
        let size = self.members.len();
        let begin = turn.next;
        turn.next = (begin + 1) % size;
        // Stable: among equals it is one after the other.
        let mut ranked: Vec<(Reverse<u64>, u64, usize)> = (0..size)
            .map(|step| (begin + step) % size)
            .map(|index| {
                let room = *self.members[index].room();
                (Reverse(room.left(now, most)), room.in_flight(), index)
            })
            .collect();
        ranked.sort_by_key(|&(left, in_flight, _)| (left, in_flight));
        let (mut warm, mut taken, mut cold) = (0, None, Vec::new());
        for (Reverse(left), _, index) in ranked {
            let member = &self.members[index];
            // One that was never needed is not asked: that would begin a fetch.
            if member.cache.peek().is_none() {
                cold.push(index);
                continue;
            }
            warm += 1;
            if taken.is_none() && left > 0 {
                taken = Some(index);
            }
        }
        let is_used_up = taken.is_none();
        if warm < self.least || is_used_up {
            self.start_one(&mut turn, cold);
            telemetry::pool_tokens(self.name.as_ref(), warm + usize::from(turn.starting.is_some()));
        }
        if let Some(index) = taken {
            return TokenChoice::Token(self.lend(index));
        }
        let starting = turn.starting;
        if warm == 0 {
            return TokenChoice::Token(self.lend(starting.unwrap_or(0)));
        }
        let usable = self.members.iter().filter(|member| member.cache.peek().is_some());
        let until = usable.filter_map(|member| member.room().changes_at(now)).min();
        TokenChoice::Wait { until, starting: starting.map(|index| self.members[index].cache.clone()) }
    }

    /// Has one more token fetched, unless one is being fetched already.
    fn start_one(&self, turn: &mut FetchTurn, mut cold: Vec<usize>) {
        // In their order, so that a pool grows by its next one.
        cold.sort_unstable();
        if let Some(starting) = turn.starting {
            if cold.contains(&starting) && self.is_fetching(starting) {
                return;
            }
            turn.starting = None;
        }
        // One whose last fetch has failed says so at once, until its cache fetches again.
        turn.starting = cold.into_iter().find(|index| self.is_fetching(*index));
    }

    /// Asks a cache for its token, which begins a fetch if none is going on and it may.
    fn is_fetching(&self, index: usize) -> bool {
        let mut acquire = self.members[index].cache.acquire(None);
        Pin::new(&mut acquire).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Lends the token that opens first, room or not.
    pub(super) fn lend_any(self: &Arc<Self>) -> TokenLoan {
        let now = clock::now();
        let usable = |index: &usize| self.members[*index].cache.peek().is_some();
        let order = |index: &usize| {
            let room = *self.members[*index].room();
            (room.opens_at(now), room.in_flight())
        };
        let first = (0..self.members.len()).filter(usable).min_by_key(order);
        self.lend(first.unwrap_or(0))
    }

    fn lend(self: &Arc<Self>, index: usize) -> TokenLoan {
        let member = Arc::clone(&self.members[index]);
        tracing::trace!(credential = member.credential.as_str(), "a request gets a token of the pool");
        member.room().begin();
        TokenLoan { member, pool: Arc::clone(self) }
    }

    /// Returns when the first token has room, if it is known that none has any now.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        let now = clock::now();
        let usable = self.members.iter().filter(|member| member.cache.peek().is_some());
        let opens = usable.map(|member| member.room().opens_at(now)).collect::<Option<Vec<_>>>();
        opens?.into_iter().min()
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    pub(super) fn size(&self) -> usize {
        self.members.len()
    }
}

// --- PooledToken ---

impl PooledToken {
    fn room(&self) -> MutexGuard<'_, Room> {
        self.limits.room()
    }
}

// --- TokenLimits ---

impl TokenLimits {
    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a response refuses the request for a limit.
    pub(super) fn is_refusal(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        status == StatusCode::TOO_MANY_REQUESTS
            || self.profile.refuses_with(status) && self.hint(status, headers).is_some()
    }

    /// Learns from a response that has just come.
    fn learn(&self, status: StatusCode, headers: &HeaderMap) {
        let now = clock::now();
        if self.is_refusal(status, headers) {
            let wait = self.hint(status, headers).or(self.profile.wait_without_hint()).unwrap_or(UNHINTED);
            self.room().refused(wait, now);
            tracing::debug!(credential = self.credential.as_str(), ?wait, "a token of the pool has no room");
        } else if let Some(quota) = rate_limit::quota(&self.profile, headers, clock::unix_time()) {
            self.room().told(quota, now);
        }
    }

    fn hint(&self, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        rate_limit::hint(&self.profile, status, headers, clock::unix_time()).map(|hint| hint.delay)
    }
}

// --- TokenLoan ---

impl Drop for TokenLoan {
    fn drop(&mut self) {
        self.member.room().end();
        self.pool.freed.notify_one();
    }
}

impl TokenChoice {
    /// Waits until it makes sense to choose again.
    pub(super) async fn wait(until: Option<Instant>, starting: Option<TokenCache>, freed: &Notify) {
        let opens = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let comes = async {
            match starting {
                // What became of it is seen by the next choice. One that fails at once must not make that a loop.
                Some(cache) => {
                    if cache.acquire(None).await.is_err() {
                        tokio::time::sleep(UNHINTED).await;
                    }
                }
                None => std::future::pending().await,
            }
        };
        let (mut opens, mut comes) = (std::pin::pin!(opens), std::pin::pin!(comes));
        let mut freed = std::pin::pin!(freed.notified());
        std::future::poll_fn(|context| {
            let any = opens.as_mut().poll(context).is_ready()
                || comes.as_mut().poll(context).is_ready()
                || freed.as_mut().poll(context).is_ready();
            if any { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
