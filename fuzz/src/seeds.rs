//! Where the search begins: the test vectors of `tests/vectors`, and a few inputs by hand.

use std::path::Path;

use serde_json::Value;

/// A property.
pub type Property = fn(&[u8]);

/// All targets.
pub const TARGETS: [(&str, Property); 12] = [
    ("challenge", crate::challenge),
    ("claims", crate::claims),
    ("grpc", crate::grpc),
    ("http_date", crate::http_date),
    ("metadata", crate::metadata),
    ("origin", crate::origin),
    ("rate_limit", crate::rate_limit),
    ("redactor", crate::redactor),
    ("replay_body", crate::replay_body),
    ("retry_after", crate::retry_after),
    ("structured", crate::structured),
    ("token_answer", crate::token_answer),
];

/// Returns the seeds of a target, and the inputs that once found a fault (`regressions/`).
///
/// # Panics
///
/// Where a vector is not as it should be, or there is no such target.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut seeds = match target {
        "challenge" => of("challenges", |input| lines(&input["lines"]))
            .into_iter()
            .chain([format!("A {}", "b=c, ".repeat(40)).into_bytes(), "A b=c, ".repeat(40).into_bytes()])
            .collect(),
        "claims" => by_hand(&[
            "1700000000\n{\"exp\":1700003600.5,\"iat\":1700000000,\"scope\":\"a b\"}",
            "1700000000\n{\"exp\":1700000000,\"scp\":[\"a\",\"b\"]}",
            "0\ne30.eyJleHAiOjF9.c2ln",
        ]),
        "grpc" => by_hand(&[
            "content-type: application/grpc\ngrpc-status: 8\ngrpc-retry-pushback-ms: 350",
            "grpc-status: 14\ngrpc-retry-pushback-ms: -1",
            "grpc-status: 16\ngrpc-status: 0\ngrpc-retry-pushback-ms: 2147483647",
        ]),
        "http_date" => of("http_date", |input| {
            format!("{}\n{}", input["now_unix"], text(&input["value"]))
        }),
        "metadata" => of("metadata", |input| {
            let document = &input["document"];
            let issuer = input["expected_issuer"].as_str().or(input["issuer"].as_str());
            let issuer = issuer.or(document["issuer"].as_str()).unwrap_or_default();
            format!("{issuer}\n{document}")
        })
        .into_iter()
        .chain(by_hand(&[
            "https://Login.example.com:443/a%2fb/\n{\"issuer\":\"https://Login.example.com:443/a%2fb/\",\
             \"token_endpoint\":\"https://u@example.com/\",\"token_endpoint_auth_methods_supported\":[\"none\"]}",
            "http://[::1]:8080\n{\"issuer\":\"http://[::1]:8080\",\"token_endpoint\":\"http://[::1]/t#\",\
             \"revocation_endpoint\":\"x\",\"mtls_endpoint_aliases\":{\"token_endpoint\":\"https://m/\"}}",
        ]))
        .collect(),
        "origin" => {
            of("redirect_origin", |input| format!("{}\n{}", text(&input["from_url"]), text(&input["to_url"])))
                .into_iter()
                .chain(by_hand(&[
                    "https://API.example.com:443/\nhttps://api.example.com/a?b",
                    "http://[::1]:80\nhttp://[0:0::1]/",
                    "https://a.example.\nhttps://user:password@a.example./",
                ]))
                .collect()
        }
        "rate_limit" => of("ratelimit", |input| {
            let now = input["now_unix_ms"].as_u64().expect("a time") / 1000;
            let profile = input["profile"].as_str().unwrap_or("generic");
            format!("{} {profile} {now}\n{}", input["status"], headers(&input["headers"]))
        })
        .into_iter()
        .chain(by_hand(&[
            "429 generic 1700000000\nage: 12\nratelimit-reset: 5",
            "503 own 1700000000\nage: 12\nx-come-back: 1m30s\nratelimit: \"a\";r=0;t=5",
        ]))
        .collect(),
        "redactor" => by_hand(&[
            "s3cret-a&b<c>\"d'e/ü+%f\ngot \u{1} and \u{4}, \u{5}, \u{6}",
            "hunter-two-three\n\u{2} \u{3} \u{7} \u{e} \u{f} \u{10} \u{11} \u{12}",
            "ab\nthe table is full of \u{1}",
            "geheimnis\nFehler: über\u{1}ß &amp; %41 \\u0041",
        ]),
        "replay_body" => vec![
            // Two frames of known length with a pause between them, and a replay in the middle of the second.
            vec![1, 255, 3, 40, 7, 64, 0, 0, 0, 4, 0, 0, 0, 0],
            // Of unknown length, with trailers and a limit that is hit.
            vec![4, 30, 4, 160, 160, 160, 4, 4, 0, 0, 0, 4, 0, 3],
            // A source that fails, under a small allowance.
            vec![8, 255, 3, 40, 40, 5, 0, 4, 0, 0, 0, 4],
            // One frame in memory, an announced length that is a lie, nothing at all.
            vec![5, 255, 1, 40, 4, 0, 4, 0, 0],
            vec![0x43, 255, 3, 40, 40, 40, 4, 0, 0, 0, 6],
            vec![7, 0, 0, 4, 0],
        ],
        "retry_after" => of("retry_after", |input| {
            let now = input["now_unix_ms"].as_u64().expect("a time") / 1000;
            format!("{now}\n{}", headers(&input["headers"]))
        }),
        "structured" => of("ratelimit", |input| {
            let fields = input["headers"].as_array().expect("headers").iter();
            let fields: Vec<_> = fields.filter(|pair| text(&pair[0]).contains("ratelimit")).collect();
            fields.iter().map(|pair| text(&pair[1])).collect::<Vec<_>>().join(", ")
        })
        .into_iter()
        .chain(by_hand(&[
            "1, -0, 999999999999999, -1.5, \"a \\\"\\\\b\", a/b:c, *t, :YQ==:, ?0, @-7, %\"f%c3%bc\", (1;a 2  b )",
            "a=1, b, c;x=2 ,a=3;y, d=(a b);z=?1",
        ]))
        .collect(),
        "token_answer" => ["token_response", "token_error"]
            .into_iter()
            .flat_map(|set| {
                of(set, |input| {
                    let kind = input["content_type"].as_str().map(|kind| format!("content-type: {kind}\n"));
                    let body = input["body"].as_str().unwrap_or_default();
                    let (kind, headers) = (kind.unwrap_or_default(), headers(&input["headers"]));
                    format!("{}\n{kind}{headers}\n{body}", input["status"])
                })
            })
            .chain(by_hand(&[
                "401\n\n{\"error\":\"invalid_client\",\"error_description\":\"\u{1} is wrong\",\"error_uri\":\"\u{1}\"}",
                "200 strict\n\n{\"access_token\":\"\u{1}\",\"scope\":\"read \u{1}\"}",
                "302\nlocation: https://elsewhere.example/?a\n\n\u{1}",
            ]))
            .collect(),
        other => panic!("there is no target {other}"),
    };
    assert!(!seeds.is_empty());
    let regressions = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(target);
    let mut files: Vec<_> = std::fs::read_dir(regressions)
        .into_iter()
        .flatten()
        .map(|file| file.expect("a folder can be listed").path())
        .collect();
    files.sort();
    seeds.extend(files.iter().map(|file| std::fs::read(file).expect("a file can be read")));
    seeds
}

/// Makes a seed of each input of a set of vectors.
fn of(set: &str, seed: impl Fn(&Value) -> String) -> Vec<Vec<u8>> {
    let path = format!("{}/../tests/vectors/{set}.json", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read(&path).expect("the vectors are there");
    let set: Value = serde_json::from_slice(&file).expect("the vectors are JSON");
    let vectors = set["vectors"].as_array().expect("a list of vectors");
    vectors.iter().map(|vector| seed(&vector["input"]).into_bytes()).collect()
}

fn by_hand(seeds: &[&str]) -> Vec<Vec<u8>> {
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn lines(lines: &Value) -> String {
    lines.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join("\n")
}

fn headers(pairs: &Value) -> String {
    let line = |pair: &Value| format!("{}: {}\n", text(&pair[0]), text(&pair[1]));
    pairs.as_array().into_iter().flatten().map(line).collect()
}
