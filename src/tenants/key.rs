//! A key of everything that shapes a token.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Everything that OAuth knows to shape a token: two keys are equal if nothing of it differs.
///
/// Scopes, audiences and resources are sets: their order makes no difference (RFC 6749 §3.3), and neither does naming one
/// twice. All else is compared letter by letter. It is no place for secrets: a name for whoever has the secret is enough.
///
/// # Examples
///
/// ```
/// use tower_oauth2::tenants::TokenKey;
///
/// let key = TokenKey::new().for_principal("user-7").with_scope("a b");
/// assert_eq!(key, TokenKey::new().with_scope("b").with_scope("a").for_principal("user-7"));
/// assert_ne!(key, TokenKey::new().with_scope("a b").for_principal("user-8"));
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[must_use = "a key does nothing by itself"]
pub struct TokenKey {
    issuer: Option<String>,
    client_id: Option<String>,
    grant: Option<String>,
    principal: Option<String>,
    scopes: BTreeSet<String>,
    audiences: BTreeSet<String>,
    resources: BTreeSet<String>,
    params: BTreeMap<String, BTreeSet<String>>,
}

impl TokenKey {
    /// Creates a key of which nothing is said yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets who issues the token: the issuer, or the URL of the token endpoint.
    pub fn from_issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Sets which client asks.
    pub fn by_client(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// Sets by which grant.
    pub fn by_grant(mut self, grant: impl Into<String>) -> Self {
        self.grant = Some(grant.into());
        self
    }

    /// Sets in whose name: the user, the tenant, the subject.
    pub fn for_principal(mut self, principal: impl Into<String>) -> Self {
        self.principal = Some(principal.into());
        self
    }

    /// Adds a scope, or several separated by spaces.
    pub fn with_scope(mut self, scope: impl AsRef<str>) -> Self {
        self.scopes.extend(scope.as_ref().split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned));
        self
    }

    /// Adds an audience.
    pub fn for_audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.insert(audience.into());
        self
    }

    /// Adds a resource (RFC 8707).
    pub fn for_resource(mut self, resource: impl Into<String>) -> Self {
        self.resources.insert(resource.into());
        self
    }

    /// Adds a parameter of the provider's own.
    pub fn with_param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.entry(name.into()).or_default().insert(value.into());
        self
    }

    /// Returns who issues the token.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Returns which client asks.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// Returns by which grant.
    #[must_use]
    pub fn grant(&self) -> Option<&str> {
        self.grant.as_deref()
    }

    /// Returns in whose name.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        self.principal.as_deref()
    }

    /// Returns the scopes in order.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes.iter().map(String::as_str)
    }

    /// Returns the audiences in order.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        self.audiences.iter().map(String::as_str)
    }

    /// Returns the resources in order.
    pub fn resources(&self) -> impl Iterator<Item = &str> {
        self.resources.iter().map(String::as_str)
    }

    /// Returns the parameters in order, as names and values.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        self.params
            .iter()
            .flat_map(|(name, values)| values.iter().map(|value| (name.as_str(), value.as_str())))
    }
}

impl fmt::Debug for TokenKey {
    /// Shows whose key it is. The values of parameters are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("issuer", &self.issuer)
            .field("client_id", &self.client_id)
            .field("grant", &self.grant)
            .field("principal", &self.principal)
            .field("scopes", &self.scopes)
            .field("audiences", &self.audiences)
            .field("resources", &self.resources)
            .field("params", &self.params.keys().collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a key is made of, as its setters are told.
    #[derive(Clone, Debug, PartialEq)]
    struct Said {
        fields: Vec<Option<String>>,
        sets: Vec<BTreeSet<String>>,
        params: BTreeSet<(String, String)>,
    }

    const FIELDS: [fn(TokenKey, String) -> TokenKey; 4] =
        [TokenKey::from_issuer, TokenKey::by_client, TokenKey::by_grant, TokenKey::for_principal];
    const SETS: [fn(TokenKey, String) -> TokenKey; 3] =
        [TokenKey::with_scope, TokenKey::for_audience, TokenKey::for_resource];

    impl Said {
        fn key(&self) -> TokenKey {
            let mut key = TokenKey::new();
            for (field, set) in self.fields.iter().zip(FIELDS) {
                key = field.iter().fold(key, |key, field| set(key, field.clone()));
            }
            for (values, add) in self.sets.iter().zip(SETS) {
                key = values.iter().fold(key, |key, value| add(key, value.clone()));
            }
            self.params.iter().fold(key, |key, (name, value)| key.with_param(name, value))
        }

        /// The same with one thing more or less, at every place where one can be.
        fn neighbours(&self, text: &str) -> Vec<Self> {
            let mut all = Vec::new();
            for at in 0..FIELDS.len() {
                let mut other = self.clone();
                other.fields[at] = match &self.fields[at] {
                    Some(_) => None,
                    None => Some(text.to_owned()),
                };
                all.push(other);
            }
            for at in 0..SETS.len() {
                let mut other = self.clone();
                if !other.sets[at].remove(text) {
                    other.sets[at].insert(text.to_owned());
                }
                all.push(other);
            }
            for pair in [(text, "a"), (text, ""), ("a", text)] {
                let mut other = self.clone();
                let pair = (pair.0.to_owned(), pair.1.to_owned());
                if !other.params.remove(&pair) {
                    other.params.insert(pair);
                }
                all.push(other);
            }
            all
        }
    }

    /// Few letters, so that the same text turns up in one field and in another.
    fn said() -> impl Strategy<Value = Said> {
        use proptest::collection::{btree_set, vec};
        let fields = vec(proptest::option::of("[ab]{0,2}"), FIELDS.len());
        let sets = vec(btree_set("[ab]{1,2}", 0..3), SETS.len());
        let params = btree_set(("[ab]{1,2}", "[ab]{0,2}"), 0..3);
        (fields, sets, params).prop_map(|(fields, sets, params)| Said { fields, sets, params })
    }

    proptest! {
        // Tokens of one scope were once handed to requests for another (CVE-2025-26620).
        #[test]
        fn any_difference_separates_and_nothing_else_does(one in said(), other in said()) {
            prop_assert_eq!(one.key() == other.key(), one == other);
        }

        #[test]
        fn each_field_separates_where_all_others_agree(said in said(), text in "[ab]{1,2}") {
            let key = said.key();
            prop_assert_eq!(&key, &said.key());
            for other in said.neighbours(&text) {
                prop_assert_ne!(&key, &other.key());
            }
        }

        #[test]
        fn a_key_gives_back_what_it_was_told(said in said()) {
            let key = said.key();
            let told = [key.issuer(), key.client_id(), key.grant(), key.principal()];
            prop_assert_eq!(told.map(|field| field.map(str::to_owned)).to_vec(), said.fields);
            let told = [
                key.scopes().map(str::to_owned).collect::<BTreeSet<_>>(),
                key.audiences().map(str::to_owned).collect(),
                key.resources().map(str::to_owned).collect(),
            ];
            prop_assert_eq!(told.to_vec(), said.sets);
            let owned = key.params().map(|(name, value)| (name.to_owned(), value.to_owned()));
            prop_assert_eq!(owned.collect::<BTreeSet<_>>(), said.params);
        }
    }

    #[test]
    fn debug_shows_no_value_of_a_parameter() {
        let shown = format!("{:?}", TokenKey::new().for_principal("user-7").with_param("pin", "S3CR3T"));
        assert!(shown.contains("user-7") && shown.contains("pin") && !shown.contains("S3CR3T"), "{shown}");
    }
}
