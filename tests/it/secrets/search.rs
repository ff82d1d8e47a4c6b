//! Looks for secrets in every shape they could leak in.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// The shapes of one secret.
pub(super) struct Canary {
    name: String,
    shapes: Vec<(&'static str, String)>,
}

impl Canary {
    /// Of a secret of at least 16 bytes.
    pub(super) fn new(name: &str, secret: &str) -> Self {
        assert!(secret.len() >= 16, "too short to be found by its shapes");
        let mut shapes = vec![
            ("plain", secret.to_owned()),
            ("JSON", serde_json::to_string(secret).unwrap().trim_matches('"').to_owned()),
            ("debug", format!("{secret:?}").trim_matches('"').to_owned()),
            ("hex", hex::encode(secret)),
            ("HEX", hex::encode_upper(secret)),
            ("URL", url_encoded(secret)),
            ("form", url_encoded(secret).replace("%20", "+")),
            ("bytes", format!("{:?}", secret.as_bytes()).trim_matches(['[', ']']).to_owned()),
        ];
        for before in 0..3 {
            // Within something longer, its base64 depends on where it begins; the ends depend on its neighbours.
            let padded = [&vec![0; before], secret.as_bytes()].concat();
            let encoded = STANDARD.encode(padded);
            let middle = encoded[if before == 0 { 0 } else { 4 }..encoded.len() - 4].to_owned();
            shapes.push(("base64url", middle.replace('+', "-").replace('/', "_")));
            shapes.push(("base64", middle));
        }
        Self { name: name.to_owned(), shapes }
    }

    /// The shapes it is found in.
    pub(super) fn found_in(&self, text: &str) -> Vec<String> {
        let found = self.shapes.iter().filter(|(_, shape)| text.contains(shape.as_str()));
        found.map(|(kind, _)| format!("{} ({kind})", self.name)).collect()
    }
}

/// Percent-encoded but for RFC 3986 "unreserved".
pub(super) fn url_encoded(secret: &str) -> String {
    secret.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(char::from(byte)),
            other => write!(text, "%{other:02X}").unwrap(),
        }
        text
    })
}

/// Where to look: named texts.
#[derive(Default)]
pub(super) struct Places(Vec<(String, String)>);

impl Places {
    pub(super) fn add(&mut self, name: impl Into<String>, bytes: &[u8]) {
        self.0.push((name.into(), String::from_utf8_lossy(bytes).into_owned()));
    }

    /// Everything below a folder but the files of keys.
    pub(super) fn add_folder(&mut self, when: &str, folder: &Path) {
        let files = files(folder);
        assert!(!files.is_empty(), "the folder is not found");
        for file in files.iter().filter(|file| file.extension().is_none_or(|extension| extension != "key")) {
            self.add(format!("{when}: {}", file.strip_prefix(folder).unwrap().display()), &fs::read(file).unwrap());
        }
    }

    /// Whether this text, which is no secret, is in a place whose name holds `name`: that is, whether looking works.
    pub(super) fn holds(&self, name: &str, text: &str) -> bool {
        self.0.iter().any(|(place, content)| place.contains(name) && content.contains(text))
    }

    /// Every secret and where it was found.
    pub(super) fn leaks(&self, canaries: &[Canary]) -> Vec<String> {
        let mut leaks = Vec::new();
        for (place, text) in &self.0 {
            for canary in canaries {
                leaks.extend(canary.found_in(text).into_iter().map(|leak| format!("{leak} in {place}")));
            }
        }
        leaks
    }
}

/// A secret in the forms another program may tell it in: alone and within something longer.
pub(super) fn told(secret: &str) -> Vec<String> {
    let json = serde_json::to_string(secret).unwrap();
    let mut told = vec![
        secret.to_owned(),
        json.trim_matches('"').to_owned(),
        json.trim_matches('"').replace('/', "\\/").replace('&', "\\u0026"),
        url_encoded(secret),
        url_encoded(secret).replace("%20", "+"),
        hex::encode(secret),
        hex::encode_upper(format!("login:{secret}!")),
    ];
    for around in ["", ":", "::", "login:"] {
        told.push(STANDARD.encode(format!("{around}{secret}{around}")));
        told.push(URL_SAFE_NO_PAD.encode(format!("{around}{secret}{around}")));
    }
    told
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.is_file() {
            all.push(path);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_shape() {
        let secret = "CANARY-\"p&ss/w+rd\"-0001";
        let canary = Canary::new("password", secret);
        let json = serde_json::json!({ "note": secret }).to_string();
        let texts = [
            format!("before {secret} after"),
            json,
            format!("{:?}", Some(secret)),
            format!("{:?}", format!("x{secret}y").as_bytes()),
            hex::encode(format!("login:{secret}")),
            hex::encode_upper(secret),
            format!("https://api.example.com/?key={}&a=b", url_encoded(secret)),
            STANDARD.encode(secret),
            STANDARD.encode(format!("l:{secret} and more")),
            STANDARD.encode(format!("ab:{secret} and more")),
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("login:{secret}")),
        ];
        for text in texts {
            assert!(!canary.found_in(&text).is_empty(), "{text}");
        }
        assert!(canary.found_in("CANARY-other").is_empty());
        let mut places = Places::default();
        places.add("log", secret.as_bytes());
        assert!(!places.leaks(&[canary]).is_empty());
    }
}
