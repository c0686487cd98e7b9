//! A provider of logins on the real wire, that does as a test says: `OpenID` Connect, and GitHub's own.
//!
//! It checks what a provider has to check of a client: its secret, PKCE, the redirect, and that a code is used
//! once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use iris_actors::SystemClock;
use iris_agent::Clock;
use iris_auth::PlainSecret;
use iris_identity::{ProviderKind, ProviderSettings};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How the provider knows the server.
const CLIENT_ID: &str = "iris";
const CLIENT_SECRET: &str = "the secret of the client";

/// What a test wants otherwise. Objects replace fields of what is sent; null takes one away.
#[derive(Debug, Default)]
pub struct Ways {
    /// Of the discovery document.
    pub discovery: Value,
    /// Of the claims of ID tokens, over what is known of who agreed.
    pub claims: Value,
    /// Of what the endpoint `userinfo` answers.
    pub userinfo: Value,
    /// Of the header of ID tokens.
    pub header: Value,
    /// Names the key that signs; `key-1` when absent.
    pub key: Option<String>,
    /// Names the keys that are published; the one that signs when absent.
    pub published: Option<Vec<String>>,
    /// In place of the answer of the token endpoint.
    pub token: Option<Bad>,
    /// In place of a code: the error with which the browser comes back.
    pub error: Option<String>,
    /// What the browser comes back with as `iss`; it says nothing when absent.
    pub iss: Option<String>,
    /// The addresses of a user of GitHub; an answer with status 404 when absent.
    pub emails: Option<Value>,
}

/// How an answer can be bad.
#[derive(Debug, Clone, Copy)]
pub enum Bad {
    /// This status, with nothing in it.
    Status(u16),
    /// None within any patience.
    Silence,
    /// More bytes than anybody reads.
    Flood,
    /// What is no JSON.
    Noise,
    /// Go elsewhere.
    Elsewhere,
}

/// Who agreed to what.
#[derive(Debug, Clone)]
struct Agreed {
    who: String,
    query: HashMap<String, String>,
}

/// A provider of logins.
#[derive(Clone)]
pub struct IdentityProvider {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    ways: Ways,
    clock: Arc<dyn Clock>,
    /// Those that were not used.
    codes: HashMap<String, Agreed>,
    /// Whom tokens are about.
    tokens: HashMap<String, String>,
    count: usize,
    /// Methods and paths, without queries.
    asked: Vec<String>,
}

/// What goes wrong here is the test's failure.
impl IdentityProvider {
    /// A provider that does as it should, with the time of this machine.
    pub async fn start() -> Self {
        Self::start_at(Arc::new(SystemClock)).await
    }

    /// The same with another time.
    pub async fn start_at(clock: Arc<dyn Clock>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            ways: Ways::default(),
            clock,
            codes: HashMap::new(),
            tokens: HashMap::new(),
            count: 0,
            asked: Vec::new(),
        };
        let provider = Self { address, state: Arc::new(Mutex::new(state)) };
        let serving = provider.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        provider
    }

    /// What it calls itself.
    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How a server is configured for it.
    pub fn settings(&self, kind: ProviderKind) -> ProviderSettings {
        let issuer = Some(self.issuer());
        let settings = ProviderSettings::new(kind, "Fake".to_owned(), issuer, CLIENT_ID.to_owned());
        let client_secret = Some(PlainSecret::new(CLIENT_SECRET.to_owned()));
        ProviderSettings { client_secret, ..settings.unwrap() }
    }

    /// What it does otherwise from now on.
    pub fn ways(&self) -> impl std::ops::DerefMut<Target = Ways> + '_ {
        struct Guard<'a>(MutexGuard<'a, State>);
        impl std::ops::Deref for Guard<'_> {
            type Target = Ways;
            fn deref(&self) -> &Ways {
                &self.0.ways
            }
        }
        impl std::ops::DerefMut for Guard<'_> {
            fn deref_mut(&mut self) -> &mut Ways {
                &mut self.0.ways
            }
        }
        Guard(self.state.lock().unwrap())
    }

    /// How often a place was asked, such as `POST /token`.
    pub fn times_asked(&self, place: &str) -> usize {
        self.state.lock().unwrap().asked.iter().filter(|asked| *asked == place).count()
    }

    async fn serve(self, mut stream: TcpStream) {
        let Some(request) = Request::read(&mut stream).await else { return };
        let bad = if request.is_token() { self.state.lock().unwrap().ways.token } else { None };
        let answer = self.state.lock().unwrap().answer(&request, &self.issuer());
        let answer = match bad {
            None => answer,
            Some(Bad::Status(status)) => Answer::status(status),
            Some(Bad::Noise) => Answer { body: "<html>".to_owned(), ..answer },
            Some(Bad::Elsewhere) => Answer::to(&format!("{}/elsewhere", self.issuer())),
            Some(Bad::Silence) => {
                tokio::time::sleep(Duration::from_mins(5)).await;
                return;
            }
            Some(Bad::Flood) => Answer { body: "x".repeat(4 << 20), ..answer },
        };
        // Whoever has left hears nothing.
        stream.write_all(answer.text().as_bytes()).await.ok();
    }
}

