//! The logins of devices without a browser (RFC 8628): begun by the device, agreed to by a user elsewhere.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::tokens::random;
use crate::clock;

/// How long a user has.
pub(super) const LIFETIME: Duration = Duration::from_secs(300);

/// How long a device is to wait between two questions.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// Every login that a device began, by the code that the device has.
#[derive(Debug, Default)]
pub(super) struct Devices {
    logins: HashMap<String, Login>,
}

/// A login of a device.
#[derive(Debug)]
struct Login {
    client: String,
    scopes: Vec<String>,
    user_code: String,
    ends: Instant,
    is_agreed: bool,
}

/// The result of a poll with the code of a device.
pub(super) enum Poll {
    /// The scopes that the user agreed to. The code is spent.
    Agreed(Vec<String>),
    Pending,
    Expired,
    Unknown,
}

impl Devices {
    /// Begins a login, and returns the code of the device and the code of the user.
    pub(super) fn begin(&mut self, client: &str, scopes: Vec<String>) -> (String, String) {
        let device_code = random();
        // Short, for it is typed; and without what can be taken for something else.
        let mut letters = random();
        letters.retain(|c| c.is_ascii_uppercase() && c != 'I' && c != 'O');
        letters.truncate(8);
        let ends = clock::now() + LIFETIME;
        let client = client.to_owned();
        let login = Login { client, scopes, user_code: letters.clone(), ends, is_agreed: false };
        self.logins.insert(device_code.clone(), login);
        (device_code, letters)
    }

    /// Notes that a user typed a code and agreed. Returns false if there is no such code.
    pub(super) fn agree(&mut self, user_code: &str) -> bool {
        let now = clock::now();
        let mut logins = self.logins.values_mut();
        let login = logins.find(|login| login.user_code == user_code && login.ends > now);
        login.map(|login| login.is_agreed = true).is_some()
    }

    /// Tells a device how its login stands.
    pub(super) fn poll(&mut self, device_code: &str, client: &str) -> Poll {
        let login = match self.logins.get(device_code).filter(|login| login.client == client) {
            None => return Poll::Unknown,
            Some(login) if login.ends <= clock::now() => Poll::Expired,
            Some(login) if !login.is_agreed => return Poll::Pending,
            Some(login) => Poll::Agreed(login.scopes.clone()),
        };
        self.logins.remove(device_code);
        login
    }
}
