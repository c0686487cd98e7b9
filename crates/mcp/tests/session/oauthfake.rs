//! A place on the web that is an MCP server and gives the authorizations for it, as a test says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use super::webfake::{Answer, Asked, WebFake, document, status};

/// What a test wants otherwise, and what became of it.
#[derive(Debug, Default)]
pub(crate) struct Login {
    /// Fields in place of those of the two documents and of the answer with tokens.
    pub(crate) resource: Value,
    pub(crate) issuer: Value,
    pub(crate) tokens: Value,
    /// In place of the challenge; `{}` is where the server is.
    pub(crate) challenge: Option<String>,
    /// Whether it has no documents for what it protects.
    pub(crate) is_old: bool,
    /// The token that lets in now, counted.
    pub(crate) access: usize,
    /// The refresh token that is good now; none when none is.
    pub(crate) refresh: Option<usize>,
    /// Codes that were given, with what they were asked for with.
    codes: HashMap<String, HashMap<String, String>>,
    clients: usize,
}

#[derive(Clone)]
pub(crate) struct OauthFake {
    pub(crate) address: SocketAddr,
    web: Arc<WebFake>,
    login: Arc<Mutex<Login>>,
}

impl OauthFake {
    pub(crate) async fn start() -> Self {
        let login = Arc::<Mutex<Login>>::default();
        let state = Arc::clone(&login);
        let web = WebFake::start(move |asked| state.lock().expect("no panic").answer(asked)).await;
        Self { address: web.address, web: Arc::new(web), login }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn login(&self) -> MutexGuard<'_, Login> {
        self.login.lock().expect("no panic")
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.web.asked()
    }

    /// What was asked for below a path.
    pub(crate) fn asked_for(&self, path: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.path.starts_with(path)).collect()
    }

    /// Somebody opens the URL and agrees: what their browser comes back with.
    pub(crate) fn agree(&self, url: &str) -> HashMap<String, String> {
        let url = Url::parse(url).expect("a url");
        let asked: HashMap<String, String> = url.query_pairs().into_owned().collect();
        let mut login = self.login();
        let code = format!("code-{}", login.codes.len());
        let back =
            [("code".to_owned(), code.clone()), ("state".to_owned(), asked["state"].clone())];
        login.codes.insert(code, asked);
        back.into()
    }

    /// The token that was good is so no more.
    pub(crate) fn expire(&self) {
        self.login().access += 1;
    }
}

/// `base` with other fields.
fn with(mut base: Value, other: &Value) -> Value {
    if let (Some(base), Some(other)) = (base.as_object_mut(), other.as_object()) {
        base.extend(other.clone());
    }
    base
}

impl Login {
    fn answer(&mut self, asked: &Asked) -> Option<Answer> {
        let origin = format!("http://{}", asked.header("host"));
        let path = asked.path.split('?').next().unwrap_or_default();
        match path {
            "/mcp" => {
                let wanted = format!("Bearer access-{}", self.access);
                let is_in = self.access > 0 && asked.header("authorization") == wanted;
                (!is_in).then(|| self.refusal(&origin))
            }
            "/.well-known/oauth-protected-resource/mcp" if !self.is_old => {
                let base = json!({ "resource": format!("{origin}/mcp"),
                    "authorization_servers": [origin], "scopes_supported": ["tools"] });
                Some(document("200 OK", "", &with(base, &self.resource)))
            }
            "/.well-known/oauth-authorization-server" => {
                let base = json!({ "issuer": origin,
                    "authorization_endpoint": format!("{origin}/agree?tenant=1"),
                    "token_endpoint": format!("{origin}/token"),
                    "registration_endpoint": format!("{origin}/register"),
                    "code_challenge_methods_supported": ["S256"] });
                Some(document("200 OK", "", &with(base, &self.issuer)))
            }
            "/register" => {
                self.clients += 1;
                let id = format!("client-{}", self.clients);
                Some(document("201 Created", "", &json!({ "client_id": id })))
            }
            "/token" => Some(self.token(asked)),
            _ => Some(status("404 Not Found", "")),
        }
    }

    fn refusal(&self, origin: &str) -> Answer {
        let metadata = format!("{origin}/.well-known/oauth-protected-resource/mcp");
        let usual = || format!("Bearer resource_metadata=\"{metadata}\"");
        let challenge = self.challenge.as_ref().map(|it| it.replace("{}", origin));
        let challenge = challenge.unwrap_or_else(usual);
        status("401 Unauthorized", &format!("www-authenticate: {challenge}\r\n"))
    }

    fn token(&mut self, asked: &Asked) -> Answer {
        let form: HashMap<String, String> =
            url::form_urlencoded::parse(asked.text.as_bytes()).into_owned().collect();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let is_good = match field("grant_type") {
            "authorization_code" => self.codes.remove(field("code")).is_some_and(|asked| {
                let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(field("code_verifier")));
                let same = ["redirect_uri", "resource"].iter().all(|it| asked[*it] == field(it));
                same && asked["code_challenge"] == challenge
            }),
            "refresh_token" => {
                let good = self.refresh.map(|number| format!("refresh-{number}"));
                good.as_deref() == Some(field("refresh_token"))
            }
            _ => false,
        };
        if !is_good {
            let error = json!({ "error": "invalid_grant", "error_description": "no\u{200b}pe" });
            return document("400 Bad Request", "", &error);
        }
        self.access += 1;
        self.refresh = Some(self.access);
        let base = json!({ "access_token": format!("access-{}", self.access),
            "token_type": "Bearer", "expires_in": 3600,
            "refresh_token": format!("refresh-{}", self.access) });
        document("200 OK", "cache-control: no-store\r\n", &with(base, &self.tokens))
    }
}