struct Request {
    method: String,
    path: String,
    query: HashMap<String, String>,
    headers: HashMap<String, String>,
    form: HashMap<String, String>,
}

fn pairs(text: &str) -> HashMap<String, String> {
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

impl Request {
    async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let mut lines = head.lines();
                let mut first = lines.next()?.split(' ');
                let (method, url) = (first.next()?.to_owned(), first.next()?.to_owned());
                let pair = |line: &str| {
                    let (name, value) = line.split_once(": ")?;
                    Some((name.to_lowercase(), value.to_owned()))
                };
                let headers: HashMap<String, String> = lines.filter_map(pair).collect();
                let length = headers.get("content-length").and_then(|it| it.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    let (path, query) = url.split_once('?').unwrap_or((&url, ""));
                    let (query, form) = (pairs(query), pairs(body));
                    return Some(Self { method, path: path.to_owned(), query, headers, form });
                }
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn is_token(&self) -> bool {
        matches!(self.path.as_str(), "/token" | "/login/oauth/access_token")
    }

    /// The cookie that says who sits there.
    fn who(&self) -> String {
        let pairs = self.header("cookie").split("; ").filter_map(|pair| pair.split_once('='));
        let found = pairs.into_iter().find(|(name, _)| *name == "who");
        found.map_or("ann", |(_, who)| who).to_owned()
    }
}

struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        Self { status, location: None, body: body.to_string() }
    }

    fn status(status: u16) -> Self {
        Self { status, location: None, body: String::new() }
    }

    fn to(location: &str) -> Self {
        Self { status: 302, location: Some(location.to_owned()), body: String::new() }
    }

    fn text(&self) -> String {
        let location = self.location.as_ref().map(|to| format!("location: {to}\r\n"));
        format!(
            "HTTP/1.1 {} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}connection: close\r\n\r\n{}",
            self.status,
            self.body.len(),
            location.unwrap_or_default(),
            self.body
        )
    }
}

