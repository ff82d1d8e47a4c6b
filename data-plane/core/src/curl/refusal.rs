//! Why a command is not imported: a closed list of reasons, each with what to do about it. Hides how a place in the
//! command is shown without showing what stands there, which may be a secret (I7).

use std::fmt;

use super::options;

/// One line for each reason: its code, what is wrong, what to do.
macro_rules! reasons {
    ($($name:ident $code:literal $wrong:literal $remedy:literal;)*) => {
        /// Why a command cannot be imported. Codes are part of the contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = $wrong] $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason's code.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// What is wrong.
            pub fn wrong(self) -> &'static str {
                match self { $(Self::$name => $wrong,)* }
            }

            /// What to do.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

reasons! {
    // The text.
    TooLarge "too_large" "the command is too long" "paste one request only, with a shorter body";
    NotCurl "not_curl" "this is not a curl command" "paste a command that starts with `curl`, without `sudo`, `time` and the like";
    PowerShell "powershell" "this is PowerShell" "copy the request again as cURL (bash) or cURL (cmd)";
    UnterminatedQuote "unterminated_quote" "a quote or here-document is opened and never closed" "paste the whole command and check its quotes";
    StrayBackslash "stray_backslash" "blanks follow the backslash at the end of a line, so the command ends there" "remove the blanks after the backslash";
    SmartQuotes "smart_quotes" "a typographic quote, dash or no-break space stands where the shell expects a plain one" "write plain quotes, hyphens and spaces";
    ShellExpansion "shell_expansion" "the shell would replace this by something that is not in the command" "write the value itself, or put it in single quotes to send it as it stands";
    ShellOperator "shell_operator" "the shell would end or redirect the command here" "paste only the curl command; put text that holds & | ; < > ( ) in quotes";
    MultipleCommands "multiple_commands" "a second command follows" "paste one command; a command that goes on needs a backslash at the end of each line before";
    NotUtf8 "not_utf8" "the bytes are not UTF-8 text" "send text only";
    NulCharacter "nul_character" "there is a NUL character" "remove it; no shell passes it on";
    // Options.
    UnknownOption "unknown_option" "curl has no such option" "check its spelling";
    MissingValue "missing_value" "the option has no value" "write its value after it";
    BadOptionValue "bad_option_value" "the option cannot have this value" "correct the value";
    Conflict "conflict" "curl does not take these options together" "remove one of them";
    NotARequest "not_a_request" "the option makes curl print something instead of sending a request" "remove it";
    ReadsFile "reads_file" "curl would read a file of your computer here" "write the content itself; text that starts with `@` is sent with --data-raw";
    Variables "variables" "curl variables are not supported" "write the values themselves";
    Proxy "proxy" "requests are not sent through a proxy of the author's" "remove the option";
    ClientCert "client_cert" "client certificates are not supported" "remove the option";
    TlsTrust "tls_trust" "certificates are always verified, against the public authorities" "remove the option";
    ConnectTarget "connect_target" "a request always goes to the address that its URL names" "remove the option";
    AuthScheme "auth_scheme" "this way to authenticate needs a handshake or a signature" "use a connection with login and password or an API key";
    PasswordPrompt "password_prompt" "curl would ask for the password" "write `-u login:password`, or `-u login:` for an empty password";
    ContinueOrCondition "continue_or_condition" "conditional and continued transfers are not supported" "remove the option";
    BodyTransform "body_transform" "the option changes the body on its way" "remove it and write the body as it should be sent";
    MultipartFeature "multipart_feature" "multipart forms are not supported" "send the fields with --data-urlencode or as JSON";
    MultipleRequests "multiple_requests" "there is a second URL, so this would be several requests" "paste one request; put a value that holds blanks in quotes";
    MethodNotOffered "method_not_offered" "this method is not offered" "use GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS, in capitals";
    // The URL.
    NoUrl "no_url" "there is no URL" "add the URL";
    UrlInvalid "url_invalid" "this is not a valid URL" "write https://, a domain name and the path; percent-encode blanks, backslashes and control characters";
    UrlTooLong "url_too_long" "the URL is too long: it can have 8192 bytes, and its host name 253" "shorten it, or send what is long in the body";
    UrlScheme "url_scheme" "only https:// URLs can be called" "write https:// in front of the host";
    UrlHost "url_host" "this host cannot be called" "use a public domain name, not an address or a private name, and put inserts only after it";
    UrlGlob "url_glob" "curl would read the braces or brackets in this URL as several URLs" "add --globoff to send them as they stand, which inserts need too, or percent-encode them";
    PathAsIs "path_as_is" "dot segments of a path are always resolved" "write the resolved path";
    UrlUserinfoDenied "url_userinfo_denied" "the URL holds a user name, which --disallow-username-in-url refuses" "remove one of them";
    // Headers.
    HeaderControl "header_control" "this is not one well-formed header: its name must be an HTTP token, and it cannot hold line breaks or other control characters" "write each header as 'Name: value' on one line";
    HostHeader "host_header" "the Host header names another host than the URL" "remove it, or correct the URL";
    FramingHeader "framing_header" "this header says how the body is transferred, which is not the author's to set" "remove it";
    DuplicateHeader "duplicate_header" "there are several Authorization headers" "keep one of them";
    NoContentType "no_content_type" "a body is always sent with its content type" "remove -H 'Content-Type:' or name the type";
}

/// Why a command is not imported, and where. Nothing of it shows what the command holds but options and operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// The option at fault, as curl's manual names it (`--data-binary`); absent when it is none.
    pub option: Option<String>,
    /// Line in the command, from 1.
    pub line: usize,
    /// Column in that line in characters, from 1.
    pub column: usize,
    /// The words around it, every value replaced by `…`, and a second line with a caret.
    pub excerpt: String,
    /// What is special about this case, for example the nearest option there is.
    pub detail: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(option) = &self.option {
            write!(f, "{option}: ")?;
        }
        f.write_str(self.reason.wrong())?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        let (line, column) = (self.line, self.column);
        write!(f, "; {} (line {line}, column {column})\n{}", self.reason.remedy(), self.excerpt)
    }
}

