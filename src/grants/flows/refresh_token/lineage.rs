//! The state of one refresh token and its successors: which is the newest, whether it may be spent, which is not stored yet,
//! and which access token was not taken yet.
//!
//! Invariants:
//! 1. The newest refresh token is in memory in the same poll in which the response that brought it was read.
//! 2. The result of an exchange changes nothing once [`replace`](Lineage::replace) has put another token in its place.
//! 3. A token that was refused for good is never sent again.
//! 4. A turn that shows no sign of life is taken away. If it has sent a request, the refresh token is in doubt already.
//! 5. Where processes share the refresh token, the newest that they know is taken over before an exchange, and what is held
//!    here goes before it only if it came in its place, or if it is from a new login.
//! 6. An access token stays here until a fetch takes it, so a caller that goes away meanwhile loses nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::clock::{self, Moment};
use crate::error::Error;
use crate::grants::client::secret;
use crate::grants::endpoint::deadline::Deadline;
use crate::grants::endpoint::doubt::Doubt;
use crate::source::SharedRefreshToken;
use crate::token::AccessToken;

/// A refresh token and its successors.
#[derive(Debug)]
pub(crate) struct Lineage {
    state: Mutex<LineageState>,
}

#[derive(Debug)]
struct LineageState {
    /// One exchange at a time.
    turns: Arc<Semaphore>,
    /// When the task that holds the turn showed a sign of life.
    beat: Instant,
    held: Option<Held>,
    ready: Option<AccessToken>,
    /// The refresh token with which the lineage here began.
    first: Option<SecretString>,
    /// The newest token here that the other processes know as well, if they share it.
    known: Option<SecretString>,
    /// Whether a new login is to go before what they know.
    is_replaced: bool,
}

/// The newest refresh token, and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) secret: SecretString,
    /// Its copies share it, and it tells one token from the next.
    pub(crate) doubt: Arc<Doubt>,
    pub(crate) standing: Standing,
    /// Why the token is of no use any more.
    dead: Option<Error>,
    /// Refusals in a row that may be about it, and do not say so.
    suspicions: u32,
    /// The newest one, what proved the client then, and until when the server is left alone.
    paused: Option<(Error, Option<SecretString>, Moment)>,
    /// Whether it is where a restart finds it.
    is_stored: bool,
    store_error: Option<Error>,
}

/// The standing of a refresh token with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It comes from elsewhere and was not taken yet, so that it is unknown what became of it before.
    Untried,
    /// It came in the place of another one.
    Rotated,
    /// It was taken here, and no other came in its place: the server takes it more than once.
    Lasting,
    /// It was refused after that, and is asked once more before that is believed.
    Accused,
}

/// How often the task that holds the turn shows that its runtime is driven.
pub(crate) const BEAT: Duration = Duration::from_secs(1);

/// A turn without a sign of life for so long is taken away.
const STALE: Duration = Duration::from_secs(10);

/// So many refusals in a row that may be about the refresh token are taken for the user's matter.
const SUSPICIOUS: u32 = 3;

/// The pauses after them: from the first to the longest, doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(4 * 3600);

impl Lineage {
    /// Begins with what there is at the start: perhaps a refresh token, perhaps an access token to use first.
    pub(crate) fn new(refresh_token: Option<SecretString>, ready: Option<AccessToken>) -> Self {
        let state = LineageState {
            turns: Arc::new(Semaphore::new(1)),
            beat: clock::now(),
            held: refresh_token.clone().map(Held::new),
            ready,
            first: refresh_token,
            known: None,
            is_replaced: false,
        };
        Self { state: Mutex::new(state) }
    }

    /// Waits for the right to exchange, which goes on to the next as it is dropped. If the task that holds it shows no sign of
    /// life, as on a runtime that is no longer driven, it is taken away.
    pub(crate) async fn turn(&self, deadline: Deadline) -> Result<OwnedSemaphorePermit, Error> {
        loop {
            let turns = Arc::clone(&self.state().turns);
            if let Ok(Ok(turn)) = tokio::time::timeout(deadline.cap(BEAT), turns.acquire_owned()).await {
                if self.beat(&turn) {
                    return Ok(turn);
                }
                continue;
            }
            if self.take_over() {
                tracing::warn!("an exchange of the refresh token shows no sign of life; another one begins");
            } else if deadline.cap(BEAT).is_zero() {
                return Err(Error::transient(
                    "another exchange of the refresh token is still going on; the next fetch gets what it brings",
                ));
            }
        }
    }

