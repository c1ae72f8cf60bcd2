//! As much of DER (X.690) as ECDSA signatures are wrapped in, and keys for RSASSA-PSS alone.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// The object identifier of RFC 4055, without tag and length.
pub(super) const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];

/// Returns a number without the zeros in front of it.
pub(super) fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

/// Reads elements, one after another.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns what is in the next element, if that has this tag.
    pub(super) fn next(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&found, rest) = self.rest.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (inside, rest) = rest.split_at_checked(length)?;
        if found != tag {
            return None;
        }
        self.rest = rest;
        Some(inside)
    }

    /// Enters the next element, if that is a sequence.
    pub(super) fn sequence(&mut self) -> Option<Self> {
        self.next(SEQUENCE).map(Self::new)
    }
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
            let written = [head, &inside].concat();
            assert_eq!(Reader::new(&written).next(OCTET_STRING), Some(&inside[..]));
            assert_eq!(Reader::new(&written).next(SEQUENCE), None);
            assert_eq!(Reader::new(&written[..written.len() - 1]).next(OCTET_STRING), None);
        }
    }

    #[test]
    fn nonsense_is_no_element() {
        for bytes in
            [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x85, 1, 1, 1, 1, 1], &[0x30, 0x84, 0xff, 0xff]]
        {
            assert!(Reader::new(bytes).next(0x30).is_none());
        }
    }
}