/// `base` with other fields.
fn with(mut base: Value, other: &Value) -> Value {
    for (name, value) in other.as_object().into_iter().flatten() {
        let fields = base.as_object_mut().unwrap();
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    base
}

fn key() -> EncodingKey {
    EncodingKey::from_ec_der(include_bytes!("../../auth/tests/keys/ec.der"))
}

impl State {
    fn answer(&mut self, request: &Request, issuer: &str) -> Answer {
        self.asked.push(format!("{} {}", request.method, request.path));
        match request.path.as_str() {
            "/.well-known/openid-configuration" => {
                let document = json!({ "issuer": issuer,
                    "authorization_endpoint": format!("{issuer}/agree?tenant=1"),
                    "token_endpoint": format!("{issuer}/token"),
                    "jwks_uri": format!("{issuer}/keys"),
                    "userinfo_endpoint": format!("{issuer}/userinfo"),
                    "code_challenge_methods_supported": ["S256"] });
                Answer::json(200, &with(document, &self.ways.discovery))
            }
            "/agree" | "/login/oauth/authorize" => self.agree(request),
            "/token" | "/login/oauth/access_token" => self.tokens(request, issuer),
            "/keys" => Answer::json(200, &self.keys()),
            "/userinfo" => self.about(request, |state, who| {
                let told = json!({ "sub": who, "email": format!("{who}@example.com"),
                    "email_verified": true });
                Answer::json(200, &with(told, &state.ways.userinfo))
            }),
            "/api/v3/user" => self.about(request, |_, who| {
                Answer::json(200, &json!({ "id": number_of(who), "login": who, "name": null }))
            }),
            "/api/v3/user/emails" => self.about(request, |state, _| match &state.ways.emails {
                Some(emails) => Answer::json(200, emails),
                None => Answer::json(404, &json!({ "message": "Not Found" })),
            }),
            _ => Answer::status(404),
        }
    }

    /// A browser is here, and whoever sits at it agrees.
    fn agree(&mut self, request: &Request) -> Answer {
        let query = &request.query;
        assert_eq!(
            (query["response_type"].as_str(), query["client_id"].as_str()),
            ("code", CLIENT_ID)
        );
        assert_eq!(query["code_challenge_method"], "S256");
        let mut back = url::Url::parse(&query["redirect_uri"]).unwrap();
        back.query_pairs_mut().append_pair("state", &query["state"]);
        if let Some(iss) = &self.ways.iss {
            back.query_pairs_mut().append_pair("iss", iss);
        }
        if let Some(error) = &self.ways.error {
            back.query_pairs_mut().append_pair("error", error);
            return Answer::to(back.as_str());
        }
        self.count += 1;
        let code = format!("code-{}", self.count);
        back.query_pairs_mut().append_pair("code", &code);
        self.codes.insert(code, Agreed { who: request.who(), query: query.clone() });
        Answer::to(back.as_str())
    }

    fn tokens(&mut self, request: &Request, issuer: &str) -> Answer {
        let is_github = request.path != "/token";
        let refused = |error: &str| {
            // GitHub calls that a success.
            let status = if is_github { 200 } else { 400 };
            Answer::json(status, &json!({ "error": error }))
        };
        let form = &request.form;
        let is_client = if is_github {
            form.get("client_id").map(String::as_str) == Some(CLIENT_ID)
                && form.get("client_secret").map(String::as_str) == Some(CLIENT_SECRET)
        } else {
            let secret = CLIENT_SECRET.replace(' ', "+");
            let pair = STANDARD.encode(format!("{CLIENT_ID}:{secret}"));
            request.header("authorization") == format!("Basic {pair}")
        };
        if !is_client {
            return refused("invalid_client");
        }
        let Some(Agreed { who, query }) = self.codes.remove(&form["code"]) else {
            return refused("invalid_grant");
        };
        let shown = URL_SAFE_NO_PAD.encode(Sha256::digest(form["code_verifier"].as_bytes()));
        if shown != query["code_challenge"] || form["redirect_uri"] != query["redirect_uri"] {
            return refused("invalid_grant");
        }
        self.count += 1;
        let access = format!("access-{}", self.count);
        let mut answer = json!({ "access_token": access, "token_type": "bearer" });
        if !is_github {
            answer["id_token"] = self.id_token(&who, &query, issuer).into();
        }
        self.tokens.insert(access, who);
        Answer::json(200, &answer)
    }

    fn id_token(&self, who: &str, query: &HashMap<String, String>, issuer: &str) -> String {
        let now = self.clock.now_ms() / 1000;
        let claims = json!({ "iss": issuer, "aud": CLIENT_ID, "sub": who, "nonce": query["nonce"],
            "iat": now, "exp": now + 300, "email": format!("{who}@example.com"),
            "email_verified": true, "preferred_username": who });
        let header = json!({ "alg": "ES256", "kid": self.signing_key() });
        let header: Header = serde_json::from_value(with(header, &self.ways.header)).unwrap();
        jsonwebtoken::encode(&header, &with(claims, &self.ways.claims), &key()).unwrap()
    }

    fn signing_key(&self) -> &str {
        self.ways.key.as_deref().unwrap_or("key-1")
    }

    fn keys(&self) -> Value {
        let own = || vec![self.signing_key().to_owned()];
        let names = self.ways.published.clone().unwrap_or_else(own);
        let published = names.into_iter().map(|name| {
            let mut key = json!(Jwk::from_encoding_key(&key(), Algorithm::ES256).unwrap());
            key["kid"] = name.into();
            key
        });
        json!({ "keys": published.collect::<Vec<Value>>() })
    }

    /// An answer about whomever the token of the request is for.
    fn about(&self, request: &Request, answer: impl Fn(&Self, &str) -> Answer) -> Answer {
        let token = request.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        match self.tokens.get(token) {
            Some(who) => answer(self, who),
            None => Answer::status(401),
        }
    }
}

/// A number for a name, the same each time.
fn number_of(who: &str) -> u64 {
    who.bytes().take(6).fold(0, |number, byte| number << 8 | u64::from(byte))
}
