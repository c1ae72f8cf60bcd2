//! As much of DER (X.690) as ECDSA signatures are wrapped in, and keys for RSASSA-PSS alone.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;

/// The object identifier of RFC 4055, without tag and length.
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];

/// Returns a number without the zeros in front of it.
pub(super) fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

/// Returns what is in the first element, if that has this tag, and what stands behind it.
pub(super) fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length).filter(|_| found == tag)
}

/// Returns the key inside PKCS#8 for RSASSA-PSS alone (RFC 4055 §1.2), which aws-lc-rs does not take in its wrapping.
pub(super) fn inside_pss(pkcs8: &[u8]) -> Option<&[u8]> {
    let (parts, _) = element(SEQUENCE, pkcs8)?;
    let (_, parts) = element(INTEGER, parts)?;
    let (algorithm, parts) = element(SEQUENCE, parts)?;
    let (oid, _) = element(OID, algorithm)?;
    let (key, _) = element(OCTET_STRING, parts)?;
    (oid == RSA_PSS).then_some(key)
}

/// Returns an ECDSA signature in the form of RFC 7518 §3.4, two numbers of so many bytes each.
pub(super) fn ecdsa_signature(signature: Vec<u8>, half: usize) -> Option<Vec<u8>> {
    if signature.len() == 2 * half {
        return Some(signature);
    }
    let (pair, _) = element(SEQUENCE, &signature)?;
    let (r, pair) = element(INTEGER, pair)?;
    let (s, _) = element(INTEGER, pair)?;
    let mut joined = vec![0; 2 * half];
    for (number, room) in [r, s].map(without_zeros).into_iter().zip(joined.chunks_mut(half)) {
        room.get_mut(half.checked_sub(number.len())?..)?.copy_from_slice(number);
    }
    Some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_read_whatever_the_form_of_its_length() {
        for (head, length) in [
            (&[OCTET_STRING, 0][..], 0),
            (&[OCTET_STRING, 0x7f], 0x7f),
            (&[OCTET_STRING, 0x81, 0x80], 0x80),
            (&[OCTET_STRING, 0x82, 0x01, 0x00], 0x100),
            (&[OCTET_STRING, 0x83, 0x01, 0x00, 0x00], 0x1_0000),
        ] {
            let inside = vec![7; length];
            let written = [head, &inside, &[1, 2]].concat();
            assert_eq!(element(OCTET_STRING, &written), Some((&inside[..], &[1, 2][..])));
            assert_eq!(element(SEQUENCE, &written), None);
            assert_eq!(element(OCTET_STRING, &written[..written.len() - 3]), None);
        }
    }

    #[test]
    fn nonsense_is_no_element() {
        for bytes in
            [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x85, 1, 1, 1, 1, 1], &[0x30, 0x84, 0xff, 0xff]]
        {
            assert!(element(0x30, bytes).is_none());
        }
    }

    #[test]
    fn an_ecdsa_signature_may_come_as_der() {
        let (r, s) = ([&[0x81][..], &[7; 31]].concat(), vec![9; 30]);
        // A number whose first bit is set has a zero in front.
        let signature = [&[0x30, 67, 0x02, 33, 0][..], &r, &[0x02, 30], &s].concat();
        let joined = ecdsa_signature(signature, 32).unwrap();
        assert_eq!(joined, [&r[..], &[0, 0], &s].concat());
        assert_eq!(ecdsa_signature(joined.clone(), 32).unwrap(), joined);
    }

    #[test]
    fn what_is_no_signature_of_the_algorithm_is_refused() {
        let too_long = [&[0x30, 69, 0x02, 33][..], &[1; 33], &[0x02, 32], &[1; 32]].concat();
        for signature in [vec![], vec![0; 63], vec![0x30, 0x06], too_long] {
            assert_eq!(ecdsa_signature(signature, 32), None);
        }
    }
}
