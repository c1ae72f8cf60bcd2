//! Patience with a token endpoint that is throttled, and with nothing else.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::error::Error;
use crate::source::{AroundFetch, DynTokenSource, TokenRequest};
use crate::token::AccessToken;

/// Asks a source again for a minute while the server says that there are too many token requests, as the vendor's Terraform
/// provider does. Any other failure ends the fetch.
pub(super) struct Patient;

/// The limit is one of a minute.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two rounds of the source, which has made its own attempts.
const PAUSE: Duration = Duration::from_secs(5);

impl AroundFetch for Patient {
    async fn fetch(&self, source: &dyn DynTokenSource, request: TokenRequest) -> Result<AccessToken, Error> {
        let give_up = clock::after(clock::now(), PATIENCE);
        // Past the deadline of the fetch nobody would hear what the endpoint said.
        let give_up = request.deadline().map_or(give_up, |end| give_up.min(Instant::from_std(end)));
        loop {
            match source.fetch(request.clone()).await {
                Err(error) if error.is_throttled() => {
                    let asked = error.retry_at().map(Instant::from_std);
                    let next = clock::after(clock::now(), PAUSE).max(asked.unwrap_or_else(clock::now));
                    if next >= give_up {
                        return Err(error);
                    }
                    tracing::debug!("the token endpoint of Genesys Cloud is throttled; it is asked again");
                    tokio::time::sleep_until(next).await;
                }
                result => return result,
            }
        }
    }
}