    /// Shows that the task that holds the turn is alive. Returns false if it was taken away.
    pub(crate) fn beat(&self, turn: &OwnedSemaphorePermit) -> bool {
        let mut state = self.state();
        let is_current = Arc::ptr_eq(&state.turns, turn.semaphore());
        if is_current {
            state.beat = clock::now();
        }
        is_current
    }

    /// Takes a turn away that shows no sign of life.
    fn take_over(&self) -> bool {
        let mut state = self.state();
        let now = clock::now();
        let is_stale = now.saturating_duration_since(state.beat) >= STALE;
        if is_stale {
            state.turns = Arc::new(Semaphore::new(1));
            state.beat = now;
        }
        is_stale
    }

    /// Returns whether there is a refresh token that was not refused.
    pub(crate) fn is_alive(&self) -> bool {
        self.state().held.as_ref().is_some_and(|held| held.dead.is_none())
    }

    /// Returns the token to send; why there is none that could be.
    pub(crate) fn held(&self) -> Result<Held, Error> {
        match self.state().held.clone() {
            Some(Held { dead: Some(error), .. }) => Err(error),
            Some(held) => Ok(held),
            None => Err(Error::grant(
                "there is no refresh token: no user has signed in yet, or the authorization server granted none; ask for one \
                 when the user signs in (many servers want the scope offline_access), or fall back on another grant with `or`",
            )),
        }
    }

    /// Takes in the result of an exchange of `held`. Returns false if that is no longer the token in use.
    ///
    /// No refresh token, or the same again, leaves the old one, of which it is certain now that it is good.
    pub(crate) fn take_in(
        &self,
        held: &Held,
        access_token: Option<AccessToken>,
        refresh_token: Option<SecretString>,
    ) -> bool {
        let mut guard = self.state();
        let LineageState { held: current, ready, .. } = &mut *guard;
        let Some(current) = current.as_mut().filter(|current| current.is(held)) else { return false };
        match refresh_token.filter(|newer| !secret::same(newer, &held.secret)) {
            Some(newer) => {
                *current = Held { standing: Standing::Rotated, is_stored: false, ..Held::new(newer) };
            }
            None => {
                current.doubt.set(false);
                current.standing = Standing::Lasting;
                (current.suspicions, current.paused) = (0, None);
            }
        }
        // A revocation of the access token finds the refresh token there.
        if let Some(token) = access_token {
            *ready = Some(token.refresh_secret_of(current.secret.clone()));
        }
        true
    }

    /// Notes something about `held`. Returns false if that is no longer the token in use.
    fn note(&self, held: &Held, change: impl FnOnce(&mut Held)) -> bool {
        let mut state = self.state();
        let current = state.held.as_mut().filter(|current| current.is(held));
        current.map(change).is_some()
    }

    /// Returns whether `held` is the token in use.
    pub(crate) fn holds(&self, held: &Held) -> bool {
        self.note(held, |_held| {})
    }

    /// Notes that `held` was refused for good.
    pub(crate) fn bury(&self, held: &Held, error: &Error) {
        self.note(held, |held| held.dead = Some(error.clone()));
    }

    /// Notes that `held` was refused, which is to be said twice before it is believed.
    pub(crate) fn accuse(&self, held: &Held) {
        self.note(held, |held| held.standing = Standing::Accused);
    }

