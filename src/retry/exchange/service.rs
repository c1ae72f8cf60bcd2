//! The service that carries out what the policy decides.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::attempt::{AttemptState, NextAttempt};
use super::future::ResponseFuture;
use super::head::HeadSnapshot;
use super::journal;
use super::request::{Exchange, HttpService};
use super::resend::Resend;
use super::sender::{Instance, Sender};
use super::timeouts;
use crate::extensions::Attempt;
use crate::retry::gate::Ticket;
use crate::retry::limits::account::RequestTarget;
use crate::retry::policy::builder::RetryPolicy;
use crate::retry::policy::idempotency::Repeatability;
use crate::retry::policy::options::RetryOptions;
use crate::retry::replay_body::{NotReplayable, RequestBody};
use crate::retry::retry_body::ResponseBody;
use crate::runtime;

/// Sends a request again when its [`RetryPolicy`] says so. Rules, examples and caveats are on the page of the
/// [module](crate::retry).
///
/// The inner service gets [`RequestBody`]s, the caller [`ResponseBody`]s; where a client does not take those, see
/// [body types](crate::retry#body-types). `poll_ready` forwards and reserves nothing else.
pub struct RetryService<S> {
    inner: S,
    policy: RetryPolicy,
    /// State shared by the requests of this instance, from its second use on.
    own: Option<Arc<Instance<S>>>,
    used: bool,
}

impl<S> RetryService<S> {
    fn new(inner: S, policy: RetryPolicy) -> Self {
        Self { inner, policy, own: None, used: false }
    }

    /// Returns the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        // Further attempts go through what it is changed to.
        (self.own, self.used) = (None, false);
        &mut self.inner
    }

    /// Unwraps the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, RB> Service<Request<B>> for RetryService<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    B::Error: Into<BoxError>,
    RB: Body,
    RB::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> ResponseFuture<S, B> {
        let once = |body| RequestBody::once(body, NotReplayable::Released);
        // A resend of a retry layer further out: two of them must not multiply.
        if request.extensions().get::<Attempt>().is_some() {
            let future = self.inner.call(request.map(once));
            return ResponseFuture::new(AttemptState::calling(future), None);
        }
        let sender = self.sender();
        let rules = self.policy.rules();
        let repeat = match rules.generated_keys {
            true => Repeatability::with_key(&mut request),
            false => Repeatability::of_method(request.method()),
        };
        let options = request.extensions().get::<RetryOptions>().cloned();
        if let Some(options) = &options {
            options.forget_report();
        }
        let deadline = timeouts::deadline(rules, request.extensions_mut());
        if timeouts::is_over(deadline) {
            let exchange =
                Exchange { sender, options, repeat, is_of_first: false, deadline, resend: None, past: None };
            return self.not_sent(request.map(once), exchange, None);
        }
        let is_of_first =
            rules.budget.as_ref().is_some_and(|budget| budget.deposit(RequestTarget::of(&request)));
        let past_gate = options.as_ref().is_some_and(|options| options.past_gate);
        let gate = rules.gate.as_ref().filter(|gate| !past_gate && !gate.is_open());
        let at_gate = gate.is_some() && runtime::current().is_ok();
        let may_replay = rules.may_replay(options.as_ref(), 0, 0);
        // The head is copied only where a replay or a wait can follow, or the gate could not tell where the request went.
        let is_known = rules.gate.is_none() || is_of_first && rules.gate_key.is_none();
        if !may_replay && !at_gate && is_known {
            let repeat = Repeatability::as_it_is(request.method(), request.headers());
            let state = AttemptState::calling(self.inner.call(request.map(once)));
            let exchange =
                Exchange { sender, options, repeat, is_of_first, deadline, resend: None, past: None };
            return ResponseFuture::new(state, Some(exchange));
        }
        let head = HeadSnapshot::of(&request);
        let mut resend = None;
        let request = request.map(|body| {
            let (first, further) = match may_replay {
                true => Resend::of(head, body, rules, options.as_ref()),
                false => (once(body), Resend::once(head)),
            };
            resend = Some(further);
            first
        });
        if at_gate {
            let exchange = Exchange { sender, options, repeat, is_of_first, deadline, resend, past: None };
            return self.call_through_gate(request, exchange);
        }
        let state = AttemptState::calling(self.inner.call(request));
        // Made last and in its place: it is large.
        ResponseFuture::new(
            state,
            Some(Exchange { sender, options, repeat, is_of_first, deadline, resend, past: None }),
        )
    }
}

impl<S: Clone> RetryService<S> {
    /// Returns what a request needs of this instance: as it is the instance that was polled ready that is called, a clone of
    /// the inner service for further attempts.
    #[inline]
    fn sender(&mut self) -> Sender<S> {
        if let Some(own) = &self.own {
            return Sender::Shared(Arc::clone(own));
        }
        let (policy, inner) = (self.policy.clone(), self.inner.clone());
        if !mem::replace(&mut self.used, true) {
            return Sender::Own { policy, inner };
        }
        let own = self.own.insert(Arc::new(Instance::new(policy, inner)));
        Sender::Shared(Arc::clone(own))
    }

    /// Sends a request if the gate lets it through, or has it wait.
    #[cold]
    fn call_through_gate<B>(
        &mut self,
        request: Request<RequestBody<B>>,
        mut exchange: Exchange<S, B>,
    ) -> ResponseFuture<S, B>
    where
        S: HttpService<B>,
    {
        let Some(ticket) = exchange.ask_gate(0, Duration::ZERO) else {
            return ResponseFuture::new(AttemptState::calling(self.inner.call(request)), Some(exchange));
        };
        journal::held_back(exchange.resend.as_ref().map(|resend| &resend.head));
        self.not_sent(request, exchange, Some(ticket))
    }

    /// Has a request wait that was not sent. Until it is, it holds nothing that others wait for.
    #[cold]
    fn not_sent<B>(
        &mut self,
        request: Request<RequestBody<B>>,
        mut exchange: Exchange<S, B>,
        ticket: Option<Box<Ticket>>,
    ) -> ResponseFuture<S, B>
    where
        S: HttpService<B>,
    {
        // The instance that was polled ready is given up, and what it reserved with it.
        self.inner = self.inner.clone();
        exchange.past().sent = 0;
        let attempt = NextAttempt::new(request, Duration::ZERO, ticket);
        ResponseFuture::new(AttemptState::Preparing { attempt }, Some(exchange))
    }
}

impl<S: Clone> Clone for RetryService<S> {
    /// A clone takes nothing along of what the requests of this instance share: most clones serve one request.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.policy.clone())
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