impl std::error::Error for Refusal {}

/// A reason at a byte of the command.
#[derive(Debug)]
pub(super) struct Fault {
    reason: Reason,
    at: usize,
    option: Option<String>,
    detail: Option<String>,
}

impl Fault {
    pub(super) fn new(reason: Reason, at: usize) -> Self {
        Self { reason, at, option: None, detail: None }
    }

    pub(super) fn of_option(mut self, option: impl Into<String>) -> Self {
        self.option = Some(option.into());
        self
    }

    /// `detail` must not hold anything of the command but names of options.
    pub(super) fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With its place in `command`.
    pub(super) fn into_refusal(self, command: &str) -> Refusal {
        let at = (0..=self.at.min(command.len())).rev().find(|at| command.is_char_boundary(*at)).unwrap_or_default();
        let (before, after) = command.split_at(at);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_rest = after.split('\n').next().unwrap_or_default();
        let line_before = before.get(line_start..).unwrap_or_default();
        Refusal {
            reason: self.reason,
            option: self.option,
            line: before.matches('\n').count() + 1,
            column: line_before.chars().count() + 1,
            excerpt: excerpt(line_before, line_rest),
            detail: self.detail,
        }
    }
}

/// Tokens shown before and after the place.
const SHOWN: usize = 4;
/// What stands for the rest.
const UNSEEN: &str = "…";

/// What may be shown of a line: options that exist, operators, `curl`; anything else is `…`.
fn excerpt(before: &str, after: &str) -> String {
    // The place may lie inside a token: its beginning belongs to it.
    let begun = before.rsplit(char::is_whitespace).next().unwrap_or_default();
    let before = before.strip_suffix(begun).unwrap_or(before);
    let mut earlier = shown_tokens(before.split_whitespace().rev());
    earlier.reverse();
    let mut later = after.split(char::is_whitespace);
    let rest_of_token = later.next().unwrap_or_default();
    let token = if begun.is_empty() { shown(rest_of_token) } else { UNSEEN };
    let later = shown_tokens(later.filter(|token| !token.is_empty()));
    let caret: usize = earlier.iter().map(|token| token.chars().count() + 1).sum();
    let line: Vec<&str> = earlier.into_iter().chain([token]).chain(later).collect();
    format!("{}\n{}^", line.join(" "), " ".repeat(caret))
}

/// The first few, several unseen ones in a row as one.
fn shown_tokens<'t>(tokens: impl Iterator<Item = &'t str>) -> Vec<&'t str> {
    let mut all: Vec<&str> = Vec::with_capacity(SHOWN);
    for token in tokens.map(shown) {
        if all.last() == Some(&UNSEEN) && token == UNSEEN {
            continue;
        }
        if all.len() == SHOWN {
            break;
        }
        all.push(token);
    }
    all
}

fn shown(token: &str) -> &str {
    let is_operator = !token.is_empty() && token.bytes().all(|byte| b"|&;<>()\\^".contains(&byte));
    let is_curl = matches!(token, "curl" | "curl.exe");
    if is_operator || is_curl || options::is_written_option(token) { token } else { UNSEEN }
}