    /// Counts a refusal that may be about `held`, and returns the error for it. After a few in a row the user is asked for, and
    /// the server is left alone for a while.
    pub(crate) fn suspect(
        &self,
        held: &Held,
        mut error: Error,
        proof: Option<SecretString>,
        now: Moment,
    ) -> Error {
        self.note(held, |held| {
            held.suspicions = held.suspicions.saturating_add(1);
            let Some(doublings) = held.suspicions.checked_sub(SUSPICIOUS) else { return };
            let pause = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST_PAUSE);
            let line = format!(
                "{error}; this refresh token was refused {} times in a row, so it may have ended: sign in again, and give the \
                 new refresh token to the source",
                held.suspicions
            );
            error = error.clone().reworded(line);
            held.paused = Some((error.clone(), proof, now.saturating_add(pause)));
        });
        error
    }

    /// Returns what was refused, and what proved the client then, while the server is left alone.
    pub(crate) fn paused(&self, now: Moment) -> Option<(Error, Option<SecretString>)> {
        let (error, proof, until) = self.state().held.as_ref()?.paused.clone()?;
        (!now.reached(until)).then_some((error, proof))
    }

    /// Begins anew with a token from elsewhere.
    pub(crate) fn replace(&self, refresh_token: SecretString) {
        let mut state = self.state();
        state.begin(Held::new(refresh_token.clone()), refresh_token, None);
    }

    /// Takes over what the processes know that share the refresh token, unless what is held here is newer.
    pub(crate) fn take_over_shared(&self, theirs: SharedRefreshToken) {
        let mut state = self.state();
        let LineageState { held, known, is_replaced, .. } = &mut *state;
        if let Some(held) = held {
            if secret::same(&held.secret, &theirs.newest) && !*is_replaced {
                held.doubt.set(theirs.is_in_doubt);
                held.dead = theirs.ended.or(held.dead.take());
                *known = Some(theirs.newest);
                return;
            }
            // A token that was given at the start may be the first of theirs, or one of those after it, and is spent then. One
            // that they do not know is worth a try once theirs has ended.
            let came_after = known.as_ref().is_some_and(|known| secret::same(known, &theirs.newest));
            let is_unknown = known.is_none() && !secret::same(&held.secret, &theirs.first);
            let is_new_login = *is_replaced || (theirs.ended.is_some() && is_unknown);
            if held.dead.is_none() && (came_after || is_new_login) {
                return;
            }
        }
        let newest = Held { dead: theirs.ended, ..Held::new(theirs.newest.clone()) };
        newest.doubt.set(theirs.is_in_doubt);
        state.begin(newest, theirs.first, Some(theirs.newest));
    }

    /// Returns what the other processes have to know of the token in use.
    pub(crate) fn to_share(&self) -> Option<SharedRefreshToken> {
        let state = self.state();
        let held = state.held.as_ref()?;
        Some(SharedRefreshToken {
            first: state.first.as_ref().unwrap_or(&held.secret).clone(),
            newest: held.secret.clone(),
            is_in_doubt: held.doubt.is_raised(),
            ended: held.dead.clone(),
        })
    }

    /// Notes whether the other processes know of `held`. Returns false if that is no longer the token in use.
    pub(crate) fn shared(&self, held: &Held, is_known: bool) -> bool {
        let mut state = self.state();
        let is_in_use = state.held.as_ref().is_some_and(|current| current.is(held));
        if is_in_use && is_known {
            state.known = Some(held.secret.clone());
            state.is_replaced = false;
        }
        is_in_use
    }

    /// Returns whether an access token that was not taken yet is good for a while. One that is not is dropped.
    pub(crate) fn is_ready(&self, now: Moment) -> bool {
        let mut state = self.state();
        state.ready = state.ready.take().filter(|token| token.is_worth_handing_out(now));
        state.ready.is_some()
    }

    /// Takes the access token that was not taken yet.
    pub(crate) fn take_ready(&self) -> Option<AccessToken> {
        self.state().ready.take()
    }

    /// Returns whether nothing would be lost that is not stored elsewhere. While an exchange runs, that is not known.
    pub(crate) fn is_disposable(&self) -> bool {
        let state = self.state();
        let is_stored = state.held.as_ref().is_none_or(|held| held.is_stored || held.dead.is_some());
        is_stored && state.turns.available_permits() > 0
    }

    /// Returns the newest token if it is still to be stored.
    pub(crate) fn unstored(&self) -> Option<Held> {
        self.state().held.clone().filter(|held| !held.is_stored)
    }

    /// Notes how storing a token ended.
    pub(crate) fn stored(&self, held: &Held, result: Result<(), Error>) {
        self.note(held, |held| {
            held.is_stored = result.is_ok();
            held.store_error = result.err();
        });
    }

    /// Returns why the newest token is not stored.
    pub(crate) fn store_error(&self) -> Option<Error> {
        self.state().held.as_ref()?.store_error.clone()
    }

    fn state(&self) -> MutexGuard<'_, LineageState> {
        // Every change under this lock is a few assignments, so what a panic leaves behind is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LineageState {
    /// Goes on with a token from elsewhere. Without one that the other processes know, it is a new login.
    fn begin(&mut self, held: Held, first: SecretString, known: Option<SecretString>) {
        self.held = Some(held);
        self.ready = None;
        self.first = Some(first);
        self.is_replaced = known.is_none();
        self.known = known;
    }
}

