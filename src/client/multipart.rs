//! Forms of several parts, as browsers send files.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::HeaderValue;

use super::error::ApiError;
use crate::backoff;

/// A form of `multipart/form-data` (RFC 7578): fields and files, in memory. [`ApiRequest::multipart`](super::ApiRequest::multipart)
/// sends it.
///
/// It is sent again like any body in memory, after a rejected token or a 503. To stream large files see
/// [uploads](crate::guide::uploads).
///
/// # Examples
///
/// ```
/// use tower_oauth2::ApiClient;
/// use tower_oauth2::client::{ApiError, MultipartForm};
///
/// async fn upload(api: &ApiClient, report: Vec<u8>) -> Result<(), ApiError> {
///     let form = MultipartForm::new()
///         .text("month", "2026-11")
///         .file("report", "november.pdf", "application/pdf", report);
///     api.post("reports").multipart(form).send().await?.error_for_status()?;
///     Ok(())
/// }
/// # let _ = upload;
/// ```
#[derive(Clone, Default)]
#[must_use = "a form does nothing until it is sent"]
#[doc(alias = "Form")]
#[doc(alias = "Part")]
pub struct MultipartForm {
    parts: Vec<Part>,
}

#[derive(Clone)]
struct Part {
    name: String,
    /// Its name and its content type.
    file: Option<(String, String)>,
    content: Bytes,
}

impl MultipartForm {
    /// Creates a form without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field of text.
    pub fn text(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let content = Bytes::from(value.into());
        self.parts.push(Part { name: name.into(), file: None, content });
        self
    }

    /// Adds a file: the name of the field, the name of the file, its content type such as `application/pdf`, and its content.
    pub fn file(
        mut self,
        name: impl Into<String>,
        file_name: impl Into<String>,
        content_type: impl Into<String>,
        content: impl Into<Bytes>,
    ) -> Self {
        let file = Some((file_name.into(), content_type.into()));
        self.parts.push(Part { name: name.into(), file, content: content.into() });
        self
    }

    /// Returns the content type and the body.
    pub(super) fn encode(&self) -> Result<(HeaderValue, Bytes), ApiError> {
        // 128 bits of chance occur in no part, not even in one that was made to contain them.
        let Some(random) = backoff::unguessable() else {
            return Err(ApiError::builder(
                "the operating system has no random numbers, which a multipart form needs",
                "no random numbers",
            ));
        };
        self.encode_with(&URL_SAFE_NO_PAD.encode(random))
    }

    fn encode_with(&self, boundary: &str) -> Result<(HeaderValue, Bytes), ApiError> {
        let mut body = Vec::new();
        for part in &self.parts {
            body.extend_from_slice(format!("--{boundary}\r\n{}\r\n\r\n", part.head()?).as_bytes());
            body.extend_from_slice(&part.content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        let content_type = HeaderValue::try_from(format!("multipart/form-data; boundary={boundary}"))
            .map_err(|error| ApiError::builder("the boundary of its form cannot stand in a header", error))?;
        Ok((content_type, body.into()))
    }
}

impl Part {
    fn head(&self) -> Result<String, ApiError> {
        let disposition = format!("content-disposition: form-data; name=\"{}\"", escaped(&self.name));
        let Some((file_name, content_type)) = &self.file else { return Ok(disposition) };
        if content_type.trim().is_empty() {
            return Err(ApiError::builder(
                "a file of its form has no content type; give application/octet-stream if none is known",
                "no content type",
            ));
        }
        // What a header cannot hold could begin another one.
        HeaderValue::try_from(content_type.as_str()).map_err(|error| {
            ApiError::builder("a file of its form has a content type that no header may have", error)
        })?;
        Ok(format!("{disposition}; filename=\"{}\"\r\ncontent-type: {content_type}", escaped(file_name)))
    }
}

impl fmt::Debug for MultipartForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values may be secrets.
        f.debug_struct("MultipartForm").field("parts", &self.parts.len()).finish_non_exhaustive()
    }
}

/// Escapes a name as browsers do (HTML, "multipart/form-data encoding algorithm"), which servers undo.
fn escaped(name: &str) -> String {
    name.replace('\r', "%0D").replace('\n', "%0A").replace('"', "%22")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_written_part_by_part() {
        let form =
            MultipartForm::new().text("month", "2026-11").file("report", "ö.pdf", "application/pdf", "%PDF");
        let (content_type, body) = form.encode_with("B").unwrap();
        assert_eq!(content_type, "multipart/form-data; boundary=B");
        assert_eq!(
            body,
            "--B\r\ncontent-disposition: form-data; name=\"month\"\r\n\r\n2026-11\r\n\
             --B\r\ncontent-disposition: form-data; name=\"report\"; filename=\"ö.pdf\"\r\n\
             content-type: application/pdf\r\n\r\n%PDF\r\n--B--\r\n"
        );
        assert_eq!(MultipartForm::new().encode_with("B").unwrap().1, "--B--\r\n");
    }

    #[test]
    fn a_name_cannot_begin_another_header() {
        let form = MultipartForm::new().text("a\"; x=\"\r\nb", "1");
        let (_, body) = form.encode_with("B").unwrap();
        assert!(
            body.starts_with(b"--B\r\ncontent-disposition: form-data; name=\"a%22; x=%22%0D%0Ab\"\r\n\r\n1")
        );
        let form = MultipartForm::new().file("a", "b", "text/plain\r\nx-evil: 1", "");
        assert!(form.encode_with("B").unwrap_err().is_builder());
    }

    #[test]
    fn a_file_without_a_content_type_is_refused_with_what_to_give() {
        for content_type in ["", " "] {
            let form = MultipartForm::new().file("a", "b", content_type, "");
            let error = form.encode_with("B").unwrap_err();
            assert!(error.is_builder() && error.to_string().contains("application/octet-stream"), "{error}");
        }
    }

    #[test]
    fn no_two_bodies_have_the_same_boundary() {
        let form = MultipartForm::new().text("a", "1");
        assert_ne!(form.encode().unwrap().0, form.encode().unwrap().0);
    }
}
