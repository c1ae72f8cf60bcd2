use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm};
use serde_json::{Value, json};

use super::*;

const BIT_STRING: u8 = 0x03;

/// A key as it may be stored, and the public half of it.
struct Pair {
    pkcs8: Vec<u8>,
    public: DecodingKey,
}

fn rsa() -> Pair {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
    Pair { pkcs8: pkcs8.as_ref().to_vec(), public: DecodingKey::from_rsa_der(pair.public_key().as_ref()) }
}

fn rcgen(algorithm: &'static SignatureAlgorithm, public: fn(&[u8]) -> DecodingKey) -> Pair {
    let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
    Pair { pkcs8: pair.serialize_der(), public: public(pair.public_key_raw()) }
}

fn p256() -> Pair {
    rcgen(&PKCS_ECDSA_P256_SHA256, DecodingKey::from_ec_der)
}

fn p384() -> Pair {
    rcgen(&PKCS_ECDSA_P384_SHA384, DecodingKey::from_ec_der)
}

fn ed25519() -> Pair {
    rcgen(&PKCS_ED25519, DecodingKey::from_ed_der)
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn next<'a>(tag: u8, rest: &mut &'a [u8]) -> &'a [u8] {
    let (inside, behind) = der::element(tag, rest).unwrap();
    *rest = behind;
    inside
}

fn entered(der: &[u8]) -> &[u8] {
    der::element(der::SEQUENCE, der).unwrap().0
}

/// What stands in the wrapping of PKCS#8.
fn unwrapped(pkcs8: &[u8]) -> &[u8] {
    let mut parts = entered(pkcs8);
    next(der::INTEGER, &mut parts);
    next(der::SEQUENCE, &mut parts);
    next(der::OCTET_STRING, &mut parts)
}

fn rsa_jwk(pkcs8: &[u8]) -> Value {
    let mut numbers = entered(unwrapped(pkcs8));
    next(der::INTEGER, &mut numbers);
    let mut jwk = json!({ "kty": "RSA", "kid": "from-jwk", "alg": "RS256", "use": "sig" });
    for name in ["n", "e", "d", "p", "q", "dp", "dq", "qi"] {
        jwk[name] = URL_SAFE_NO_PAD.encode(der::without_zeros(next(der::INTEGER, &mut numbers))).into();
    }
    jwk
}