impl Held {
    /// A token from elsewhere.
    fn new(secret: SecretString) -> Self {
        Self {
            secret,
            doubt: Arc::default(),
            standing: Standing::Untried,
            dead: None,
            suspicions: 0,
            paused: None,
            is_stored: true,
            store_error: None,
        }
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.doubt, &other.doubt)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::clock::WallClock;

    fn lineage() -> Lineage {
        Lineage::new(Some("RT1".into()), None)
    }

    fn access() -> AccessToken {
        AccessToken::bearer("AT").unwrap().with_lifetime(Duration::from_secs(3600))
    }

    fn newest(lineage: &Lineage) -> String {
        lineage.held().unwrap().secret.expose_secret().to_owned()
    }

    #[test]
    fn a_new_refresh_token_replaces_the_old_and_is_to_be_stored() {
        let lineage = lineage();
        let first = lineage.held().unwrap();
        first.doubt.set(true);
        assert!(lineage.take_in(&first, Some(access()), Some("RT2".into())));
        let second = lineage.unstored().unwrap();
        assert_eq!((newest(&lineage).as_str(), second.secret.expose_secret()), ("RT2", "RT2"));
        assert!(!second.doubt.is_raised());
        lineage.stored(&second, Ok(()));
        assert!(lineage.unstored().is_none());
        let token = lineage.take_ready().unwrap();
        assert_eq!(token.refresh_secret().unwrap().expose_secret(), "RT2");
        assert!(lineage.take_ready().is_none());
    }

    #[test]
    fn no_new_one_and_the_same_again_keep_the_old_and_end_the_doubt() {
        for returned in [None, Some(SecretString::from("RT1"))] {
            let lineage = lineage();
            let held = lineage.held().unwrap();
            held.doubt.set(true);
            assert!(lineage.take_in(&held, Some(access()), returned));
            assert_eq!(newest(&lineage), "RT1");
            assert!(!lineage.held().unwrap().doubt.is_raised() && lineage.unstored().is_none());
            assert_eq!(lineage.take_ready().unwrap().refresh_secret().unwrap().expose_secret(), "RT1");
        }
    }

    #[test]
    fn what_an_exchange_of_a_replaced_token_brings_changes_nothing() {
        let lineage = lineage();
        let old = lineage.held().unwrap();
        lineage.replace("RT9".into());
        assert!(!lineage.take_in(&old, Some(access()), Some("RT2".into())));
        lineage.bury(&old, &Error::grant("refused"));
        lineage.stored(&old, Err(Error::transient("full")));
        assert_eq!(newest(&lineage), "RT9");
        assert!(lineage.take_ready().is_none() && lineage.store_error().is_none());
    }

    #[test]
    fn a_refused_token_is_dead_until_it_is_replaced() {
        let lineage = lineage();
        lineage.bury(&lineage.held().unwrap(), &Error::grant("refused"));
        assert!(!lineage.is_alive());
        assert_eq!(lineage.held().err().unwrap().to_string(), "refused");
        lineage.replace("RT9".into());
        assert!(lineage.is_alive());
        assert_eq!(newest(&lineage), "RT9");
    }

    #[test]
    fn an_access_token_that_is_over_is_not_handed_out() {
        let now = WallClock::default().moment();
        for (lifetime, is_good) in [(0, false), (1, true), (3600, true)] {
            let token = AccessToken::bearer("AT").unwrap().with_lifetime(Duration::from_secs(lifetime));
            let lineage = Lineage::new(None, Some(token.requested(now)));
            assert_eq!(lineage.is_ready(now), is_good, "{lifetime}");
            assert_eq!(lineage.take_ready().is_some(), is_good, "{lifetime}");
        }
        let token = access().requested(now);
        let late = now.saturating_add(Duration::from_secs(3595));
        assert!(!Lineage::new(None, Some(token)).is_ready(late));
        let unknown = AccessToken::bearer("AT").unwrap().requested(now);
        assert!(Lineage::new(None, Some(unknown)).is_ready(late));
    }

