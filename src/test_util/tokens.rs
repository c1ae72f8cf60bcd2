//! The tokens of an authorization server: what it issued, to whom, and what became of it.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tokio::time::Instant;

use crate::clock;

/// How long an expired token is remembered, so that "expired" can be told from "unknown".
const REMEMBERED: Duration = Duration::from_secs(60);

/// Every token issued by one server.
#[derive(Debug)]
pub(super) struct Tokens {
    access: HashMap<String, Access>,
    refresh: HashMap<String, Refresh>,
    lineages: u64,
    revocations: u64,
    swept: Instant,
}

/// An access token's record.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) client: String,
    pub(super) scopes: Vec<String>,
    pub(super) expires: Instant,
    lineage: Option<u64>,
    revoked_by: Option<u64>,
}

/// A refresh token's record.
#[derive(Clone, Debug)]
struct Refresh {
    client: String,
    scopes: Vec<String>,
    lineage: u64,
    state: RefreshState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefreshState {
    Fresh,
    Spent,
    Revoked,
}

/// The state of an access token.
#[derive(Clone, Debug)]
pub(super) enum Worth {
    Active(Access),
    Expired,
    /// Revoked, and by which revocation.
    Revoked(u64),
    Unknown,
}

/// The result of the use of a refresh token.
pub(super) enum Rotation {
    Rotated { access: String, refresh: String, scopes: Vec<String> },
    TooManyScopes,
    Reused,
    Unknown,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self {
            access: HashMap::new(),
            refresh: HashMap::new(),
            lineages: 0,
            revocations: 0,
            swept: clock::now(),
        }
    }

    /// Issues an access token on its own.
    pub(super) fn issue(&mut self, client: &str, scopes: Vec<String>, lifetime: Duration) -> String {
        self.issue_access(client, scopes, lifetime, None)
    }

    /// Issues the first refresh token of a lineage.
    pub(super) fn issue_refresh(&mut self, client: &str, scopes: Vec<String>) -> String {
        self.lineages += 1;
        self.issue_refresh_of(client, scopes, self.lineages)
    }

    /// Issues an access token, and a refresh token of the same lineage.
    pub(super) fn issue_both(
        &mut self,
        client: &str,
        scopes: Vec<String>,
        lifetime: Duration,
    ) -> (String, String) {
        let refresh = self.issue_refresh(client, scopes.clone());
        (self.issue_access(client, scopes, lifetime, Some(self.lineages)), refresh)
    }

    /// Takes a refresh token for an access token and the next refresh token. One that was spent before was stolen, by
    /// then or now: everything of its lineage ends.
    pub(super) fn rotate(
        &mut self,
        secret: &str,
        client: &str,
        asked: Option<&str>,
        lifetime: Duration,
    ) -> Rotation {
        let Some(record) = self.refresh.get_mut(secret).filter(|record| record.client == client) else {
            return Rotation::Unknown;
        };
        match record.state {
            RefreshState::Revoked => return Rotation::Unknown,
            RefreshState::Spent => {
                let lineage = record.lineage;
                self.revoke_lineage(lineage);
                return Rotation::Reused;
            }
            RefreshState::Fresh => {}
        }
        let scopes = match asked {
            Some(asked) => asked.split_whitespace().map(str::to_owned).collect(),
            None => record.scopes.clone(),
        };
        if !scopes.iter().all(|scope| record.scopes.contains(scope)) {
            return Rotation::TooManyScopes;
        }
        record.state = RefreshState::Spent;
        let (all, lineage) = (record.scopes.clone(), record.lineage);
        Rotation::Rotated {
            access: self.issue_access(client, scopes.clone(), lifetime, Some(lineage)),
            refresh: self.issue_refresh_of(client, all, lineage),
            scopes,
        }
    }

    pub(super) fn worth(&self, secret: &str) -> Worth {
        match self.access.get(secret) {
            None => Worth::Unknown,
            Some(Access { revoked_by: Some(number), .. }) => Worth::Revoked(*number),
            Some(access) if access.expires <= clock::now() => Worth::Expired,
            Some(access) => Worth::Active(access.clone()),
        }
    }

    /// Returns how many access tokens are still good.
    pub(super) fn active(&self) -> usize {
        let now = clock::now();
        self.access.values().filter(|access| access.expires > now && access.revoked_by.is_none()).count()
    }

    /// Revokes every access token that is still good, and returns the number of this revocation.
    pub(super) fn revoke_all(&mut self) -> u64 {
        self.revoke_where(|_| true)
    }

    /// Revokes one token of a client's; with a refresh token, everything of its lineage (RFC 7009 §2.1).
    pub(super) fn revoke(&mut self, secret: &str, client: &str) {
        match self.refresh.get(secret).filter(|record| record.client == client).map(|record| record.lineage) {
            Some(lineage) => self.revoke_lineage(lineage),
            None => {
                self.revocations += 1;
                let number = self.revocations;
                let record = self.access.get_mut(secret).filter(|record| record.client == client);
                if let Some(record) = record {
                    record.revoked_by.get_or_insert(number);
                }
            }
        }
    }

    fn revoke_lineage(&mut self, lineage: u64) {
        for record in self.refresh.values_mut().filter(|record| record.lineage == lineage) {
            record.state = RefreshState::Revoked;
        }
        self.revoke_where(|access| access.lineage == Some(lineage));
    }

    fn revoke_where(&mut self, concerned: impl Fn(&Access) -> bool) -> u64 {
        self.revocations += 1;
        let now = clock::now();
        for access in self.access.values_mut().filter(|access| access.expires > now && concerned(access)) {
            access.revoked_by.get_or_insert(self.revocations);
        }
        self.revocations
    }

    fn issue_access(
        &mut self,
        client: &str,
        scopes: Vec<String>,
        lifetime: Duration,
        lineage: Option<u64>,
    ) -> String {
        self.sweep();
        let secret = random();
        let expires = clock::now() + lifetime;
        let record = Access { client: client.to_owned(), scopes, expires, lineage, revoked_by: None };
        self.access.insert(secret.clone(), record);
        secret
    }

    fn issue_refresh_of(&mut self, client: &str, scopes: Vec<String>, lineage: u64) -> String {
        let secret = random();
        let record = Refresh { client: client.to_owned(), scopes, lineage, state: RefreshState::Fresh };
        self.refresh.insert(secret.clone(), record);
        secret
    }

    fn sweep(&mut self) {
        let now = clock::now();
        if now.duration_since(self.swept) > REMEMBERED {
            self.access.retain(|_, record| record.expires + REMEMBERED > now);
            self.swept = now;
        }
    }
}

/// Makes a secret of 256 random bits.
pub(super) fn random() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("an operating system with a random number generator");
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