fn ec_jwk(crv: &str, pkcs8: &[u8]) -> Value {
    let mut key = entered(unwrapped(pkcs8));
    next(der::INTEGER, &mut key);
    let d = next(der::OCTET_STRING, &mut key);
    let point = next(BIT_STRING, &mut next(0xa1, &mut key));
    let (x, y) = point[2..].split_at(d.len());
    let [d, x, y] = [d, x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
    json!({ "kty": "EC", "crv": crv, "d": d, "x": x, "y": y })
}

fn ed25519_jwk(pkcs8: &[u8]) -> Value {
    let seed = next(der::OCTET_STRING, &mut unwrapped(pkcs8));
    json!({ "kty": "OKP", "crv": "Ed25519", "d": URL_SAFE_NO_PAD.encode(seed), "x": "unused" })
}

#[track_caller]
fn assert_signs(algorithm: JwtAlgorithm, text: &str, public: &DecodingKey) -> Material {
    let material = Material::read(algorithm, text).unwrap();
    let signature = material.sign(b"input").unwrap();
    let verifier =
        (DEFAULT_PROVIDER.verifier_factory)(&algorithm.name().parse::<Algorithm>().unwrap(), public).unwrap();
    assert!(verifier.verify(b"input", &signature).is_ok(), "{algorithm}");
    assert!(verifier.verify(b"other", &signature).is_err(), "{algorithm}");
    material
}

#[test]
fn every_algorithm_signs_with_a_key_in_every_form() {
    use JwtAlgorithm::*;

    let pair = rsa();
    for algorithm in [Rs256, Rs384, Rs512, Ps256, Ps384, Ps512] {
        assert_signs(algorithm, &pem("PRIVATE KEY", &pair.pkcs8), &pair.public);
    }
    assert_signs(Rs256, &pem("RSA PRIVATE KEY", unwrapped(&pair.pkcs8)), &pair.public);
    let jwk = assert_signs(Rs256, &rsa_jwk(&pair.pkcs8).to_string(), &pair.public);
    assert_eq!(jwk.key_id.as_deref(), Some("from-jwk"));

    for (algorithm, crv, pair) in [(Es256, "P-256", p256()), (Es384, "P-384", p384())] {
        assert_signs(algorithm, &pem("PRIVATE KEY", &pair.pkcs8), &pair.public);
        assert_signs(algorithm, &pem("EC PRIVATE KEY", unwrapped(&pair.pkcs8)), &pair.public);
        assert_signs(algorithm, &ec_jwk(crv, &pair.pkcs8).to_string(), &pair.public);
    }

    let pair = ed25519();
    assert_signs(EdDsa, &pem("PRIVATE KEY", &pair.pkcs8), &pair.public);
    assert_signs(EdDsa, &ed25519_jwk(&pair.pkcs8).to_string(), &pair.public);

    for algorithm in [Hs256, Hs384, Hs512] {
        assert_signs(algorithm, &"7".repeat(64), &DecodingKey::from_secret(&[b'7'; 64]));
    }
}

#[test]
fn certificates_and_other_things_beside_the_key_do_no_harm() {
    let pair = p256();
    let key = pem("PRIVATE KEY", &pair.pkcs8);
    let certificate = pem("CERTIFICATE", b"not looked at");
    for text in [
        format!("{certificate}{key}"),
        format!("{key}{certificate}"),
        format!("\u{feff}Bag Attributes\n  friendlyName: x\n{key}"),
        key.replace('\n', "\r\n"),
    ] {
        assert_signs(JwtAlgorithm::Es256, &text, &pair.public);
    }
}

#[test]
fn what_is_wrong_with_a_key_is_said_without_a_part_of_it() {
    let (small, rsa, p256) = (p384(), rsa(), p256());
    let mut without_p = rsa_jwk(&rsa.pkcs8);
    without_p.as_object_mut().unwrap().remove("p");
    let mut public = rsa_jwk(&rsa.pkcs8);
    public.as_object_mut().unwrap().remove("d");
    let mut short = ec_jwk("P-256", &p256.pkcs8);
    short["x"] = "c2hvcnQ".into();
    let mut odd = ec_jwk("P-256", &p256.pkcs8);
    odd["d"] = "S3CR3T!".into();
    let key = pem("PRIVATE KEY", &rsa.pkcs8);
    let cut = key.lines().take(5).collect::<Vec<_>>().join("\n");
    let lines: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).collect();

    use JwtAlgorithm::{EdDsa, Es256, Hs256, Ps256, Rs256};
    let cases = [
        (Es256, "S3CR3T".to_owned(), "neither PEM nor a JWK"),
        (Es256, String::new(), "neither PEM nor a JWK"),
        (Rs256, cut, "damaged"),
        (Rs256, key.replacen(&lines[3][..20], "!S3CR3T!", 1), "damaged"),
        (Rs256, key.replacen(lines[3], "", 1), ""),
        (Es256, key.clone(), "it is an RSA key, which does not sign by ES256"),
        (EdDsa, key.clone(), "does not sign by EdDSA"),
        (Hs256, key.clone(), "it is PEM, and the algorithm wants a secret"),
        (Es256, pem("PRIVATE KEY", &small.pkcs8), "it is a key on the curve P-384"),
        (Rs256, pem("PUBLIC KEY", b"x"), "it is a public key"),
        (Rs256, pem("CERTIFICATE", b"x"), "it is a certificate"),
        (Rs256, pem("ENCRYPTED PRIVATE KEY", b"S3CR3T"), "passphrase"),
        (Rs256, "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n".into(), "passphrase"),
        (Rs256, pem("OPENSSH PRIVATE KEY", b"S3CR3T"), "ssh-keygen"),
        (Rs256, pem("DH PARAMETERS", b"x"), "no private key"),
        (Rs256, pem("PRIVATE KEY", b"S3CR3T"), "no key of RSA"),
        (Es256, pem("EC PRIVATE KEY", b"S3CR3T"), "no key of RSA"),
        (Rs256, r#"{"kty":"RSA","d":"S3CR3T""#.into(), "not a JWK"),
        (Rs256, r#"{"kty":"oct","k":"S3CR3T"}"#.into(), "of the kind \"oct\""),
        (Es256, r#"{"kty":"EC","crv":"secp256k1","d":"S3CR3T"}"#.into(), "secp256k1"),
        (Ps256, rsa_jwk(&rsa.pkcs8).to_string(), "for the algorithm \"RS256\""),
        (Rs256, without_p.to_string(), "no member \"p\""),
        (Rs256, public.to_string(), "public key"),
        (Es256, short.to_string(), "no key that can sign"),
        (Es256, odd.to_string(), "\"d\" of the JWK is no base64url"),
    ];
    for (algorithm, text, what) in cases {
        let read = Material::read(algorithm, &text).and_then(|material| material.sign(b"input").map(drop));
        let error = read.expect_err(what);
        let said = error.to_string();
        assert!(error.is_config() && said.starts_with("the signing key cannot be used: "), "{said}");
        assert!(said.contains(what), "{what}: {said}");
        let shown = format!("{error:?} {error}");
        for secret in lines.iter().chain(&["S3CR3T"]) {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[test]
fn numbers_that_do_not_belong_together_are_no_key() {
    let (one, other) = (rsa(), rsa());
    let mut mixed = rsa_jwk(&one.pkcs8);
    mixed["d"] = rsa_jwk(&other.pkcs8)["d"].clone();
    let (left, right) = (ec_jwk("P-256", &p256().pkcs8), ec_jwk("P-256", &p256().pkcs8));
    let mut strange = left;
    strange["d"] = right["d"].clone();
    for (algorithm, jwk) in [(JwtAlgorithm::Rs256, mixed), (JwtAlgorithm::Es256, strange)] {
        let error = Material::read(algorithm, &jwk.to_string()).map(drop).unwrap_err();
        assert!(error.is_config() && error.to_string().contains("no key that can sign"), "{error}");
    }
}
