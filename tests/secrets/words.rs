//! The planted secrets, the forms in which servers give them back, and the needles that are searched for.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

pub(crate) const CLIENT_ID: &str = "billing, svc/1";
/// Reserved in URLs, forms, JSON, HTML and Rust, and outside ASCII.
pub(crate) const CLIENT_SECRET: &str = "S3cr&t <Zauber>/+x%y=\"ü\"\\ʘ p4ssw0rd";
pub(crate) const PIN: &str = "p1n+71n p1n'49&17";
pub(crate) const OPAQUE: &str = "T0k3n!mQ9v|fGx-8hT_2kL~w7c+Rz/Y4s=";
pub(crate) const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJiaWxsaW5nIn0.c1gn4tur3-0f_th3-jwT";
pub(crate) const REFRESH: &str = "R3fr3sh.Uw5xN0pQ-zz.7Jd";
pub(crate) const SESSION: &str = "M0r3-s3ss10n=Vb6Kq2";

/// All of them.
pub(crate) fn planted() -> Vec<&'static str> {
    vec![CLIENT_SECRET, PIN, OPAQUE, JWT, REFRESH, SESSION]
}

pub(crate) fn form(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// RFC 3986 leaves other characters alone than forms do.
fn percent(text: &str, lower: bool) -> String {
    let escape = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => char::from(byte).to_string(),
        byte if lower => format!("%{byte:02x}"),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// JSON as those write it who trust ASCII alone.
fn json_ascii(text: &str) -> String {
    let mut units = [0; 2];
    let escape = |c: char| match c.is_ascii() {
        true => c.to_string(),
        false => c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    };
    json(text).chars().map(escape).collect()
}

fn html(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    escaped.replace('"', "&quot;").replace('\'', "&#39;")
}

fn debug(text: &str) -> String {
    text.escape_debug().collect()
}

/// What of the base64 of a longer text is the same whatever stands around the secret there.
fn inside_base64(secret: &str, shift: usize) -> String {
    let text = format!("{}{secret}", "x".repeat(shift));
    STANDARD_NO_PAD.encode(&text)[(shift * 8).div_ceil(6)..text.len() * 8 / 6].to_owned()
}

/// Every form in which a server may give a secret back.
pub(crate) fn echoes(secret: &str) -> Vec<String> {
    let half = (0..=secret.len() / 2).rev().find(|at| secret.is_char_boundary(*at)).unwrap();
    let mut echoes = vec![
        secret.to_owned(),
        secret.to_uppercase(),
        form(secret),
        form(secret).to_lowercase(),
        form(secret).replace('+', "%20"),
        percent(secret, false),
        percent(secret, true),
        percent(&form(secret), false),
        json(secret),
        json_ascii(secret),
        html(secret),
        html(secret).replace("&#39;", "&#x27;"),
        debug(secret),
        secret.escape_default().collect(),
        debug(&debug(secret)),
        hex(secret),
        hex(secret).to_uppercase(),
        STANDARD.encode(secret),
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        form(&STANDARD.encode(secret)),
        // Cut by the server.
        secret[..half].to_owned(),
        secret[half..].to_owned(),
    ];
    // In the middle of something longer: at each offset.
    for before in ["", "x", "xy", "grant_type=a&client_secret="] {
        let text = format!("{before}{secret}&more=1");
        echoes.extend([STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)]);
    }
    // As HTTP Basic has it.
    for pair in [format!("{}:{}", form(CLIENT_ID), form(secret)), format!("{CLIENT_ID}:{secret}")] {
        echoes.extend([format!("Basic {}", STANDARD.encode(&pair)), pair]);
    }
    echoes.sort();
    echoes.dedup();
    echoes
}

/// What must not be found of a secret anywhere. All in lower case: it is searched for without regard to case.
pub(crate) fn needles(secret: &str) -> Vec<String> {
    let form = form(secret);
    let mut needles = vec![
        secret.to_owned(),
        form.clone(),
        form.replace('+', "%20"),
        percent(secret, false),
        percent(&form, false),
        json(secret),
        json_ascii(secret),
        html(secret),
        html(secret).replace("&#39;", "&#x27;"),
        debug(secret),
        debug(&debug(secret)),
        secret.escape_default().collect(),
        hex(secret),
    ];
    for shift in 0..3 {
        for text in [secret, &form] {
            let inside = inside_base64(text, shift);
            needles.push(inside.replace('+', "-").replace('/', "_"));
            needles.push(percent(&inside, false));
            needles.push(inside);
        }
    }
    // A half of it is a secret still.
    let starts = secret.char_indices().map(|(at, _)| at);
    needles.extend(starts.filter_map(|at| secret.get(at..at + 12)).map(str::to_owned));
    let mut needles: Vec<String> = needles.into_iter().map(|needle| needle.to_lowercase()).collect();
    needles.sort();
    needles.dedup();
    needles
}
