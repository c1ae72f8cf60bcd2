//! What may be wrong with an assertion that a server refused: told from the server's own words, and from its clock.

use std::time::Duration;

/// A difference between two clocks up to this is the network's, or the granularity of a header's.
const SAME_TIME: Duration = Duration::from_secs(10);

/// Returns what to check, as the end of a sentence. `server_time` and `now` are times since the Unix epoch.
pub(crate) fn about_assertion(description: Option<&str>, server_time: Duration, now: Duration) -> String {
    let description = description.unwrap_or_default().to_ascii_lowercase();
    let words: Vec<&str> = description.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let says = |list: &[&str]| list.iter().any(|word| words.contains(word));

    if says(&["jti", "replay", "replayed"]) || description.contains("already used") {
        return "it has seen this assertion before; does something on the way repeat requests?".into();
    }
    if says(&["kid", "x5t", "thumbprint", "jwk", "jwks"]) || description.contains("key not found") {
        return "it does not know the key; register the public key there, and set key_id() as it is named there".into();
    }
    let is_about_time = says(&[
        "exp",
        "iat",
        "nbf",
        "clock",
        "expired",
        "expiration",
        "expiry",
        "future",
        "timeframe",
        "time",
        "lifetime",
    ]);
    let skew = skew(server_time, now);
    match skew {
        Some(skew) if is_about_time || description.is_empty() => {
            return format!(
                "its clock is {skew} that of this machine; set the clock right, or say so in the assertion"
            );
        }
        None if is_about_time
            || description.contains("not active")
            || description.contains("not yet valid") =>
        {
            return "check this machine's clock and the lifetime of the assertion; clock_ahead_by() and clock_behind_by() \
                    make up for a clock that is off"
                .into();
        }
        Some(_) | None => {}
    }
    if says(&["aud", "audience"]) {
        return "it wants another audience; set issuer() as the server writes it, or with_token_url_as_audience()".into();
    }
    if says(&["signature", "signed"]) {
        return "it has another key for this client; register the public key there, or give the private key of the one \
                it has"
            .into();
    }
    "check the client id, the key that is registered for it, the audience of the assertion, and this machine's clock".into()
}

/// Says how far the server's clock is off ours, if it is.
fn skew(server_time: Duration, now: Duration) -> Option<String> {
    let (apart, side) = match server_time.checked_sub(now) {
        Some(ahead) => (ahead, "ahead of"),
        None => (now - server_time, "behind"),
    };
    (apart > SAME_TIME).then(|| format!("{} s {side}", apart.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    #[test]
    fn the_servers_words_tell_what_to_check() {
        for (description, advice) in [
            ("Invalid JWT: Token must be short-lived. Check your iat and exp values.", "clock"),
            ("Client assertion is not within its valid time range.", "clock"),
            ("Token is not active", "clock"),
            ("The client_assertion JWT kid is invalid.", "does not know the key"),
            ("AADSTS700027: The certificate with identifier x5t was not found", "does not know the key"),
            ("the key not found for this client", "does not know the key"),
            ("Invalid JWT Signature.", "another key"),
            ("aud must be the issuer", "another audience"),
            ("the assertion was replayed", "repeat requests"),
            ("client authentication failed", "check the client id, the key"),
            ("", "check the client id, the key"),
        ] {
            let said = about_assertion(Some(description), NOW, NOW);
            assert!(said.contains(advice), "{description}: {said}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_told_with_its_number() {
        let minutes = Duration::from_secs(312);
        for description in [None, Some("the assertion has expired")] {
            let behind = about_assertion(description, NOW + minutes, NOW);
            assert!(behind.contains("its clock is 312 s ahead of that of this machine"), "{behind}");
            let ahead = about_assertion(description, NOW - minutes, NOW);
            assert!(ahead.contains("its clock is 312 s behind that of this machine"), "{ahead}");
        }
        let signature = about_assertion(Some("bad signature"), NOW + minutes, NOW);
        assert!(signature.contains("another key"), "{signature}");
    }
}