    fn shared(first: &str, newest: &str, ended: bool) -> SharedRefreshToken {
        let ended = ended.then(|| Error::grant("ended"));
        SharedRefreshToken { first: first.into(), newest: newest.into(), is_in_doubt: false, ended }
    }

    /// Returns the token that is sent next, or the reason why none is.
    fn next(lineage: &Lineage) -> Result<String, String> {
        let held = lineage.held().map_err(|error| error.to_string())?;
        Ok(held.secret.expose_secret().to_owned())
    }

    #[test]
    fn what_the_processes_share_goes_before_what_one_was_started_with() {
        for start in [None, Some("RT1"), Some("RT2"), Some("another")] {
            let lineage = Lineage::new(start.map(Into::into), None);
            lineage.take_over_shared(shared("RT1", "RT3", false));
            assert_eq!(next(&lineage), Ok("RT3".into()), "{start:?}");
            lineage.take_over_shared(shared("RT1", "RT4", false));
            assert_eq!(next(&lineage), Ok("RT4".into()), "{start:?}");
            assert_eq!(lineage.to_share().unwrap().first.expose_secret(), "RT1");
        }
    }

    #[test]
    fn a_login_that_has_ended_ends_here_unless_there_is_a_newer_one() {
        for (start, expected) in [
            (None, Err("ended")),
            // The first of it, which was spent long ago.
            (Some("RT1"), Err("ended")),
            (Some("RT3"), Err("ended")),
            (Some("another"), Ok("another")),
        ] {
            let lineage = Lineage::new(start.map(Into::into), None);
            lineage.take_over_shared(shared("RT1", "RT3", true));
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(next(&lineage), expected, "{start:?}");
        }
        // One that was taken over before is older than what ended.
        let lineage = lineage();
        lineage.take_over_shared(shared("RT1", "RT2", false));
        lineage.take_over_shared(shared("RT1", "RT3", true));
        assert_eq!(next(&lineage), Err("ended".into()));
        // One that was refused here already is not sent again.
        let refused = Lineage::new(Some("another".into()), None);
        refused.bury(&refused.held().unwrap(), &Error::grant("refused"));
        refused.take_over_shared(shared("RT1", "RT3", true));
        assert_eq!(next(&refused), Err("ended".into()));
    }

    #[test]
    fn what_came_in_the_place_of_the_shared_token_goes_before_it() {
        for ended in [false, true] {
            let lineage = lineage();
            lineage.shared(&lineage.held().unwrap(), true);
            for newer in ["RT2", "RT3"] {
                assert!(lineage.take_in(&lineage.held().unwrap(), None, Some(newer.into())));
            }
            lineage.take_over_shared(shared("RT1", "RT1", ended));
            assert_eq!(next(&lineage), Ok("RT3".into()));
            // Until another process has moved on.
            lineage.take_over_shared(shared("RT1", "RT9", false));
            assert_eq!(next(&lineage), Ok("RT9".into()));
        }
    }

    #[test]
    fn a_new_login_goes_before_all_until_the_others_know_it() {
        let lineage = lineage();
        lineage.take_over_shared(shared("RT1", "RT2", false));
        lineage.replace("new".into());
        lineage.take_over_shared(shared("RT1", "RT3", false));
        assert_eq!(next(&lineage), Ok("new".into()));
        assert_eq!(lineage.to_share().unwrap().first.expose_secret(), "new");
        lineage.shared(&lineage.held().unwrap(), true);
        lineage.take_over_shared(shared("new", "newer", false));
        assert_eq!(next(&lineage), Ok("newer".into()));
    }

    #[test]
    fn a_doubt_is_shared_in_both_directions() {
        let lineage = lineage();
        lineage.take_over_shared(SharedRefreshToken { is_in_doubt: true, ..shared("RT1", "RT2", false) });
        assert!(lineage.held().unwrap().doubt.is_raised() && lineage.to_share().unwrap().is_in_doubt);
        // Another process has used it, and it was not rotated.
        lineage.take_over_shared(shared("RT1", "RT2", false));
        assert!(!lineage.held().unwrap().doubt.is_raised() && !lineage.to_share().unwrap().is_in_doubt);
    }
}
