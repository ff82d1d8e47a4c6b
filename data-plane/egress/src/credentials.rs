//! Puts a connection's credentials into a request; pure.
//!
//! What a connection *is* (its scheme, its templates, its stored secret) is decided by `sluice_core`; here are only the two
//! places a credential can go (R034, R038), and the two rules that matter: the connection wins over the author's
//! header of the same name (S28, O07), and a URL parameter joins the query without touching what is there (R037).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sluice_core::credentials::Credential;
use sluice_core::seal::Secret;

use crate::client::Request;

/// Everything but RFC 3986 "unreserved" is encoded: a space is `%20`, never `+`.
const PARAMETER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Adds the credentials to the request. Header names compare without case, as HTTP does.
pub fn apply(request: &mut Request, credential: Credential) {
    let Credential { headers, url_parameters } = credential;
    request.headers.retain(|(name, _)| !headers.iter().any(|(ours, _)| ours.eq_ignore_ascii_case(name)));
    request.headers.extend(headers.into_iter().map(|(name, value)| (name, value.expose().to_owned())));
    for (name, value) in &url_parameters {
        append_parameter(&mut request.url, name, value);
    }
}

fn append_parameter(url: &mut String, name: &str, value: &Secret) {
    let fragment = url.find('#').unwrap_or(url.len());
    let separator = match url[..fragment].find('?') {
        None => "?",
        // `?` or `&` at the end already separates.
        Some(_) if url[..fragment].ends_with(['?', '&']) => "",
        Some(_) => "&",
    };
    let name = utf8_percent_encode(name, PARAMETER);
    let value = utf8_percent_encode(value.expose(), PARAMETER);
    url.insert_str(fragment, &format!("{separator}{name}={value}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str, headers: &[(&str, &str)]) -> Request {
        Request {
            method: http::Method::POST,
            url: url.into(),
            headers: headers.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            body: bytes::Bytes::new(),
            hops: 0,
        }
    }

    fn parameter(url: &str, name: &str, value: &str) -> String {
        let mut request = request(url, &[]);
        apply(&mut request, Credential { headers: vec![], url_parameters: vec![(name.into(), Secret::new(value))] });
        request.url
    }

    #[test]
    fn the_connection_wins_over_the_authors_header() {
        let mut request =
            request("https://a.example/", &[("Authorization", "mine"), ("AUTHORIZATION", "too"), ("x-other", "kept")]);
        apply(
            &mut request,
            Credential { headers: vec![("authorization".into(), Secret::new("Bearer t"))], url_parameters: vec![] },
        );
        assert_eq!(
            request.headers,
            [("x-other".into(), "kept".into()), ("authorization".to_owned(), "Bearer t".to_owned())]
        );
    }

    #[test]
    fn a_parameter_joins_the_query() {
        let cases = [
            ("https://a.example/events", "https://a.example/events?access_token=tok%20en%2F1"),
            ("https://a.example/events?x=1", "https://a.example/events?x=1&access_token=tok%20en%2F1"),
            ("https://a.example/events?", "https://a.example/events?access_token=tok%20en%2F1"),
            ("https://a.example/events?x=1&", "https://a.example/events?x=1&access_token=tok%20en%2F1"),
            ("https://a.example/events#part?no", "https://a.example/events?access_token=tok%20en%2F1#part?no"),
            ("https://a.example?x#f", "https://a.example?x&access_token=tok%20en%2F1#f"),
        ];
        for (url, expected) in cases {
            assert_eq!(parameter(url, "access_token", "tok en/1"), expected);
        }
        assert_eq!(
            parameter("https://a.example/", "a b", "&=+#?%ü"),
            "https://a.example/?a%20b=%26%3D%2B%23%3F%25%C3%BC"
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        let credential = Credential {
            headers: vec![("x-api-key".into(), Secret::new("s3cr3t"))],
            url_parameters: vec![("key".into(), Secret::new("s3cr3t"))],
        };
        assert!(!format!("{credential:?}").contains("s3cr3t"));
        let mut request = request("https://a.example/", &[]);
        apply(&mut request, credential);
        assert!(!format!("{request:?}").contains("s3cr3t"));
    }
}
