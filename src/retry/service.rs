//! The service that carries out what the policy decides.

use std::fmt;
use std::mem;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, request};
use http_body::Body;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::account::Target;
use super::body_factory::BodyFactory;
use super::facts::Facts;
use super::future::{Kept, ResponseFuture};
use super::idempotency::Repeat;
use super::options::RetryOptions;
use super::original::Original;
use super::outcome::SentTo;
use super::policy::RetryPolicy;
use super::replay::{HttpService, Replay};
use super::replay_body::{NotReplayable, ReplayBody};
use super::retry_body::RetryBody;
use super::snapshot::Snapshot;
use super::timeouts;
use crate::extensions::Attempt;
use crate::runtime;

/// Sends a request again when its [`RetryPolicy`] says so. Rules, examples and caveats are on the page of the
/// [module](super).
///
/// The inner service gets [`ReplayBody`]s, the caller [`RetryBody`]s; where a client does not take those, see
/// [body types](super#body-types). `poll_ready` forwards and reserves nothing else.
#[derive(Clone)]
pub struct RetryService<S> {
    inner: S,
    policy: RetryPolicy,
}

impl<S> RetryService<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }

    /// Returns the policy.
    pub fn policy(&self) -> &RetryPolicy {
        &self.policy
    }

    /// Returns the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Unwraps the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, RB> Service<Request<B>> for RetryService<S>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    B::Error: Into<BoxError>,
    RB: Body,
    RB::Error: Into<BoxError>,
{
    type Response = Response<RetryBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<S, B> {
        let (mut head, body) = request.into_parts();
        // A resend of a retry layer further out: two of them must not multiply.
        if head.extensions.get::<Attempt>().is_some() {
            let body = ReplayBody::once(body, NotReplayable::Released);
            return ResponseFuture::passing(self.inner.call(Request::from_parts(head, body)));
        }
        let rules = self.policy.rules();
        let mut facts = Facts {
            policy: self.policy.clone(),
            options: head.extensions.get::<RetryOptions>().cloned(),
            repeat: match rules.generated_keys {
                true => Repeat::with_key(&mut head),
                false => Repeat::of_method(&head.method),
            },
            body: None,
            deadline: timeouts::deadline(rules, &head.extensions),
        };
        let options = facts.options.as_ref();
        if let Some(slot) = options.and_then(|options| options.slot.as_ref()) {
            slot.clear();
        }
        if timeouts::is_over(facts.deadline) {
            // What the instance that is ready has reserved goes back.
            drop(self.take_ready());
            return ResponseFuture::late(facts);
        }
        let is_first = rules.budget.as_ref().is_some_and(|budget| budget.deposit(Target::of(&head)));
        let (first, original) = match rules.may_replay(options, 0, 0) {
            true => {
                Original::of(body, head.extensions.get::<BodyFactory>(), rules.limits(options, &head.headers))
            }
            false => (ReplayBody::once(body, NotReplayable::Released), Err(NotReplayable::Released)),
        };
        if let Err(why) = &original {
            facts.body = Some(*why);
            // Nobody can look later.
            facts.repeat = Repeat::as_it_is(&head.method, &head.headers);
        }
        if facts.gate().is_some_and(|gate| !gate.is_open()) && runtime::current().is_ok() {
            return self.call_through_gate(head, first, original.ok(), facts);
        }
        // The head is copied only where a replay can follow.
        let Ok(original) = original else {
            let kept = match &rules.gate {
                Some(_) => Kept::Place(SentTo::of(&head, &rules.gate_key, is_first)),
                None => Kept::Nothing,
            };
            let future = self.inner.call(Request::from_parts(head, first));
            return ResponseFuture::watching(future, facts, kept);
        };
        let snapshot = Snapshot::of(&head);
        let mut ready = self.take_ready();
        let future = ready.call(Request::from_parts(head, first));
        let replay = Replay::new(ready, snapshot, Some(original));
        ResponseFuture::watching(future, facts, Kept::Replay(replay))
    }
}

impl<S: Clone> RetryService<S> {
    /// Takes the instance that was polled ready, for it is the one to call. It also serves the replays, polled ready anew
    /// for each; a clone stays behind for the next request.
    fn take_ready(&mut self) -> S {
        let clone = self.inner.clone();
        mem::replace(&mut self.inner, clone)
    }

    /// Sends a request if the gate lets it through, or has it wait.
    #[cold]
    fn call_through_gate<B>(
        &mut self,
        head: request::Parts,
        first: ReplayBody<B>,
        original: Option<Original<B>>,
        facts: Facts,
    ) -> ResponseFuture<S, B>
    where
        S: HttpService<B>,
    {
        let mut ready = self.take_ready();
        let mut replay = Replay::new(ready.clone(), Snapshot::of(&head), original);
        if replay.ask_gate(&facts, 0, Duration::ZERO) {
            // Whoever waits holds nothing that others wait for: the instance that is ready goes.
            drop(ready);
            replay.hold_back(first);
            return ResponseFuture::held_back(facts, replay);
        }
        let future = ready.call(Request::from_parts(head, first));
        ResponseFuture::watching(future, facts, Kept::Replay(replay))
    }
}

impl<S: fmt::Debug> fmt::Debug for RetryService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryService").field("inner", &self.inner).field("policy", &self.policy).finish()
    }
}

// --- RetryPolicy ---

impl<S> Layer<S> for RetryPolicy {
    type Service = RetryService<S>;

    fn layer(&self, inner: S) -> RetryService<S> {
        RetryService::new(inner, self.clone())
    }
}
