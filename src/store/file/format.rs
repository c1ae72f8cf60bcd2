//! The format of a file: one line of numbers, then the value as it is.

use std::time::Duration;

use bytes::Bytes;

use crate::store::record::{Record, Written};

/// The first word of the file. Another format will have another.
const MAGIC: &str = "tower-oauth2-store-1";

impl Record {
    /// Reads a file; `None` if it is not a record of this format, or not whole.
    pub(super) fn read(file: &[u8]) -> Option<Self> {
        let end = file.iter().position(|byte| *byte == b'\n')?;
        let (line, value) = (std::str::from_utf8(&file[..end]).ok()?, &file[end + 1..]);
        let (magic, numbers) = line.split_once(' ')?;
        let numbers = numbers.split(' ').map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let [fence, began, period, version, writer, written, ends, length] = numbers[..] else { return None };
        if magic != MAGIC || u64::try_from(value.len()).ok()? != length {
            return None;
        }
        Some(Self {
            entry: (version != 0).then(|| Written {
                version,
                fence: writer,
                written: Duration::from_millis(written),
                ends: Duration::from_millis(ends),
                value: Bytes::copy_from_slice(value),
            }),
            fence,
            leased: (period != 0).then(|| (Duration::from_millis(began), Duration::from_millis(period))),
        })
    }

    /// Returns the file.
    pub(super) fn written(&self) -> Vec<u8> {
        let (began, period) = self.leased.unwrap_or_default();
        let none = Written {
            version: 0,
            fence: 0,
            written: Duration::ZERO,
            ends: Duration::ZERO,
            value: Bytes::new(),
        };
        let entry = self.entry.as_ref().unwrap_or(&none);
        let mut file = format!(
            "{MAGIC} {} {} {} {} {} {} {} {}\n",
            self.fence,
            millis(began),
            millis(period),
            entry.version,
            entry.fence,
            millis(entry.written),
            millis(entry.ends),
            entry.value.len()
        )
        .into_bytes();
        file.extend_from_slice(&entry.value);
        file
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record {
        Record {
            entry: Some(Written {
                version: 7,
                fence: 5,
                written: Duration::from_millis(1_000),
                ends: Duration::from_millis(9_000),
                value: Bytes::from_static(b"two\nlines"),
            }),
            fence: 6,
            leased: Some((Duration::from_millis(2_000), Duration::from_millis(500))),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for record in [record(), Record::default(), Record { entry: None, ..record() }] {
            assert_eq!(Record::read(&record.written()), Some(record));
        }
    }

    #[test]
    fn a_file_that_is_cut_off_anywhere_is_not_a_record() {
        let file = record().written();
        for length in 0..file.len() {
            assert_eq!(Record::read(&file[..length]), None, "after {length} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(file in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::read(&file);
        }
    }
}
