//! The gates that hold requests to servers that ask for patience.

mod lane;
mod lanes;
mod pace;
mod scope;
mod surplus;
mod ticket;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use self::lane::Lane;
pub(super) use self::lane::{GateAsk, HeldRetry};
use self::lanes::GateShared;
pub(super) use self::lanes::GatedPlace;
use self::scope::LimitScope;
pub(super) use self::scope::RequestKind;
pub(super) use self::ticket::{Pass, Ticket};
use crate::backoff::Chance;
use crate::clock;
use crate::extensions::CredentialId;
use crate::origin::Origin;

/// Holds requests back while a server refuses them, and then sends them at a pace that it learns.
///
/// A first 429 with a wait closes the gate of its origin and [`CredentialId`] (and of what
/// [`gate_key`](super::RetryPolicyBuilder::gate_key) makes of the request). After the wait the requests are sent one by one,
/// at a pace that rises while the server accepts them. The rules are on the page of the [module](super#the-gate).
///
/// - A request that was not refused waits for the server's pause and
///   [`max_hold`](super::RetryPolicyBuilder::max_hold), and longer only if it is known that it would be refused.
/// - No request is held beyond its [`Deadline`](crate::extensions::Deadline) or the policy's
///   [`max_total_delay`](super::RetryPolicyBuilder::max_total_delay).
/// - While it is open everywhere, a request reads one number and nothing else. A gate that nothing needed for half a minute is
///   open again, and its pace forgotten. 1024 are kept at most.
///
/// Clones share the gates, and so may several policies:
///
/// ```
/// use tower_oauth2::RetryPolicy;
/// use tower_oauth2::retry::RetryGate;
///
/// let gate = RetryGate::new();
/// let orders = RetryPolicy::builder().gate(gate.clone()).build()?;
/// let reports = RetryPolicy::builder().gate(gate.clone()).max_retries(5).build()?;
/// assert!(gate.status().is_empty(), "open everywhere");
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct RetryGate {
    shared: Arc<GateShared>,
}

/// How one gate is that is not open: closed, or letting out at a pace.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// # use http::{Request, Response};
/// # use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
/// use tower_oauth2::RetryPolicy;
/// use tower_oauth2::retry::RetryGate;
/// # use tower_oauth2::Body;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
/// # let api = service_fn(async |_| {
/// #     Ok::<_, BoxError>(Response::builder().status(429).header("retry-after", "30").body(Body::empty())?)
/// # });
/// let gate = RetryGate::new();
/// let policy = RetryPolicy::builder().gate(gate.clone()).max_retries(0).build()?;
/// # let request = Request::get("https://api.example.com/orders").body(Body::empty())?;
/// let response = policy.layer(api).oneshot(request).await?;
/// assert_eq!(response.headers()["retry-after"], "30");
///
/// for closed in gate.status() {
///     let origin = closed.origin().map(ToString::to_string).unwrap_or_default();
///     println!("{origin}: {} requests wait for {:?}", closed.waiting(), closed.opens_in());
/// }
/// assert!(gate.status()[0].opens_in() >= Some(Duration::from_secs(30)));
/// # Ok::<_, BoxError>(()) })?;
/// # Ok::<_, BoxError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GateStatus {
    place: GatedPlace,
    learned: Option<String>,
    opens_in: Option<Duration>,
    pace: f64,
    waiting: usize,
}

/// How many lanes are kept.
const LANES: usize = 1_024;

impl RetryGate {
    /// Creates gates that are open everywhere.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the gates that are not open: closed, or letting out at a pace.
    #[must_use]
    pub fn status(&self) -> Vec<GateStatus> {
        let status = |(place, lane): (&GatedPlace, &Lane)| GateStatus {
            place: place.clone(),
            learned: lane.scope.as_ref().and_then(LimitScope::only),
            opens_in: lane
                .pace
                .opens_at()
                .checked_duration_since(clock::now())
                .filter(|left| !left.is_zero()),
            pace: lane.pace.per_second(),
            waiting: lane.queue.len(),
        };
        self.shared.swept(clock::now()).by_place.iter().map(status).collect()
    }

    /// Whether no request needs to look further.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.shared.count.load(Ordering::Relaxed) == 0
    }

    /// Asks for a request to be let through: with a pass if the gate is not open, and wants to be told what came of it.
    ///
    /// # Errors
    ///
    /// A ticket, if the request has to wait.
    pub(super) fn admit(&self, place: &GatedPlace, ask: GateAsk<'_>) -> Result<Option<Pass>, Box<Ticket>> {
        let now = clock::now();
        let mut lanes = self.shared.swept(now);
        let Some(lane) = lanes.by_place.get_mut(place) else { return Ok(None) };
        let (gate, place) = (Arc::clone(&self.shared), place.clone());
        match lane.admit(ask, now) {
            None => Ok(None),
            Some(Ok(passage)) => Ok(Some(Pass { gate, place, passage })),
            Some(Err((rank, like))) => {
                let (since, hurried, alarm) = (now, false, None);
                Err(Box::new(Ticket { gate, place, rank, since, like, hurried, alarm }))
            }
        }
    }

    /// Notes that a request was refused for `wait`, and says how its retry stands with the gate.
    pub(super) fn refused(
        &self,
        place: &GatedPlace,
        ask: GateAsk<'_>,
        pass: Option<&Pass>,
        wait: Duration,
    ) -> HeldRetry {
        let (now, pause) = (clock::now(), Chance::default().lengthen(wait));
        let mut lanes = self.shared.swept(now);
        if let Some(lane) = lanes.by_place.get_mut(place) {
            let (held, wakers) = lane.refused(ask, pass.map(|pass| &pass.passage), pause, now);
            drop(lanes);
            wakers.into_iter().for_each(Waker::wake);
            return held;
        }
        if lanes.by_place.len() >= LANES && !lanes.make_room() {
            return HeldRetry::No;
        }
        // Where the caller tells requests apart, nothing is to be learned.
        let scope = ask.kind.filter(|_| place.key.is_none()).map(LimitScope::new);
        lanes.made += 1;
        let lane = Lane::new(lanes.made, now, pause, scope);
        lanes.by_place.insert(place.clone(), lane);
        self.shared.count.store(lanes.by_place.len(), Ordering::Relaxed);
        HeldRetry::Now
    }
}

impl fmt::Debug for RetryGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryGate").field("not_open", &self.shared.count).finish_non_exhaustive()
    }
}

// --- GateStatus ---

impl GateStatus {
    /// Returns the origin before which it stands; none for requests whose URI does not say where they go, or whose
    /// authority is that of no origin, as with a user name.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.place.account.origin.as_ref()
    }

    /// Returns the credential whose requests it holds back.
    #[must_use]
    pub fn credential(&self) -> Option<&CredentialId> {
        self.place.account.credential.as_ref()
    }

    /// Returns which part of these requests it holds back: what [`gate_key`](super::RetryPolicyBuilder::gate_key) made of them, or
    /// the paths or the method that it learned the limit to be about, such as `v1/search`, `POST` or `POST v1/search`. None for all
    /// of them.
    #[must_use]
    pub fn part(&self) -> Option<&str> {
        self.place.key.as_deref().or(self.learned.as_deref())
    }

    /// Returns how long it stays closed; none if it lets out at its pace.
    #[must_use]
    pub fn opens_in(&self) -> Option<Duration> {
        self.opens_in
    }

    /// Returns how many requests per second it sends when it is not closed.
    #[must_use]
    pub fn pace(&self) -> f64 {
        self.pace
    }

    /// Returns how many requests wait at it.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests;
